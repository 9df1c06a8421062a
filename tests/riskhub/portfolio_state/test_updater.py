"""Who publishes the portfolio state, what is read for it, and what is left alone."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from builders import NOW as LANDED
from builders import WORLD, accept
from databases import migrate

from riskhub.governor.inputs import PortfolioState, portfolio_input
from riskhub.portfolio_state import (
    AnotherPublishes,
    EquityHash,
    EquitySource,
    HighWater,
    NoPortfolioState,
    SnapshotEquity,
    Updater,
    kept_high_water,
    reset_high_water,
    updater,
)
from riskhub.store import Store, create_engine

NOW = 1_738_000_000.0


@pytest.fixture(params=["fakeredis", "redis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "fakeredis":
        made: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    else:
        url = request.getfixturevalue("redis_url")
        made = redis.Redis.from_url(url, decode_responses=True)
    with made:
        yield made


def publisher(
    client: redis.Redis, source: EquitySource | None = None, owner: str = "first"
) -> Updater:
    return Updater(
        client, source or EquityHash("account"), owner=owner, stale_sec=30, interval_sec=5
    )


def account(client: redis.Redis, usd: object, now: float = NOW, **more: Any) -> None:
    client.delete("account")
    client.hset("account", mapping={"equity_usd": str(usd), "timestamp": repr(now), **more})


def state(client: redis.Redis) -> dict[str, str]:
    def text(raw: bytes | str) -> str:
        return raw.decode() if isinstance(raw, bytes) else raw

    fields: Any = client.hgetall("quantum:state:portfolio")
    return {text(name): text(value) for name, value in fields.items()}


def test_what_is_published_is_what_the_governor_reads(client: redis.Redis) -> None:
    account(client, 90_000, NOW - 3.5)
    client.hset("riskhub:portfolio:high_water", mapping={"equity_usd": 120000, "reached_at": 1})
    client.hset(
        "quantum:position:snapshot:BTCUSDT", mapping={"position_amt": "2", "mark_price": "40000"}
    )
    client.hset(
        "quantum:state:positions:ETHUSDT", mapping={"position_amt": "-10", "mark_price": "2500"}
    )
    # The same position under both names counts once.
    client.hset("quantum:state:positions:BTCUSDT", mapping={"position_amt": "7", "mark_price": "9"})
    client.hset("quantum:state:positions:XRPUSDT", "position_amt", "n/a")
    client.set("quantum:state:positions:ADAUSDT", "no hash")
    client.set("quantum:state:portfolio", "no hash either, and replaced")

    publisher(client).publish(NOW)

    assert state(client) == {
        "equity_usd": "90000.0",
        "drawdown": "0.25",
        "timestamp": str(int(NOW) - 4),
        "published_at": str(int(NOW)),
        "high_water_usd": "120000.0",
        "gross_notional_usd": "105000.0",
        "net_notional_usd": "55000.0",
        "positions": "2",
        "malformed_positions": "2",
        "malformed_symbols": '["ADAUSDT", "XRPUSDT"]',
        "net_flow_unknown": "0",
    }
    read: Any = client.hmget("quantum:state:portfolio", "equity_usd", "drawdown", "timestamp")
    judged = portfolio_input(read, now=NOW, stale_sec=30)
    assert judged.policy == "fresh"
    assert judged.value == PortfolioState(90_000.0, 0.25, int(NOW) - 4)


def test_the_high_water_mark_survives_the_process(client: redis.Redis) -> None:
    account(client, 200_000, net_flow_usd="10")
    publisher(client).publish(NOW)
    publisher(client).release()
    account(client, 150_000, NOW + 1000, net_flow_usd="10")

    assert publisher(client, owner="after a restart").publish(NOW + 1000).drawdown == 0.25
    assert kept_high_water(client) == HighWater(200_000.0, NOW, 10.0)


@pytest.mark.parametrize("usd", ["nan", "0", "-1", "n/a"])
def test_without_equity_the_last_state_is_left_to_grow_stale(client: redis.Redis, usd: str) -> None:
    account(client, 1000)
    publisher(client).publish(NOW)
    before, mark = state(client), kept_high_water(client)
    account(client, usd, NOW + 5)

    with pytest.raises(NoPortfolioState):
        publisher(client).publish(NOW + 5)

    assert (state(client), kept_high_water(client)) == (before, mark)


def test_an_account_that_stands_still_goes_stale_with_the_state(client: redis.Redis) -> None:
    account(client, 1000)

    assert publisher(client).publish(NOW + 29).timestamp == NOW
    with pytest.raises(NoPortfolioState, match="equity_stale"):
        publisher(client).publish(NOW + 30)


def test_an_account_that_is_no_hash_or_not_there(client: redis.Redis) -> None:
    with pytest.raises(NoPortfolioState, match="equity_missing"):
        publisher(client).publish(NOW)
    client.set("account", "100")
    with pytest.raises(NoPortfolioState, match="equity_malformed"):
        publisher(client).publish(NOW)

    assert state(client) == {}


def test_what_is_published_can_not_be_its_own_source() -> None:
    with pytest.raises(ValueError, match="quantum:state:portfolio"):
        EquityHash("quantum:state:portfolio")


@pytest.mark.parametrize(
    "kept",
    [
        {"equity_usd": "n/a", "reached_at": "1"},
        {"equity_usd": "-5", "reached_at": "1"},
        {"reached_at": "1"},
        {"equity_usd": "5"},
        "no hash",
    ],
)
def test_a_broken_mark_is_not_begun_anew_but_by_a_reset(client: redis.Redis, kept: Any) -> None:
    account(client, 1000)
    if isinstance(kept, dict):
        client.hset("riskhub:portfolio:high_water", mapping=kept)
    else:
        client.set("riskhub:portfolio:high_water", kept)

    with pytest.raises(NoPortfolioState, match="--reset-high-water"):
        publisher(client).publish(NOW)
    assert state(client) == {}
    reset_high_water(client)

    assert publisher(client).publish(NOW).high_water_begins


def test_a_preview_writes_nothing(client: redis.Redis) -> None:
    account(client, 1000)

    assert publisher(client).preview(NOW).equity_usd == 1000
    assert list(client.scan_iter()) in ([b"account"], ["account"])


def test_a_snapshot_that_went_between_scan_and_read_is_no_malformed_one(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(client, 1000)
    keys = ["quantum:position:snapshot:GONE"]
    monkeypatch.setattr(client, "scan_iter", lambda **_: iter(keys))

    assert publisher(client).publish(NOW).malformed_positions == ()


def test_round_trips_do_not_grow_with_the_positions(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(client, 1000)
    few, many = (round_trips(client, monkeypatch, positions) for positions in (2, 300))

    assert few == many
    assert few.count("execute") == 2  # one that reads, one that writes


def round_trips(client: redis.Redis, monkeypatch: pytest.MonkeyPatch, positions: int) -> list[str]:
    """By which methods of the client Redis is asked in one update."""
    for number in range(positions):
        client.hset(
            f"quantum:state:positions:S{number}",
            mapping={"position_amt": number + 1, "mark_price": 2},
        )
    asked: list[str] = []
    with monkeypatch.context() as patch:
        for owner, name in (
            (redis.Redis, "execute_command"),
            (redis.client.Pipeline, "execute"),
            (redis.client.Pipeline, "immediate_execute_command"),
        ):
            patch.setattr(owner, name, noting(getattr(owner, name), asked))
        assert publisher(client).publish(NOW).positions == positions
    return asked


def noting(method: Any, asked: list[str]) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        asked.append(method.__name__)
        return method(*args, **kwargs)

    return noted


# --- from the hub ----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(store.engine)
    yield store
    store.close()


def land(store: Store, version: str, stage: str, **constraints: Any) -> None:
    store.land(
        [
            accept(
                version=version,
                stage=stage,
                as_of="2026-01-31T21:04:50Z",
                received_at=LANDED,
                constraints=constraints,
            )
        ]
    )


def test_equity_of_the_newest_snapshot(client: redis.Redis, store: Store) -> None:
    land(store, "v1", "live", equity_usd=250_000, net_flow_usd=-3)
    land(store, "v2", "paper", equity_usd=9)
    source = SnapshotEquity(store, WORLD, "live")
    landed = LANDED.timestamp()

    update = publisher(client, source).publish(landed + 5)

    assert (update.equity_usd, update.timestamp) == (250_000, landed - 10)
    assert update.high_water == HighWater(250_000, landed - 10, -3)
    assert publisher(client, SnapshotEquity(store, WORLD)).publish(landed + 5).equity_usd == 9
    with pytest.raises(NoPortfolioState, match="equity_stale"):
        publisher(client, source).publish(landed + 20)
    with pytest.raises(NoPortfolioState, match="equity_missing"):  # expired
        publisher(client, source).publish((LANDED + timedelta(days=2)).timestamp())


@pytest.mark.parametrize("said", [None, True, "250000", [1], -1, 0])
def test_a_snapshot_that_says_no_equity(client: redis.Redis, store: Store, said: Any) -> None:
    land(store, "v1", "live", equity_usd=said)
    land(store, "v2", "paper", note="none")

    for stage in ("live", "paper", "backtest"):
        with pytest.raises(NoPortfolioState):
            publisher(client, SnapshotEquity(store, WORLD, stage)).publish(LANDED.timestamp())


# --- one at a time ---------------------------------------------------------------------------


def test_one_updater_writes_and_another_takes_over_when_it_dies(client: redis.Redis) -> None:
    account(client, 1000)
    first, second = publisher(client), publisher(client, owner="second")
    first.publish(NOW)
    account(client, 2000)

    with pytest.raises(AnotherPublishes, match="first"):
        second.publish(NOW)
    assert state(client)["equity_usd"] == "1000.0"
    remaining: Any = client.pttl("riskhub:portfolio:writer")
    assert 0 < remaining <= 10_000
    client.delete("riskhub:portfolio:writer")  # as it goes when its time is over

    assert second.publish(NOW).equity_usd == 2000
    with pytest.raises(AnotherPublishes, match="second"):
        first.publish(NOW)
    first.release()  # of what is not its own
    with pytest.raises(AnotherPublishes, match="second"):
        first.publish(NOW)


def test_an_updater_that_ends_gives_way_at_once(client: redis.Redis) -> None:
    account(client, 1000)
    first = publisher(client)
    first.publish(NOW)
    first.release()

    publisher(client, owner="second").publish(NOW)


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """Something happens once, between the last look at Redis and the write."""
    pending = [happens]
    real = kept_high_water

    def look(client: redis.Redis) -> HighWater | None:
        mark = real(client)
        while pending:
            pending.pop()()
        return mark

    monkeypatch.setattr(updater, "kept_high_water", look)


def test_who_lost_the_lease_in_the_middle_writes_nothing(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(client, 1000)
    meanwhile(monkeypatch, lambda: client.set("riskhub:portfolio:writer", "second"))

    with pytest.raises(AnotherPublishes, match="second"):
        publisher(client).publish(NOW)

    assert (state(client), kept_high_water(client)) == ({}, None)


def test_a_reset_in_the_middle_of_an_update_is_not_undone(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(client, 1000)
    client.hset("riskhub:portfolio:high_water", mapping={"equity_usd": 5000, "reached_at": 1})
    meanwhile(monkeypatch, lambda: reset_high_water(client))

    assert publisher(client).publish(NOW).drawdown == 0
    assert kept_high_water(client) == HighWater(1000.0, NOW)
