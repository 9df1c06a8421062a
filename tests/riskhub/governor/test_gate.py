"""What the gate says to a position, and what it makes of Redis doing this or that."""

import asyncio
import json
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, ConnectionPool, Redis

from riskhub.errors import StoreUnavailable
from riskhub.governor import counters, gatekeeper, published
from riskhub.governor.gate import Decision, Violation, decide
from riskhub.governor.gatekeeper import (
    VIOLATION_STREAM,
    VIOLATIONS_KEPT,
    Gatekeeper,
    client_of,
)
from riskhub.governor.published import Published, parse_budget, read_published

NOW = 1_738_000_000.5
HASH = {
    "symbol": "BTCUSDT",
    "budget_usd": "1868.0",
    "stress_factor": "0.066",
    "equity_usd": "100000.0",
    "portfolio_heat": "0.0",
    "cluster_stress": "0.0",
    "vol_regime": "0.33",
    "mode": "enforce",
    "timestamp": "1738000000",
    "base_risk_pct": "0.02",
}


def budget(usd: float = 1_868.0, mode: str = "enforce", age: float = 0.0) -> Published:
    return Published("BTCUSDT", usd, mode, NOW - age, {})


def ask(notional: float, held: Any = None, **kwargs: Any) -> Decision:
    held = budget() if held is None else held
    return decide("BTCUSDT", notional, held, now=NOW, stale_sec=60, **kwargs)


# --- the decision ----------------------------------------------------------------------------


def test_what_is_within_its_budget_is_allowed() -> None:
    decision = ask(1_868.0)
    assert (decision.allowed, decision.would_block, decision.reason) == (
        True,
        False,
        "within_budget",
    )
    assert (decision.budget_usd, decision.over_budget, decision.mode) == (1_868.0, 0.0, "enforce")
    assert decision.violation is None


@pytest.mark.parametrize("notional", [2_000.0, -2_000.0])
@pytest.mark.parametrize(("mode", "allowed"), [("enforce", False), ("shadow", True)])
def test_what_exceeds_it_is_blocked_or_only_told_long_or_short(
    notional: float, mode: str, allowed: bool
) -> None:
    decision = ask(notional, budget(mode=mode))
    assert (decision.allowed, decision.would_block) == (allowed, True)
    assert (decision.reason, decision.over_budget) == ("over_budget", 132.0)
    assert decision.violation == Violation("BTCUSDT", notional, 1_868.0, 132.0, mode, NOW)


def test_the_event_is_what_consumers_read() -> None:
    violation = ask(-2_000.0).violation
    assert violation is not None
    assert violation.event() == {
        "event_type": "budget.violation",
        "symbol": "BTCUSDT",
        "position_notional": -2_000.0,
        "budget_usd": 1_868.0,
        "over_budget": 132.0,
        "mode": "enforce",
        "timestamp": 1_738_000_000,
    }


@pytest.mark.parametrize(
    "held",
    [
        budget(),
        budget(0.0),
        budget(age=3_600),
        "no_budget",
        "budget_malformed",
        "redis_unavailable",
    ],
)
def test_reduce_only_is_never_stopped_nor_told(held: Any) -> None:
    decision = ask(1e12, held, reduce_only=True)
    assert (decision.allowed, decision.would_block) == (True, False)
    assert (decision.reason, decision.violation) == ("reduce_only", None)


@pytest.mark.parametrize("reason", ["no_budget", "budget_malformed", "redis_unavailable"])
def test_without_a_budget_everything_passes_and_the_reason_is_told(reason: Any) -> None:
    decision = ask(1e12, reason)
    assert (decision.allowed, decision.would_block, decision.reason) == (True, False, reason)
    assert decision.budget_usd is decision.over_budget is decision.mode is decision.age_sec is None


@pytest.mark.parametrize(("age", "allowed"), [(59.999, False), (60.0, True), (299.0, True)])
def test_a_budget_is_stale_at_a_minute(age: float, allowed: bool) -> None:
    decision = ask(2_000.0, budget(age=age))
    assert decision.allowed is allowed
    assert decision.reason == ("budget_stale" if allowed else "over_budget")
    assert decision.age_sec == pytest.approx(age, abs=1e-6)
    assert (decision.violation is None) is allowed


@pytest.mark.parametrize(
    ("notional", "over"),
    [
        (1_868.0000000000002, 0.0),
        (-1_868.0000000000002, 0.0),
        (1_868.0000005, 0.0),  # half a millionth: to even
        (1_868.0000015, 2e-6),
        (1_868.000001, 1e-6),
        (1_868.01, 0.01),  # not 0.00999999999990905
        (1_867.999999, 0.0),
    ],
)
def test_a_position_is_held_against_its_budget_to_a_millionth_of_a_dollar(
    notional: float, over: float
) -> None:
    decision = ask(notional)
    assert (decision.would_block, decision.over_budget) == (over > 0, over)


def test_so_is_a_budget_that_was_written_with_its_binary_fraction() -> None:
    assert ask(1_868.0, budget(1_867.9999999999998)).reason == "within_budget"
    assert ask(1e300, budget(1.7e308)).reason == "within_budget"
    assert ask(1.7e308, budget(1e300)).reason == "over_budget"


MILLIONTHS = Context(prec=400, rounding=ROUND_HALF_EVEN)


def rounded(usd: float) -> Decimal:
    return MILLIONTHS.quantize(Decimal(repr(usd)), Decimal("0.000001"))


edges = st.integers(0, 10**10).map(lambda millionths: millionths / 1e6)
off = st.sampled_from([0.0, 1e-7, 4.9e-7, 5e-7, 5.1e-7, 1e-6, 1.5e-6])


@given(
    notional=st.floats(-1e15, 1e15) | edges,
    usd=st.floats(0, 1e6),
    nearby=off | st.none(),
    mode=st.sampled_from(["shadow", "enforce"]),
    age=st.floats(0, 120),
    reduce_only=st.booleans(),
)
def test_only_one_thing_is_ever_blocked(
    notional: float, usd: float, nearby: float | None, mode: str, age: float, reduce_only: bool
) -> None:
    if nearby is not None:
        usd = abs(abs(notional) - nearby)
    held = budget(usd, mode, age)
    decision = ask(notional, held, reduce_only=reduce_only)
    fresh = held.age_sec(NOW) < 60
    over = fresh and not reduce_only and rounded(abs(notional)) > rounded(usd)
    if over:
        assert decision.over_budget == float(rounded(abs(notional)) - rounded(usd)) >= 1e-6
    assert decision.would_block is over
    assert decision.allowed is not (over and mode == "enforce")
    assert (decision.violation is not None) is over


# --- what is believed of a hash --------------------------------------------------------------


def test_a_hash_is_read_with_all_that_it_tells() -> None:
    assert parse_budget("BTCUSDT", HASH, NOW) == Published(
        "BTCUSDT",
        1_868.0,
        "enforce",
        1_738_000_000.0,
        {
            "stress_factor": 0.066,
            "equity_usd": 100_000.0,
            "portfolio_heat": 0.0,
            "cluster_stress": 0.0,
            "vol_regime": 0.33,
            "base_risk_pct": 0.02,
        },
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"budget_usd": "nan"},
        {"budget_usd": "inf"},
        {"budget_usd": "-1"},
        {"budget_usd": "1_000"},
        {"budget_usd": ""},
        {"mode": "Enforce"},
        {"mode": "off"},
        {"timestamp": "1738000000000"},
        {"timestamp": "1738000003"},
        {"timestamp": "yesterday"},
    ],
)
def test_a_hash_that_is_no_budget_is_not_believed(fields: dict[str, str]) -> None:
    assert parse_budget("BTCUSDT", HASH | fields, NOW) is None


@pytest.mark.parametrize("missing", ["budget_usd", "mode", "timestamp"])
def test_nor_is_one_that_lacks_what_decides(missing: str) -> None:
    rest = {name: value for name, value in HASH.items() if name != missing}
    assert parse_budget("BTCUSDT", rest, NOW) is None


def test_what_decides_nothing_may_be_missing_and_is_never_zero() -> None:
    rest = {name: HASH[name] for name in ("budget_usd", "mode", "timestamp")}
    found = parse_budget("BTCUSDT", rest | {"equity_usd": "x"}, NOW)
    assert found is not None
    assert set(found.told.values()) == {None}


def test_a_writer_whose_clock_is_a_little_ahead_is_forgiven() -> None:
    found = parse_budget("BTCUSDT", HASH | {"timestamp": "1738000002"}, NOW)
    assert found is not None
    assert found.age_sec(NOW) == 0.0


# --- against Redis ---------------------------------------------------------------------------


class Recorded(Connection):
    """Keeps what was sent; each entry is one write to the socket, and so one round trip."""

    sent: ClassVar[list[bytes]] = []

    async def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        self.sent.append(command if isinstance(command, bytes) else b"".join(command))
        await super().send_packed_command(command, *args, **kwargs)


class Recorder:
    """Where the gatekeeper's rows go; away when told so."""

    def __init__(self) -> None:
        self.rows: list[Violation] = []
        self.away = False

    def __call__(self, violations: Sequence[Violation]) -> None:
        if self.away:
            raise StoreUnavailable("the database is gone")
        self.rows += violations


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


def at_the_gate(
    client: Redis, work: Callable[[Gatekeeper], Awaitable[Any]], recorder: Recorder | None = None
) -> Any:
    """Do something with a gatekeeper in a loop of its own, and close it."""

    async def run() -> Any:
        keeper = Gatekeeper(client, stale_sec=60, clock=lambda: NOW, record=recorder or Recorder())
        try:
            return await work(keeper)
        finally:
            await keeper.close()

    return asyncio.run(run())


def write(client: redis.Redis, **fields: str) -> None:
    client.hset("quantum:portfolio:budget:BTCUSDT", mapping=HASH | fields)


def counted(client: redis.Redis) -> dict[str, int]:
    return {field: int(count) for field, count in client.hgetall(counters.COUNTERS_KEY).items()}


def test_a_check_is_one_round_trip_and_a_violation_one_more(
    client: redis.Redis, redis_url: str
) -> None:
    write(client)
    pool = ConnectionPool.from_url(redis_url, connection_class=Recorded, decode_responses=True)

    async def work(keeper: Gatekeeper) -> list[list[bytes]]:
        await keeper.check("BTCUSDT", 1.0)  # with the handshake
        seen = []
        for notional in (1_000.0, 2_000.0):
            Recorded.sent.clear()
            await keeper.check("BTCUSDT", notional)
            seen.append(list(Recorded.sent))
        return seen

    within, over = at_the_gate(Redis.from_pool(pool), work)
    assert [b"HGETALL" in sent for sent in within] == [True]
    assert [b"HGETALL" in sent for sent in over] == [True, False]
    for command in (b"MULTI", b"XADD", b"HINCRBY", b"EXEC"):
        assert command in over[1]


def test_a_violation_is_on_the_stream_and_counted_when_the_answer_is_given(
    client: redis.Redis, redis_url: str
) -> None:
    write(client)

    async def work(keeper: Gatekeeper) -> None:
        decision = await keeper.check("BTCUSDT", 2_000.0)
        ((_, entry),) = client.xrange(VIOLATION_STREAM)
        assert entry.keys() == {"json"}
        assert decision.violation is not None
        assert json.loads(entry["json"]) == decision.violation.event()
        assert counted(client) == {
            counters.BUDGET_BLOCKS: 1,
            counters.BUDGET_VIOLATIONS: 1,
        }

    at_the_gate(client_of(redis_url), work)


def test_the_stream_is_capped(client: redis.Redis, redis_url: str) -> None:
    write(client)

    async def work(keeper: Gatekeeper) -> None:
        for _ in range(VIOLATIONS_KEPT + 250):
            await keeper.check("BTCUSDT", 2_000.0)

    at_the_gate(client_of(redis_url), work)
    assert VIOLATIONS_KEPT <= client.xlen(VIOLATION_STREAM) < VIOLATIONS_KEPT + 250


def test_every_decision_is_counted_once_by_the_end(client: redis.Redis, redis_url: str) -> None:
    write(client, mode="shadow")
    client.set("quantum:portfolio:budget:ODD", "no hash")
    client.hset("quantum:portfolio:budget:OLD", mapping=HASH | {"timestamp": "1737999940"})

    async def work(keeper: Gatekeeper) -> None:
        for symbol, notional in (
            *(("BTCUSDT", 1.0), ("BTCUSDT", 1.0), ("BTCUSDT", -5_000.0)),
            *(("NONE", 1.0), ("ODD", 1.0), ("OLD", 5_000.0)),
        ):
            assert (await keeper.check(symbol, notional)).allowed

    at_the_gate(client_of(redis_url), work)
    assert counted(client) == {
        counters.BUDGET_ALLOW: 6,
        counters.BUDGET_VIOLATIONS: 1,
        counters.fail_open("no_budget"): 1,
        counters.fail_open("budget_malformed"): 1,
        counters.fail_open("budget_stale"): 1,
    }


def test_many_checks_at_once_are_all_answered(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine so many take longer than a gate waits for Redis.
    monkeypatch.setattr(gatekeeper, "_TIMEOUT_SEC", 10.0)
    write(client)

    async def work(keeper: Gatekeeper) -> list[Decision]:
        return await asyncio.gather(*(keeper.check("BTCUSDT", 1_800.0 + n) for n in range(200)))

    decisions = at_the_gate(client_of(redis_url), work)
    assert [decision.allowed for decision in decisions] == [n <= 68 for n in range(200)]
    assert client.xlen(VIOLATION_STREAM) == 131
    assert counted(client)[counters.BUDGET_ALLOW] == 69


def test_rows_are_written_with_the_events(client: redis.Redis, redis_url: str) -> None:
    write(client)
    recorder = Recorder()

    async def work(keeper: Gatekeeper) -> None:
        decision = await keeper.check("BTCUSDT", 2_000.0)
        assert decision.violation is not None
        await keeper.write_down(decision.violation)
        assert recorder.rows == [decision.violation]

    at_the_gate(client_of(redis_url), work, recorder)


def test_a_row_that_the_database_does_not_take_is_counted_and_logged(
    client: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(client)
    recorder = Recorder()
    recorder.away = True

    async def work(keeper: Gatekeeper) -> None:
        decision = await keeper.check("BTCUSDT", 2_000.0)
        assert decision.violation is not None
        await keeper.write_down(decision.violation)

    at_the_gate(client_of(redis_url), work, recorder)
    assert counted(client)[counters.VIOLATION_ROWS_LOST] == 1
    assert client.xlen(VIOLATION_STREAM) == 1
    assert "the database is gone" in caplog.text
    assert '"position_notional": 2000.0' in caplog.text


# --- without Redis ---------------------------------------------------------------------------


def test_without_redis_everything_passes_at_once(free_port: Callable[[], int]) -> None:
    async def work(keeper: Gatekeeper) -> tuple[str, float]:
        began = time.monotonic()
        decision = await keeper.check("BTCUSDT", 1e12)
        assert decision.allowed
        return decision.reason, time.monotonic() - began

    reason, took = at_the_gate(client_of(f"redis://127.0.0.1:{free_port()}/0"), work)
    assert (reason, took < 5.0) == ("redis_unavailable", True)


def test_a_redis_that_says_nothing_holds_up_one_check_and_not_those_after_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"

        async def work(keeper: Gatekeeper) -> float:
            assert (await keeper.check("BTCUSDT", 1.0)).reason == "redis_unavailable"
            began = time.monotonic()
            for _ in range(100):
                assert (await keeper.check("BTCUSDT", 1.0)).reason == "redis_unavailable"
            return time.monotonic() - began

        assert at_the_gate(client_of(url), work) < 5.0  # a hundred time-outs take 25 s


class Broken(Connection):
    """A connection on which some commands find Redis gone."""

    gone: ClassVar[frozenset[bytes]] = frozenset()

    async def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        text = command if isinstance(command, bytes) else b"".join(command)
        if any(word in text for word in self.gone):
            raise redis.ConnectionError("gone")
        await super().send_packed_command(command, *args, **kwargs)


def test_a_redis_that_goes_and_comes_back_loses_no_count(
    client: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(client)
    pool = ConnectionPool.from_url(redis_url, connection_class=Broken, decode_responses=True)

    async def work(keeper: Gatekeeper) -> None:
        monkeypatch.setattr(Broken, "gone", frozenset({b"HGETALL", b"HINCRBY"}))
        for _ in range(3):
            assert (await keeper.check("BTCUSDT", 2_000.0)).reason == "redis_unavailable"
        await keeper.bring_counts()
        assert counted(client) == {}
        monkeypatch.setattr(Broken, "gone", frozenset())
        assert (await keeper.check("BTCUSDT", 2_000.0)).reason == "over_budget"
        await keeper.bring_counts()
        assert counted(client) == {
            counters.BUDGET_ALLOW: 3,
            counters.fail_open("redis_unavailable"): 3,
            counters.BUDGET_BLOCKS: 1,
            counters.BUDGET_VIOLATIONS: 1,
        }

    at_the_gate(Redis.from_pool(pool), work)
    assert caplog.text.count("lets everything pass") == 1
    assert caplog.text.count("Redis is back") == 1


def test_an_event_that_redis_does_not_take_changes_no_decision_and_is_not_lost_silently(
    client: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(client)
    pool = ConnectionPool.from_url(redis_url, connection_class=Broken, decode_responses=True)

    async def work(keeper: Gatekeeper) -> None:
        monkeypatch.setattr(Broken, "gone", frozenset({b"XADD"}))
        decision = await keeper.check("BTCUSDT", 2_000.0)
        assert (decision.allowed, decision.reason) == (False, "over_budget")
        assert decision.violation is not None

    at_the_gate(Redis.from_pool(pool), work)
    assert counted(client) == {
        counters.BUDGET_BLOCKS: 1,
        counters.BUDGET_VIOLATIONS: 1,
        counters.REDIS_WRITE_FAIL: 1,
    }
    assert "did not take a violation" in caplog.text
    assert '"over_budget": 132.0' in caplog.text


# --- all budgets at once ---------------------------------------------------------------------


def test_all_budgets_are_read_but_what_is_none(client: redis.Redis, redis_url: str) -> None:
    names = [f"S{number:04d}" for number in range(2_500)]
    pipeline = client.pipeline(transaction=False)
    for name in [*names, "cluster:majors"]:
        pipeline.hset(f"quantum:portfolio:budget:{name}", mapping=HASH)
    pipeline.execute()
    client.set("quantum:portfolio:budget:ODD", "no hash")
    client.hset("quantum:portfolio:budget:BAD", mapping=HASH | {"budget_usd": "nan"})
    client.set(b"quantum:portfolio:budget:\xff", "no text")

    with published.client_of(redis_url) as reader:
        found = read_published(reader, NOW, within_sec=60)

    assert list(found) == [*names, "cluster:majors"]
    assert math.fsum(each.budget_usd for each in found.values()) == 2_501 * 1_868.0


def test_reading_all_of_them_ends_in_time(client: redis.Redis) -> None:
    write(client)
    ticks = iter(range(100))
    with pytest.raises(redis.TimeoutError):
        read_published(client, NOW, within_sec=0.5, monotonic=lambda: float(next(ticks)))
