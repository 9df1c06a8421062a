"""The landing table: adding snapshots, and reading them as of now or in the order they landed.

**Landing order.** `position` grows with the order of *commits*: a transaction that adds rows holds
one lock from before it takes its first position until after it has committed. So whoever has read
up to a position has seen every row up to there, and remembering that one number is enough never to
miss a row that committed late. Rows that arrive together share a transaction (see
`riskhub.group_commit`), so the lock does not cost a commit per row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from riskhub.snapshot import Snapshot
from riskhub.store.engine import reading, writing
from riskhub.store.tables import snapshots, validated_snapshots, world_stages

# Any constant does: it names the lock among this database's advisory locks.
_LANDING_LOCK = 0x7269736B

Position = int


class Outcome(Enum):
    """What became of a snapshot that was offered."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Landing:
    """What became of one snapshot; `digest` and `body` are those that are stored."""

    outcome: Outcome
    digest: str
    body: str


@dataclass(frozen=True, slots=True)
class Landed:
    """A stored snapshot as the pipeline reads it."""

    position: Position
    world_id: str
    version: str
    as_of: datetime
    stage: str
    digest: str
    body: str

    @property
    def day(self) -> date:
        """The UTC day of `as_of`: the daily partition it belongs to."""
        return self.as_of.date()


@dataclass(frozen=True, slots=True)
class Page:
    """Bodies, newest first, and where the next page starts (None at the end)."""

    bodies: list[str]
    next_key: tuple[datetime, Position] | None


def land(connection: sa.Connection, offered: Sequence[Snapshot]) -> list[Landing]:
    """Add what is new, in order; say for each what became of it. Changes no existing row.

    The unique constraint decides between two that arrive at once, not a look before.
    """
    if not offered:
        return []
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LANDING_LOCK)))
    added = connection.execute(
        _insert(connection, snapshots)
        .on_conflict_do_nothing(index_elements=["world_id", "version"])
        .returning(snapshots.c.world_id, snapshots.c.version),
        [_row(snapshot) for snapshot in offered],
    )
    created = {(world_id, version) for world_id, version in added}

    stored: dict[tuple[str, str], tuple[str, str]] = {}
    waiting: dict[str, list[str]] = {}
    first_of_batch: dict[tuple[str, str], Snapshot] = {}
    for snapshot in offered:
        key = (snapshot.world_id, snapshot.version)
        if key in created:
            first_of_batch.setdefault(key, snapshot)
        else:
            waiting.setdefault(snapshot.world_id, []).append(snapshot.version)
    _note_newest(connection, first_of_batch.values())
    for world_id, versions in waiting.items():
        rows = connection.execute(
            sa.select(snapshots.c.version, snapshots.c.digest, snapshots.c.body).where(
                snapshots.c.world_id == world_id, snapshots.c.version.in_(versions)
            )
        )
        stored |= {(world_id, row.version): (row.digest, row.body) for row in rows}

    landings = []
    for snapshot in offered:
        key = (snapshot.world_id, snapshot.version)
        first = first_of_batch.get(key)
        if first is snapshot:
            landings.append(Landing(Outcome.CREATED, snapshot.digest, snapshot.body))
            continue
        digest, body = (first.digest, first.body) if first else stored[key]
        same = snapshot.same_content(digest)
        landings.append(Landing(Outcome.DUPLICATE if same else Outcome.CONFLICT, digest, body))
    return landings


class LandingStore:
    """The landing table of one database; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def land(self, offered: Sequence[Snapshot]) -> list[Landing]:
        """Add snapshots in one transaction; see `land`."""
        with writing(self.engine) as connection:
            return land(connection, offered)

    def latest(
        self,
        world_id: str,
        *,
        now: datetime,
        stage: str | None = None,
        actor: str | None = None,
        include_expired: bool = False,
    ) -> str | None:
        """The body with the greatest `as_of`, then the later receipt, however they arrived."""
        page = self.newest_first(
            world_id,
            now=now,
            limit=1,
            stage=stage,
            actor=actor,
            include_expired=include_expired,
        )
        return page.bodies[0] if page.bodies else None

    def newest_first(
        self,
        world_id: str,
        *,
        now: datetime,
        limit: int,
        stage: str | None = None,
        actor: str | None = None,
        include_expired: bool = False,
        up_to: datetime | None = None,
        after: tuple[datetime, Position] | None = None,
    ) -> Page:
        """A page of a world's bodies by `as_of` descending, then by landing descending.

        Args:
            up_to: only snapshots whose `as_of` is at or before it.
            after: the `next_key` of the page before.
        """
        with reading(self.engine) as connection:
            query = (
                sa.select(snapshots.c.body, snapshots.c.as_of, snapshots.c.position)
                .where(snapshots.c.world_id == world_id)
                .order_by(snapshots.c.as_of.desc(), snapshots.c.position.desc())
                .limit(limit + 1)
            )
            if stage is not None:
                query = query.where(snapshots.c.stage == stage)
            if actor is not None:
                query = query.where(snapshots.c.actor == actor)
            if not include_expired:
                query = query.where(snapshots.c.expires_at > now)
            if up_to is not None:
                query = query.where(snapshots.c.as_of <= up_to)
            if after is not None:
                as_of, position = after
                query = query.where(
                    sa.tuple_(snapshots.c.as_of, snapshots.c.position)
                    < sa.tuple_(sa.literal(as_of, snapshots.c.as_of.type), sa.literal(position))
                )
            rows = connection.execute(query).all()
            more = len(rows) > limit
            rows = rows[:limit]
            return Page(
                [row.body for row in rows], (rows[-1].as_of, rows[-1].position) if more else None
            )

    def by_version(
        self,
        world_id: str,
        version: str,
        *,
        now: datetime,
        include_expired: bool = False,
    ) -> str | None:
        """The body of one version."""
        with reading(self.engine) as connection:
            query = sa.select(snapshots.c.body).where(
                snapshots.c.world_id == world_id, snapshots.c.version == version
            )
            if not include_expired:
                query = query.where(snapshots.c.expires_at > now)
            body: str | None = connection.execute(query).scalar()
            return body

    def head(self) -> Position:
        """The newest position that can be read; 0 when nothing has landed."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(sa.func.max(snapshots.c.position))).scalar() or 0

    def landed_on(self, first: date, last: date, *, only_unvalidated: bool = False) -> list[Landed]:
        """Snapshots whose `as_of` lies on the UTC days `first` to `last`, in landing order."""
        with reading(self.engine) as connection:
            query = (
                sa.select(
                    snapshots.c.position,
                    snapshots.c.world_id,
                    snapshots.c.version,
                    snapshots.c.as_of,
                    snapshots.c.stage,
                    snapshots.c.digest,
                    snapshots.c.body,
                )
                .where(snapshots.c.as_of >= _midnight(first))
                .where(snapshots.c.as_of < _midnight(last) + timedelta(days=1))
                .order_by(snapshots.c.position)
            )
            if only_unvalidated:
                query = query.outerjoin(
                    validated_snapshots, validated_snapshots.c.position == snapshots.c.position
                ).where(validated_snapshots.c.position.is_(None))
            return [Landed(*row) for row in connection.execute(query)]

    def newest_per_world(self) -> list[tuple[str, str, datetime]]:
        """World, stage, and the greatest `as_of` that has landed for them."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(world_stages).order_by(world_stages.c.world_id, world_stages.c.stage)
            )
            return [(row.world_id, row.stage, row.newest_as_of) for row in rows]


def _note_newest(connection: sa.Connection, created: Iterable[Snapshot]) -> None:
    newest: dict[tuple[str, str], datetime] = {}
    for snapshot in created:
        key = (snapshot.world_id, snapshot.stage)
        newest[key] = max(snapshot.as_of, newest.get(key, snapshot.as_of))
    if not newest:
        return
    insert = _insert(connection, world_stages)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["world_id", "stage"],
            set_={"newest_as_of": insert.excluded.newest_as_of},
            where=insert.excluded.newest_as_of > world_stages.c.newest_as_of,
        ),
        [
            {"world_id": world_id, "stage": stage, "newest_as_of": as_of}
            for (world_id, stage), as_of in newest.items()
        ],
    )


def _insert(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _row(snapshot: Snapshot) -> dict[str, object]:
    return {
        "world_id": snapshot.world_id,
        "version": snapshot.version,
        "as_of": snapshot.as_of,
        "received_at": snapshot.received_at,
        "expires_at": snapshot.expires_at,
        "stage": snapshot.stage,
        "actor": snapshot.actor,
        "digest": snapshot.digest,
        "body": snapshot.body,
    }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
