"""`riskhub quarantine`, as a person types it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from builders import accept
from databases import migrate
from stored import verdict
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine

Run = Callable[..., Result]
SINCE = datetime(2026, 1, 31, 22, tzinfo=UTC)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Types a command, on a wide terminal."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    return lambda *words: CliRunner().invoke(app, ["quarantine", *words])


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    """A hub that nothing has landed in."""
    store = Store(create_engine(load_settings().effective_database_url))
    migrate(store.engine)
    yield store
    store.close()


def reject(store: Store, count: int = 1, *, world_id: str = "equities", **named: str) -> None:
    """Land snapshots, and reject them one after the other."""
    store.land([accept(version=f"v{n}", world_id=world_id, **named) for n in range(count)])
    landed = store.landed_on(date(2026, 1, 1), date(2026, 12, 31))[-count:]
    for after, row in enumerate(landed):
        rejected = verdict(
            row.position,
            day=row.day,
            world_id=row.world_id,
            version=row.version,
            as_of=row.as_of,
            stage=row.stage,
            accepted=False,
            reasons=["the first [reason]", "the second"],
            flags=["a flag"],
            evidence={"covariance": {"symbols": 2}},
        )
        since = SINCE + timedelta(seconds=after)
        store.write_verdicts([rejected], [row.day], now=since, replace=False)


def test_it_shows_what_was_rejected_since_when_and_why(run: Run, store: Store) -> None:
    reject(store)

    told = run().output

    for text in (
        "equities", "v0", "paper", "2026-01-31 21:00:00Z", "2026-01-31 22:00:00Z",
        "the first [reason]", "the second",
    ):  # fmt: skip
        assert text in told
    assert "more" not in told


def test_for_programs_it_gives_a_line_of_json_for_each(run: Run, store: Store) -> None:
    reject(store, 2)

    first, second = map(json.loads, run("--json").stdout.splitlines())

    assert second == {
        "world_id": "equities",
        "version": "v0",
        "stage": "paper",
        "as_of": "2026-01-31T21:00:00.000000Z",
        "position": 1,
        "since": "2026-01-31T22:00:00.000000Z",
        "reasons": ["the first [reason]", "the second"],
        "flags": ["a flag"],
        "evidence": {"covariance": {"symbols": 2}},
    }
    assert first["version"] == "v1"


def test_world_and_stage_choose(run: Run, store: Store) -> None:
    reject(store, world_id="fx", stage="live")
    reject(store, world_id="credit")

    def shown(*words: str) -> list[tuple[str, str]]:
        rows = map(json.loads, run("--json", *words).stdout.splitlines())
        return [(row["world_id"], row["stage"]) for row in rows]

    assert shown("--world", "credit") == [("credit", "paper")]
    assert shown("--world", "fx", "--stage", "live") == [("fx", "live")]
    assert shown("--stage", "nowhere") == []


def test_a_long_list_is_cut_and_says_so(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.cli.quarantine._PAGE", 2)
    reject(store, 5)

    told = run("--limit", "3").output
    assert [f"v{n}" in told for n in range(5)] == [False, False, True, True, True]
    assert "--limit" in told
    assert "There are more" not in run("--limit", "5").output
    assert len(run("--json").stdout.splitlines()) == 5
    assert len(run("--json", "--limit", "4").stdout.splitlines()) == 4


def test_an_empty_quarantine_is_told_in_words(run: Run, store: Store) -> None:
    assert "Nothing is in the quarantine" in run().output
    assert "it is empty" in run("--world", "fx").output

    reject(store)

    told = run("--world", "fx", "--stage", "live").output
    assert "Nothing of world fx and stage live" in told
    assert "there are others" in told
    assert run("--json", "--world", "fx").stdout == ""
