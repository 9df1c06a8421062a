"""Snapshots on disk while the hub can't be reached: in order, and there after a kill.

A directory with one file per snapshot, named so that names sort in the order of publishing, and
`rejected/` for what the hub refused, each with the problem beside it. Whatever a kill leaves is
either a whole file or a temporary one that nobody reads. Safe for several processes: a short lock
orders the writers, and of those that want to drain one does, the others leave it to it.
Never holds a token.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskhub.client.errors import SpoolUnusable
from riskhub.client.prepare import Prepared

_NAME_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One spooled snapshot: what to send, and who said so."""

    actor: str
    stage: str
    prepared: Prepared


class Spool:
    """One directory of snapshots to send later. Made, with its parents, when first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rejected = directory / "rejected"

    def names(self) -> list[str]:
        """The waiting entries, oldest first."""
        return sorted(path.name for path in self.directory.glob("[0-9]*.json"))

    def append(self, entry: Entry) -> str:
        """Keep an entry behind all others; when this returns it survives a power cut.

        Raises:
            SpoolUnusable: it is not kept.
        """
        prepared = entry.prepared
        text = json.dumps(
            {
                "world_id": prepared.world_id,
                "version": prepared.version,
                "actor": entry.actor,
                "stage": entry.stage,
                "digest": prepared.digest,
                "body": prepared.body.decode("ascii"),
                "offloaded": prepared.offloaded,
            }
        )
        try:
            self._make()
            with self._lock(".lock", fcntl.LOCK_EX):
                for corpse in self.directory.glob(".*.tmp"):  # its writer died, or we'd not be here
                    corpse.unlink()
                name = self._next_name()
                _write_durably(self.directory / name, text)
        except OSError as error:
            raise SpoolUnusable(f"the spool {self.directory} can't be written: {error}") from error
        return name

    def read(self, name: str) -> Entry:
        """An entry.

        Raises:
            ValueError: this is no entry of ours, or not a whole one.
            FileNotFoundError: somebody took it away.
        """
        try:
            found: dict[str, Any] = json.loads((self.directory / name).read_bytes())
            return Entry(
                found["actor"],
                found["stage"],
                Prepared(
                    found["world_id"],
                    found["version"],
                    found["digest"],
                    found["body"].encode("ascii"),
                    found["offloaded"],
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("is not an entry of a spool") from error

    def remove(self, name: str) -> None:
        """Forget an entry that has landed. Undone by a power cut, it lands as a duplicate."""
        (self.directory / name).unlink(missing_ok=True)

    def reject(self, name: str, problem: dict[str, Any]) -> Path:
        """Move an entry out of the way, its problem beside it; gives where it is now."""
        kept = self.rejected / name
        # The problem first: whatever is found in `rejected` has one.
        _write_durably(kept.with_suffix(".problem.json"), json.dumps(problem, indent=2))
        (self.directory / name).replace(kept)
        return kept

    @contextmanager
    def draining(self) -> Iterator[bool]:
        """Whether the entries are ours to send meanwhile; False when another one sends them."""
        with ExitStack() as held:
            if self.directory.is_dir():
                try:
                    held.enter_context(self._lock(".draining", fcntl.LOCK_EX | fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
            yield True

    def _make(self) -> None:
        if not self.rejected.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # positions are private
            self.rejected.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self.directory.parent)

    @contextmanager
    def _lock(self, name: str, how: int) -> Iterator[None]:
        # Of the open file, not of the process: threads exclude one another too, a kill lets go.
        descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _next_name(self) -> str:
        """Of the clock, for people, but after every name there is: clocks go back."""
        taken = [int(name.partition(".")[0]) for name in self.names()]
        following = max([*taken, time.time_ns()]) + 1
        return f"{following:0{_NAME_DIGITS}d}.json"


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
