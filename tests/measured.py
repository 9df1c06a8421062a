"""A hub whose snapshots have risk numbers and outcomes, without Dagster."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from databases import migrate

from riskhub.days import each_day
from riskhub.demo.history import ACTOR, STAGE
from riskhub.metrics import numbers_of
from riskhub.outcomes import outcomes_of_days
from riskhub.portfolio import Sources
from riskhub.prices import load_panel
from riskhub.settings import RiskSettings, Settings
from riskhub.snapshot import validate
from riskhub.store import Store, create_engine

PANEL = load_panel(Settings.model_fields["prices_path"].default)
NOW = datetime(2026, 1, 31, tzinfo=UTC)


@contextmanager
def measured_hub(path: Path, snapshots: Sequence[Mapping[str, Any]]) -> Iterator[Store]:
    """A store on a new SQLite file, with these snapshots landed, accepted, measured and met."""
    engine = create_engine(f"sqlite:///{path}")
    migrate(engine)
    store = Store(engine)
    store.land(
        [
            validate(one, world_id=None, actor=ACTOR, stage=STAGE, received_at=NOW)
            for one in snapshots
        ]
    )
    sources = Sources(PANEL, window=500, min_returns=250, sigma=0.03, correlation=0.8)
    rows: dict[str, list[dict[str, Any]]] = {
        "validated_snapshots": [],
        "snapshot_weights": [],
        "risk_metrics": [],
        "risk_tails": [],
    }
    weights = {(one["world_id"], one["version"]): one["weights"] for one in snapshots}
    for landed in store.landed_on(date(1990, 1, 1), date(2022, 12, 31)):
        held = weights[landed.world_id, landed.version]
        (measured,) = numbers_of([landed], {landed.position: held}, sources, RiskSettings())
        shared = {"position": landed.position, "day": landed.day, "world_id": landed.world_id}
        rows["validated_snapshots"].append(
            shared
            | {
                "version": landed.version,
                "as_of": landed.as_of,
                "stage": landed.stage,
                "digest": landed.digest,
                "accepted": True,
                "reasons": [],
                "flags": [],
                "evidence": None,
                "schema_version": "1",
            }
        )
        rows["snapshot_weights"] += [
            shared | {"symbol": symbol, "weight": weight} for symbol, weight in held.items()
        ]
        rows["risk_metrics"].append(measured.metrics)
        rows["risk_tails"] += measured.tails
    days = sorted({row["day"] for row in rows["risk_metrics"]})
    store.write_days(rows, days, replace=True)
    met = each_day(days[0], days[-1] + timedelta(days=7))
    store.write_outcomes(outcomes_of_days(store, PANEL, met, worlds=None).rows, met)
    yield store
    store.close()
