"""A price file with the returns that a test wants, and forecasts that meet them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import accept
from stored import metrics, tail, verdict

from riskhub.store import Store

SYMBOL, CASH = "AAA", "CASH"
FIRST_DAY = date(2020, 1, 1)
VAR, ES = 0.02, 0.03
CALM, CRASH = 0.001, -0.05


def trading_days(count: int) -> list[date]:
    """Mondays to Fridays from the first day on."""
    days = (FIRST_DAY + timedelta(days=n) for n in range(2 * count + 10))
    return [day for day in days if day.weekday() < 5][:count]


def write_prices(path: Path, returns: Sequence[float]) -> list[date]:
    """Prices with these returns of `SYMBOL`, a day each, after a first day; gives all of the days.

    Beside it stands `CASH`, which returns nothing.
    """
    days, price = trading_days(len(returns) + 1), 100.0
    lines = [f"Date,{SYMBOL},{CASH}", f"{days[0]},{price!r},1"]
    for day, earned in zip(days[1:], returns, strict=True):
        price *= 1 + earned
        lines.append(f"{day},{price!r},1")
    path.write_text("\n".join(lines) + "\n")
    return days


def commit(
    store: Store,
    days: Iterable[date],
    *,
    world_id: str = "equities",
    stage: str = "backtest",
    hour: int = 21,
    methods: Sequence[str] = ("historical", "normal"),
    weights: dict[str, float] | None = None,
    var: float = VAR,
) -> list[int]:
    """Land a snapshot a day with its numbers, as if each had been measured; their positions."""
    held = weights or {SYMBOL: 1.0}
    tables: dict[str, list[dict[str, Any]]] = {
        "validated_snapshots": [],
        "snapshot_weights": [],
        "risk_metrics": [],
        "risk_tails": [],
        "snapshot_stress": [],
    }
    positions = []
    offered = list(days)
    before = store.head()
    store.land(
        [
            accept(
                version=f"v{before + number}",
                world_id=world_id,
                stage=stage,
                as_of=_at(day, hour).isoformat(),
                received_at=_at(day, hour) + timedelta(minutes=5),
                weights=held,
            )
            for number, day in enumerate(offered)
        ]
    )
    for position, day in enumerate(offered, start=before + 1):
        its = {"day": day, "world_id": world_id}
        named = its | {"as_of": _at(day, hour), "stage": stage, "version": f"v{position - 1}"}
        tables["validated_snapshots"].append(verdict(position, **named))
        tables["risk_metrics"].append(metrics(position, **named))
        tables["snapshot_weights"] += [
            its | {"position": position, "symbol": symbol, "weight": weight}
            for symbol, weight in held.items()
        ]
        tables["risk_tails"] += [
            tail(position, level, day=day, method=method, var=var * share, es=ES * share)
            for method in methods
            for level, share in (("0.95", 0.7), ("0.975", 0.8), ("0.99", 1.0))
        ]
        tables["snapshot_stress"].append(
            named
            | {
                "position": position,
                "book_digest": "sha256:0",
                "snapshot_digest": "sha256:0",
                "prices_digest": "sha256:0",
                "covariance_source": None,
                "loss_limit": 0.2,
                "against": None,
                "market": None,
                "code_version": "riskhub/0",
            }
        )
        positions.append(position)
    store.write_days(tables, sorted(set(offered)), replace=False)
    return positions


def _at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
