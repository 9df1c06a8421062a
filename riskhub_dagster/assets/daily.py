"""What the daily assets have in common: partitions, runs over ranges, and what a run replaces."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from riskhub.metrics import CODE_VERSION
from riskhub.store.landing import Landed
from riskhub_dagster.partitions import backfill_policy, daily_partitions, in_chunks
from riskhub_dagster.resources import RiskHub

OWNER = "team:risk-platform"
# On runs that the landing sensor starts: add what landed since, leave the day's other rows.
ONLY_NEW_TAG = "riskhub/only_new"
# On runs that are about some worlds only: their ids, with commas between.
WORLDS_TAG = "riskhub/worlds"
_BATCH = 256
_LOOKING_BACK = "looking_back"

Step = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def daily_spec(
    key: str,
    *,
    deps: Sequence[str],
    group: str,
    description: str,
    kinds: set[str],
    metadata: dict[str, Any],
    tags: dict[str, str],
) -> dg.AssetSpec:
    """An asset of daily partitions; see `daily_assets`."""
    return dg.AssetSpec(
        key,
        deps=list(deps),
        group_name=group,
        description=description,
        kinds=kinds,
        owners=[OWNER],
        metadata=metadata,
        tags=tags,
        partitions_def=daily_partitions(),
        code_version=CODE_VERSION,
        skippable=True,
    )


def daily_assets(
    name: str, specs: Sequence[dg.AssetSpec], check_specs: Sequence[dg.AssetCheckSpec]
) -> Callable[[Callable[..., Step]], dg.AssetsDefinition]:
    """Assets of daily partitions that are computed together, by a backfill as ranges.

    They may yield no materialization, for a day of which nothing can be accepted.
    """
    return dg.multi_asset(
        name=name,
        specs=specs,
        check_specs=check_specs,
        backfill_policy=backfill_policy(),
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
    )


def daily_asset(
    key: str, *, check_specs: Sequence[dg.AssetCheckSpec] = (), **spec: Any
) -> Callable[[Callable[..., Step]], dg.AssetsDefinition]:
    """One asset of daily partitions; takes what `daily_spec` takes."""
    # A multi_asset of one, because `backfill_policy` is settled on it and in beta on `asset`.
    return daily_assets(key, [daily_spec(key, **spec)], check_specs)


def newest_position(read: Sequence[Landed]) -> int:
    """The newest landing among what a run has read; 0 when it was nothing."""
    return max((snapshot.position for snapshot in read), default=0)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run computes.

    `anew`: it makes its days anew (a backfill), else it adds what is new (the sensor). `worlds`:
    only of these; None is all. `run_id`: what its progress is noted under.
    """

    anew: bool
    worlds: frozenset[str] | None
    run_id: str

    def missing_from(self, table: str) -> str | None:
        """The table that rows have to be missing from, for the store's readers."""
        return None if self.anew else table


def scope_of(context: dg.AssetExecutionContext) -> Scope:
    """What the tags of the run say. A run that is tried again has the id of the first try."""
    tags = context.run.tags
    return Scope(
        anew=tags.get(ONLY_NEW_TAG) != "true",
        worlds=frozenset(tags[WORLDS_TAG].split(",")) if WORLDS_TAG in tags else None,
        run_id=context.run.root_run_id or context.run.run_id,
    )


@contextmanager
def chunks_to_write(
    hub: RiskHub, scope: Scope, table: str, days: Sequence[date], *, looks_back: bool = False
) -> Iterator[Iterator[Sequence[date]]]:
    """The days of a table, a chunk at a time, each claimed while the caller works on it.

    A run that is tried again gets what the first try has not written. `table` is the first of
    those that the caller writes; a write has to be given `run_id=scope.run_id`. `looks_back`: it
    reads also days before the chunk; then nobody else who does works meanwhile, on any day.
    """
    claimed = _claimed(hub, scope, table, days, looks_back)
    with closing(claimed) as chunks:  # an error must end the claim, too
        yield chunks


def _claimed(
    hub: RiskHub, scope: Scope, table: str, days: Sequence[date], looks_back: bool
) -> Generator[Sequence[date]]:
    written = hub.store.written_by(scope.run_id, table)
    sizes = hub.store.landings_per_day(days[0], days[-1])
    for chunk in in_chunks([day for day in days if day not in written], sizes):
        with ExitStack() as claims:
            if (
                looks_back
            ):  # else a backtest could be written that has not seen an outcome before it
                claims.enter_context(hub.store.claim(_LOOKING_BACK, [date.min]))
            claims.enter_context(hub.store.claim(table, chunk))
            yield chunk
    hub.store.forget_progress(scope.run_id, table)


def accepted_batches(
    hub: RiskHub, scope: Scope, table: str, chunk: Sequence[date]
) -> Iterator[tuple[list[Landed], dict[int, dict[str, float]]]]:
    """The accepted snapshots of a chunk of days that a table is to have, with their weights.

    A few hundred at a time: what is made of them may be large, such as a covariance each.
    """
    after = 0
    while batch := hub.store.accepted_on(
        chunk[0],
        chunk[-1],
        missing_from=scope.missing_from(table),
        worlds=scope.worlds,
        after=after,
        limit=_BATCH,
    ):
        after = batch[-1].position
        weights = hub.store.weights_at([snapshot.position for snapshot in batch])
        # One that was accepted a moment ago by another run has no weights yet, and is that run's.
        yield [snapshot for snapshot in batch if snapshot.position in weights], weights
