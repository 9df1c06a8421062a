"""The use cases of the snapshot hub: land, latest, list, lookup, expand.

Ties the contract to the store, the cache, the blobs and a clock. Knows nothing of HTTP: the API
and the bulk door are thin edges over it. Reads that arrive together are answered together, which
is why some take many questions at once.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from riskhub.blobs import BLOB_FIELDS, BlobStore, offload, resolve
from riskhub.cache import LatestCache, Memory, Question, Shared
from riskhub.digests import canonical_json, inline
from riskhub.errors import (
    BlobAltered,
    BlobMissing,
    BlobsUnavailable,
    BlobUnusable,
    ContractViolation,
    FieldError,
    StoreUnavailable,
)
from riskhub.freshness import Policies, WorldFreshness
from riskhub.settings import Settings
from riskhub.snapshot import Snapshot, format_instant, parse_instant, validate
from riskhub.store import Filter, Landing, Store
from riskhub.store.landing import Outcome
from riskhub.store.reading import EVERYTHING_ALIVE, Lookup, Order
from riskhub.strict_json import Document, parse_json
from riskhub.telemetry import BlobFailure, Telemetry

Clock = Callable[[], datetime]


class Served(NamedTuple):
    """A stored body as it goes out, and what instant it is of."""

    body: str
    as_of: datetime


MAX_LIMIT = 1_000


def utc_now() -> datetime:
    """The machine's clock as an aware UTC instant."""
    return datetime.now(UTC)


class Hub:
    """One hub on one store. Safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock = utc_now,
        *,
        shared_cache: Shared | None = None,
        blobs: BlobStore | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.blobs = blobs
        self.telemetry = telemetry or Telemetry(max_worlds=settings.metrics_max_worlds)
        self._future_tolerance = timedelta(seconds=settings.future_tolerance_sec)
        self._policies = Policies.of(settings)
        self._shared_cache = shared_cache
        self._latest = LatestCache(
            store, Memory(settings.cache_bytes), shared_cache, self.telemetry
        )

    # -- writing ----------------------------------------------------------------------------------

    def accept(
        self, raw: bytes, *, world_id: str | None, actor: str, stage: str, dry_run: bool = False
    ) -> Snapshot:
        """A producer's bytes as a snapshot that may land; nothing is stored yet but large fields.

        Args:
            dry_run: not even these.

        Raises:
            ContractViolation: naming each field that breaks the contract.
            BlobsUnavailable: large fields can be neither read nor kept now; safe to try again.
        """
        try:
            document = parse_json(raw)
            return validate(
                document,
                world_id=world_id,
                actor=actor,
                stage=stage,
                received_at=self.clock(),
                future_tolerance=self._future_tolerance,
                resolved=self._resolve_offered(document),
                offload=None if dry_run or self.blobs is None else self._offload,
            )
        except ContractViolation:
            self.telemetry.refused()
            raise
        except StoreUnavailable:
            self.telemetry.failed()
            raise
        except BlobsUnavailable:
            self.telemetry.blob_failed("unavailable")
            self.telemetry.failed()
            raise

    def land(self, offered: Sequence[Snapshot]) -> list[Landing]:
        """Store what is new of these, all in one transaction.

        Raises:
            StoreUnavailable: nothing of the batch is stored; safe to offer again.
        """
        try:
            landings = self.store.land(offered)
        except StoreUnavailable:
            for _ in offered:
                self.telemetry.failed()
            raise
        self.telemetry.group(len(offered))
        for snapshot, landing in zip(offered, landings, strict=True):
            self._count(snapshot, landing.outcome)
        return landings

    def _count(self, snapshot: Snapshot, outcome: Outcome) -> None:
        match outcome:
            case Outcome.CREATED:
                self.telemetry.landed(snapshot.world_id, snapshot.stage)
            case Outcome.DUPLICATE:
                self.telemetry.deduped(snapshot.world_id, snapshot.stage)
            case Outcome.CONFLICT:
                self.telemetry.conflicted()

    def rehearse(self, snapshot: Snapshot) -> Landing:
        """What would become of a snapshot if it were offered now. Stores nothing."""
        stored = self.store.by_version(
            snapshot.world_id,
            snapshot.version,
            Filter(include_expired=True),
            now=snapshot.received_at,
        )
        if stored is None:
            return Landing(Outcome.CREATED, snapshot.digest, snapshot.body)
        same = snapshot.same_content(stored.digest)
        return Landing(Outcome.DUPLICATE if same else Outcome.CONFLICT, stored.digest, stored.body)

    # -- reading ----------------------------------------------------------------------------------

    def latest(self, world_id: str, which: Filter = EVERYTHING_ALIVE) -> str | None:
        """The body of the latest snapshot: greatest `as_of`, then the later receipt."""
        if which == Filter(which.stage, which.actor):
            served = self.latest_of_many([Question(world_id, which.stage, which.actor)])[0]
            return served.body if served else None
        stored = self.store.latest(world_id, which, now=self.clock())
        if stored is None:
            self.telemetry.missing()
        return stored.body if stored else None

    def latest_of_many(self, questions: Sequence[Question]) -> list[Served | None]:
        """For each the latest snapshot that is alive; see `riskhub.cache`."""
        found: list[Served | None] = []
        for question, answer in zip(
            questions, self._latest.answer(questions, self.clock()), strict=True
        ):
            if answer is not None and answer.body is not None and answer.as_of is not None:
                found.append(Served(answer.body, answer.as_of))
                continue
            found.append(None)
            self.telemetry.missing()
            if answer is not None and question.actor is None:
                self.telemetry.expired(question.world_id, question.stage or "any")
        return found

    def page(
        self,
        world_id: str,
        which: Filter = EVERYTHING_ALIVE,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[list[str], str | None]:
        """A page of bodies, newest first, and the cursor of the next page (None at the end).

        Raises:
            ContractViolation: the cursor is not one that this method gave.
        """
        page = self.store.newest_first(
            world_id,
            which,
            now=self.clock(),
            limit=limit,
            after=_decode_cursor(cursor) if cursor else None,
        )
        return page.bodies, _encode_cursor(page.next_key) if page.next_key else None

    def lookup(self, lookup: Lookup) -> str | None:
        """The body of one version, or of the greatest `as_of` at or before an instant."""
        served = self.look_up_many([lookup])[0]
        return served.body if served else None

    def look_up_many(self, lookups: Sequence[Lookup]) -> list[Served | None]:
        """What many lookups find."""
        return [
            Served(stored.body, stored.as_of) if stored else None
            for stored in self.store.look_up(lookups, now=self.clock())
        ]

    def freshness(
        self, *, world_id: str | None = None, stage: str | None = None
    ) -> list[WorldFreshness]:
        """How fresh each world and stage is now, or only this one; see `riskhub.freshness`."""
        newest = self.store.newest_per_world(world_id=world_id, stage=stage)
        return self._policies.assess(newest, now=self.clock(), world_id=world_id, stage=stage)

    def readiness(self) -> dict[str, str]:
        """What the hub stands on, by name, and whether it is there.

        Raises:
            StoreUnavailable, StoreNotMigrated, BlobsUnavailable: what it can't serve without.
        """
        self.store.check()
        told = {"store": "ok"}
        if self.blobs is not None:
            self.blobs.ping()
            told["blobs"] = "ok"
        if self._shared_cache is not None:
            told["cache"] = "ok" if self._shared_cache.answers() else "unavailable"
        return told

    # -- large fields -----------------------------------------------------------------------------

    def expand(self, body: str) -> str:
        """The body with its references replaced by what they stand for.

        Raises:
            BlobMissing, BlobAltered: one of them can't be had any more, by name.
            BlobsUnavailable: safe to try again.
        """
        if '_ref":' not in body:
            return body
        document = json.loads(body)
        return canonical_json(inline(document, self.resolve(document))).decode("ascii")

    def resolve(self, document: Document) -> Document:
        """What the references of a stored document stand for, by field; see `expand`."""
        refs = [document[ref_field] for ref_field in BLOB_FIELDS.values() if ref_field in document]
        if not refs:
            return {}
        if self.blobs is None:
            raise BlobMissing(refs[0], "no blob store is configured any more")
        try:
            return resolve(document, self.blobs)
        except BlobUnusable as error:
            self.telemetry.blob_failed(_KIND_OF_FAILURE.get(type(error), "refused"))
            raise
        except BlobsUnavailable:
            self.telemetry.blob_failed("unavailable")
            raise

    def _resolve_offered(self, document: Document) -> Document | None:
        """What a producer's references stand for; None without a blob store."""
        if self.blobs is None:
            return None
        resolved: Document = {}
        errors = []
        for ref_field in BLOB_FIELDS.values():
            ref = document.get(ref_field)
            if not isinstance(ref, str):
                continue  # absent, or refused by the contract
            try:
                if self.blobs.accepts(ref):
                    self.store.pardon_blobs([ref])
                resolved |= resolve({ref_field: ref}, self.blobs)
            except BlobUnusable as error:
                self.telemetry.blob_failed(_KIND_OF_FAILURE.get(type(error), "refused"))
                errors.append(FieldError(ref_field, _WHY_REFUSED.get(type(error), _NOT_OURS)))
        if errors:
            raise ContractViolation(*errors)
        return resolved

    def _offload(self, document: Document) -> Document:
        assert self.blobs is not None  # noqa: S101 - given to `validate` only then
        threshold = self.settings.inline_cov_threshold
        return offload(document, _Pardoning(self.blobs, self.store), threshold)


class _Pardoning:
    """A blob store to put into, where what is put is safe from retention before it is put.

    Else retention could remove a blob between our finding it there and our landing its reference.
    """

    def __init__(self, blobs: BlobStore, store: Store) -> None:
        self._blobs = blobs
        self._store = store

    def put(self, content: bytes) -> str:
        """The reference of content that stays."""
        self._store.pardon_blobs([self._blobs.ref_of(content)])
        return self._blobs.put(content)


_NOT_OURS = "is not a reference of the configured blob store, and was not fetched"
_WHY_REFUSED: dict[type[BlobUnusable], str] = {
    BlobMissing: "is missing: the blob store has nothing under it",
    BlobAltered: "is altered: what the blob store has under it is not what it names",
}
_KIND_OF_FAILURE: dict[type[BlobUnusable], BlobFailure] = {
    BlobMissing: "missing",
    BlobAltered: "altered",
}


def _encode_cursor(order: Order) -> str:
    as_of, received_at, position = order
    parts = f"{format_instant(as_of)}/{format_instant(received_at)}/{position}"
    return base64.urlsafe_b64encode(parts.encode()).decode()


def _decode_cursor(cursor: str) -> Order:
    try:
        as_of, received_at, position = base64.urlsafe_b64decode(cursor.encode()).decode().split("/")
        number = int(position)
        if not 0 <= number < 2**63:
            raise ValueError("position out of range")
        return parse_instant(as_of), parse_instant(received_at), number
    except (ValueError, binascii.Error) as error:
        problem = FieldError("cursor", "is not a cursor that this hub gave")
        raise ContractViolation(problem) from error
