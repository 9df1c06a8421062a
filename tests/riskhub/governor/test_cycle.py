"""From inputs to budgets, and a whole cycle against Redis."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from riskhub.governor import (
    FORMULA_VERSION,
    BudgetParameters,
    GovernorInputs,
    GovernorSettings,
    Input,
    PortfolioState,
    compute_budgets,
    publish,
    run_cycle,
)
from riskhub.governor.inputs import cluster_input, heat_input, regime_input

NOW = 1_738_000_000.75
SETTINGS = GovernorSettings(clusters={"BTCUSDT": "majors"})
INPUTS = GovernorInputs(
    portfolio=Input(PortfolioState(100_000.0, 0.1, NOW - 1), "fresh", 1.0),
    symbols=("BTCUSDT", "ETHUSDT"),
    heat=Input(0.5, "fresh"),
    clusters={"majors": Input(0.25, "fresh"), "default": Input(1.0, "malformed")},
    regimes={"BTCUSDT": Input(0.33, "missing"), "ETHUSDT": Input(1.0, "fresh")},
)


def test_each_symbol_has_a_budget_and_what_it_was_computed_from() -> None:
    cycle = compute_budgets(INPUTS, SETTINGS, NOW)

    assert cycle.no_budget_reason is None
    bitcoin, ether = cycle.budgets
    assert bitcoin.symbol == "BTCUSDT"
    assert bitcoin.stress_factor == pytest.approx(0.366)
    assert bitcoin.budget_usd == pytest.approx(1_268.0)
    assert (bitcoin.equity_usd, bitcoin.base_risk_pct) == (100_000.0, 0.02)
    assert (bitcoin.portfolio_heat, bitcoin.cluster_stress, bitcoin.vol_regime) == (0.5, 0.25, 0.33)
    assert (bitcoin.mode, bitcoin.timestamp) == ("shadow", 1_738_000_000)
    assert bitcoin.formula_version == FORMULA_VERSION == "p28/2"
    assert bitcoin.policies == {
        "portfolio_state": "fresh",
        "portfolio_heat": "fresh",
        "cluster_stress": "fresh",
        "vol_regime": "missing",
    }
    assert ether.budget_usd == 500.0  # 100,000 * 0.02 * 0.2 below the floor
    assert ether.policies["cluster_stress"] == "malformed"


def test_settings_reach_the_formula() -> None:
    settings = GovernorSettings(mode="enforce", parameters=BudgetParameters(min_usd=1.0))

    cycle = compute_budgets(INPUTS, settings, NOW)

    assert [budget.mode for budget in cycle.budgets] == ["enforce", "enforce"]
    assert cycle.budgets[1].budget_usd == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("portfolio", "reason"),
    [
        (Input(None, "missing"), "portfolio_missing"),
        (Input(None, "malformed"), "portfolio_malformed"),
        (Input(None, "out_of_range"), "portfolio_out_of_range"),
        (Input(PortfolioState(1e5, None, NOW - 31), "stale", 31.0), "portfolio_stale"),
        (Input(PortfolioState(0.0, None, NOW), "fresh", 0.0), "equity_not_positive"),
        (Input(PortfolioState(math.nan, None, NOW), "fresh", 0.0), "equity_not_finite"),
    ],
)
def test_a_portfolio_that_gives_no_budget(
    portfolio: Input[PortfolioState | None], reason: str
) -> None:
    cycle = compute_budgets(replace(INPUTS, portfolio=portfolio), SETTINGS, NOW)

    assert (cycle.budgets, cycle.cluster_budgets) == ((), ())
    assert cycle.no_budget_reason == reason


def test_no_position_needs_no_budget() -> None:
    cycle = compute_budgets(replace(INPUTS, symbols=()), SETTINGS, NOW)

    assert (cycle.budgets, cycle.cluster_budgets) == ((), ())
    assert cycle.no_budget_reason == "no_positions"


# --- broken input never raises a budget ------------------------------------------------------

unit = st.floats(0, 1)
broken_numbers = st.one_of(
    st.sampled_from(["", "nan", "inf", "-0.001", "1.001", "x", "1e999"]), st.text(max_size=8)
).filter(lambda raw: cluster_input([raw]).policy != "fresh")
broken_heats = st.sampled_from(["NaN", "+Inf", "-0.001", "1.001", "x", "0,5", "1_0"])
good_regimes = st.one_of(
    st.tuples(st.sampled_from(["LOW_VOL", "NORMAL_VOL", "HIGH_VOL", "EXTREME_VOL"]), st.none()),
    st.tuples(st.none(), unit.map(repr)),
    st.just((None, None)),
)


def budget_of(
    heat: Input[float], cluster: Input[float], regime: Input[float], equity: float
) -> float:
    inputs = GovernorInputs(
        portfolio=Input(PortfolioState(equity, None, NOW), "fresh", 0.0),
        symbols=("BTCUSDT",),
        heat=heat,
        clusters={"default": cluster},
        regimes={"BTCUSDT": regime},
    )
    return compute_budgets(inputs, GovernorSettings(), NOW).budgets[0].budget_usd


@given(
    broken=broken_numbers,
    broken_heat=broken_heats,
    good=unit,
    others=st.tuples(unit, unit),
    regime=good_regimes,
    equity=st.floats(1, 1e7),
)
def test_broken_input_never_raises_a_budget(
    broken: str,
    broken_heat: str,
    good: float,
    others: tuple[float, float],
    regime: tuple[str | None, str | None],
    equity: float,
) -> None:
    first, second = (Input(value, "fresh") for value in others)

    as_cluster = budget_of(first, cluster_input([broken]), second, equity)
    assert as_cluster <= budget_of(first, cluster_input([repr(good)]), second, equity)
    assert as_cluster <= budget_of(first, cluster_input([None]), second, equity)

    as_regime = budget_of(first, second, regime_input([broken, None]), equity)
    assert as_regime <= budget_of(first, second, regime_input(regime), equity)

    as_heat = budget_of(heat_input(f"p26_heat_value {broken_heat}"), first, second, equity)
    assert as_heat <= budget_of(heat_input(f"p26_heat_value {good!r}"), first, second, equity)
    assert as_heat <= budget_of(Input(0.0, "not_configured"), first, second, equity)


# --- against Redis ---------------------------------------------------------------------------


class RecordedConnection(redis.Connection):
    """Keeps what was sent; each entry is one write to the socket, and so one round trip."""

    sent: ClassVar[list[bytes]] = []

    def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        self.sent.append(command if isinstance(command, bytes) else b"".join(command))
        super().send_packed_command(command, *args, **kwargs)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    pool = redis.ConnectionPool.from_url(
        redis_url, connection_class=RecordedConnection, decode_responses=True
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


def test_a_thousand_symbols_take_few_round_trips(client: redis.Redis) -> None:
    symbols = write_positions(client, 1_000)
    write_portfolio(client, NOW)
    RecordedConnection.sent.clear()

    cycle = run_cycle(client, GovernorSettings(), NOW)

    assert [budget.symbol for budget in cycle.budgets] == symbols
    scans = [sent for sent in RecordedConnection.sent if b"SCAN" in sent]
    assert len(scans) <= 10  # two patterns, a thousand keys at a time
    # One read, and a transaction for each 500 of 1,000 symbols and a cluster.
    assert len(RecordedConnection.sent) - len(scans) == 4
    assert all(b"KEYS" not in sent for sent in RecordedConnection.sent)
    assert len(list(client.scan_iter("quantum:portfolio:budget:*"))) == 1_001


def test_hash_and_time_to_live_are_one_transaction(client: redis.Redis) -> None:
    budgets = compute_budgets(INPUTS, SETTINGS, NOW).budgets
    RecordedConnection.sent.clear()

    publish(client, budgets, ttl_sec=60)

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
    budgets = compute_budgets(INPUTS, SETTINGS, NOW).budgets
    client.hset("quantum:portfolio:budget:BTCUSDT", "of_an_older_version", "1")
    client.rpush("quantum:portfolio:budget:ETHUSDT", "no hash")

    publish(client, budgets, ttl_sec=60)

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
