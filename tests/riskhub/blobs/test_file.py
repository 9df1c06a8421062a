"""Blobs as files: no link is followed, no write is seen half done."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from riskhub.blobs.file import FileBlobs
from riskhub.errors import BlobAltered, BlobMissing, BlobsUnavailable, RefRefused

CONTENT = b'{"A,A":0.0004}'
SECRET = b'{"of":"somebody else"}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "blobs"


@pytest.fixture
def blobs(root: Path) -> FileBlobs:
    return FileBlobs(root)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that the store must not touch, laid out like a store with one blob."""
    mirror = FileBlobs(tmp_path / "outside")
    mirror.put(CONTENT)
    mirror.put(SECRET)
    return tmp_path / "outside"


def path_of(ref: str) -> Path:
    return Path(ref.removeprefix("file://"))


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_relative_directory_gives_absolute_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ref = FileBlobs(Path("a/../blobs")).put(CONTENT)
    assert path_of(ref).is_relative_to(tmp_path / "blobs")
    assert ".." not in ref


def test_looking_makes_nothing(blobs: FileBlobs, root: Path) -> None:
    ref = f"file://{root}/sha256/aa/{'a' * 64}.json"
    assert not blobs.exists(ref)
    assert list(blobs.refs()) == []
    with pytest.raises(BlobMissing):
        blobs.get(ref)
    blobs.delete(ref)
    assert not root.exists()


def test_what_is_there_already_is_left_alone(blobs: FileBlobs) -> None:
    before = path_of(blobs.put(CONTENT)).stat()
    after = path_of(blobs.put(CONTENT)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_wrong_shard_is_refused(blobs: FileBlobs, root: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    other = "00" if digest[:2] != "00" else "01"
    ref = f"file://{root}/sha256/{other}/{digest}.json"
    path_of(ref).parent.mkdir(parents=True)
    path_of(ref).write_bytes(CONTENT)

    assert not blobs.accepts(ref)
    assert list(blobs.refs()) == []
    with pytest.raises(RefRefused):
        blobs.get(ref)


# -- links and other things that are no blobs -----------------------------------------------------


def test_a_link_in_the_place_of_a_blob_is_altered_and_healed(
    blobs: FileBlobs, outside: Path
) -> None:
    ref = blobs.put(CONTENT)
    before = files_below(outside)
    target = path_of(FileBlobs(outside).put(CONTENT))
    path_of(ref).unlink()
    path_of(ref).symlink_to(target)  # the very content: it is the link that is refused

    with pytest.raises(BlobAltered):
        blobs.get(ref)
    assert not blobs.exists(ref)
    assert list(blobs.refs()) == []

    assert blobs.put(CONTENT) == ref
    assert not path_of(ref).is_symlink()
    assert blobs.get(ref) == CONTENT
    assert files_below(outside) == before


def test_a_deleted_link_leaves_its_target(blobs: FileBlobs, outside: Path) -> None:
    ref = blobs.put(CONTENT)
    before = files_below(outside)
    path_of(ref).unlink()
    path_of(ref).symlink_to(next(path for path in outside.rglob("*.json")))

    blobs.delete(ref)

    assert not path_of(ref).is_symlink()
    assert files_below(outside) == before


def test_a_dangling_link_makes_no_file_elsewhere(blobs: FileBlobs, tmp_path: Path) -> None:
    ref = blobs.put(CONTENT)
    path_of(ref).unlink()
    path_of(ref).symlink_to(tmp_path / "elsewhere")

    assert blobs.get(blobs.put(CONTENT)) == CONTENT
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("level", ["root", "sha256", "shard"])
def test_a_link_in_the_place_of_a_directory_is_never_followed(
    blobs: FileBlobs, root: Path, outside: Path, level: str
) -> None:
    ref = blobs.put(CONTENT)
    before = files_below(outside)
    shard = path_of(ref).parent
    linked = {"root": root, "sha256": root / "sha256", "shard": shard}[level]
    linked.rename(linked.with_name("moved"))
    linked.symlink_to(outside / linked.relative_to(root), target_is_directory=True)

    for use in (blobs.get, blobs.exists, blobs.delete):
        with pytest.raises(BlobsUnavailable):
            use(ref)
    with pytest.raises(BlobsUnavailable):
        blobs.put(CONTENT)
    with pytest.raises(BlobsUnavailable):
        list(blobs.refs())
    assert files_below(outside) == before


def test_links_above_the_directory_are_the_operators_own(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "mounted").symlink_to(tmp_path / "volume")
    blobs = FileBlobs(tmp_path / "mounted" / "blobs")

    ref = blobs.put(CONTENT)

    assert ref.startswith(f"file://{tmp_path}/mounted/blobs/")
    assert blobs.get(ref) == CONTENT


@pytest.mark.parametrize("thing", ["fifo", "socket", "directory"])
def test_what_is_no_file_is_altered_and_hangs_nobody(
    blobs: FileBlobs, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = blobs.put(CONTENT)
    path = path_of(ref)
    path.unlink()
    if thing == "fifo":
        os.mkfifo(path)
    elif thing == "directory":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # the path of a socket has a length limit
        with socket.socket(socket.AF_UNIX) as planted:
            planted.bind(path.name)

    with pytest.raises(BlobAltered):
        blobs.get(ref)
    assert not blobs.exists(ref)
    if thing == "directory":
        with pytest.raises(BlobsUnavailable):
            blobs.put(CONTENT)
    else:
        assert blobs.get(blobs.put(CONTENT)) == CONTENT


def test_a_file_in_the_place_of_the_directory_is_unavailable(blobs: FileBlobs, root: Path) -> None:
    root.parent.mkdir()
    root.write_bytes(b"")
    with pytest.raises(BlobsUnavailable, match=str(root)):
        blobs.ping()
    with pytest.raises(BlobsUnavailable):
        blobs.put(CONTENT)


def test_a_full_disk_is_unavailable_and_leaves_nothing(
    blobs: FileBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("riskhub.blobs.file.os.replace", full)
        with pytest.raises(BlobsUnavailable, match="No space left"):
            blobs.put(CONTENT)
    assert files_below(root) == {}
    assert blobs.get(blobs.put(CONTENT)) == CONTENT


# -- crashes and crowds ---------------------------------------------------------------------------

_KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from riskhub.blobs.file import FileBlobs

os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
FileBlobs(Path(sys.argv[1])).put(sys.argv[2].encode())
"""


def test_a_writer_killed_half_way_leaves_no_blob(blobs: FileBlobs, root: Path) -> None:
    command = [sys.executable, "-c", _KILLED_BEFORE_THE_RENAME, str(root), CONTENT.decode()]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(files_below(root)) == 1  # what it had written so far

    assert list(blobs.refs()) == []
    ref = blobs.put(CONTENT)
    assert list(blobs.refs()) == [ref]
    assert blobs.get(ref) == CONTENT


def test_fifty_threads_put_one_content(blobs: FileBlobs, root: Path) -> None:
    content = os.urandom(100_000)
    start = threading.Barrier(50)

    def put(_: int) -> bytes:
        start.wait()
        return blobs.get(blobs.put(content))

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(put, range(50))) == {content}
    assert list(files_below(root).values()) == [content]
