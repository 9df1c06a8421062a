"""Heat and shares from the hub's own numbers, while they can be believed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from builders import NOW, WORLD, accept
from databases import migrate
from stored import DAY, contribution, metrics, tail

from riskhub.governor import GovernorSettings, Input, run_cycle
from riskhub.governor.hub_inputs import read_heat, read_shares
from riskhub.store import Store, create_engine

MISSING_HEAT = Input(1.0, "missing")
MISSING_SHARES: Input[Any] = Input({}, "missing")
MINUTE = timedelta(minutes=1)
AGE = 300.0  # of the snapshot, at `NOW`
AS_OF = NOW.timestamp() - AGE


@dataclass
class Hub:
    store: Store


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    if request.param == "postgres":
        url = str(request.getfixturevalue("postgres_url"))
    opened = Store(create_engine(url))
    migrate(opened.engine)
    yield opened
    opened.close()


Land = Callable[..., int]


@pytest.fixture
def land(store: Store) -> Land:
    """Land a snapshot with its numbers; gives its position."""

    def landed(
        version: str,
        *,
        tails: dict[tuple[str, str], float] | None = None,
        es: dict[str, float] | None = None,
        **document: Any,
    ) -> int:
        snapshot = accept(version=version, **{"ttl_sec": 600} | document)
        store.land([snapshot])
        position, day = store.head(), DAY
        rows = {
            "risk_metrics": [metrics(position, version=version, as_of=snapshot.as_of)],
            "risk_tails": [
                tail(position, level, day=day, method=method, es=value)
                for (method, level), value in (tails or {}).items()
            ],
            "risk_contributions": [
                contribution(position, symbol, 0.1, day=day, es=value)
                for symbol, value in (es or {}).items()
            ],
        }
        store.write_days(rows, [day], replace=False)
        return position

    return landed


def test_heat_is_the_expected_shortfall_as_a_part_of_what_is_allowed(
    store: Store, land: Land
) -> None:
    land(
        "v1",
        tails={
            ("historical", "0.975"): 0.025,
            ("historical", "0.99"): 0.04,
            ("normal", "0.975"): 0.03,
        },
    )

    assert read_heat(store, WORLD, limit=0.05, at=NOW) == Input(0.5, "fresh", AGE, as_of=AS_OF)
    assert read_heat(store, WORLD, limit=0.01, at=NOW) == Input(1.0, "fresh", AGE, as_of=AS_OF)
    assert read_heat(store, "another", limit=0.05, at=NOW) == MISSING_HEAT


def test_a_portfolio_that_gains_even_in_its_tail_is_calm(store: Store, land: Land) -> None:
    land("v1", tails={("historical", "0.975"): -0.01})

    assert read_heat(store, WORLD, limit=0.05, at=NOW).value == 0.0


def test_a_snapshot_without_that_number_or_that_has_expired_gives_none(
    store: Store, land: Land
) -> None:
    land("v1", tails={("historical", "0.975"): 0.02})
    assert read_heat(store, WORLD, limit=0.05, at=NOW + 10 * MINUTE) == replace(
        MISSING_HEAT, as_of=AS_OF
    )
    assert read_heat(store, WORLD, limit=0.05, at=NOW + 9.9 * MINUTE).policy == "fresh"

    land("v2", as_of="2026-01-31T21:04:00Z", tails={("normal", "0.975"): 0.02})
    assert read_heat(store, WORLD, limit=0.05, at=NOW) == MISSING_HEAT


def test_shares_are_of_the_newest_snapshot_and_add_up_to_one(store: Store, land: Land) -> None:
    land("v1", es={"BAC": 0.9, "JPM": 0.1})
    land("v2", as_of="2026-01-31T21:04:00Z", es={"BAC": 0.03, "JPM": 0.02, "GLD": -0.01})

    shares = read_shares(store, WORLD, at=NOW)

    assert shares.value == pytest.approx({"BAC": 0.75, "JPM": 0.5, "GLD": -0.25})
    assert (shares.policy, shares.age_sec) == ("fresh", 60.0)
    assert shares.as_of == NOW.timestamp() - 60
    assert read_shares(store, WORLD, at=NOW + 14 * MINUTE) == replace(
        MISSING_SHARES, as_of=shares.as_of
    )


@pytest.mark.parametrize("es", [{}, {"BAC": 0.1, "JPM": -0.1}, {"BAC": -0.2, "JPM": 0.1}])
def test_without_a_shortfall_there_is_nothing_to_share(
    store: Store, land: Land, es: dict[str, float]
) -> None:
    land("v1", es=es)

    assert read_shares(store, WORLD, at=NOW) == MISSING_SHARES
    assert read_shares(store, "another", at=NOW) == MISSING_SHARES


def test_without_a_database_nothing_can_be_read(store: Store, tmp_path: Path) -> None:
    store.close()
    away = Store(create_engine(f"sqlite:///{tmp_path / 'nowhere' / 'hub.db'}"))

    assert read_heat(None, WORLD, limit=0.05, at=NOW) == MISSING_HEAT
    assert read_heat(away, WORLD, limit=0.05, at=NOW) == MISSING_HEAT
    assert read_shares(None, WORLD, at=NOW) == MISSING_SHARES
    assert read_shares(away, WORLD, at=NOW) == MISSING_SHARES


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        for symbol in ("BAC", "JPM", "XYZ"):
            connected.hset(f"quantum:position:snapshot:{symbol}", "position_amt", "1")
            connected.hset(f"quantum:state:market:{symbol}", "vol_regime", "LOW_VOL")
        yield connected


def test_a_cycle_uses_them_and_holds_them_when_the_hub_is_gone(
    client: redis.Redis, store: Store, land: Land
) -> None:
    land("v1", tails={("historical", "0.975"): 0.0125}, es={"BAC": 0.03, "JPM": 0.01})
    settings = GovernorSettings(heat_world=WORLD, contribution_world=WORLD)
    now = NOW.timestamp()
    client.hset("quantum:state:portfolio", mapping={"equity_usd": "100000", "timestamp": str(now)})

    fresh = run_cycle(client, settings, now, hub=Hub(store))
    gone = run_cycle(client, settings, now + 900)
    client.hset("quantum:state:portfolio", "timestamp", str(now + 901))
    long_gone = run_cycle(client, settings, now + 901)

    calm = 2_000 * (1 - 0.4 * 0.25)
    by_symbol = {"BAC": calm / 1.5, "JPM": calm, "XYZ": calm}  # BAC carries 3/4, its part is 1/2
    for cycle, policy in ((fresh, "fresh"), (gone, "held")):
        assert {one.symbol: one.budget_usd for one in cycle.budgets} == pytest.approx(by_symbol)
        assert [one.share for one in cycle.budgets] == [0.75, 0.25, None]
        for budget in cycle.budgets:
            assert budget.policies["portfolio_heat"] == budget.policies["contribution"] == policy
    assert long_gone.budgets[0].portfolio_heat == 1.0
    assert long_gone.budgets[0].budget_usd == pytest.approx(1_200 / 1.5)
    assert long_gone.budgets[0].policies["contribution"] == "held_careful"


def test_a_snapshot_that_was_seen_expired_stays_so_when_the_clock_steps_back(
    client: redis.Redis, store: Store, land: Land
) -> None:
    land("v1", tails={("historical", "0.975"): 0.0125}, es={"BAC": 0.03, "JPM": 0.01})
    settings = GovernorSettings(heat_world=WORLD, contribution_world=WORLD)
    now = NOW.timestamp()

    def heat_and_shares(at: float) -> tuple[float, Any]:
        state = {"equity_usd": "100000", "timestamp": str(at)}
        client.hset("quantum:state:portfolio", mapping=state)
        inputs = run_cycle(client, settings, at, hub=Hub(store)).inputs
        assert inputs is not None
        return inputs.heat.value, inputs.shares.policy

    assert heat_and_shares(now + 601) == (1.0, "missing")
    assert heat_and_shares(now) == (1.0, "missing")
    land(
        "v2",
        as_of="2026-01-31T21:01:00Z",
        tails={("historical", "0.975"): 0.0125},
        es={"BAC": 0.03},
    )
    assert heat_and_shares(now + 1) == (0.25, "fresh")


def test_a_heat_page_comes_before_the_hub(
    client: redis.Redis, store: Store, land: Land, free_port: Callable[[], int]
) -> None:
    land("v1", tails={("historical", "0.975"): 0.0})
    url = f"http://127.0.0.1:{free_port()}/metrics"
    settings = GovernorSettings(heat_url=url, heat_world=WORLD)

    cycle = run_cycle(client, settings, NOW.timestamp(), hub=Hub(store))

    assert cycle.inputs is not None
    assert cycle.inputs.heat == MISSING_HEAT
