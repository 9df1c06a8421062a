"""What the daily assets have in common: partitions, one run per range, and what a run replaces."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg

from riskhub.metrics import CODE_VERSION
from riskhub.store.landing import Landed
from riskhub_dagster.partitions import daily_partitions

OWNER = "team:risk-platform"
# On runs that the landing sensor starts: add what landed since, leave the day's other rows.
ONLY_NEW_TAG = "riskhub/only_new"

Step = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def daily_asset(
    key: str,
    *,
    deps: Sequence[str],
    group: str,
    description: str,
    kinds: set[str],
    metadata: dict[str, Any],
    check_specs: Sequence[dg.AssetCheckSpec] = (),
) -> Callable[[Callable[..., Step]], dg.AssetsDefinition]:
    """An asset of daily partitions that a backfill computes as ranges, one run each.

    It may yield no materialization, for a day of which nothing can be accepted.
    """
    spec = dg.AssetSpec(
        key,
        deps=list(deps),
        group_name=group,
        description=description,
        kinds=kinds,
        owners=[OWNER],
        metadata=metadata,
        partitions_def=daily_partitions(),
        code_version=CODE_VERSION,
        skippable=True,
    )
    # A multi_asset of one, because `backfill_policy` is settled on it and in beta on `asset`.
    return dg.multi_asset(
        name=key,
        specs=[spec],
        check_specs=check_specs,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
    )


def newest_position(read: Sequence[Landed]) -> int:
    """The newest landing among what a run has read; 0 when it was nothing."""
    return max((snapshot.position for snapshot in read), default=0)


def replaces_days(context: dg.AssetExecutionContext) -> bool:
    """Whether this run makes its days anew (a backfill), or only adds what is new (the sensor)."""
    return context.run.tags.get(ONLY_NEW_TAG) != "true"
