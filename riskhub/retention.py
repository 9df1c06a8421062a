"""What the hub forgets: expired snapshots by a policy per stage, and blobs that nothing refers to.

`plan` says what would go and `apply` makes it go, both as `Figures`. Everything is done in short
transactions; an outage in the middle loses nothing, and the next run goes on from there. How a blob
is never removed under a snapshot that is just landing is told in `riskhub.store.retention`.

A blob store, with its directory or prefix, belongs to one database: a blob that another one refers
to is nobody's here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from riskhub.blobs import BlobStore
from riskhub.settings import RetentionSettings
from riskhub.store import Store
from riskhub.store.retention import Removable

_CHUNK = 1_000

Progress = Callable[[str, int, int | None], None]
"""Told after each step: what, how many more of it, and of how many in all when that is known."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What goes, or has gone. Without a blob store there are no blobs.

    `snapshots` has the stages of which something goes. `blobs_condemned` are those newly found
    without a reference, whose time of grace begins; of `blobs_removed` it is over.
    """

    snapshots: tuple[Removable, ...]
    blobs_condemned: int
    blobs_removed: int

    @property
    def snapshots_removed(self) -> int:
        """Of all stages."""
        return sum(stage.count for stage in self.snapshots)


def received_before(
    policy: RetentionSettings, stages: Iterable[str], now: datetime
) -> dict[str, datetime]:
    """By stage: expired snapshots received before this instant go. Pure.

    A stage that is kept for ever is not in it.
    """
    kept = {stage: policy.days.get(stage, policy.default_days) for stage in stages}
    return {stage: now - timedelta(days=days) for stage, days in kept.items() if days is not None}


def plan(
    store: Store, blobs: BlobStore | None, policy: RetentionSettings, now: datetime
) -> Figures:
    """What `apply` would do now; changes nothing.

    Args:
        blobs: None where large fields stay inline.
        now: UTC; what counts as expired, and what the days and hours of the policy count back from.

    Raises:
        StoreUnavailable, BlobsUnavailable: safe to try again.
    """
    limits = received_before(policy, store.stages(), now)
    condemned = removed = 0
    if blobs is not None:
        for refs in _chunks(blobs.refs()):
            unreferenced = store.unreferenced(refs, but_for=(limits, now))
            condemned += len(store.not_condemned(unreferenced))
        for refs in _chunks(_due(store, blobs, policy, now)):
            removed += len(store.unreferenced(refs, but_for=(limits, now)))
    return Figures(tuple(store.removable(limits, now)), condemned, removed)


def apply(
    store: Store,
    blobs: BlobStore | None,
    policy: RetentionSettings,
    now: datetime,
    progress: Progress = lambda _what, _more, _total: None,
) -> Figures:
    """Remove what the policy gives up, condemn and remove blobs; what was done.

    Two at a time do no harm.

    Args:
        blobs: None where large fields stay inline: then snapshots alone are looked at.
        now: see `plan`.
        progress: of ``snapshots``, ``blobs looked at`` and ``blobs removed``.

    Raises:
        StoreUnavailable, BlobsUnavailable: what was done until then stays done, and the rest is as
            it was; safe to try again.
    """
    limits = received_before(policy, store.stages(), now)
    removable = store.removable(limits, now)
    total = sum(stage.count for stage in removable)
    gone = []
    for stage in removable:
        limit = {stage.stage: limits[stage.stage]}
        count = store.remove_snapshots(limit, now, lambda more: progress("snapshots", more, total))
        gone.append(replace(stage, count=count))
    condemned = removed = 0
    if blobs is not None:
        for refs in _chunks(blobs.refs()):
            condemned += store.condemn_blobs(store.unreferenced(refs), now)
            progress("blobs looked at", len(refs), None)
        for ref in _due(store, blobs, policy, now):
            if store.remove_blob(ref, _grace_began(policy, now), blobs.delete):
                removed += 1
                progress("blobs removed", 1, None)
    return Figures(tuple(gone), condemned, removed)


def _due(store: Store, blobs: BlobStore, policy: RetentionSettings, now: datetime) -> Iterator[str]:
    """Condemned for longer than the time of grace; a page at a time, while they are removed."""
    last = ""
    while page := store.condemned_blobs(_grace_began(policy, now), after=last, limit=_CHUNK):
        # One of a store that was configured once stays noted, for it may be configured again.
        yield from filter(blobs.accepts, page)
        last = page[-1]


def _grace_began(policy: RetentionSettings, now: datetime) -> datetime:
    return now - timedelta(hours=policy.blob_grace_hours)


def _chunks(refs: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(refs, _CHUNK)):
        yield list(dict.fromkeys(chunk))
