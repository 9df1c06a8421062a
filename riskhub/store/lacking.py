"""What of some landings is there, and what is not computed yet: asked by who computes them live."""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import sqlalchemy as sa

from riskhub.store.engine import reading
from riskhub.store.landing import Landed, landed_at
from riskhub.store.reading import Position
from riskhub.store.tables import snapshots, validated_snapshots

_T = TypeVar("_T")
_CHUNK = 400  # two parameters each, where SQLite may take 999


class LackingStore:
    """The landings of one database by what they lack; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def positions_of(
        self, keys: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[Position, str]]:
        """Landing position and digest by world and version, of those that are there."""
        named = sa.tuple_(snapshots.c.world_id, snapshots.c.version)
        columns = (*named.clauses, snapshots.c.position, snapshots.c.digest)
        found = {}
        with reading(self.engine) as connection:
            for chunk in _chunks(list(keys)):
                for world_id, version, position, digest in connection.execute(
                    sa.select(*columns).where(named.in_(chunk))
                ):
                    found[world_id, version] = (position, digest)
        return found

    def landed_without(
        self, table_name: str, positions: Collection[Position], *, accepted: bool = False
    ) -> list[Landed]:
        """Those of these landings that have no row in a table, in landing order.

        Args:
            accepted: only those that have been judged, and accepted.
        """
        table = snapshots.metadata.tables[table_name]
        landed: list[Landed] = []
        with reading(self.engine) as connection:
            for chunk in _chunks(sorted(positions)):
                lacking = sa.select(snapshots.c.position).where(
                    snapshots.c.position.in_(chunk),
                    ~sa.exists().where(table.c.position == snapshots.c.position),
                )
                if accepted:
                    judged = validated_snapshots.c
                    lacking = lacking.where(
                        sa.exists().where(judged.position == snapshots.c.position, judged.accepted)
                    )
                landed += landed_at(connection, lacking, limit=None)
        return landed


def _chunks(items: Sequence[_T]) -> Iterable[Sequence[_T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
