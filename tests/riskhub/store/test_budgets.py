"""The governor's history: cycles with their budgets, and the violations of the gate."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from budgeting import budget, cycle
from builders import NOW

import riskhub.store
from riskhub.store import Store, migrate
from riskhub.store.engine import reading, writing
from riskhub.store.tables import symbol_budgets

LATER = NOW + timedelta(seconds=10)


def violation(symbol: str, at: datetime = NOW, **row: Any) -> dict[str, Any]:
    return {
        "at": at,
        "symbol": symbol,
        "position_notional": -2_500.0,
        "budget_usd": 1_868.0,
        "over_budget": 632.0,
        "mode": "enforce",
    } | row


def test_nothing_was_computed_yet(store: Store) -> None:
    assert store.newest_cycle() is None
    assert store.newest_budgets() == store.budget_cycles(limit=9) == []
    assert store.budget_history("BTCUSDT", limit=9) == store.violations(limit=9) == []


def test_the_newest_cycle_is_read_with_its_budgets_by_symbol(store: Store) -> None:
    newest = [budget("ETHUSDT", LATER), budget("BTCUSDT", LATER, share=0.75)]
    store.add_cycle(cycle(LATER), newest)
    store.add_cycle(cycle(), [budget("BTCUSDT"), budget("SOLUSDT")])

    found = store.newest_cycle()

    assert found is not None
    assert found.cycle == cycle(LATER)
    assert list(found.budgets) == store.newest_budgets() == newest[::-1]


def test_a_cycle_without_budgets_is_the_newest_all_the_same(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    none = cycle(
        LATER, no_budget_reason="portfolio_too_old", symbols=0, equity_usd=None,
        portfolio_policy="too_old", portfolio_age_sec=901.0, heat=None, heat_policy=None,
        heat_age_sec=None,
    )  # fmt: skip
    store.add_cycle(none, [])

    found = store.newest_cycle()

    assert found is not None
    assert (found.cycle, found.budgets) == (none, ())
    assert store.newest_budgets() == []


def test_what_changed_between_whole_cycles_is_history_and_not_the_newest_cycle(
    store: Store,
) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT"), budget("ETHUSDT")])
    store.add_cycle(cycle(LATER, complete=False), [budget("ETHUSDT", LATER, budget_usd=500.0)])

    assert [row["symbol"] for row in store.newest_budgets()] == ["BTCUSDT", "ETHUSDT"]
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == [LATER, NOW]
    assert store.budget_cycles(limit=1) == [cycle(LATER, complete=False)]
    history = store.budget_history("ETHUSDT", limit=9)
    assert [row["budget_usd"] for row in history] == [500.0, 1000.0]
    of_its_cycle = {"writer": "governor on host, process 7 (0a)", "heat_policy": "held"}
    assert history[1] == budget("ETHUSDT") | of_its_cycle
    assert len(store.budget_history("ETHUSDT", limit=1)) == 1


on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("url", ["postgres"], indirect=True)


@on_sqlite
def test_old_cycles_are_forgotten_with_their_budgets_and_violations_stay(store: Store) -> None:
    first, changed, last = NOW, NOW + timedelta(seconds=5), LATER
    store.add_cycle(cycle(first), [budget("BTCUSDT"), budget("ETHUSDT")])
    store.add_cycle(cycle(changed, complete=False), [budget("ETHUSDT", changed)])
    store.add_cycle(cycle(last), [budget("BTCUSDT", last)])
    store.add_violations([violation("BTCUSDT")])

    assert store.forget_budgets(first) == (0, 0)
    assert store.forget_budgets(changed) == (1, 2)
    assert [row["computed_at"] for row in store.budget_history("ETHUSDT", limit=9)] == [changed]
    assert store.forget_budgets(last) == (1, 1)
    assert store.violations(limit=9) == [violation("BTCUSDT")]


def test_the_newest_whole_cycle_is_never_forgotten(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    store.add_cycle(cycle(LATER, complete=False), [budget("BTCUSDT", LATER)])

    assert store.forget_budgets(LATER + timedelta(days=999)) == (0, 0)
    assert store.newest_budgets() == [budget("BTCUSDT")]


@on_sqlite
def test_more_cycles_than_a_transaction_takes_are_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.budgets._CHUNK", 2)
    instants = [NOW + timedelta(seconds=n) for n in range(6)]
    for at in instants:
        store.add_cycle(cycle(at), [budget("BTCUSDT", at)])

    assert store.forget_budgets(instants[-1]) == (5, 5)
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == instants[-1:]


MONDAY = datetime(2060, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
INSTANT = timedelta(microseconds=1)


def partitions_of(store: Store) -> set[str]:
    weeks = sa.text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    with reading(store.engine) as connection:
        return set(connection.execute(weeks).scalars())


BEFORE = {"budget_cycles_before", "symbol_budgets_before"}


@on_postgres
def test_old_weeks_are_dropped_with_their_budgets_and_violations_stay(store: Store) -> None:
    instants = [MONDAY, MONDAY + WEEK - INSTANT, MONDAY + WEEK, MONDAY + 2 * WEEK]
    for at in instants:
        store.add_cycle(cycle(at), [budget("BTCUSDT", at), budget("ETHUSDT", at)])
    store.add_violations([violation("BTCUSDT")])
    assert partitions_of(store) == BEFORE | {
        f"{table}_2060w0{week}"
        for table in ("budget_cycles", "symbol_budgets")
        for week in (2, 3, 4)
    }

    assert store.forget_budgets(MONDAY + WEEK - INSTANT) == (0, 0)
    assert store.forget_budgets(MONDAY + 2 * WEEK - INSTANT) == (2, 4)
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == instants[:1:-1]
    history = store.budget_history("ETHUSDT", limit=9)
    assert [row["computed_at"] for row in history] == instants[:1:-1]
    assert store.forget_budgets(MONDAY + 99 * WEEK) == (1, 2)
    assert store.newest_budgets() == [budget(s, instants[-1]) for s in ("BTCUSDT", "ETHUSDT")]
    assert store.violations(limit=9) == [violation("BTCUSDT")]


@on_postgres
def test_there_is_room_for_weeks_ahead_once_it_was_asked_for(store: Store) -> None:
    thursday = MONDAY + timedelta(days=3, hours=5)
    assert store.make_room_for_budgets(thursday, weeks=2) == 4
    assert store.make_room_for_budgets(thursday, weeks=3) == 2
    made = partitions_of(store)
    for at in (MONDAY, MONDAY + 3 * WEEK - INSTANT):
        store.add_cycle(cycle(at), [budget("BTCUSDT", at)])
    assert partitions_of(store) == made


@on_postgres
def test_what_was_there_before_there_were_weeks_has_room_until_there_are(store: Store) -> None:
    now = datetime.now(UTC)
    store.make_room_for_budgets(now)
    for at in (NOW, now, *(now + days * timedelta(days=1) for days in range(1, 30))):
        store.add_cycle(cycle(at), [budget("BTCUSDT", at)])
    assert len(store.budget_cycles(limit=99)) == 31
    assert len(partitions_of(store)) == len(BEFORE) + 2 * 3  # of five weeks two lie in BEFORE


@on_postgres
def test_a_role_that_owns_nothing_makes_and_drops_weeks_and_nobody_else_does(store: Store) -> None:
    role = f"hub_{secrets.token_hex(4)}"
    asked = sa.text("SELECT riskhub_add_week('symbol_budgets', :monday)")
    with writing(store.engine) as connection:
        command.downgrade(scripts_on(connection), "0011")
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        for table in ("budget_cycles", "symbol_budgets"):
            connection.exec_driver_sql(f"GRANT INSERT, SELECT, DELETE ON {table} TO {role}")
        command.upgrade(scripts_on(connection), "head")
    try:
        with writing(store.engine) as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
            assert connection.execute(asked, {"monday": MONDAY}).scalar_one()
            connection.execute(sa.insert(symbol_budgets), budget("BTCUSDT", MONDAY))
            gone = sa.func.riskhub_drop_weeks("symbol_budgets", MONDAY + WEEK)
            assert connection.execute(sa.select(gone)).scalar_one() == 1
        with writing(store.engine) as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
        with writing(store.engine) as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                connection.execute(asked, {"monday": MONDAY})
    finally:
        with writing(store.engine) as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


@on_postgres
@pytest.mark.parametrize(
    ("table", "monday"), [("snapshots", MONDAY), ("symbol_budgets", MONDAY + INSTANT)]
)
def test_no_other_table_and_no_other_stretch_is_made_room_in(
    store: Store, table: str, monday: datetime
) -> None:
    with writing(store.engine) as connection, pytest.raises(sa.exc.DBAPIError, match="not a week"):
        connection.execute(sa.select(sa.func.riskhub_add_week(table, monday)))


@on_postgres
def test_budgets_keep_every_row_on_the_way_to_weeks_and_back(store: Store) -> None:
    instants = [NOW, MONDAY, MONDAY + WEEK]
    for at in instants:
        store.add_cycle(cycle(at), [budget("BTCUSDT", at)])
    migrate(store.engine, "0011")
    assert partitions_of(store) == set()
    assert [row["computed_at"] for row in store.budget_cycles(limit=9)] == instants[::-1]
    store.add_cycle(cycle(MONDAY + 2 * WEEK), [budget("BTCUSDT", MONDAY + 2 * WEEK)])

    migrate(store.engine)

    assert partitions_of(store) == BEFORE
    assert len(store.budget_history("BTCUSDT", limit=9)) == 4
    assert store.newest_budgets() == [budget("BTCUSDT", MONDAY + 2 * WEEK)]


def test_half_a_cycle_is_never_kept(store: Store) -> None:
    twice = [budget("BTCUSDT"), budget("BTCUSDT")]
    with pytest.raises(sa.exc.IntegrityError):
        store.add_cycle(cycle(), twice)
    assert store.newest_cycle() is None
    assert store.budget_history("BTCUSDT", limit=9) == []


def test_violations_are_read_newest_first(store: Store) -> None:
    store.add_violations([])
    first, second = violation("BTCUSDT"), violation("BTCUSDT", position_notional=9_000.0)
    third = violation("ETHUSDT", LATER)
    store.add_violations([first, second])  # of one instant: several workers stand at the gate
    store.add_violations([third])

    assert store.violations(limit=9) == [third, second, first]
    assert store.violations(symbol="BTCUSDT", limit=9) == [second, first]
    assert store.violations(limit=1) == [third]


def scripts_on(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", riskhub.store.__path__[0] + "/migrations")
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def of_before(open_another: Callable[[], Store]) -> Store:
    """A database as it was before there were cycles, with two of them."""
    store = open_another()
    of_cycles = ("haircut", "portfolio_age_sec", "share", "ages")
    with writing(store.engine) as connection:
        command.upgrade(scripts_on(connection), "0004")
        rows = [budget("BTCUSDT"), budget("BTCUSDT", LATER), budget("ETHUSDT", LATER)]
        for row in rows:
            kept = {name: value for name, value in row.items() if name not in of_cycles}
            connection.execute(sa.insert(symbol_budgets), kept)
    return store


def test_budgets_of_before_there_were_cycles_are_whole_cycles(of_before: Store) -> None:
    migrate(of_before.engine)

    newest, first = of_before.budget_cycles(limit=9)
    assert (newest["computed_at"], newest["symbols"], newest["complete"]) == (LATER, 2, True)
    assert (first["computed_at"], first["symbols"], first["equity_usd"]) == (NOW, 1, 100_000.0)
    assert (newest["portfolio_policy"], newest["heat"]) == ("fresh", 0.25)
    assert [row["symbol"] for row in of_before.newest_budgets()] == ["BTCUSDT", "ETHUSDT"]
    assert of_before.newest_budgets()[0]["haircut"] is None
    assert of_before.newest_budgets()[0]["ages"] is newest["heat_age_sec"] is None


def test_ages_go_and_come_back_without_their_rows(store: Store) -> None:
    store.add_cycle(cycle(), [budget("BTCUSDT")])
    with writing(store.engine) as connection:
        command.downgrade(scripts_on(connection), "0008")
    migrate(store.engine)

    found = store.newest_cycle()

    assert found is not None
    assert found.cycle == cycle(heat_age_sec=None)
    assert list(found.budgets) == [budget("BTCUSDT", ages=None)]
