"""The hub's database and blobs, backed up into a directory and restored from it.

**The database first, then the blobs.** Blobs never change, are put before what refers to them, and
are removed long after nothing does. So the blobs that a dump refers to are still there when they
are copied after it; the other way round, what landed in between would lack its own. A restore goes
the opposite way: once the database is there, so is all that it refers to.

A directory holds many backups and each blob once: ``blobs/``, and for each backup a directory named
for its instant with the dump, the list of its blobs, and a manifest, which is written last.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from riskhub.blobs.file import FileBlobs
from riskhub.blobs.store import BlobStore, digest_named
from riskhub.errors import BlobUnusable, RiskHubError
from riskhub.store import dump
from riskhub.store.dump import Figures

MANIFEST, REFS, DATABASE = "manifest.json", "refs.txt", "database.dump"
_FORMAT = 1
_TOGETHER = 16
_CHUNK = 500

Progress = Callable[[str, int, int | None], None]
"""Told after each step: what, how many more of it, and of how many in all when that is known."""


class BackupUnusable(RiskHubError):
    """There is no such backup, it is not whole, or it does not fit where it is to go."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup, as its manifest says.

    `lacking` are references whose blob was missing or altered when they were to be copied.
    """

    name: str
    dialect: str
    figures: Figures
    blobs: int
    lacking: tuple[str, ...]
    sha256: dict[str, str]


def back_up(
    engine: sa.Engine,
    blobs: BlobStore | None,
    directory: Path,
    *,
    now: datetime,
    progress: Progress = lambda *_: None,
) -> Backup:
    """Write a backup of the database and of each blob that it refers to; others may go on writing.

    Args:
        blobs: the store of the settings; None when nothing is ever offloaded.
        now: its name.

    Raises:
        DumpFailed: the database was not dumped; there is no backup.
        BlobsUnavailable: there is no backup, but the blobs so far need not be copied again.
    """
    name = f"{now:%Y-%m-%dT%H-%M-%SZ}"
    kept = FileBlobs(directory / "blobs")
    place = directory / name
    place.mkdir(parents=True)
    with dump.instant(engine) as instant:
        figures = instant.figures()
        instant.dump(place / DATABASE)
        (place / REFS).write_text("".join(f"{ref}\n" for ref in instant.refs()))
    progress("database", 1, 1)
    refs = (place / REFS).read_text().splitlines()
    if refs and blobs is None:
        raise BackupUnusable("snapshots refer to blobs, and the settings have no blob store")
    lacking = [] if blobs is None else _copy(refs, blobs, kept, progress)
    backup = Backup(
        name,
        engine.dialect.name,
        figures,
        len(refs),
        tuple(lacking),
        {file: _sha256(place / file) for file in (DATABASE, REFS)},
    )
    _write_last(place / MANIFEST, json.dumps({"format": _FORMAT, **asdict(backup)}, indent=1))
    return backup


def backups(directory: Path) -> list[Backup]:
    """Every whole backup of a directory, the newest last. Raises `BackupUnusable`."""
    return [_read(path) for path in sorted(directory.glob(f"*/{MANIFEST}"))]


def choose(directory: Path, name: str | None) -> Backup:
    """The backup of this name, or the newest. Raises `BackupUnusable`."""
    there = {backup.name: backup for backup in backups(directory)}
    if not there:
        raise BackupUnusable(f"{directory} has no backup")
    if name is None:
        return there[max(there)]
    if name not in there:
        raise BackupUnusable(f"{directory} has no backup {name}; it has {', '.join(there)}")
    return there[name]


def damages(directory: Path, backup: Backup, progress: Progress = lambda *_: None) -> Iterator[str]:
    """What of a backup is missing or altered, in words; reads all of it."""
    place = directory / backup.name
    for file, digest in backup.sha256.items():
        if not (place / file).is_file():
            yield f"{backup.name}/{file} is missing"
        elif _sha256(place / file) != digest:
            yield f"{backup.name}/{file} is not what was written"
    kept = FileBlobs(directory / "blobs")
    refs = _refs(place, backup)
    for ref in refs:
        try:
            kept.get(_kept_as(kept, ref))
        except BlobUnusable as error:
            yield str(error)
        progress("blobs", 1, len(refs))


def restore(
    engine: sa.Engine,
    blobs: BlobStore | None,
    directory: Path,
    backup: Backup,
    *,
    progress: Progress = lambda *_: None,
) -> Figures:
    """Put back the blobs of a backup, and fill an empty database from it.

    Every blob is verified on the way, and so is the dump; what a database holds afterwards is what
    it held then.

    Raises:
        BackupUnusable: altered, of another kind of database, or its references are none of the
            blob store's. The database is as empty as before.
        BlobUnusable: a blob of the backup is missing or altered; the same.
        DumpFailed: the database was not empty, or took nothing.
        BlobsUnavailable: the blob store; begin again.
    """
    place = directory / backup.name
    if backup.dialect != engine.dialect.name:
        raise BackupUnusable(f"it is of {backup.dialect}, the database is {engine.dialect.name}")
    if not dump.is_empty(engine):
        raise BackupUnusable("the database is not empty: a backup is restored into one that is")
    for file, digest in backup.sha256.items():
        if _sha256(place / file) != digest:
            raise BackupUnusable(f"{place / file} is not what was written")
    refs = _refs(place, backup)
    if refs:
        _put_back(refs, FileBlobs(directory / "blobs"), blobs, progress)
    restored = dump.load(engine, place / DATABASE)
    progress("database", 1, 1)
    if restored != backup.figures:
        raise BackupUnusable(f"restored {restored}, which is not {backup.figures}")
    return restored


def _copy(refs: list[str], blobs: BlobStore, kept: FileBlobs, progress: Progress) -> list[str]:
    """Copy what is not there yet; gives the references whose blob can't be had."""

    def one(ref: str) -> str | None:
        try:
            if not kept.exists(_kept_as(kept, ref)):
                kept.put(blobs.get(ref))
        except BlobUnusable:
            return ref
        return None

    return [ref for ref in _in_threads(one, refs, "blobs", progress) if ref is not None]


def _put_back(
    refs: list[str], kept: FileBlobs, blobs: BlobStore | None, progress: Progress
) -> None:
    if blobs is None or not blobs.accepts(refs[0]):
        raise BackupUnusable(
            f"its snapshots refer to blobs such as {refs[0]}, which is none of the blob store of "
            "the settings: set `blobs` as it was"
        )

    def one(ref: str) -> None:
        blobs.put(kept.get(_kept_as(kept, ref)))  # what is there is verified, and mended

    for _ in _in_threads(one, refs, "blobs", progress):
        pass


def _in_threads(
    do: Callable[[str], Any], refs: list[str], what: str, progress: Progress
) -> Iterator[Any]:
    """A blob mostly waits for its store: so many at a time, and no queue of all of them."""
    with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="blobs") as pool:
        for start in range(0, len(refs), _CHUNK):
            chunk = refs[start : start + _CHUNK]
            yield from pool.map(do, chunk)
            progress(what, len(chunk), len(refs))


def _kept_as(kept: FileBlobs, ref: str) -> str:
    """The reference, in the backup, of the blob that `ref` is of."""
    digest = digest_named(ref)
    if digest is None:
        raise BackupUnusable(f"{ref} is no reference to a blob")
    return kept.ref_with(digest)


def _refs(place: Path, backup: Backup) -> list[str]:
    """The references of a backup whose blobs it has."""
    try:
        refs = (place / REFS).read_text().splitlines()
    except OSError as error:
        raise BackupUnusable(f"{place / REFS} can't be read: {error.strerror}") from error
    return sorted(set(refs) - set(backup.lacking))


def _read(path: Path) -> Backup:
    try:
        told = json.loads(path.read_bytes())
        if told.pop("format") != _FORMAT:
            raise BackupUnusable(f"{path} is of another version of riskhub")
        told["figures"] = Figures(**told["figures"])
        told["lacking"] = tuple(told["lacking"])
        return Backup(**told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupUnusable(f"{path} is no manifest of a backup") from error


def _write_last(path: Path, text: str) -> None:
    """On the disk once this returns: a manifest says that all else is."""
    for each in (*path.parent.iterdir(), path.parent):
        _sync(each)
    with path.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackupUnusable(f"{path} can't be read: {error.strerror}") from error
