"""`riskhub exit-engine`, as a person types it."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from builders import WORLD
from databases import migrate
from exiting import START, compute_world, rule, write_rules
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.exits.stream import EXIT_STREAM
from riskhub.hub import utc_now
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine

Run = Callable[..., Result]
WIDTH = 80


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Types a command, on a terminal of 80 columns."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", WIDTH)
    rules = write_rules(tmp_path / "rules.yaml", rule(mode="enforce", confirm={"days": 1}))
    monkeypatch.setenv("RISKHUB_EXIT_RULES_PATH", str(rules))
    monkeypatch.setenv("USER", "somebody")
    return lambda *words: CliRunner().invoke(app, ["exit-engine", *words])


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    opened = Store(create_engine(load_settings().effective_database_url))
    migrate(opened.engine)
    yield opened
    opened.close()


def told(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()), default=0) <= WIDTH
    return str(result.stdout)


def compute(store: Store, *es: float) -> None:
    for number, value in enumerate(es):
        at = START + timedelta(days=number)
        compute_world(store, value, as_of=at, version=f"v{number}", stage="backtest")


def test_a_replay_is_a_table_of_episodes(run: Run, store: Store) -> None:
    compute(store, 0.03, 0.1, 0.12, 0.04, 0.2)
    table = told(run("replay"))
    assert "Episodes of 2026-01-05 to 2026-01-09" in table
    lines = [line.split() for line in table.splitlines() if "es-limit" in line]
    assert lines == [
        [WORLD, "es-limit", "reduce", "2026-01-06", "2026-01-08", "2", "12.00%", "2026-01-07"],
        ["es-limit", "reduce", "2026-01-09", "open", "0", "20.00%", "2026-01-09"],
    ]
    assert "2 episodes, 1 of them open at the end; 3 signals of 5 observations" in table


def test_a_replay_of_some_days_worlds_and_rules(run: Run, store: Store, tmp_path: Path) -> None:
    compute(store, 0.1, 0.1, 0.04)
    other = str(write_rules(tmp_path / "other.yaml", rule(id="a"), rule(id="b", enter=0.09)))
    rows = run("replay", "--rules", other, "--rule", "b", "--from", "2026-01-06", "--json").stdout
    (row,) = map(json.loads, rows.splitlines())
    assert (row["rule"], row["opened_at"]) == ("b", "2026-01-06T21:00:00.000000Z")
    assert row["evidence"]["opened"]["version"] == "v1"
    assert "there is no c, but a, b" in run("replay", "--rules", other, "--rule", "c").output
    nothing = run("replay", "--world", "fx")
    assert nothing.exit_code == 1
    assert "there are no risk numbers from 2026-01-05 to 2026-01-07" in nothing.output
    assert "before" in run("replay", "--from", "2026-01-06", "--to", "2026-01-05").output


def test_without_any_numbers_there_is_nothing_to_replay(run: Run, store: Store) -> None:
    result = run("replay")
    assert result.exit_code == 1
    assert "there are no risk numbers at all" in result.output


def test_once_looks_at_every_world_and_what_it_told_is_listed_and_acknowledged(
    run: Run,
    store: Store,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RISKHUB_REDIS_URL", redis_url)
    assert "There are no such episodes." in told(run("list"))
    compute_world(store, 0.1, as_of=utc_now(), version="a")
    result = run("--once")
    assert result.exit_code == 0, result.output
    assert "event=opened rule=es-limit world=equities stage=paper action=reduce" in result.stdout
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(EXIT_STREAM) == 1

    (row,) = map(json.loads, run("list", "--json").stdout.splitlines())
    assert (row["value"], row["history"][0]["signal"]) == (0.1, "opened")
    table = told(run("list", "--open", "--world", WORLD))
    for text in (row["id"], "reduce to 50%", "still open", "10.00%", "last wrote"):
        assert text in table
    assert "es-limit in equities: seen by somebody at" in told(run("ack", row["id"]))
    assert "seen by somebody at" in told(run("ack", row["id"], "--by", "another"))
    assert "seen by somebody" in told(run("list"))
    assert "no such" in told(run("list", "--world", "fx"))
    (tmp_path / "rules.yaml").write_text("rules: [")
    assert "worst 0.1" in told(run("list"))  # in no rule's words, but told


def test_what_there_is_no_episode_of_can_not_be_acknowledged(run: Run, store: Store) -> None:
    result = run("ack", "nope")
    assert result.exit_code == 1
    assert "there is no episode nope" in result.output
    assert run("ack", "nope", "--by", "").exit_code == 2


def test_rules_are_shown_and_checked(run: Run, tmp_path: Path) -> None:
    table = told(run("rules"))
    for text in ("es-limit", "ES 0.99 historical", "8.00%", "5.00%", "enforce", "1 rules, sha256:"):
        assert text in table
    broken = write_rules(tmp_path / "broken.yaml", rule(enter=0.01))
    result = run("rules", str(broken))
    assert result.exit_code == 1
    assert "rules[0] (es-limit): leave" in result.output


def test_the_shipped_rules_fit_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RISKHUB_EXIT_RULES_PATH")
    table = told(run("rules"))
    for text in ("stress-loss", "black-monday-1987", "red", "30m"):
        assert text in table


def test_a_broken_file_of_rules_stops_the_engine_before_it_begins(
    run: Run, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [")
    result: Any = run("--once")
    assert result.exit_code == 1
    assert "not YAML" in result.output
