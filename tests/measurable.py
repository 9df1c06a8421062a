"""Snapshots and a price panel that numbers can be made from, without a hub."""

from datetime import date, timedelta
from typing import Any

import numpy as np
from builders import accept

from riskhub.prices import PricePanel
from riskhub.store.landing import Landed

SYMBOLS = ("AAA", "BBB", "CCC")
LAST_DAY = date(2026, 1, 30)


def panel_of(length: int = 400) -> PricePanel:
    """Three symbols that wander, on every day up to `LAST_DAY`."""
    steps = 0.008 * np.random.default_rng(11).standard_t(5, (length, len(SYMBOLS)))
    prices = 100 * np.cumprod(1 + steps, axis=0)
    days = tuple(LAST_DAY - timedelta(days=length - 1 - n) for n in range(length))
    return PricePanel(SYMBOLS, days, prices, "sha256:panel")


PANEL = panel_of()
WEIGHTS = {"BBB": -0.5, "AAA": 1.5}


def accepted(weights: dict[str, float] = WEIGHTS, *, day: date = LAST_DAY, **fields: Any) -> Landed:
    as_of = f"{day}T21:00:00Z"
    snapshot = accept(as_of=as_of, weights=weights, **fields)
    return Landed(
        position=7,
        world_id=snapshot.world_id,
        version=snapshot.version,
        as_of=snapshot.as_of,
        stage=snapshot.stage,
        digest=snapshot.digest,
        body=snapshot.body,
    )
