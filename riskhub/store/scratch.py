"""A file of one's own for what does not fit into memory: which events a topic has."""

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

_CHUNK = 500


class SeenEvents:
    """The events that were seen, by id, each with the digest of its bytes and how often."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Make the table of an empty database."""
        self._connection = connection
        connection.execute(
            "CREATE TABLE seen (id BLOB PRIMARY KEY, digest BLOB, times INTEGER) WITHOUT ROWID"
        )

    def add(self, seen: Iterable[tuple[str, bytes]]) -> None:
        """Note ids and digests; of an id that comes again the first digest stays."""
        self._connection.executemany(
            "INSERT INTO seen VALUES (?, ?, 1) ON CONFLICT (id) DO UPDATE SET times = times + 1",
            [(_key(event_id), digest) for event_id, digest in seen],
        )

    def digests(self, event_ids: Sequence[str]) -> dict[str, bytes]:
        """Digests by id, of those that were seen."""
        found: dict[str, bytes] = {}
        for start in range(0, len(event_ids), _CHUNK):
            asked = {_key(each): each for each in event_ids[start : start + _CHUNK]}
            marks = ", ".join("?" * len(asked))
            rows = self._connection.execute(
                f"SELECT id, digest FROM seen WHERE id IN ({marks})",  # noqa: S608 - marks
                list(asked),
            )
            found |= {asked[event_id]: digest for event_id, digest in rows}
        return found

    def counts(self) -> tuple[int, int]:
        """How many different events were seen, and how many there were in all."""
        row = self._connection.execute("SELECT count(*), coalesce(sum(times), 0) FROM seen")
        different, in_all = row.fetchone()
        return different, in_all


def _key(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


@contextmanager
def seen_events() -> Iterator[SeenEvents]:
    """An empty one, in a temporary directory that goes with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="riskhub-audit-") as folder,
        closing(sqlite3.connect(Path(folder) / "seen.db", isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute("BEGIN")  # never committed: nobody reads it after us
        yield SeenEvents(connection)
