"""What runs because something happened: landings are computed, and freshness is told.

The landing sensor is level-triggered: each tick asks the store what is not computed yet, so a tick
that is lost, a run that failed or a backfill in between needs no bookkeeping. Its cursor only says
up to which landing position everything is known to be done, which keeps the question cheap.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from riskhub.days import cut, each_day, stretches
from riskhub.store.derived import Pending, PendingDay
from riskhub_dagster.assets.daily import ONLY_NEW_TAG
from riskhub_dagster.checks.freshness import LANDED, assess_now, digest_of, evaluation
from riskhub_dagster.metadata import table
from riskhub_dagster.resources import RiskHub

VALIDATED = dg.AssetKey("validated_snapshots")
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
STRETCH_TAG = "riskhub/days"
# In the queue of runs: what landed just now comes before the runs of a long backfill.
PRIORITY_TAG = "dagster/priority"

# One for today's landings and one for history, so that neither waits for the other. Where history
# is cut, each tick asks for one or two pieces more, until all of them are under way.
RUNS_PER_TICK = 2
# History that is still arriving is a bulk load: let it settle and compute it as few ranges.
HISTORY_SETTLES_AFTER = timedelta(seconds=60)
RETRY_BASE = timedelta(seconds=30)
RETRY_CAP = timedelta(hours=1)

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

landing_job = dg.define_asset_job(
    "compute_landed",
    selection=[
        "validated_snapshots",
        "snapshot_weights",
        "risk_metrics",
        "risk_contributions",
        "stress_results",
    ],
    description=(
        "From what landed on a day to its risk numbers. The landing sensor starts it, and then "
        "only what is new is computed; started by hand it makes the days anew."
    ),
)

# What a person asks for, in the UI or by `riskhub compute`.
days_job = dg.define_asset_job(
    "compute_days",
    selection=[
        "validated_snapshots",
        "snapshot_weights",
        "risk_metrics",
        "risk_contributions",
        "stress_results",
        "var_outcomes",
        "var_backtests",
    ],
    description=(
        "Everything of a range of days made anew, up to their backtests. Nothing starts it but "
        "people: `riskhub compute`, or a backfill here, one run a range."
    ),
)


@dg.sensor(
    job=landing_job,
    minimum_interval_seconds=9,  # Dagster looks every 5 s: 10 would be 10 and 15 s in turn
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Every 10 s: computes what landed and is not computed yet, one run for the days it is "
        "about. History waits until no more of it has arrived for a minute."
    ),
)
def landing_sensor(
    context: dg.SensorEvaluationContext, hub: RiskHub
) -> dg.SensorResult | dg.SkipReason:
    """Request runs for the days with landings that have no risk numbers yet."""
    cursor = json.loads(context.cursor) if context.cursor else {"done": 0, "seen": 0}
    pending = with_partition(
        hub.store.pending_days(after=cursor["done"]), hub.settings.partitions_start
    )
    new_cursor = json.dumps({"done": pending.done_up_to, "seen": pending.head})
    observed = _observation(cursor["seen"], pending.head, pending.days)
    now = datetime.now(UTC)

    runs = context.instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
    busy = days_of_runs(runs) | days_of_backfills(context, VALIDATED)
    ready = [
        day.day
        for day in pending.days
        if day.day <= now.date()  # tomorrow's has no partition before midnight
        and (_is_live(day.day, now) or now - day.newest_receipt >= HISTORY_SETTLES_AFTER)
    ]
    ranges = stretches(ready, avoid=frozenset(busy))
    newest_first = reversed(cut(ranges, hub.settings.backfill_days_per_run))
    chosen = [
        stretch
        for stretch in newest_first
        if not backs_off(context.instance, {STRETCH_TAG: _name(*stretch)}, now)
    ][:RUNS_PER_TICK]
    if not chosen:
        waiting = sum(day.count for day in pending.days)
        reason = f"{waiting} landings wait for a run or for more" if waiting else "nothing new"
        return dg.SensorResult(skip_reason=reason, cursor=new_cursor, asset_events=observed)
    return dg.SensorResult(
        run_requests=[_run_request(*stretch, live=_is_live(stretch[1], now)) for stretch in chosen],
        cursor=new_cursor,
        asset_events=observed,
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells each world's freshness as an asset check, without a run, when it changes.",
)
def freshness_sensor(context: dg.SensorEvaluationContext, hub: RiskHub) -> dg.SensorResult:
    """Evaluate `worlds_are_fresh` when a world changed its state."""
    worlds = assess_now(hub.store, hub.settings)
    states = digest_of(worlds)
    if states == context.cursor:
        return dg.SensorResult(skip_reason="no world changed its state")
    return dg.SensorResult(asset_events=[evaluation(worlds)], cursor=states)


def days_of_runs(runs: Iterable[dg.DagsterRun]) -> set[date]:
    """The days that runs write, by their partition tags."""
    days: set[date] = set()
    for run in runs:
        single = run.tags.get(PARTITION_TAG)
        first, last = run.tags.get(RANGE_START_TAG, single), run.tags.get(RANGE_END_TAG, single)
        if first and last:
            days.update(each_day(date.fromisoformat(first), date.fromisoformat(last)))
    return days


def days_of_backfills(context: dg.SensorEvaluationContext, *assets: dg.AssetKey) -> set[date]:
    """The days of these assets that requested backfills are about to write.

    Their runs may not exist yet.
    """
    repository = context.repository_def
    if repository is None:
        return set()
    graph = repository.asset_graph
    days: set[date] = set()
    requested = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    for backfill in context.instance.get_backfills(filters=requested):
        written = set(assets).intersection(backfill.asset_selection or ())
        if not backfill.is_asset_backfill or not written:
            continue
        target = backfill.get_asset_backfill_data(graph).target_subset
        for asset in written:
            subset = target.get_partitions_subset(asset)
            days.update(date.fromisoformat(key) for key in subset.get_partition_keys())
    return days


def with_partition(pending: Pending, partitions_start: date) -> Pending:
    """Without the days before the first partition: they can't be computed, nor waited for."""
    return replace(pending, days=tuple(d for d in pending.days if d.day >= partitions_start))


def _is_live(day: date, now: datetime) -> bool:
    return day >= now.date() - timedelta(days=1)


def backs_off(instance: dg.DagsterInstance, tags: Mapping[str, str], now: datetime) -> bool:
    """Whether the last runs with these tags failed so recently that the next one should wait."""
    records = instance.get_run_records(filters=dg.RunsFilter(tags=dict(tags)), limit=8)
    failures = 0
    for record in records:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return False
    delay = min(RETRY_BASE * 2 ** (failures - 1), RETRY_CAP)
    ended: float = records[0].end_time or 0.0
    return bool(now.timestamp() < ended + delay.total_seconds())


def _run_request(first: date, last: date, *, live: bool) -> dg.RunRequest:
    tags = {ONLY_NEW_TAG: "true", STRETCH_TAG: _name(first, last)}
    if live:
        tags[PRIORITY_TAG] = "1"
    if first == last:
        return dg.RunRequest(partition_key=first.isoformat(), tags=tags)
    ends = {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(tags=tags | ends)


def _name(first: date, last: date) -> str:
    return first.isoformat() if first == last else f"{first}..{last}"


def _observation(seen: int, head: int, days: Sequence[PendingDay]) -> list[dg.AssetObservation]:
    """What landed since the last tick, on the external asset's page."""
    if head == seen:
        return []
    rows = [{"day": day.day, "waiting": day.count} for day in reversed(days)]
    return [
        dg.AssetObservation(
            LANDED,
            metadata={
                "position": head,
                "landed_since_last_tick": head - seen,
                "waiting": table(rows, ["day", "waiting"]),
            },
        )
    ]
