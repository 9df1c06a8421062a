"""Backup and restore, of Postgres with blobs in S3, and of SQLite with blobs in files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import service_resolution
import sqlalchemy as sa
from builders import ACTOR, NOW, STAGE, WORLD, snapshot_document
from databases import migrate

from riskhub import backup
from riskhub.audit.look import Auditor, Scope
from riskhub.backup import BackupUnusable
from riskhub.blobs import BlobSettings, BlobStore, open_blobs
from riskhub.errors import BlobUnusable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store, create_engine, dump
from riskhub.store.engine import reading
from riskhub.store.tables import metadata

SYMBOLS = [f"S{number}" for number in range(12)]


@dataclass
class Deployment:
    """A hub with a database and a blob store of its own."""

    settings: Settings

    def __post_init__(self) -> None:
        self.engine = create_engine(self.settings.effective_database_url)
        blobs = open_blobs(self.settings)
        assert blobs is not None
        self.blobs: BlobStore = blobs
        self.hub = Hub(Store(self.engine), self.settings, lambda: NOW, blobs=blobs)

    def land(self, *numbers: int) -> None:
        """Snapshots with an offloaded covariance, of which there are three."""
        for number in numbers:
            cells = {
                f"{a},{b}": 0.04 if a == b else 0.01 + (number % 3) / 1000
                for i, a in enumerate(SYMBOLS)
                for b in SYMBOLS[i:]
            }
            document = snapshot_document(
                version=f"v{number}",
                weights=dict.fromkeys(SYMBOLS, 1 / len(SYMBOLS)),
                covariance=cells,
            )
            raw = json.dumps(document).encode()
            snapshot = self.hub.accept(raw, world_id=WORLD, actor=ACTOR, stage=STAGE)
            self.hub.land([snapshot])

    def content(self) -> dict[str, list[Any]]:
        """Every row of every table, and every blob."""
        with reading(self.engine) as connection:
            rows: dict[str, list[Any]] = {
                table.name: sorted(map(repr, connection.execute(sa.select(table))))
                for table in metadata.sorted_tables
            }
        refs = sorted(set(self.blobs.refs()))
        return rows | {"blobs": [(ref, self.blobs.get(ref)) for ref in refs]}

    def lose_blobs(self) -> None:
        for ref in list(self.blobs.refs()):
            self.blobs.delete(ref)


@pytest.fixture(params=["postgres and s3", "sqlite and files"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Settings]]:
    """Of two hubs: with a database each, and one blob store, as after the loss of a database."""
    if request.param.startswith("sqlite"):
        urls = [f"sqlite:///{tmp_path / name}.db" for name in ("lost", "new")]
        blobs = BlobSettings(kind="file", directory=tmp_path / "blobs")
        yield [Settings(database_url=url, blobs=blobs, inline_cov_threshold=9) for url in urls]
        return
    server = request.getfixturevalue("postgres_server")
    blobs = request.getfixturevalue("s3_bucket")
    with (
        service_resolution.fresh_database(server) as lost,
        service_resolution.fresh_database(server) as new,
    ):
        yield [
            Settings(database_url=url, blobs=blobs, inline_cov_threshold=9) for url in (lost, new)
        ]


@pytest.fixture
def deployments(settings: list[Settings]) -> Iterator[list[Deployment]]:
    opened = [Deployment(each) for each in settings]
    migrate(opened[0].engine)
    yield opened
    for each in opened:
        each.engine.dispose()


@pytest.fixture
def lost(deployments: list[Deployment]) -> Deployment:
    """Nine snapshots with three blobs, to be lost."""
    deployments[0].land(*range(9))
    return deployments[0]


@pytest.fixture
def new(deployments: list[Deployment]) -> Deployment:
    """An empty database."""
    return deployments[1]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def back_up(hub: Deployment, directory: Path, **more: Any) -> backup.Backup:
    return backup.back_up(hub.engine, hub.blobs, directory, now=NOW, **more)


def restore(hub: Deployment, directory: Path) -> dump.Figures:
    return backup.restore(hub.engine, hub.blobs, directory, backup.choose(directory, None))


def test_a_restored_hub_has_every_row_and_every_blob_and_goes_on(
    lost: Deployment, new: Deployment, directory: Path
) -> None:
    before = lost.content()
    made = back_up(lost, directory)
    assert (made.figures.snapshots, made.blobs, made.lacking) == (9, 3, ())
    assert list(backup.damages(directory, made)) == []

    lost.lose_blobs()
    restore(new, directory)

    assert new.content() == before
    audited = Auditor(new.hub.store, new.blobs, Scope(NOW), lambda *_: None)
    audited.run()
    assert audited.ledger.is_clean
    assert audited.ledger.looked_at["landings"] == 9
    new.land(9)
    assert new.hub.store.head() > made.figures.newest_position


def test_what_lands_during_a_backup_is_wholly_in_the_next(
    lost: Deployment, new: Deployment, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lost.content()
    as_it_was = dump.Instant.dump

    def with_landings(instant: dump.Instant, file: Path) -> None:
        if lost.engine.dialect.name == "postgresql":  # in SQLite the dump is one statement
            lost.land(20)
        as_it_was(instant, file)

    monkeypatch.setattr(dump.Instant, "dump", with_landings)
    made = back_up(lost, directory, progress=lambda *_: lost.land(21))
    assert made.figures.snapshots == 9
    lost.lose_blobs()
    restore(new, directory)
    assert new.content() == before


def test_a_second_backup_copies_no_blob_again(
    lost: Deployment, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(lost, directory)
    read: list[str] = []
    get = lost.blobs.get
    monkeypatch.setattr(lost.blobs, "get", lambda ref: read.append(ref) or get(ref))
    backup.back_up(lost.engine, lost.blobs, directory, now=NOW.replace(hour=22))
    assert read == []
    assert [each.name for each in backup.backups(directory)] == [
        "2026-01-31T21-05-00Z",
        "2026-01-31T22-05-00Z",
    ]


def test_a_blob_that_is_gone_is_told_and_the_rest_is_backed_up(
    lost: Deployment, new: Deployment, directory: Path
) -> None:
    gone, *kept = sorted(set(lost.blobs.refs()))
    lost.blobs.delete(gone)
    made = back_up(lost, directory)
    assert made.lacking == (gone,)
    lost.lose_blobs()
    restore(new, directory)
    assert sorted(set(new.blobs.refs())) == kept


def damaged(directory: Path, pattern: str) -> Path:
    """Flip the last byte of the first such file."""
    path = sorted(directory.glob(pattern))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_a_damaged_blob_is_not_restored(lost: Deployment, new: Deployment, directory: Path) -> None:
    made = back_up(lost, directory)
    path = damaged(directory, "blobs/sha256/*/*.json")
    (told,) = backup.damages(directory, made)
    assert path.stem in told
    lost.lose_blobs()
    with pytest.raises(BlobUnusable, match="does not have this digest"):
        restore(new, directory)
    assert dump.is_empty(new.engine)


@pytest.mark.parametrize("file", [backup.DATABASE, backup.REFS])
def test_a_damaged_dump_is_not_restored(
    lost: Deployment, new: Deployment, directory: Path, file: str
) -> None:
    made = back_up(lost, directory)
    damaged(directory, f"*/{file}")
    assert f"{made.name}/{file} is not what was written" in list(backup.damages(directory, made))
    with pytest.raises(BackupUnusable, match="is not what was written"):
        restore(new, directory)
    assert dump.is_empty(new.engine)


def test_a_database_with_something_in_it_is_left_alone(lost: Deployment, directory: Path) -> None:
    back_up(lost, directory)
    before = lost.content()
    with pytest.raises(BackupUnusable, match="not empty"):
        restore(lost, directory)
    assert lost.content() == before


def test_blobs_go_back_only_where_their_references_are_understood(
    lost: Deployment, new: Deployment, directory: Path, tmp_path: Path
) -> None:
    back_up(lost, directory)
    elsewhere = BlobSettings(kind="file", directory=tmp_path / "elsewhere")
    new.blobs = open_blobs(new.settings.model_copy(update={"blobs": elsewhere}))  # type: ignore[assignment]
    with pytest.raises(BackupUnusable, match="set `blobs` as it was"):
        restore(new, directory)
    assert dump.is_empty(new.engine)


def test_a_backup_that_was_cut_short_is_none(lost: Deployment, directory: Path) -> None:
    made = back_up(lost, directory)
    (directory / made.name / backup.MANIFEST).unlink()
    with pytest.raises(BackupUnusable, match="has no backup"):
        backup.choose(directory, None)
