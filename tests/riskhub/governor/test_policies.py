"""Each cell of the table in docs/governor.md, from what lies in Redis to what is used."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from riskhub.governor import BudgetCycle, GovernorInputs, GovernorSettings, Input, run_cycle

NOW = 1_738_000_000.0
STATE, CLUSTER, MARKET = (
    "quantum:state:portfolio", "quantum:cluster:stress:default", "quantum:state:market:BTC",
)  # fmt: skip
HEAT_URL = "http://heat.example/metrics"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "governor.md"

TABLE = {
    # input: condition: (policy, value); of the portfolio the value is the equity
    "portfolio state": {
        "fresh": ("fresh", 100_000.0),
        "stale, never fresh": ("stale", None),
        "missing, never fresh": ("missing", None),
        "malformed, never fresh": ("malformed", None),
        "out of range, never fresh": ("out_of_range", None),
        "any of these, fresh 15 min ago": ("last_known_good", 100_000.0),
        "any of these, fresh longer ago": ("too_old", None),
    },
    "heat": {
        "fresh": ("fresh", 0.2),
        "nobody said where": ("not_configured", 0.0),
        "missing, never known": ("missing", 1.0),
        "missing, known 15 min ago": ("held", 0.2),
        "missing, known longer ago": ("held_careful", 1.0),
        "malformed": ("malformed", 1.0),
        "out of range": ("out_of_range", 1.0),
    },
    "cluster stress": {
        "fresh": ("fresh", 0.2),
        "missing, never known": ("missing", 0.0),
        "missing, known 15 min ago": ("held", 0.2),
        "missing, known longer ago": ("held_careful", 0.2),
        "malformed": ("malformed", 1.0),
        "out of range": ("out_of_range", 1.0),
    },
    "volatility": {
        "fresh": ("fresh", 0.0),
        "missing, never known": ("missing", 0.33),
        "missing, known 15 min ago": ("held", 0.0),
        "missing, known longer ago": ("held_careful", 0.33),
        "malformed": ("malformed", 1.0),
        "out of range": ("out_of_range", 1.0),
    },
    "drawdown": {
        "fresh": ("fresh", 0.2),
        "missing, never known": ("missing", 0.0),
        "missing, known 15 min ago": ("held", 0.2),
        "missing, known longer ago": ("held_careful", 0.2),
        "malformed": ("malformed", 1.0),
        "out of range": ("out_of_range", 1.0),
    },
}
BROKEN = {
    "portfolio state": {
        "stale": {"timestamp": str(NOW - 60)},
        "missing": {"equity_usd": None},
        "malformed": {"equity_usd": "nan"},
        "out of range": {"equity_usd": "-1"},
    },
    "heat": {"malformed": "NaN", "out of range": "20"},
    "cluster stress": {"malformed": {"stress": "high"}, "out of range": {"stress": "20"}},
    "volatility": {
        "malformed": {"vol_regime": "low_vol"},
        "out of range": {"vol_regime": None, "sigma": "-0.01"},
    },
    "drawdown": {"malformed": {"drawdown": "n/a"}, "out of range": {"drawdown": "20"}},
}
KEYS = {
    "portfolio state": STATE, "drawdown": STATE, "cluster stress": CLUSTER, "volatility": MARKET,
}  # fmt: skip


@pytest.fixture
def client(either_redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(either_redis_url, decode_responses=True) as connected:
        yield connected


def write_all(client: redis.Redis, now: float) -> None:
    client.hset("quantum:position:snapshot:BTC", "position_amt", "1")
    state = {"equity_usd": "100000", "drawdown": "0.2", "timestamp": str(now)}
    client.hset(STATE, mapping=dict(state))
    client.hset(CLUSTER, "stress", "0.2")
    client.hset(MARKET, "vol_regime", "LOW_VOL")


def cycle(
    client: redis.Redis, heat: str | None, now: float, url: str | None = HEAT_URL
) -> BudgetCycle:
    """With a heat page that says so, or that can't be reached."""

    def answer(request: httpx.Request) -> httpx.Response:
        if heat is None:
            raise httpx.ConnectError("nobody listens", request=request)
        return httpx.Response(200, text=f"portfolio_heat_composite_normalized {heat}\n")

    settings = GovernorSettings(heat_url=url, drawdown_haircut=0.5)
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        return run_cycle(client, settings, now, http)


def used(inputs: GovernorInputs, name: str) -> Input[Any]:
    return {
        "portfolio state": inputs.portfolio,
        "heat": inputs.heat,
        "cluster stress": inputs.clusters["default"],
        "volatility": inputs.regimes["BTC"],
        "drawdown": inputs.drawdown,
    }[name]


def spoil(client: redis.Redis, key: str, fields: dict[str, str | None]) -> None:
    for name, value in fields.items():
        if value is None:
            client.hdel(key, name)
        else:
            client.hset(key, name, value)


@pytest.mark.parametrize(
    ("name", "condition"), [(name, condition) for name in TABLE for condition in TABLE[name]]
)
def test_the_table(client: redis.Redis, name: str, condition: str) -> None:
    policy, value = TABLE[name][condition]
    what = condition.partition(",")[0]
    now, heat = NOW, "0.2"
    write_all(client, NOW)
    if "ago" in condition:
        cycle(client, heat, NOW)
        now = NOW + (901 if "longer" in condition else 900)
        if name != "portfolio state":
            write_all(client, now)
    if what in {"missing", "any of these"} and name != "portfolio state":
        lost = {"drawdown": "drawdown", "cluster stress": "stress", "volatility": "vol_regime"}
        if name == "heat":
            heat = None
        else:
            client.hdel(KEYS[name], lost[name])
    elif what in BROKEN[name]:
        broken: Any = BROKEN[name][what]
        if name == "heat":
            heat = broken
        else:
            spoil(client, KEYS[name], broken)

    url = None if condition == "nobody said where" else HEAT_URL
    if condition.startswith("any of these"):
        for fields in ({}, *BROKEN[name].values()):  # late by itself, and broken as well
            spoil(client, STATE, fields)
            _check(cycle(client, heat, now, url), name, policy, value)
    else:
        _check(cycle(client, heat, now, url), name, policy, value)


def _check(done: BudgetCycle, name: str, policy: str, value: float | None) -> None:
    assert done.inputs is not None
    taken = used(done.inputs, name)
    if name == "portfolio state":
        assert (done.budgets[0].equity_usd if done.budgets else None) == value
        assert done.no_budget_reason == (None if value else f"portfolio_{policy}")
    else:
        assert taken.value == value
    assert taken.policy == policy
    field = {
        "portfolio state": "portfolio_state", "heat": "portfolio_heat", "drawdown": "drawdown",
        "cluster stress": "cluster_stress", "volatility": "vol_regime",
    }[name]  # fmt: skip
    for budget in (*done.budgets, *done.cluster_budgets):
        assert budget.policies[field] == policy  # on each result


def test_the_document_has_this_table() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)

    written: dict[str, dict[str, str]] = {}
    for name, condition, policy in rows:
        written.setdefault(name, {})[condition] = policy
    assert {name: written[name] for name in TABLE} == {
        name: {condition: policy for condition, (policy, _) in conditions.items()}
        for name, conditions in TABLE.items()
    }
