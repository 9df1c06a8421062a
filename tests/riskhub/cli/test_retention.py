"""`riskhub retention`, as a person types it."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from builders import ACTOR, WORLD, Clock, raw_document
from databases import migrate
from rich.console import Console
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.blobs import BlobStore, open_blobs
from riskhub.cli import app, frame, retention
from riskhub.cli.frame import console
from riskhub.hub import Hub, utc_now
from riskhub.settings import load_settings
from riskhub.store import Filter, Store, create_engine

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Types a command, on a wide terminal, where backtests are kept for a week."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    (tmp_path / "riskhub.yml").write_text(
        "risk_hub: {home: ., inline_cov_threshold: 1, blobs: {kind: file},"
        " retention: {days: {backtest: 7}}}"
    )
    return lambda *words: CliRunner().invoke(app, ["retention", *words])


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    """A month ago, two backtests and a live snapshot with a field in the blob store each."""
    settings = load_settings()
    store = Store(create_engine(settings.effective_database_url))
    migrate(store.engine)
    clock = Clock(utc_now() - timedelta(days=30))
    hub = Hub(store, settings, clock, blobs=open_blobs(settings))
    for number, stage in enumerate(["backtest", "backtest", "live"]):
        raw = raw_document(
            version=f"v{number}",
            as_of=f"2020-01-0{number + 1}T00:00:00Z",
            stress={"crash": {"loss": number, "n": 1}},
        )
        hub.land([hub.accept(raw, world_id=WORLD, actor=ACTOR, stage=stage)])
    yield store
    store.close()


def stored(store: Store) -> int:
    everything = Filter(include_expired=True)
    return len(store.newest_first(WORLD, everything, now=utc_now(), limit=100).bodies)


def blobs() -> BlobStore:
    opened = open_blobs(load_settings())
    assert opened is not None
    return opened


def rows(output: str) -> dict[str, list[str]]:
    """The table's rows by their first cell."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_it_shows_what_would_go_and_changes_nothing(run: Run, store: Store) -> None:
    result = run()

    assert result.exit_code == 0, result.output
    assert rows(result.stdout) == {
        "snapshots of backtest": ["2", "2020-01-01 – 2020-01-02"],
        "unreferenced blobs": ["0", ""],
        "blobs to condemn, to be removed after their grace": ["2", ""],
    }
    assert "--apply" in result.stdout
    assert (stored(store), len(list(blobs().refs()))) == (3, 3)


def test_applied_it_is_done_and_said(run: Run, store: Store) -> None:
    result = run("--apply")

    assert result.exit_code == 0, result.output
    assert rows(result.stdout) == {
        "snapshots of backtest": ["2", "2020-01-01 – 2020-01-02"],
        "unreferenced blobs": ["0", ""],
        "blobs condemned, to be removed after their grace": ["2", ""],
    }
    assert "--apply" not in result.stdout
    assert (stored(store), len(list(blobs().refs()))) == (1, 3)
    assert rows(run().stdout)["snapshots"] == ["0", ""]


def test_blobs_go_when_their_grace_is_over(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--apply")
    later = utc_now() + timedelta(hours=25)
    monkeypatch.setattr(retention, "utc_now", lambda: later)

    assert rows(run().stdout)["unreferenced blobs"] == ["2", ""]
    assert rows(run("--apply").stdout)["unreferenced blobs"] == ["2", ""]

    assert len(list(blobs().refs())) == 1


@pytest.mark.parametrize("applied", [False, True])
def test_for_programs(run: Run, store: Store, applied: bool) -> None:
    result = run("--json", *(["--apply"] if applied else []))

    assert json.loads(result.stdout) == {
        "applied": applied,
        "snapshots": [
            {
                "stage": "backtest",
                "count": 2,
                "oldest_as_of": "2020-01-01T00:00:00.000000Z",
                "newest_as_of": "2020-01-02T00:00:00.000000Z",
            }
        ],
        "blobs_condemned": 2,
        "blobs_removed": 0,
    }


def test_a_terminal_has_a_progress_bar(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=100)
    monkeypatch.setattr(frame, "errors", terminal)

    assert run("--apply").exit_code == 0

    assert "snapshots" in drawn.getvalue()
    assert "2/2" in drawn.getvalue()
    assert "blobs looked at" in drawn.getvalue()


def test_a_stages_name_is_no_markup(run: Run, store: Store) -> None:
    hub = Hub(store, load_settings(), Clock(utc_now() - timedelta(days=30)))
    raw = raw_document(as_of="2020-01-01T00:00:00Z")
    hub.land([hub.accept(raw, world_id="other", actor=ACTOR, stage="[red]")])
    Path("riskhub.yml").write_text("risk_hub: {home: ., retention: {default_days: 1}}")

    assert "snapshots of [red]" in rows(run().stdout)


def test_a_blob_store_that_is_down_is_one_sentence(run: Run, store: Store) -> None:
    Path("blobs").rename("aside")
    Path("blobs").touch()

    result = run("--apply")

    assert result.exit_code == 1
    assert result.stderr.startswith("riskhub: the blob directory ")
    assert result.stderr.count("\n") == 1
    assert stored(store) == 1  # that much is done, and the next run goes on


def test_a_database_that_is_not_migrated_is_one_sentence(run: Run) -> None:
    result = run()

    assert result.exit_code == 1
    assert "riskhub migrate" in result.stderr
