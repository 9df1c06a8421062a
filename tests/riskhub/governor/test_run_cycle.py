"""A whole cycle against Redis, and against its stand-in."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, ClassVar

import pytest
import redis

from riskhub.governor import (
    BudgetParameters,
    GovernorInputs,
    GovernorSettings,
    Input,
    PortfolioState,
    PublishFailed,
    compute_budgets,
    publish,
    run_cycle,
)
from riskhub.governor.counters import COUNTERS_KEY
from riskhub.governor.inputs import MEMORY_KEY
from riskhub.governor.lease import Lease, LeaseLost

NOW = 1_738_000_000.75
BUDGETS = compute_budgets(
    GovernorInputs(
        portfolio=Input(PortfolioState(100_000.0, 0.1, NOW - 1), "fresh", 1.0),
        symbols=("BTCUSDT", "ETHUSDT"),
        heat=Input(0.5, "fresh"),
        clusters={"default": Input(1.0, "malformed")},
        regimes={"BTCUSDT": Input(0.33, "missing"), "ETHUSDT": Input(1.0, "fresh")},
    ),
    GovernorSettings(),
    NOW,
).budgets


class RecordedConnection(redis.Connection):
    """Keeps what was sent; each entry is one write to the socket, and so one round trip."""

    sent: ClassVar[list[bytes]] = []

    def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        self.sent.append(command if isinstance(command, bytes) else b"".join(command))
        super().send_packed_command(command, *args, **kwargs)


@pytest.fixture
def client(either_redis_url: str) -> Iterator[redis.Redis]:
    pool = redis.ConnectionPool.from_url(
        either_redis_url, connection_class=RecordedConnection, decode_responses=True
    )
    with redis.Redis.from_pool(pool) as connected:
        connected.ping()  # the handshake is not the governor's
        yield connected


def write_positions(client: redis.Redis, count: int) -> list[str]:
    symbols = [f"S{number:04d}" for number in range(count)]
    pipeline = client.pipeline(transaction=False)
    for symbol in symbols:
        pipeline.hset(f"quantum:position:snapshot:{symbol}", "qty", "1")
        pipeline.hset(f"quantum:state:market:{symbol}", "sigma", "0.01")
    pipeline.execute()
    return symbols


def write_portfolio(client: redis.Redis, timestamp: float) -> None:
    fields = {"equity_usd": "100000", "drawdown": "0.1", "timestamp": repr(timestamp)}
    client.hset("quantum:state:portfolio", mapping=fields)


def test_a_cycle_writes_what_consumers_read(client: redis.Redis) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW - 1)
    client.hset("quantum:cluster:stress:default", "stress", "0.5")

    cycle = run_cycle(client, GovernorSettings(), NOW)

    written = client.hgetall("quantum:portfolio:budget:S0000")
    assert written == {
        "symbol": "S0000",
        "budget_usd": repr(cycle.budgets[0].budget_usd),
        "stress_factor": repr(cycle.budgets[0].stress_factor),
        "equity_usd": "100000.0",
        "portfolio_heat": "0.0",
        "cluster_stress": "0.5",
        "vol_regime": "0.33",
        "mode": "shadow",
        "timestamp": "1738000000",
        "base_risk_pct": "0.02",
    }
    assert float(written["budget_usd"]) == pytest.approx(1_468.0)  # 2,000 * (1 - 0.2 - 0.066)
    assert 290 < client.ttl("quantum:portfolio:budget:S0000") <= 300


def trips(client: redis.Redis, settings: GovernorSettings, now: float) -> tuple[int, int]:
    """Of one cycle: pages of SCAN, and all others."""
    RecordedConnection.sent.clear()
    run_cycle(client, settings, now)
    scans = sum(b"SCAN" in sent for sent in RecordedConnection.sent)
    assert all(b"KEYS" not in sent for sent in RecordedConnection.sent)
    return scans, len(RecordedConnection.sent) - scans


@pytest.mark.parametrize("count", [10, 400, 1_000, 10_000])
def test_round_trips_are_one_read_and_one_write_however_many_symbols(
    client: redis.Redis, count: int
) -> None:
    write_positions(client, count)
    write_portfolio(client, NOW)

    assert trips(client, GovernorSettings(), NOW)[1] == 2
    # Also when all is remembered; and a page of SCAN has thousands of keys of any kind.
    scans, others = trips(client, GovernorSettings(), NOW + 1)
    assert others == 2
    assert scans <= 1 + 3 * count // 4_000
    assert len(list(client.scan_iter("quantum:portfolio:budget:*"))) == count + 1  # the cluster's


@pytest.mark.parametrize("count", [10, 3_000])
def test_without_budgets_there_is_one_read_and_one_write(client: redis.Redis, count: int) -> None:
    write_positions(client, count)

    assert trips(client, GovernorSettings(), NOW)[1] == 2
    assert client.hget(COUNTERS_KEY, "p28_cycles_total") == "1"


def test_hash_and_time_to_live_are_one_transaction(client: redis.Redis) -> None:
    RecordedConnection.sent.clear()

    publish(client, BUDGETS, ttl_sec=60)

    (sent,) = RecordedConnection.sent
    commands = [word for word in sent.split(b"\r\n") if word.isupper() and word.isalpha()]
    each = [b"HSET", b"EXPIRE"]
    assert [word for word in commands if word not in {b"BTCUSDT", b"ETHUSDT"}] == [
        *(b"MULTI", b"DEL"),
        *each,
        *each,
        b"EXEC",
    ]
    assert 50 < client.ttl("quantum:portfolio:budget:ETHUSDT") <= 60


def test_what_was_there_before_is_replaced(client: redis.Redis) -> None:
    client.hset("quantum:portfolio:budget:BTCUSDT", "of_an_older_version", "1")
    client.rpush("quantum:portfolio:budget:ETHUSDT", "no hash")

    publish(client, BUDGETS, ttl_sec=60)

    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert len(client.hgetall(f"quantum:portfolio:budget:{symbol}")) == 10


def test_without_a_fresh_portfolio_the_last_known_good_holds_for_fifteen_minutes(
    client: redis.Redis,
) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW)
    fresh = run_cycle(client, GovernorSettings(), NOW)
    client.delete("quantum:state:portfolio")

    # What was known is read back from Redis: a governor that was started anew has it as well.
    held = run_cycle(client, GovernorSettings(), NOW + 900)

    assert held.budgets[0].policies["portfolio_state"] == "last_known_good"
    assert held.budgets[0].budget_usd == fresh.budgets[0].budget_usd
    assert held.budgets[0].portfolio_age_sec == pytest.approx(900.0)


def test_behind_the_last_known_good_earlier_budgets_are_left_alone(client: redis.Redis) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW)
    run_cycle(client, GovernorSettings(), NOW)
    before = client.hgetall("quantum:portfolio:budget:S0000")
    client.expire("quantum:portfolio:budget:S0000", 100)

    cycle = run_cycle(client, GovernorSettings(), NOW + 901)

    assert cycle.budgets == ()
    assert cycle.no_budget_reason == "portfolio_too_old"
    assert client.hgetall("quantum:portfolio:budget:S0000") == before
    assert client.ttl("quantum:portfolio:budget:S0000") <= 100


def test_budgets_of_clusters_lie_beside_those_of_symbols(client: redis.Redis) -> None:
    write_positions(client, 2)
    write_portfolio(client, NOW)
    client.hset("quantum:cluster:stress:majors", "stress", "0.5")
    settings = GovernorSettings(clusters={"S0000": "majors"})

    run_cycle(client, settings, NOW)

    prefix = "quantum:portfolio:budget:"
    keys = {f"{prefix}{name}" for name in ("S0000", "S0001", "cluster:majors", "cluster:default")}
    assert set(client.scan_iter(f"{prefix}*")) == keys
    majors = client.hgetall(f"{prefix}cluster:majors")
    assert majors.keys() == client.hgetall(f"{prefix}S0000").keys()
    assert (majors["symbol"], majors["cluster_stress"]) == ("majors", "0.5")
    assert Decimal(majors["budget_usd"]) == Decimal("1468")
    assert 290 < client.ttl(f"{prefix}cluster:majors") <= 300


def test_amounts_are_decimals_at_the_bounds_too(client: redis.Redis) -> None:
    write_positions(client, 1)
    settings = GovernorSettings(parameters=BudgetParameters(vol_weight=0.0))
    for equity, budget in [
        ("25000.00", "500"),
        ("500000", "10000"),
        ("1E+5", "2000"),
        ("33333.35", "666.667"),
        ("1e300", "10000"),
        ("0.01", "500"),
    ]:
        client.hset("quantum:state:portfolio", mapping={"equity_usd": equity, "timestamp": NOW})
        run_cycle(client, settings, NOW)
        written = client.hget("quantum:portfolio:budget:S0000", "budget_usd")
        assert Decimal(str(written)) == Decimal(budget)


# --- what a new process finds ----------------------------------------------------------------


def test_what_is_known_survives_a_restart(client: redis.Redis, either_redis_url: str) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW - 1)
    client.hset("quantum:cluster:stress:default", "stress", "0.5")
    fresh = run_cycle(client, GovernorSettings(), NOW)
    client.delete("quantum:cluster:stress:default", "quantum:state:market:S0000")

    with redis.Redis.from_url(either_redis_url) as anew:  # as bytes, too
        cycle = run_cycle(anew, GovernorSettings(), NOW + 59)  # the state is 60 s old by now

        assert cycle.budgets[0].budget_usd == fresh.budgets[0].budget_usd
        assert cycle.budgets[0].portfolio_age_sec == pytest.approx(60.0)
        assert cycle.budgets[0].policies == {
            "portfolio_state": "last_known_good",
            "portfolio_heat": "not_configured",
            "cluster_stress": "held",
            "vol_regime": "held",
        }
        assert run_cycle(anew, GovernorSettings(), NOW + 959).budgets == ()  # 16 min old

    assert client.hgetall(COUNTERS_KEY) == {
        "p28_cycles_total": "3",
        "p28_budget_computed_total": "2",
        "p28_lkg_cache_used_total": "1",
        "p28_portfolio_too_old_total": "1",
        "p28_stale_input_total|portfolio_state": "2",
        "p28_stale_input_total|cluster_stress": "1",
        "p28_stale_input_total|vol_regime": "1",
    }


@pytest.mark.parametrize(
    ("broken", "judged"),
    [
        ({"equity_usd": "NaN"}, "malformed"),
        ({"equity_usd": "-5"}, "out_of_range"),
        ({"equity_usd": "a lot"}, "malformed"),
        ({"timestamp": str(int(NOW * 1000))}, "malformed"),
        ({"timestamp": str(NOW + 3600)}, "malformed"),
        ({"timestamp": ""}, "malformed"),
        ({"timestamp": None}, "malformed"),
        ({"equity_usd": None}, "missing"),
        ({"timestamp": str(NOW - 60)}, "stale"),
    ],
)
def test_a_broken_state_never_is_a_budget(
    client: redis.Redis, broken: dict[str, str | None], judged: str
) -> None:
    def break_it() -> None:
        for name, value in broken.items():
            if value is None:
                client.hdel("quantum:state:portfolio", name)
            else:
                client.hset("quantum:state:portfolio", name, value)

    write_positions(client, 1)
    write_portfolio(client, NOW)
    break_it()
    assert run_cycle(client, GovernorSettings(), NOW).no_budget_reason == f"portfolio_{judged}"
    write_portfolio(client, NOW)
    run_cycle(client, GovernorSettings(), NOW)
    break_it()

    cycle = run_cycle(client, GovernorSettings(), NOW + 1)

    assert cycle.judged is not None
    assert cycle.judged.portfolio.policy == judged
    assert cycle.budgets[0].policies["portfolio_state"] == "last_known_good"
    assert cycle.budgets[0].equity_usd == 100_000.0


def test_other_budgets_are_left_to_live_out_their_time(client: redis.Redis) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW)
    client.hset("quantum:portfolio:budget:GONE", "budget_usd", "700")
    client.hset("quantum:portfolio:budget:cluster:gone", "budget_usd", "700")

    run_cycle(client, GovernorSettings(), NOW)

    assert client.hgetall("quantum:portfolio:budget:GONE") == {"budget_usd": "700"}
    assert client.exists("quantum:portfolio:budget:cluster:gone")


# --- who writes, and what fails --------------------------------------------------------------


def test_who_holds_the_lease_writes_and_says_so(client: redis.Redis) -> None:
    write_positions(client, 1_200)
    write_portfolio(client, NOW)
    lease = Lease(client, "mine", sec=60)
    assert lease.take()

    cycle = run_cycle(client, GovernorSettings(), NOW, lease=lease)

    assert cycle.writer == "mine"
    assert len(list(client.scan_iter("quantum:portfolio:budget:*"))) == 1_201


def test_who_does_not_writes_nothing_at_all(client: redis.Redis) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW)
    assert Lease(client, "another", sec=60).take()
    before = set(client.scan_iter())

    with pytest.raises(LeaseLost, match="another"):
        run_cycle(client, GovernorSettings(), NOW, lease=Lease(client, "mine", sec=60))

    assert set(client.scan_iter()) == before


class Breaking(RecordedConnection):
    """A connection that breaks in the middle of a transaction."""

    def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        text = command if isinstance(command, bytes) else b"".join(command)
        if b"EXEC" in text:
            super().send_packed_command([text[: len(text) // 2]], *args, **kwargs)
            raise redis.ConnectionError("broken pipe")
        super().send_packed_command(command, *args, **kwargs)


def test_a_failed_write_says_of_what_and_has_written_nothing(
    client: redis.Redis, either_redis_url: str
) -> None:
    write_positions(client, 1_200)
    write_portfolio(client, NOW)
    before = set(client.scan_iter())
    pool = redis.ConnectionPool.from_url(either_redis_url, connection_class=Breaking)

    with (
        redis.Redis.from_pool(pool) as broken,
        pytest.raises(PublishFailed, match=r"writing 1201 budgets failed: .*broken pipe"),
    ):
        run_cycle(broken, GovernorSettings(), NOW)

    assert set(client.scan_iter()) == before
    # and again, when Redis is back
    assert len(run_cycle(client, GovernorSettings(), NOW + 1).budgets) == 1_200
    assert client.hget(COUNTERS_KEY, "p28_budget_computed_total") == "1200"


def test_a_redis_that_is_away_is_an_error_and_when_it_is_back_all_is_known(
    client: redis.Redis, free_port: Callable[[], int]
) -> None:
    write_positions(client, 1)
    write_portfolio(client, NOW)
    fresh = run_cycle(client, GovernorSettings(), NOW)
    client.delete("quantum:state:portfolio")

    with redis.Redis(port=free_port(), retry=None) as away, pytest.raises(redis.ConnectionError):
        run_cycle(away, GovernorSettings(), NOW + 10)

    back = run_cycle(client, GovernorSettings(), NOW + 600)
    assert back.budgets[0].budget_usd == fresh.budgets[0].budget_usd


@pytest.mark.parametrize("key", [MEMORY_KEY, COUNTERS_KEY])
def test_keys_of_our_own_that_others_have_written_are_an_error(
    client: redis.Redis, key: str
) -> None:
    client.set(key, "not ours")

    with pytest.raises(redis.ResponseError if key == MEMORY_KEY else PublishFailed, match=key):
        run_cycle(client, GovernorSettings(), NOW)
