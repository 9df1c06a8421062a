"""The use cases of the snapshot hub: land, latest, list, lookup.

Ties the contract to the store and a clock. Knows nothing of HTTP: the API and the bulk door are
thin edges over it.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from riskhub.errors import ContractViolation, FieldError
from riskhub.settings import Settings
from riskhub.snapshot import Snapshot, format_instant, parse_instant, validate
from riskhub.store import Landing, Page, Store
from riskhub.strict_json import parse_json

Clock = Callable[[], datetime]

MAX_LIMIT = 1_000


def utc_now() -> datetime:
    """The machine's clock as an aware UTC instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a world's snapshots are asked for; None means any."""

    stage: str | None = None
    actor: str | None = None
    include_expired: bool = False


class Hub:
    """One hub on one store. Safe to use from several threads."""

    def __init__(self, store: Store, settings: Settings, clock: Clock = utc_now) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock

    def accept(self, raw: bytes, *, world_id: str | None, actor: str, stage: str) -> Snapshot:
        """A producer's bytes as a snapshot that may land; nothing is stored yet.

        Raises:
            ContractViolation: naming each field that breaks the contract.
        """
        return validate(
            parse_json(raw),
            world_id=world_id,
            actor=actor,
            stage=stage,
            received_at=self.clock(),
            future_tolerance=timedelta(seconds=self.settings.future_tolerance_sec),
        )

    def land(self, offered: Sequence[Snapshot]) -> list[Landing]:
        """Store what is new of these, all in one transaction.

        Raises:
            StoreUnavailable: nothing of the batch is stored; safe to offer again.
        """
        return self.store.land(offered)

    def latest(self, world_id: str, which: Filter = Filter()) -> str | None:
        """The body of the latest snapshot: greatest `as_of`, then the later receipt."""
        return self.store.latest(
            world_id,
            now=self.clock(),
            stage=which.stage,
            actor=which.actor,
            include_expired=which.include_expired,
        )

    def list(
        self, world_id: str, which: Filter = Filter(), *, limit: int, cursor: str | None = None
    ) -> tuple[list[str], str | None]:
        """A page of bodies, newest first, and the cursor of the next page (None at the end).

        Raises:
            ContractViolation: the cursor is not one that this method gave.
        """
        page: Page = self.store.newest_first(
            world_id,
            now=self.clock(),
            limit=limit,
            stage=which.stage,
            actor=which.actor,
            include_expired=which.include_expired,
            after=_decode_cursor(cursor) if cursor else None,
        )
        return page.bodies, _encode_cursor(*page.next_key) if page.next_key else None

    def lookup_version(
        self, world_id: str, version: str, *, include_expired: bool = False
    ) -> str | None:
        """The body of one version."""
        return self.store.by_version(
            world_id, version, now=self.clock(), include_expired=include_expired
        )

    def lookup_as_of(
        self, world_id: str, as_of: datetime, *, include_expired: bool = False
    ) -> str | None:
        """The body with the greatest `as_of` at or before the given instant."""
        page = self.store.newest_first(
            world_id, now=self.clock(), limit=1, include_expired=include_expired, up_to=as_of
        )
        return page.bodies[0] if page.bodies else None


def _encode_cursor(as_of: datetime, position: int) -> str:
    return base64.urlsafe_b64encode(f"{format_instant(as_of)}/{position}".encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        as_of, _, position = base64.urlsafe_b64decode(cursor.encode()).decode().partition("/")
        number = int(position)
        if not 0 <= number < 2**63:
            raise ValueError("position out of range")
        return parse_instant(as_of), number
    except (ValueError, binascii.Error) as error:
        problem = FieldError("cursor", "is not a cursor that this hub gave")
        raise ContractViolation(problem) from error
