"""Blobs as files: ``<directory>/sha256/<first 2 hex>/<64 hex>.json``.

No symbolic link is followed at the directory or below it, so that who can write there can't make
the hub read or write elsewhere: each step down is opened relative to the one above, and refuses a
link. Above the directory links are the operator's own.

A blob appears whole or not at all. It is written under another name, synced, renamed, and the
directories are synced: after a crash there is the blob or a leftover ``.*.tmp``, which is no blob.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from riskhub.blobs.store import MAX_BLOB_BYTES, ContentAddressed
from riskhub.errors import BlobAltered, BlobsUnavailable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A link, a directory, a socket (on Linux, elsewhere).
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EOPNOTSUPP}
_ALGORITHM = "sha256"
_SHARDS = tuple(f"{number:02x}" for number in range(256))


class FileBlobs(ContentAddressed):
    """A `BlobStore` in a directory of a local or shared POSIX file system.

    Args:
        directory: made with its parents by the first `put` or `ping`.
    """

    def __init__(self, directory: Path) -> None:
        self._root = Path(os.path.abspath(directory))  # `resolve` would follow the link we refuse

    def refs(self) -> Iterator[str]:
        """See `BlobStore`; read by directories, each a 256th of the blobs."""
        for shard in _SHARDS:
            yield from self._refs_in(shard)

    def ping(self) -> None:
        """See `BlobStore`; also makes the directory."""
        with self._named():
            self._make_root()
            root = self._open()
            try:
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=root):
                    raise BlobsUnavailable(f"the blob directory {self._root} is not writable")
            finally:
                os.close(root)

    def _ref(self, digest: str) -> str:
        return f"file://{self._root}/{_ALGORITHM}/{digest[:2]}/{_name(digest)}"

    def _add(self, digest: str, content: bytes) -> bool:
        with self._made_shard(digest) as shard:
            if _stat(shard, _name(digest)) is None:
                _write(shard, digest, content)
                return True
            os.fsync(shard)  # who renamed it here may not have come to that yet
            return False

    def _replace(self, digest: str, content: bytes) -> None:
        with self._made_shard(digest) as shard:
            _write(shard, digest, content)

    def _read(self, digest: str) -> bytes | None:
        with self._shard(digest[:2]) as shard:
            if shard is None:
                return None
            try:
                with open(_name(digest), "rb", opener=partial(_open_blob, shard)) as file:
                    found = os.fstat(file.fileno())
                    if stat.S_ISREG(found.st_mode):
                        return file.read(min(found.st_size, MAX_BLOB_BYTES) + 1)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
        raise BlobAltered(self._ref(digest), "what is in the blob's place is not a regular file")

    def _has(self, digest: str) -> bool:
        with self._shard(digest[:2]) as shard:
            found = None if shard is None else _stat(shard, _name(digest))
            return found is not None and stat.S_ISREG(found.st_mode)

    def _remove(self, digest: str) -> None:
        with self._shard(digest[:2]) as shard:
            if shard is not None:
                with suppress(FileNotFoundError):
                    os.unlink(_name(digest), dir_fd=shard)

    def _refs_in(self, shard_name: str) -> list[str]:
        with self._shard(shard_name) as shard:
            if shard is None:
                return []
            with os.scandir(shard) as entries:
                names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        refs = (f"file://{self._root}/{_ALGORITHM}/{shard_name}/{name}" for name in names)
        return [ref for ref in refs if self.accepts(ref)]

    @contextmanager
    def _shard(self, name: str) -> Iterator[int | None]:
        """The directory of some of the blobs, open; None when nothing was ever put there."""
        with self._named():
            try:
                shard = self._open(_ALGORITHM, name)
            except FileNotFoundError:
                yield None
                return
            try:
                yield shard
            finally:
                os.close(shard)

    @contextmanager
    def _made_shard(self, digest: str) -> Iterator[int]:
        with self._named():
            self._make_root()
            shard = self._open(_ALGORITHM, digest[:2], make=True)
            try:
                yield shard
            finally:
                os.close(shard)

    def _open(self, *path: str, make: bool = False) -> int:
        """A directory below the root, reached without following a link."""
        directory = os.open(self._root, _DIRECTORY)
        for name in path:
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=directory)
                    os.fsync(directory)
                below = os.open(name, _DIRECTORY, dir_fd=directory)
            finally:
                os.close(directory)
            directory = below
        return directory

    def _make_root(self) -> None:
        above = [path for path in (self._root, *self._root.parents) if not path.exists()]
        for directory in reversed(above):
            directory.mkdir(exist_ok=True)
            parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BlobsUnavailable(
                f"the blob directory {self._root} can't be used: {error.strerror}"
            ) from error


def _name(digest: str) -> str:
    return f"{digest}.json"


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _open_blob(directory: int, name: str, flags: int) -> int:
    # Not blocking, because a planted FIFO would hang its reader for ever.
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)


def _write(directory: int, digest: str, content: bytes) -> None:
    """Renamed over whatever is there: a link is replaced, and equal content does no harm."""
    temporary = f".{digest}.{secrets.token_hex(8)}.tmp"
    try:
        with open(os.open(temporary, _NEW, 0o666, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, _name(digest), src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
