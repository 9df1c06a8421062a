"""Where positions and equity are read from. Nothing is judged here."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import redis

from riskhub.governor.inputs import PORTFOLIO_KEY, POSITION_PREFIXES
from riskhub.portfolio_state.state import EquityFields, PositionFields
from riskhub.store import Filter, Store

_SCAN_COUNT = 1000


@dataclass(frozen=True, slots=True)
class EquityHash:
    """A Redis hash with the fields of `EquityFields`, that an account poller keeps up to date.

    Raises:
        ValueError: it is the hash that is published: an equity can't be its own source.
    """

    key: str

    def __post_init__(self) -> None:
        if self.key == PORTFOLIO_KEY:
            raise ValueError(f"{PORTFOLIO_KEY} is what is published, not where its equity is from")


@dataclass(frozen=True, slots=True)
class SnapshotEquity:
    """A world of the hub: the latest snapshot's `constraints`, with `as_of` for their time.

    Of `constraints` it reads `equity_usd`, `wallet_balance` and `net_flow_usd`.

    Attributes:
        store: the hub's database.
        world_id: the world.
        stage: only snapshots of this stage; None takes the latest of any.
    """

    store: Store
    world_id: str
    stage: str | None = None

    def read(self, now: float) -> EquityFields:
        """What the latest snapshot that is alive says. Raises `StoreUnavailable`."""
        latest = self.store.latest(
            self.world_id, Filter(stage=self.stage), now=datetime.fromtimestamp(now, UTC)
        )
        if latest is None:
            return EquityFields()
        said = json.loads(latest.body).get("constraints", {})

        def field(name: str) -> str | None:
            return json.dumps(said[name]) if name in said else None  # a text stays in its quotes

        return EquityFields(
            field("equity_usd"),
            field("wallet_balance"),
            repr(latest.as_of.timestamp()),
            field("net_flow_usd"),
        )


EquitySource: TypeAlias = EquityHash | SnapshotEquity
Snapshots: TypeAlias = dict[str, PositionFields | None]


def read(redis: redis.Redis, source: EquitySource, now: float) -> tuple[Snapshots, EquityFields]:
    """The position snapshots by symbol and the equity: SCAN, then one pipeline.

    A symbol with both keys has its position in `quantum:position:snapshot:{symbol}`. One that is
    no hash is None; one that went between SCAN and pipeline is left out. An equity key that is no
    hash says no number.

    Args:
        redis: a client with or without `decode_responses`.
        source: of the equity.
        now: unix seconds.

    Raises:
        redis.RedisError: Redis is out of reach or refuses the commands.
        StoreUnavailable: the equity is the hub's, and its database is out of reach.
    """
    found = [(prefix, symbol) for prefix in POSITION_PREFIXES for symbol in _symbols(redis, prefix)]
    pipeline = redis.pipeline(transaction=False)
    for prefix, symbol in found:
        pipeline.hgetall(prefix + symbol)
    if isinstance(source, EquityHash):
        pipeline.hmget(source.key, *EquityFields._fields)
    replies = [_readable(reply) for reply in pipeline.execute(raise_on_error=False)]
    snapshots: Snapshots = {}
    for (_, symbol), fields in zip(found, replies, strict=False):
        if symbol not in snapshots and fields != {}:
            snapshots[symbol] = None if fields is None else _position_fields(fields)
    if isinstance(source, SnapshotEquity):
        return snapshots, source.read(now)
    said = replies[-1]
    return snapshots, EquityFields("no hash") if said is None else EquityFields(*said)


def _symbols(redis: redis.Redis, prefix: str) -> set[str]:
    keys: Iterable[bytes | str] = redis.scan_iter(match=f"{prefix}*", count=_SCAN_COUNT)
    return {_text(key).removeprefix(prefix) for key in keys} - {""}


def _readable(reply: object) -> Any:
    """The reply; None for a key of the wrong type."""
    if isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE"):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _position_fields(fields: dict[bytes | str, bytes | str]) -> PositionFields:
    by_name = {_text(name): value for name, value in fields.items()}
    return PositionFields(*(by_name.get(name) for name in PositionFields._fields))


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
