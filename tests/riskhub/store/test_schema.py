"""The schema: made by migrations, and exactly that of the code."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from builders import NOW, WORLD, accept
from stored import CREATED, DAY, DUPLICATE, THREADS, body_of, outcomes, row_count, together

import riskhub.store
from riskhub.errors import RevisionUnknown, StoreNotMigrated, StoreUnavailable
from riskhub.freshness import Newest
from riskhub.store import Filter, Store, migrate, open_store
from riskhub.store.engine import one_state, reading, writing
from riskhub.store.schema import OLDEST_SCHEMA, check_migrated
from riskhub.store.tables import metadata


def tables_of(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names()) - partitions_of(engine)


def partitions_of(engine: sa.Engine) -> set[str]:
    if engine.dialect.name == "sqlite":
        return set()
    query = sa.text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    with reading(engine) as connection:
        return set(connection.execute(query).scalars())


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


def test_a_database_is_opened_by_newer_code_as_long_as_it_has_what_that_needs(
    store: Store, url: str
) -> None:
    for revision in ("0011", OLDEST_SCHEMA):
        migrate(store.engine, revision)
        open_store(url).close()
    migrate(store.engine, "0009")
    with pytest.raises(StoreNotMigrated, match=r"revision 0009.*riskhub migrate"):
        open_store(url)


def test_a_database_of_a_newer_revision_says_whether_it_is_for_older_code(
    store: Store, url: str
) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    open_store(url).close()
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE schema_floor SET code_revision = '0098'")
    with pytest.raises(StoreNotMigrated, match=r"0099.*0098 and later.*a later version of riskhub"):
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


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_migration_waits_for_a_reader_without_keeping_others_waiting(
    store: Store, open_another: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.schema._LOCK_TIMEOUT_SEC", 0.2)
    monkeypatch.setattr("riskhub.store.schema._PAUSE_SEC", 0.01)
    tried, reads, reader = [], open_another(), open_another()
    slept = time.sleep

    def and_again(seconds: float) -> None:
        tried.append(reads.budget_cycles(limit=1))
        if len(tried) == 2:
            held.__exit__(None, None, None)
        slept(seconds)

    monkeypatch.setattr("riskhub.store.schema.time.sleep", and_again)
    held = one_state(reader.engine)
    held.__enter__().exec_driver_sql("SELECT count(*) FROM symbol_budgets")

    migrate(store.engine, "0011")

    assert tried == [[], []]
    with reading(store.engine) as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    migrate(store.engine)
    check_migrated(store.engine)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_migration_that_nobody_lets_through_says_so(
    store: Store, open_another: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.schema._LOCK_TIMEOUT_SEC", 0.1)
    monkeypatch.setattr("riskhub.store.schema._ATTEMPTS", 1)
    with one_state(open_another().engine) as holder:
        holder.exec_driver_sql("SELECT count(*) FROM symbol_budgets")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            migrate(store.engine, "0011")
    check_migrated(store.engine)


def test_a_revision_that_nobody_knows_is_named(store: Store) -> None:
    with pytest.raises(RevisionUnknown, match="the wanted revision 0099: its newest is 00"):
        migrate(store.engine, "0099")
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(RevisionUnknown, match="the database's revision 0099"):
        migrate(store.engine)


def test_the_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    partitions = partitions_of(store.engine)

    def compared(_object: Any, name: str | None, *_: Any) -> bool:
        if name in partitions:
            return False
        # In Postgres Alembic takes an index with NULLS FIRST for one on an expression;
        # test_indices has it.
        return name != "ix_snapshots_as_of" or store.engine.dialect.name == "sqlite"

    with reading(store.engine) as connection:
        opts = {"compare_type": True, "include_object": compared}
        context = MigrationContext.configure(connection, opts=opts)
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


# -- forward on data ------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SNAPSHOT = (
    "INSERT INTO snapshots (world_id, version, as_of, received_at, expires_at, stage, actor, "
    "digest, body) VALUES (:world_id, :version, :as_of, :received_at, :expires_at, :stage, "
    ":actor, :digest, :body)"
)
_WORLD_STAGE = "INSERT INTO world_stages VALUES (:world_id, :stage, :newest_as_of)"
_BUDGET = (
    "INSERT INTO symbol_budgets (computed_at, symbol, budget_usd, stress_factor, equity_usd, "
    "portfolio_heat, cluster_stress, vol_regime, base_risk_pct, mode, policies, formula_version) "
    "VALUES (:at, 'BTC', 1, 0, 1, 0, 0, 0, 0, 'shadow', '{}', 'p28/1')"
)
_VERDICT = (
    "INSERT INTO validated_snapshots (position, day, world_id, version, as_of, stage, digest, "
    "accepted, reasons, schema_version) VALUES (1, '2026-01-31', :world_id, :version, :as_of, "
    ":stage, :digest, true, '[]', '1')"
)
_WEIGHT = "INSERT INTO snapshot_weights VALUES (1, 'BAC', '2026-01-31', :world_id, 0.5)"


@pytest.fixture
def first_of_all(open_another: Callable[[], Store]) -> Store:
    """A database as the first release left it, with rows that it wrote."""
    store = open_another()
    with writing(store.engine) as connection:
        command.upgrade(alembic_config(connection), "0001")

        def instant(moment: datetime) -> Any:
            since = (moment - _EPOCH) // timedelta(microseconds=1)
            return moment if connection.dialect.name == "postgresql" else since

        for snapshot in OLD:
            values = {name: getattr(snapshot, name) for name in _SNAPSHOT_COLUMNS}
            row = {
                name: instant(value) if isinstance(value, datetime) else value
                for name, value in values.items()
            }
            connection.execute(sa.text(_SNAPSHOT), row)
            newest = {"newest_as_of": row["as_of"]}
            connection.execute(sa.text(_WORLD_STAGE), row | newest)
            if snapshot is OLD[0]:
                connection.execute(sa.text(_VERDICT), row)
                connection.execute(sa.text(_WEIGHT), row)
                connection.execute(sa.text(_BUDGET), {"at": instant(NOW)})
    return store


_SNAPSHOT_COLUMNS = (
    *("world_id", "version", "as_of", "received_at", "expires_at"),
    *("stage", "actor", "digest", "body"),
)
OLD = [
    accept(),
    accept(version="v2", stage="live", as_of="2026-01-31T20:00:00Z"),
    accept(world_id="fx", as_of="1969-12-31T23:59:59.999999Z"),
]


def everything_old_is_readable(store: Store) -> None:
    first, live, fx = OLD
    assert store.newest_first(WORLD, now=NOW, limit=9).bodies == [first.body, live.body]
    found = store.latest("fx", now=NOW)
    assert found is not None
    assert (found.body, found.as_of, found.expires_at) == (fx.body, fx.as_of, fx.expires_at)
    assert store.by_version(WORLD, "v2", now=NOW) is not None
    assert [each[:3] for each in store.newest_per_world()] == sorted(
        (snapshot.world_id, snapshot.stage, snapshot.as_of) for snapshot in OLD
    )
    assert [row.version for row in store.landed_on(date.min, DAY)] == ["v1", "v2", "v1"]
    assert [row["reasons"] for row in store.verdicts_on(DAY, DAY)] == [[]]
    assert store.weights_of(DAY, DAY) == {1: {"BAC": 0.5}}
    assert [row["computed_at"] for row in store.newest_budgets()] == [NOW]


def indices_of(store: Store) -> set[str | None]:
    return {index["name"] for index in sa.inspect(store.engine).get_indexes("snapshots")}


def test_a_database_of_the_first_release_keeps_all_it_has(first_of_all: Store) -> None:
    with pytest.raises(StoreNotMigrated, match="revision 0001"):
        check_migrated(first_of_all.engine)

    migrate(first_of_all.engine)

    everything_old_is_readable(first_of_all)
    assert indices_of(first_of_all) >= {
        *("ix_snapshots_world", "ix_snapshots_stage", "ix_snapshots_actor"),
        *("ix_snapshots_actor_stage", "ix_snapshots_expiry", "ix_snapshots_as_of"),
    }
    again, new = accept(), accept(version="v3", ttl_sec=60)
    before = first_of_all.stamps([WORLD, "fx"])
    assert {world: set(stages) for world, stages in before.items()} == {
        WORLD: {"paper", "live"},
        "fx": {"paper"},
    }
    assert outcomes(first_of_all, again, new) == [DUPLICATE, CREATED]
    after = first_of_all.stamps([WORLD, "fx"])
    assert after[WORLD]["paper"] != before[WORLD]["paper"]
    assert (after[WORLD]["live"], after["fx"]) == (before[WORLD]["live"], before["fx"])
    assert first_of_all.head() > len(OLD)


def test_back_to_the_first_release_and_forward_again_loses_no_row(first_of_all: Store) -> None:
    old_indices, old_tables = indices_of(first_of_all), tables_of(first_of_all.engine)
    migrate(first_of_all.engine)
    stamps = first_of_all.stamps([WORLD])
    first_of_all.land([replace(accept(version="v3", as_of=OLD[1].as_of.isoformat()), refs=("r",))])

    with writing(first_of_all.engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
    assert (indices_of(first_of_all), tables_of(first_of_all.engine)) == (old_indices, old_tables)
    with reading(first_of_all.engine) as connection:
        columns = [column["name"] for column in sa.inspect(connection).get_columns("world_stages")]
    assert columns == ["world_id", "stage", "newest_as_of"]

    migrate(first_of_all.engine)
    assert body_of(first_of_all, "v3") is not None
    first_of_all.remove_snapshots({"paper": NOW + timedelta(1)}, NOW + timedelta(1))
    assert [row.version for row in first_of_all.landed_on(date.min, DAY)] == ["v2"]
    # Whoever remembers an answer from before must ask again: rows may have landed meanwhile.
    assert not set(first_of_all.stamps([WORLD])[WORLD].values()) & set(stamps[WORLD].values())


_REJECTED = _VERDICT.replace("VALUES (1,", "VALUES (2,").replace("true, '[]'", "false, '[\"bad\"]'")
_METRICS = (
    "INSERT INTO risk_metrics (position, day, world_id, version, as_of, stage, horizon_days, "
    '"window", n, gross, net, largest, herfindahl, effective_names, snapshot_digest, '
    "returns_source, code_version) VALUES (1, '2026-01-31', :world_id, :version, :as_of, :stage, "
    "1, 500, 500, 1, 1, 1, 1, 1, 'sha256:0', 'realized_returns', 'riskhub/0')"
)
_TAIL = "INSERT INTO risk_tails VALUES (1, 'historical', '0.99', '2026-01-31', 0.1, 0.2, 5, 0.09)"


def test_numbers_of_before_say_their_source_and_what_was_rejected_is_quarantined_from_now_on(
    first_of_all: Store,
) -> None:
    with writing(first_of_all.engine) as connection:
        as_of = (OLD[0].as_of - _EPOCH) // timedelta(microseconds=1)
        row = {
            **{name: getattr(OLD[1], name) for name in ("world_id", "version", "stage", "digest")},
            "as_of": OLD[0].as_of if connection.dialect.name == "postgresql" else as_of,
        }
        for statement in (_REJECTED, _METRICS, _TAIL):
            connection.execute(sa.text(statement), row)

    migrate(first_of_all.engine)

    (tail,) = first_of_all.tails_on(DAY, DAY)
    (metrics,) = first_of_all.metrics_on(DAY, DAY)
    assert (tail["source"], tail["var"], tail["var_error"]) == ("realized_returns", 0.1, None)
    assert (metrics["absent"], metrics["passed_over"]) == ({}, {})
    (quarantined,) = first_of_all.quarantined(limit=9).rows
    assert (quarantined["version"], quarantined["reasons"]) == ("v2", ["bad"])
    assert quarantined["since"] > datetime.now(UTC) - timedelta(minutes=5)
    assert first_of_all.latest(WORLD, Filter(stage="live"), now=NOW) is None
    newest = {(each.world_id, each.stage): each for each in first_of_all.newest_per_world()}
    assert newest[WORLD, "live"] == Newest(WORLD, "live", None, None)
    assert newest[WORLD, "paper"].newest_as_of == OLD[0].as_of

    with writing(first_of_all.engine) as connection:
        command.downgrade(alembic_config(connection), "0007")
        again = sa.text("SELECT count(newest_as_of) FROM world_stages WHERE stage = 'live'")
        assert connection.execute(again).scalar() == 1


def test_what_was_alive_before_is_alive_after(first_of_all: Store) -> None:
    lives = accept(version="lives", received_at=datetime.now(UTC), ttl_sec=86_400)
    migrate(first_of_all.engine)
    first_of_all.land([lives])
    before = first_of_all.newest_per_world(world_id=WORLD)
    with writing(first_of_all.engine) as connection:
        command.downgrade(alembic_config(connection), "0007")

    migrate(first_of_all.engine)

    after = first_of_all.newest_per_world(world_id=WORLD)
    assert [each.alive_until for each in after] == [None, lives.expires_at]
    assert [each[:3] for each in after] == [each[:3] for each in before]
