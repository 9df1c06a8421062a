"""The walk of an audit: through landings, tables, outbox, topic, budgets; in pages, however many.

It reads and never writes, and may run beside all that works: what lands or is computed meanwhile is
left out (landings behind the head of its beginning) or not asked for yet (`settle_sec`).
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from riskhub.audit import compare
from riskhub.audit.budgets import Recomputation, cycle_findings
from riskhub.audit.events import event_findings
from riskhub.audit.findings import Finding, Ledger
from riskhub.audit.telling import Telling
from riskhub.blobs import BlobStore
from riskhub.blobs.fields import refs_of, resolve
from riskhub.controlbus.events import OutboxEvent
from riskhub.controlbus.relay import HANDLER as RELAY_HANDLER
from riskhub.digests import verify_digest
from riskhub.errors import BlobMissing, BlobUnusable, RiskHubError
from riskhub.governor.budget import DEFAULT_PARAMETERS, BudgetParameters
from riskhub.store import Store
from riskhub.store.audit import TABLES, AuditedLanding
from riskhub.store.scratch import SeenEvents, seen_events
from riskhub.strict_json import Document

_LOOK_BEFORE = timedelta(minutes=1)
_BLOBS_REMEMBERED = 100_000
_BLOBS_AT_ONCE = 8  # an object store answers slowly, and many at once
_LINES = 500

Progress = Callable[[str, int, int | None], None]
"""Told after each page: what, how many more of it, and of how many in all when that is known."""


ShouldHave = Callable[[OutboxEvent], bool]
"""Whether something should have an event."""


class AcknowledgedUnreadable(RiskHubError):
    """The file of acknowledged snapshots is none."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What an audit looks at.

    Attributes:
        now: UTC.
        world_id: only its landings, and their events; None is all, and rows without a landing too.
        since: only what was received since then.
        sample: bodies and blobs of one landing in so many, and the budgets of one cycle in so many;
            the rest of all.
        settle_sec: what is younger may still be on its way through the pipeline.
        told_again: landings may have been told again, by `riskhub events replay`.
        parameters: the weights and bounds of budgets, by the settings.
    """

    now: datetime
    world_id: str | None = None
    since: datetime | None = None
    sample: int = 1
    settle_sec: float = 120.0
    told_again: bool = False
    parameters: BudgetParameters = DEFAULT_PARAMETERS


class Auditor:
    """One audit, of one hub."""

    def __init__(
        self, store: Store, blobs: BlobStore | None, scope: Scope, progress: Progress
    ) -> None:
        """Look at nothing yet.

        Args:
            blobs: None where large fields stay inline.
        """
        self.ledger = Ledger()
        self._store = store
        self._blobs = blobs
        self._scope = scope
        self._progress = progress
        self._sound: OrderedDict[str, None] = OrderedDict()

    def run(self) -> None:
        """Look at all but the topic and what was acknowledged.

        Raises:
            StoreUnavailable, BlobsUnavailable: it could not look; nothing was changed.
        """
        self.landings()
        self.worlds()
        if self._scope.world_id is None:
            self.orphans()
            with seen_events() as altered:
                telling = Telling(self._store, self.ledger, self._scope.since, altered)
                self.outbox(telling)
                telling.rows(self._progress)
            self.budgets()

    def landings(self) -> None:
        """Each landing, with what is made of it."""
        scope, head = self._scope, self._store.head()
        after = 0
        if scope.since is not None:
            after = self._store.position_before(scope.since - _LOOK_BEFORE)
        settled_before = scope.now - timedelta(seconds=scope.settle_sec)
        with ThreadPoolExecutor(_BLOBS_AT_ONCE, thread_name_prefix="blobs") as pool:
            while page := self._store.audited_landings(after, up_to=head, world_id=scope.world_id):
                chosen = (
                    landing
                    for landing in page
                    if scope.since is None or landing.row["received_at"] >= scope.since
                )
                with_blobs = [
                    (landing, body)
                    for landing in chosen
                    if (body := self._landing(landing, settled_before)) and refs_of(body)
                ]
                for refs, found in pool.map(self._resolved, with_blobs):
                    self._remember(refs)
                    self.ledger.add(found)
                last: int = page[-1].row["position"]
                self._progress("landings", last - after, head)
                after = last

    def worlds(self) -> None:
        """The news of each world."""
        for world in self._store.audited_worlds(self._scope.now, self._scope.world_id):
            self.ledger.look("worlds and stages")
            self.ledger.add(compare.world_findings(world))

    def orphans(self) -> None:
        """Rows of landings that are gone."""
        for name in TABLES:
            for position, count in self._store.orphans(name):
                example = f"{count} rows of landing {position}, which is gone"
                self.ledger.add([Finding(name, "extra", example)])
            self._progress("tables", 1, len(TABLES))
        self.ledger.look("tables", len(TABLES))

    def outbox(self, telling: Telling) -> None:
        """Each event by itself, and whether what it tells of is there."""
        for page in self._events():
            sound = []
            for event in page:
                if found := list(event_findings(event)):
                    self.ledger.add(found)
                else:
                    sound.append(event)
            telling.events(sound)
            self.ledger.look("events", len(page))
        doubled = self._store.doubled_events()
        self.ledger.add(
            Finding("events", "doubled", f"{event_id}: {count} times")
            for event_id, count in doubled
        )

    def budgets(self) -> None:
        """The cycles of the governor, and their budgets."""
        recomputation = Recomputation(self._scope.parameters)
        for number, cycle in enumerate(self._store.audited_cycles(self._scope.since)):
            self.ledger.look("cycles of the governor")
            self.ledger.look("budgets", cycle["rows"])
            self.ledger.add(cycle_findings(cycle))
            if number % self._scope.sample == 0 and cycle["rows"]:
                budgets = self._store.audited_budgets(cycle["computed_at"])
                if budgets is not None:
                    self.ledger.look("budgets computed anew", len(budgets.symbol))
                    self.ledger.add(recomputation.findings(cycle, budgets))
            self._progress("cycles", 1, None)
        self.ledger.notes += recomputation.notes()
        self.ledger.add(
            Finding("budgets", "extra", f"{count} of {at:%Y-%m-%d %H:%M:%S.%f}Z have no cycle")
            for at, count in self._store.budgets_without_cycle()
        )

    def topic(self, seen: SeenEvents, should_have: ShouldHave) -> None:
        """Whether a topic has the events of the outbox.

        Args:
            seen: what the topic has; read after this audit was begun.
            should_have: whether it should have an event, or may have forgotten it.
        """
        settled_before = self._scope.now - timedelta(seconds=self._scope.settle_sec)
        for page in self._events():
            asked = [
                event
                for event in page
                if event.occurred_at < settled_before
                and self._scope.world_id in (None, event.key)
                and should_have(event)
            ]
            ids = [event.id for event in asked]
            there = seen.digests(ids)
            buried = self._store.buried_by(
                RELAY_HANDLER, [each for each in ids if each not in there]
            )
            self.ledger.add(compare.topic_findings(asked, there, digest_of, buried))
            self.ledger.look("events on the topic", len(asked))
        different, in_all = seen.counts()
        if in_all > different:
            self.ledger.notes.append(
                f"the topic has {in_all - different:,} events more than once, as it may"
            )

    def acknowledged(self, path: Path) -> None:
        """Whether what producers were told is stored is there, and is that.

        Raises:
            AcknowledgedUnreadable: a line is not JSON with `world`, `version` and `hash`.
        """
        for lines in _chunks(_acknowledged(path)):
            stored = self._store.positions_of([(world, version) for world, version, _ in lines])
            for world, version, hash_ in lines:
                there = stored.get((world, version))
                name = f"{world}/{version}"
                if there is None:
                    self.ledger.add([Finding("acknowledged snapshots", "missing", name)])
                elif there[1] != hash_:
                    example = f"{name}: {there[1]} is stored, {hash_} was acknowledged"
                    self.ledger.add([Finding("acknowledged snapshots", "altered", example)])
            self.ledger.look("acknowledged snapshots", len(lines))
            self._progress("acknowledged", len(lines), None)

    def _landing(self, landing: AuditedLanding, settled_before: datetime) -> Document | None:
        """All of a landing but what its references stand for; its body, if it is in the sample."""
        self.ledger.look("landings")
        self.ledger.add(
            compare.landing_findings(
                landing,
                is_settled=landing.row["received_at"] < settled_before,
                told_again=self._scope.told_again,
            )
        )
        if landing.row["position"] % self._scope.sample:
            return None
        found, body = compare.body_findings(landing)
        self.ledger.add(found)
        self.ledger.look("bodies")
        if body is not None:
            self.ledger.add(compare.weights_findings(landing, body))
            if not refs_of(body) and not verify_digest(body):
                self.ledger.add([_no_digest(landing)])
        return body

    def _resolved(
        self, landing_and_body: tuple[AuditedLanding, Document]
    ) -> tuple[list[str], list[Finding]]:
        """The blobs of a body that are sound; and what is wrong with them, or with the body."""
        landing, body = landing_and_body
        name, refs = compare.name_of(landing), refs_of(body)
        as_it_stands = verify_digest(body)
        if as_it_stands and all(ref in self._sound for ref in refs):
            return [], []
        if self._blobs is None:
            return [], [Finding("blobs", "missing", f"{name}: no blob store is configured")]
        try:
            resolved = resolve(body, self._blobs)
        except BlobMissing as error:
            return [], [Finding("blobs", "missing", f"{name}: {error}")]
        except BlobUnusable as error:
            return [], [Finding("blobs", "altered", f"{name}: {error}")]
        sound = as_it_stands or verify_digest(body, resolved)
        return refs, [] if sound else [_no_digest(landing)]

    def _remember(self, refs: list[str]) -> None:
        self.ledger.look("blobs", len(refs))
        self._sound.update(dict.fromkeys(refs))
        while len(self._sound) > _BLOBS_REMEMBERED:
            self._sound.popitem(last=False)

    def _events(self, after: int = 0) -> Iterator[list[OutboxEvent]]:
        head = self._store.events_head()
        while page := self._store.audited_events(after, up_to=head):
            yield page
            self._progress("events", page[-1].sequence - after, head)
            after = page[-1].sequence


def _no_digest(landing: AuditedLanding) -> Finding:
    return Finding("bodies", "altered", f"{compare.name_of(landing)}: has not its digest")


def digest_of(raw: bytes, sequence: int) -> bytes:
    """What is remembered of an event's bytes; told again it has another sequence."""
    without = raw.replace(f'"sequence":"{sequence}",'.encode(), b"", 1)
    return hashlib.blake2b(without, digest_size=16).digest()


def _acknowledged(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                told = json.loads(line)
                yield told["world"], told["version"], told["hash"]
            except (ValueError, KeyError, TypeError) as error:
                raise AcknowledgedUnreadable(
                    f"{path}, line {number}: is not JSON with world, version and hash"
                ) from error


def _chunks(
    lines: Iterable[tuple[str, str, str]],
) -> Iterator[list[tuple[str, str, str]]]:
    iterator = iter(lines)
    while chunk := list(islice(iterator, _LINES)):
        yield chunk
