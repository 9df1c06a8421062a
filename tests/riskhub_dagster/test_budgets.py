"""The governor's budgets as an asset: in Redis for consumers, in the table with their policies."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
import redis
import sqlalchemy as sa

from riskhub.governor import GovernorSettings, run_cycle
from riskhub.governor.counters import COUNTERS_KEY, REDIS_WRITE_FAIL
from riskhub.governor.history import receipt
from riskhub.governor.inputs import MEMORY_KEY
from riskhub.governor.lease import Lease, holder
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.tables import symbol_budgets as budgets_table
from riskhub_dagster.assets.budgets import symbol_budgets
from riskhub_dagster.resources import RiskHub

BUDGET_KEYS = "quantum:portfolio:budget:*"
NUMBERS = (
    "budget_usd", "stress_factor", "equity_usd", "portfolio_heat", "cluster_stress", "vol_regime",
    "base_risk_pct",
)  # fmt: skip


@pytest.fixture
def client(
    redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[redis.Redis]:
    """A Redis with two positions, a stressed cluster and calm markets; no portfolio state yet."""
    monkeypatch.setenv("RISKHUB_REDIS_URL", redis_url)
    monkeypatch.setenv("RISKHUB_GOVERNOR__CLUSTERS", '{"BTCUSDT": "majors"}')
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        opened.hset("quantum:position:snapshot:BTCUSDT", "position_amt", "1")
        opened.hset("quantum:state:positions:ETHUSDT", "position_amt", "2")
        opened.hset("quantum:cluster:stress:majors", "stress", "0.5")
        opened.hset("quantum:state:market:BTCUSDT", "vol_regime", "HIGH_VOL")
        yield opened


def state(client: redis.Redis, *, age_sec: float, equity: str = "100000") -> None:
    written = datetime.now(UTC).timestamp() - age_sec
    fields = {"equity_usd": equity, "drawdown": "0.1", "timestamp": str(written)}
    client.hset("quantum:state:portfolio", mapping=fields)


@pytest.fixture
def cycle(instance: dg.DagsterInstance) -> Callable[[], dg.ExecuteInProcessResult]:
    """Runs one cycle of the governor."""
    return lambda: dg.materialize([symbol_budgets], instance=instance, resources={"hub": RiskHub()})


def history(store: Store) -> list[dict[str, Any]]:
    with store.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(budgets_table))]


def test_budgets_are_in_redis_with_a_time_to_live(client: redis.Redis, cycle) -> None:
    state(client, age_sec=1)

    assert cycle().success

    assert sorted(client.scan_iter(BUDGET_KEYS)) == [
        "quantum:portfolio:budget:BTCUSDT",
        "quantum:portfolio:budget:ETHUSDT",
        "quantum:portfolio:budget:cluster:default",
        "quantum:portfolio:budget:cluster:majors",
    ]
    bitcoin = client.hgetall("quantum:portfolio:budget:BTCUSDT")
    # stress 0.4 * 0.5 + 0.2 * 0.67; budget 100,000 * 0.02 * (1 - stress)
    assert float(bitcoin["stress_factor"]) == pytest.approx(0.334)
    assert float(bitcoin["budget_usd"]) == pytest.approx(1332.0)
    for key in client.scan_iter(BUDGET_KEYS):
        assert 0 < client.ttl(key) <= 300


def test_the_table_holds_what_redis_holds_and_the_policy_of_each_input(
    client: redis.Redis, cycle, store: Store
) -> None:
    state(client, age_sec=1)

    cycle()

    rows = {row["symbol"]: row for row in store.newest_budgets()}
    assert sorted(rows) == ["BTCUSDT", "ETHUSDT"]
    for symbol, row in rows.items():
        in_redis = client.hgetall(f"quantum:portfolio:budget:{symbol}")
        assert {name: row[name] for name in NUMBERS} == {
            name: float(in_redis[name]) for name in NUMBERS
        }
        assert row["mode"] == in_redis["mode"] == "shadow"
        assert int(row["computed_at"].timestamp()) == int(in_redis["timestamp"])
    assert rows["BTCUSDT"]["policies"] == {
        "portfolio_state": "fresh",
        "portfolio_heat": "not_configured",
        "cluster_stress": "fresh",
        "vol_regime": "fresh",
    }
    assert rows["ETHUSDT"]["policies"]["cluster_stress"] == "missing"


def test_each_cycle_adds_to_the_history(client: redis.Redis, cycle, store: Store) -> None:
    state(client, age_sec=1)
    cycle()
    state(client, age_sec=1, equity="200000")
    cycle()

    assert len(history(store)) == 4
    assert {row["equity_usd"] for row in store.newest_budgets()} == {200_000.0}


def test_a_cycle_is_told_in_numbers(client: redis.Redis, cycle, checks, records) -> None:
    state(client, age_sec=1)

    result = cycle()

    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["dagster/row_count"].value == 2
    assert metadata["smallest_usd"].value == pytest.approx(1332.0)
    assert metadata["largest_usd"].value == pytest.approx(100_000 * 0.02 * (1 - 0.2 * 0.33))
    assert metadata["equity_usd"].value == 100_000.0
    assert metadata["writer"].value == f"symbol_budgets, run {result.run_id}"
    assert metadata["portfolio_policy"].value == "fresh"
    assert 1 <= metadata["portfolio_age_sec"].value < 30
    bitcoin, ether = records(metadata["budgets"])
    assert (bitcoin["symbol"], ether["symbol"]) == ("BTCUSDT", "ETHUSDT")
    assert (bitcoin["cluster_stress"], bitcoin["vol_regime"]) == (0.5, 0.67)
    assert bitcoin["policies"] == (
        "portfolio_state: fresh, portfolio_heat: not_configured, cluster_stress: fresh, "
        "vol_regime: fresh"
    )
    assert "vol_regime: missing" in ether["policies"]
    age = metadata["portfolio_age_sec"].value
    assert bitcoin["ages"] == ether["ages"] == f"portfolio_state: {age:.1f} s"
    check = checks(result)["budgets_computed"]
    assert (check.passed, check.description) == (True, "2 budgets")


@pytest.mark.parametrize(
    ("age_sec", "equity", "reason"),
    [
        (3600, "100000", "portfolio_stale"),
        (1, "0", "portfolio_out_of_range"),
        (1, "nan", "portfolio_malformed"),
        (None, "", "portfolio_missing"),
    ],
)
def test_without_a_usable_state_nothing_is_written_and_the_run_succeeds(
    client: redis.Redis, cycle, checks, store: Store, age_sec: Any, equity: str, reason: str
) -> None:
    if age_sec is not None:
        state(client, age_sec=age_sec, equity=equity)

    result = cycle()

    assert result.success
    assert result.get_asset_materialization_events() == []
    check = checks(result)["budgets_computed"]
    assert (check.passed, check.severity, check.description) == (
        False, dg.AssetCheckSeverity.WARN, reason,
    )  # fmt: skip
    assert list(client.scan_iter(BUDGET_KEYS)) == []
    assert history(store) == []
    assert [row["no_budget_reason"] for row in store.budget_cycles(limit=9)] == [reason]


def test_a_state_that_is_too_old_leaves_the_budgets_before_it_to_live_out_their_time(
    client: redis.Redis, cycle, checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_GOVERNOR__LKG_MAX_SEC", "0")
    state(client, age_sec=1)
    cycle()
    before = client.hgetall("quantum:portfolio:budget:BTCUSDT")
    client.expire("quantum:portfolio:budget:BTCUSDT", 100)
    state(client, age_sec=3600)

    result = cycle()

    assert checks(result)["budgets_computed"].description == "portfolio_too_old"
    assert client.hgetall("quantum:portfolio:budget:BTCUSDT") == before
    assert 0 < client.ttl("quantum:portfolio:budget:BTCUSDT") <= 100


def test_after_a_run_anybody_may_write(client: redis.Redis, cycle) -> None:
    state(client, age_sec=1)
    cycle()
    assert holder(client) is None


# --- beside `riskhub governor` ---------------------------------------------------------------


@pytest.fixture
def loop(client: redis.Redis, store: Store) -> Callable[..., None]:
    """Another process holds the lease, and puts a cycle on record as of so many seconds ago."""
    lease = Lease(client, "governor on host", sec=60)

    def write(*, ago_sec: float = 0.0) -> None:
        assert lease.take()
        now = datetime.now(UTC).timestamp() - ago_sec
        cycle = run_cycle(client, GovernorSettings(), now, lease=lease)
        store.add_cycle(*receipt(cycle, writer=lease.owner, mode="shadow", now=now))

    return write


def test_while_the_loop_writes_the_asset_tells_of_its_newest_cycle_and_writes_nothing(
    client: redis.Redis, cycle, checks, store: Store, loop: Callable[..., None]
) -> None:
    state(client, age_sec=1)
    loop()
    client.hset("quantum:portfolio:budget:ETHUSDT", "timestamp", "as the loop left it")

    result = cycle()

    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["writer"].value == "governor on host"
    assert metadata["dagster/row_count"].value == 2
    assert checks(result)["budgets_computed"].passed
    assert client.hget("quantum:portfolio:budget:ETHUSDT", "timestamp") == "as the loop left it"
    assert len(store.budget_cycles(limit=9)) == 1
    assert holder(client) == "governor on host"


def test_a_loop_without_budgets_is_told_with_its_reason(
    cycle, checks, loop: Callable[..., None]
) -> None:
    loop()

    result = cycle()

    assert result.get_asset_materialization_events() == []
    assert checks(result)["budgets_computed"].description == "portfolio_missing"


@pytest.mark.parametrize(("ago_sec", "is_told"), [(170, True), (190, False)])
def test_a_loop_that_puts_nothing_on_record_any_more_is_told(
    client: redis.Redis, cycle, checks, loop: Callable[..., None], ago_sec: float, is_told: bool
) -> None:
    state(client, age_sec=ago_sec + 1)
    loop(ago_sec=ago_sec)

    result = cycle()

    assert bool(result.get_asset_materialization_events()) == is_told
    check = checks(result)["budgets_computed"]
    assert check.passed == is_told
    if not is_told:
        assert "governor on host writes budgets, and has put none on record since" in str(
            check.description
        )


def test_a_loop_that_has_put_nothing_on_record_yet_is_told(
    client: redis.Redis, cycle, checks
) -> None:
    assert Lease(client, "governor on host", sec=60).take()

    result = cycle()

    assert result.success
    assert result.get_asset_materialization_events() == []
    assert checks(result)["budgets_computed"].description == (
        "governor on host writes budgets, and has put none on record yet"
    )


# ---------------------------------------------------------------------------------------------


def test_a_redis_out_of_reach_fails_the_run_for_that_is_our_fault(
    client: redis.Redis, instance, monkeypatch: pytest.MonkeyPatch, free_port
) -> None:
    monkeypatch.setenv("RISKHUB_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    result = dg.materialize(
        [symbol_budgets],
        instance=instance,
        resources={"hub": RiskHub()},
        raise_on_error=False,
    )

    assert not result.success
    assert result.get_asset_materialization_events() == []


def test_what_redis_does_not_take_fails_the_run_and_is_counted(
    client: redis.Redis, instance
) -> None:
    state(client, age_sec=1)
    client.set(MEMORY_KEY, "no hash")

    result = dg.materialize(
        [symbol_budgets],
        instance=instance,
        resources={"hub": RiskHub()},
        raise_on_error=False,
    )

    assert not result.success
    assert client.hget(COUNTERS_KEY, REDIS_WRITE_FAIL) == "1"
    assert holder(client) is None
