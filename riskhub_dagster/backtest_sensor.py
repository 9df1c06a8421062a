"""What runs because an outcome came to be known, or belongs to another forecast than it says.

Level-triggered, like the landing sensor: each tick asks the store what is due. Two things bound
what a tick costs: the cursor says up to which landing everything was done when nothing was due, and
only when prices have changed, or ten minutes have passed, is all of history looked at again.
"""

import json
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from riskhub.outcomes import due_outcomes
from riskhub.store import Store
from riskhub.store.backtests import WorldDay
from riskhub_dagster.assets.daily import WORLDS_TAG
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import (
    RANGE_END_TAG,
    RANGE_START_TAG,
    UNFINISHED,
    backs_off,
    days_of_backfills,
    days_of_runs,
    with_partition,
)

OUTCOMES_TAG = "riskhub/outcomes"
LOOKS_BACK_EVERY = timedelta(minutes=10)
# Forecasts of an outcome lie that far before it at most: the longest closure of an exchange.
FORECASTS_WITHIN = timedelta(days=8)
# A tag of so many names can still be read; beyond it a run is about all worlds.
MAX_NAMED_WORLDS = 20

_WRITTEN = [dg.AssetKey(name) for name in ("risk_metrics", "var_outcomes", "var_backtests")]

backtest_job = dg.define_asset_job(
    "compute_backtests",
    selection=["var_outcomes", "var_backtests"],
    description=(
        "What forecasts met, and how good each method has been up to each day. The outcome sensor "
        "starts it once the prices of a trading day are there."
    ),
)


@dataclass(frozen=True, slots=True)
class _Done:
    """Where nothing was due any more: of landings, of prices, and when all was looked at."""

    position: int = 0
    prices: str = ""
    looked_back_at: float = 0.0


@dg.sensor(
    job=backtest_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every 30 s: computes outcomes that came to be known or belong to an overtaken forecast, "
        "with the backtests from that day on: one run for the worlds it is about."
    ),
)
def outcome_sensor(
    context: dg.SensorEvaluationContext, hub: RiskHub
) -> dg.SensorResult | dg.SkipReason:
    """Request a run from the first outcome that is due to the last there is."""
    done = _Done(**json.loads(context.cursor)) if context.cursor else _Done()
    now, panel = datetime.now(UTC), hub.panel
    looks_back = (
        done.prices != panel.digest
        or now.timestamp() >= done.looked_back_at + LOOKS_BACK_EVERY.total_seconds()
    )
    # Asked before what is due: what is measured in between is then looked at twice, never missed.
    pending = hub.store.pending_days(after=done.position)
    computed = with_partition(pending, hub.settings.partitions_start).done_up_to
    due = due_outcomes(
        hub.store,
        panel,
        after=0 if looks_back else done.position,
        first_day=hub.settings.partitions_start,
    )
    due = {key for key in due if key[2] <= now.date()}  # tomorrow has no partition yet
    if not due:
        looked_back_at = now.timestamp() if looks_back else done.looked_back_at
        cursor = {
            "position": computed,
            "prices": panel.digest,
            "looked_back_at": looked_back_at,
        }
        return dg.SensorResult(skip_reason="nothing is due", cursor=json.dumps(cursor))

    last = max(day for _, _, day in due)
    last = max(last, hub.store.newest_outcome_day() or last)
    runs = context.instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
    busy = days_of_runs(runs) | days_of_backfills(context, *_WRITTEN)
    free = _clear_of({day for day in busy if day <= last}, due)
    if not free:
        return dg.SkipReason(f"{len(due)} outcomes wait for runs of these days to end")
    request = _run_request(hub.store, free)
    if backs_off(context.instance, {OUTCOMES_TAG: request.tags[OUTCOMES_TAG]}, now):
        return dg.SkipReason(f"{len(due)} outcomes wait, for their last run failed")
    return dg.SensorResult(run_requests=[request])


def _clear_of(busy: Set[date], due: Set[WorldDay]) -> set[WorldDay]:
    """Those for which no run writes a day from that of their forecast on."""
    return {key for key in due if not busy or key[2] - FORECASTS_WITHIN > max(busy)}


def _run_request(store: Store, due: Set[WorldDay]) -> dg.RunRequest:
    """One run over all of the days: each outcome also counts in the backtests that follow it."""
    worlds = sorted({world_id for world_id, _, _ in due})
    days = [day for _, _, day in due]
    newest = store.newest_outcome_day(worlds)
    first, last = min(days), max([*days, *([newest] if newest else [])])
    tags = {OUTCOMES_TAG: f"{first}..{last}"}
    if len(worlds) <= MAX_NAMED_WORLDS:
        tags[WORLDS_TAG] = ",".join(worlds)
    if first == last:
        return dg.RunRequest(partition_key=first.isoformat(), tags=tags)
    ends = {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(tags=tags | ends)
