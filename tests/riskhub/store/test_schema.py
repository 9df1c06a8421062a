"""The schema: made by migrations, and exactly that of the code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from builders import NOW, WORLD, accept
from stored import CREATED, THREADS, outcomes, row_count, together

import riskhub.store
from riskhub.errors import StoreNotMigrated
from riskhub.store import Store, migrate, open_store
from riskhub.store.engine import reading, writing
from riskhub.store.schema import check_migrated
from riskhub.store.tables import metadata


def tables_of(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def alembic_config(connection: sa.Connection) -> Config:
    config = Config()
    scripts = Path(riskhub.store.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    return config


def test_a_database_that_nobody_migrated_says_so(url: str, open_another: Any) -> None:
    fresh = open_another()
    with pytest.raises(StoreNotMigrated, match=r"revision None.*riskhub migrate"):
        open_store(url)
    for call in (lambda: fresh.land([accept()]), lambda: fresh.latest(WORLD, now=NOW)):
        with pytest.raises(StoreNotMigrated, match="riskhub migrate"):
            call()
    fresh.ping()


def test_a_database_of_another_revision_is_not_opened(store: Store, url: str) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    with pytest.raises(StoreNotMigrated, match="revision older"):
        open_store(url)


def test_migrating_again_changes_nothing(store: Store, url: str) -> None:
    store.land([accept()])
    migrate(store.engine)
    check_migrated(store.engine)
    assert row_count(store) == 1
    open_store(url).close()


def test_processes_that_migrate_at_once_wait_for_each_other(
    open_another: Callable[[], Store],
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    together(*(lambda store=store: migrate(store.engine) for store in stores))
    check_migrated(stores[0].engine)
    assert outcomes(stores[0], accept()) == [CREATED]


def test_the_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    with reading(store.engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert tables_of(store.engine) == {*metadata.tables, "alembic_version"}


def test_the_schema_goes_down_to_nothing_and_up_again(store: Store) -> None:
    store.land([accept()])
    with writing(store.engine) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert tables_of(store.engine) == {"alembic_version"}
    with pytest.raises(StoreNotMigrated):
        check_migrated(store.engine)
    migrate(store.engine)
    assert outcomes(store, accept()) == [CREATED]
