"""The quick way to a database at this code's schema leads to the same one as the long way."""

from collections.abc import Callable, Iterator

import databases
import pytest
import service_resolution
import sqlalchemy as sa

from riskhub import store
from riskhub.store import create_engine

_DEFINED = {
    "postgresql": (
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
        "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
        "SELECT relname, relkind::text, reloptions::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        "SELECT version_num FROM alembic_version",
    ),
    "sqlite": (
        "SELECT name, sql FROM sqlite_master ORDER BY 1",
        "SELECT version_num FROM alembic_version",
    ),
}


@pytest.fixture(params=["sqlite", "postgres"])
def made_by(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Callable[[sa.Engine], None]], list[sa.Row[tuple[object, ...]]]]]:
    """What a new database has in it once it was migrated in this way."""

    def defined(migrate: Callable[[sa.Engine], None], url: str) -> list[sa.Row[tuple[object, ...]]]:
        engine = create_engine(url)
        migrate(engine)
        with engine.connect() as connection:
            found = [
                row
                for query in _DEFINED[engine.dialect.name]
                for row in connection.exec_driver_sql(query)
            ]
        engine.dispose()
        return found

    if request.param == "sqlite":
        yield lambda way: defined(way, f"sqlite:///{tmp_path_factory.mktemp('db') / 'hub.db'}")
        return
    server = request.getfixturevalue("postgres_server")

    def of_postgres(way: Callable[[sa.Engine], None]) -> list[sa.Row[tuple[object, ...]]]:
        with service_resolution.fresh_database(server) as url:
            return defined(way, url)

    yield of_postgres


def test_both_ways_lead_to_the_same_schema(
    made_by: Callable[[Callable[[sa.Engine], None]], list[sa.Row[tuple[object, ...]]]],
) -> None:
    long_way = made_by(store.migrate)
    for _ in range(2):  # the first of a process goes the long way itself
        assert made_by(databases.migrate) == long_way
