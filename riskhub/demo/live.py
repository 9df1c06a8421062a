"""A live producer: replays the panel as if it happened now, a trading day a post.

Every world is posted with `stage=paper` and `as_of` now: weights, covariance, realized returns and
stress as of the day on the tape. Equity, positions, regimes and cluster stress go into Redis for
the governor, more often, because its inputs are stale after 30 seconds.
"""

import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import cycle
from typing import Any

import httpx
import numpy as np
import redis
from numpy.typing import NDArray
from rich.console import Console

from riskhub import bootstrap
from riskhub.demo.history import headers
from riskhub.demo.worlds import World, weights_by_day, worlds_of
from riskhub.prices import PricePanel
from riskhub.risk import current_drawdown, portfolio_returns, volatility
from riskhub.settings import Settings
from riskhub.snapshot import format_instant

STAGE = "paper"
POST_EVERY_SEC = 30.0
STATE_EVERY_SEC = 10.0
STATE_TTL_SEC = 120
START_EQUITY_USD = 250_000.0
TAPE_FROM = date(2020, 1, 2)
_COVARIANCE_DAYS = 250
_SIGMA_DAYS = 20
# Crises that the panel saw: (first day, last day).
SCENARIOS = {
    "october_2008": (date(2008, 10, 1), date(2008, 10, 31)),
    "covid_2020": (date(2020, 2, 20), date(2020, 3, 23)),
    "dotcom_2000": (date(2000, 9, 1), date(2001, 4, 4)),
}


def run(settings: Settings, console: Console) -> None:
    """Produce until SIGTERM or SIGINT; a hub or Redis that is away is told, and tried again."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    panel = bootstrap.price_panel(settings)
    tape = _tape(panel)
    day, weights = next(tape)
    next_post = 0.0
    with httpx.Client(timeout=10.0) as client, bootstrap.redis_client(settings) as state:
        while not stop.is_set():
            try:
                write_state(state, panel, day, time.time())
                if time.monotonic() >= next_post:
                    day, weights = next(tape)
                    _post_all(client, settings, panel, day, weights)
                    next_post = time.monotonic() + POST_EVERY_SEC
            except (httpx.HTTPError, redis.RedisError) as error:
                console.print(f"not produced, tried again in {STATE_EVERY_SEC:.0f} s: {error}")
            stop.wait(STATE_EVERY_SEC)


def document(
    world: World,
    panel: PricePanel,
    day: date,
    weights: NDArray[np.float64],
    *,
    window: int,
    now: datetime,
) -> dict[str, Any]:
    """One world's paper snapshot: as of now, with the numbers of a day on the tape."""
    recent = panel.window(world.symbols, day, window)
    covariance = np.atleast_2d(np.cov(recent[-_COVARIANCE_DAYS:], rowvar=False))
    return {
        "as_of": format_instant(now),
        "version": f"paper-{now:%Y%m%dT%H%M%S.%f}",
        "weights": dict(zip(world.symbols, weights.tolist(), strict=True)),
        "covariance": {
            f"{first},{second}": float(covariance[row, column])
            for row, first in enumerate(world.symbols)
            for column, second in enumerate(world.symbols)
            if row <= column
        },
        "realized_returns": {"portfolio": portfolio_returns(recent, weights).tolist()},
        "stress": {
            name: {"pnl": _scenario(world, panel, weights, first, last)}
            for name, (first, last) in SCENARIOS.items()
        },
        "provenance": {"tape_day": str(day), "prices": panel.digest},
    }


def write_state(state: redis.Redis, panel: PricePanel, day: date, now: float) -> None:
    """What the governor reads: equity, positions, regimes by sigma and the cluster's stress."""
    market = panel.window(panel.symbols, day, 500)
    book = portfolio_returns(market, np.full(len(panel.symbols), 1.0 / len(panel.symbols)))
    drawdown = current_drawdown(book)
    equity = START_EQUITY_USD * float(np.prod(1.0 + book))
    prices = panel.prices[panel.days.index(day)]
    pipeline = state.pipeline(transaction=False)
    _write(
        pipeline,
        "quantum:state:portfolio",
        {"equity_usd": round(equity, 2), "drawdown": round(drawdown, 6), "timestamp": int(now)},
    )
    _write(pipeline, "quantum:cluster:stress:default", {"stress": round(min(1.0, drawdown * 2), 6)})
    for column, symbol in enumerate(panel.symbols):
        price = float(prices[column])
        _write(
            pipeline,
            f"quantum:position:snapshot:{symbol}",
            {"position_amt": equity / len(panel.symbols) / price, "mark_price": price},
        )
        sigma = volatility(market[-_SIGMA_DAYS:, column])
        _write(pipeline, f"quantum:state:market:{symbol}", {"sigma": round(sigma, 6)})
    pipeline.execute()


def _write(pipeline: Any, key: str, fields: dict[str, float]) -> None:
    pipeline.hset(key, mapping=fields)
    pipeline.expire(key, STATE_TTL_SEC)  # a demo that ended leaves no positions behind


def _post_all(
    client: httpx.Client,
    settings: Settings,
    panel: PricePanel,
    day: date,
    weights: dict[str, NDArray[np.float64]],
) -> None:
    for world in worlds_of(panel):
        snapshot = document(
            world,
            panel,
            day,
            weights[world.world_id],
            window=settings.risk_window,
            now=datetime.now(UTC),
        )
        client.post(
            f"{settings.api_url}/risk-hub/worlds/{world.world_id}/snapshots",
            json=snapshot,
            headers=headers(settings, STAGE),
        ).raise_for_status()


def _tape(panel: PricePanel) -> Iterator[tuple[date, dict[str, NDArray[np.float64]]]]:
    """Trading days from the tape's start on, round and round, with each world's weights."""
    worlds = worlds_of(panel)
    by_world = {world.world_id: dict(weights_by_day(world, panel)) for world in worlds}
    for day in cycle([day for day in panel.days if day >= TAPE_FROM] or panel.days[-1:]):
        yield day, {world_id: weights[day] for world_id, weights in by_world.items()}


def _scenario(
    world: World, panel: PricePanel, weights: NDArray[np.float64], first: date, last: date
) -> float:
    """What the portfolio as weighted now would have made of equity over a crisis."""
    days = [row for row, day in enumerate(panel.return_days) if first <= day <= last]
    growth = np.prod(1.0 + panel.returns[days][:, panel.columns(world.symbols)], axis=0)
    return float(np.dot(weights, growth - 1.0))
