"""`riskhub backup` and `riskhub restore`, as a person types them."""

import json
from pathlib import Path

import pytest
from builders import NOW, accept
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine, migrate


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture(autouse=True)
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub with one snapshot, in a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path / "lost"))
    store = Store(create_engine(load_settings().effective_database_url))
    migrate(store.engine)
    store.land([accept()])
    store.close()


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_it_is_made_listed_checked_and_restored(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(typed("backup", kept, "--json").stdout)
    assert made["figures"]["snapshots"] == 1
    assert made["name"] in typed("backup", kept, "--list").stdout
    assert f"{made['name']} is whole" in typed("backup", kept, "--check").stdout

    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path / "new"))
    told = typed("restore", kept, "--at", made["name"])
    assert told.exit_code == 0
    assert told.stdout.startswith("1 snapshots and 0 blobs as of")
    store = Store(create_engine(load_settings().effective_database_url))
    assert store.by_version("equities", "v1", now=NOW) is not None
    store.close()


def test_what_is_damaged_ends_with_its_name_and_exit_code_1(kept: Path) -> None:
    typed("backup", kept)
    (dump,) = kept.glob("*/database.dump")
    dump.write_bytes(b"")
    told = typed("backup", kept, "--check")
    assert told.exit_code == 1
    assert "database.dump is not what was written" in told.stderr


def test_a_restore_into_a_hub_that_is_there_is_refused(kept: Path) -> None:
    typed("backup", kept)
    told = typed("restore", kept)
    assert told.exit_code == 1
    assert "the database is not empty" in told.stderr


def test_a_directory_without_a_backup_says_so(kept: Path) -> None:
    assert "has no backup" in typed("restore", kept).stderr
