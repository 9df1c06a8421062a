"""What the governor takes from the hub's own risk numbers, where the settings name a world.

    heat = clamp(ES / heat_es_limit, 0, 1)
    share of a symbol = its ES / the sum of them

with ES the expected shortfall of one day as a fraction of equity: for the heat the historical one
at 97.5 % of the world's newest snapshot that has numbers, for the shares the component one (99 %).
Fresh while that snapshot has not expired; after that, and when the database is away or there are no
such numbers, `missing`. A heat that is asked for and missing is 1.0, like that of a page.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

from riskhub.errors import StoreNotMigrated, StoreUnavailable
from riskhub.governor.inputs import NO_SHARES, WORST, GovernorInputs, Input, Shares
from riskhub.governor.settings import GovernorSettings

if TYPE_CHECKING:  # who only wants settings does not wait for SQLAlchemy
    from riskhub.store import Store

HEAT_METHOD, HEAT_LEVEL = "historical", "0.975"
_NO_STORE = (StoreUnavailable, StoreNotMigrated)


def with_hub(
    inputs: GovernorInputs, store: Store | None, settings: GovernorSettings, now: float
) -> GovernorInputs:
    """The inputs with heat and shares from the hub, as far as the settings ask for them.

    Args:
        inputs: as read from Redis.
        store: of the hub; None: nothing can be read, and what is asked for is `missing`.
        settings: which worlds.
        now: unix seconds, against which snapshots expire.
    """
    at = datetime.fromtimestamp(now, UTC)
    if settings.heat_url is None and settings.heat_world is not None:
        heat = read_heat(store, settings.heat_world, limit=settings.heat_es_limit, at=at)
        inputs = replace(inputs, heat=heat)
    if settings.contribution_world is not None:
        shares = read_shares(store, settings.contribution_world, at=at)
        inputs = replace(inputs, shares=shares)
    return inputs


def read_heat(store: Store | None, world_id: str, *, limit: float, at: datetime) -> Input[float]:
    """The heat of a world: its expected shortfall as a part of `limit`, at most 1."""
    missing = Input(WORST, "missing")
    if store is None:
        return missing
    from riskhub.store.numbers import NumbersFilter  # noqa: PLC0415 - imports SQLAlchemy

    try:
        which = NumbersFilter(method=HEAT_METHOD, level=HEAT_LEVEL)
        row, expired = _newest(store, store.numbers(world_id, which, limit=1).rows, at)
    except _NO_STORE:
        return missing
    if row is None or not row["tails"]:
        return replace(missing, as_of=expired)
    (tail,) = row["tails"]
    if not isfinite(tail["es"]):
        return Input(WORST, "malformed")
    age = (at - row["as_of"]).total_seconds()
    heat = min(max(tail["es"] / limit, 0.0), 1.0)
    return Input(heat, "fresh", max(age, 0.0), as_of=row["as_of"].timestamp())


def read_shares(store: Store | None, world_id: str, *, at: datetime) -> Input[Shares]:
    """Of each symbol of a world its share of the expected shortfall; a hedge has a negative one."""
    missing = replace(NO_SHARES, policy="missing")
    if store is None:
        return missing
    try:
        row, expired = _newest(store, store.contributions(world_id, limit=1).rows, at)
    except _NO_STORE:
        return missing
    if row is None:
        return replace(missing, as_of=expired)
    parts = {one["symbol"]: one["es"] for one in row["contributions"]}
    total = sum(parts.values())
    if not parts or not isfinite(total) or total <= 0:
        return missing  # nothing to share
    shares = {symbol: es / total for symbol, es in parts.items()}
    if not all(map(isfinite, shares.values())):
        return missing
    age = (at - row["as_of"]).total_seconds()
    return Input(shares, "fresh", max(age, 0.0), as_of=row["as_of"].timestamp())


def _newest(
    store: Store, rows: list[dict[str, Any]], at: datetime
) -> tuple[dict[str, Any] | None, float | None]:
    """The row, if there is one and its snapshot has not expired; of what it is, if it has."""
    from riskhub.store import Filter  # noqa: PLC0415 - imports SQLAlchemy

    for row in rows:
        also_expired = Filter(include_expired=True)
        stored = store.by_version(row["world_id"], row["version"], also_expired, now=at)
        if stored is not None and stored.expires_at > at:
            return row, None
        if stored is not None:
            return None, stored.as_of.timestamp()
    return None, None
