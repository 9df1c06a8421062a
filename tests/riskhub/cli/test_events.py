"""`riskhub events tail`, `show` and `replay`, as a person types them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD, accept
from databases import migrate
from on_topic import all_on
from served import environment
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console, errors
from riskhub.controlbus.events import EXIT_SIGNAL, SNAPSHOT_UPDATED, NewEvent
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing
from riskhub.store.tables import snapshots

Run = Callable[..., Result]
DAYS = ("--from", "2026-01-05", "--to", "2026-01-06")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Types a command, on a wide terminal."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setattr(errors, "width", 200)
    return lambda *words: CliRunner().invoke(app, ["events", *map(str, words)])


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    store = Store(create_engine(load_settings().effective_database_url))
    migrate(store.engine)
    yield store
    store.close()


def land(store: Store, *days: int, world_id: str = WORLD) -> None:
    store.land(
        [
            accept(version=f"v{day}", as_of=f"2026-01-{day:02}T12:00:00Z", world_id=world_id)
            for day in days
        ]
    )


def signal_of(store: Store) -> None:
    told = {"signal": "opened", "action": "freeze", "mode": "shadow", "why": "VaR [is] high"}
    key = f"{EXIT_SIGNAL}:1"
    store.add_events([NewEvent(EXIT_SIGNAL, WORLD, f"{WORLD}/var-limit", key, NOW, told)])


# -- tail, show -----------------------------------------------------------------------------------


def test_tail_shows_the_newest_in_order_a_line_each(run: Run, store: Store) -> None:
    land(store, 5, 6, 7)
    signal_of(store)

    lines = run("tail", "--last", 3).output.splitlines()

    assert [line.split()[0] for line in lines] == ["2", "3", "4"]
    assert lines[0].split() == ["2", "2026-01-31", "21:05:00Z", SNAPSHOT_UPDATED, f"{WORLD}/v6"]
    assert lines[2].endswith(f"{WORLD}/var-limit  opened, freeze, shadow: VaR [is] high")


def test_tail_chooses_by_place_world_and_type(run: Run, store: Store) -> None:
    land(store, 5, 6)
    land(store, 5, world_id="b")
    signal_of(store)

    def shown(*words: object) -> list[str]:
        return [line.split()[0] for line in run("tail", *words).output.splitlines()]

    assert shown() == ["1", "2", "3", "4"]
    assert shown("--after", 2) == ["3", "4"]
    assert shown("--after", 0, "--world", "b") == ["3"]
    assert shown("--type", EXIT_SIGNAL) == ["4"]
    assert shown("--world", WORLD, "--last", 2) == ["2", "4"]
    assert shown("--last", 0) == []
    assert run("tail", "--type", "nothing").exit_code == 2


def test_for_programs_tail_gives_cloud_events(run: Run, store: Store) -> None:
    land(store, 5, 6)
    told = run("tail", "--json").stdout_bytes
    assert told.splitlines() == [event.cloud_event() for event in store.events_after(0, limit=10)]


def test_follow_goes_on_with_what_comes(run: Run, store: Store, tmp_path: Path) -> None:
    land(store, 5)
    with subprocess.Popen(
        [sys.executable, "-m", "riskhub", "events", "tail", "--follow", "--json"],
        cwd=tmp_path,
        env=environment(load_settings().home.resolve()),
        stdout=subprocess.PIPE,
    ) as following:
        try:
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["subject"] == f"{WORLD}/v5"
            land(store, 6)
            assert json.loads(following.stdout.readline())["subject"] == f"{WORLD}/v6"
        finally:
            following.kill()


def test_show_has_one_event_readable_or_as_it_is_told(run: Run, store: Store) -> None:
    land(store, 5)
    (event,) = store.events_after(0, limit=1)
    assert json.loads(run("show", 1).stdout) == json.loads(event.cloud_event())
    assert run("show", 1, "--json").stdout_bytes == event.cloud_event() + b"\n"
    none = run("show", 9)
    assert (none.exit_code, none.stderr.strip()) == (1, "riskhub: there is no event 9")


# -- replay ---------------------------------------------------------------------------------------


def test_replay_tells_the_days_again_and_says_so(run: Run, store: Store) -> None:
    land(store, 4, 5, 6, 7)

    rehearsed = run("replay", "--world", WORLD, *DAYS, "--dry-run")
    assert rehearsed.stdout == "2 of 2 landings would be told again\n"
    assert store.events_head() == 4

    result = run("replay", "--world", WORLD, *DAYS)

    assert (result.exit_code, result.stdout) == (0, "2 of 2 landings told again, into the outbox\n")
    again = store.events_after(4, limit=10)
    assert [event.subject for event in again] == [f"{WORLD}/v5", f"{WORLD}/v6"]


def test_replay_ends_with_1_when_something_did_not_verify(run: Run, store: Store) -> None:
    land(store, 5, 6)
    with writing(store.engine) as connection:
        broken = sa.update(snapshots).where(snapshots.c.version == "v5")
        connection.execute(broken.values(body=sa.func.replace(snapshots.c.body, "0.5", "0.6")))

    result = run("replay", "--world", WORLD, *DAYS)

    assert result.exit_code == 1
    assert result.stdout == "1 of 2 landings told again, into the outbox\n"
    assert "outbox 1: the stored body does not have the digest" in result.stderr
    assert "1 did not verify and were not told; see `riskhub dlq list`" in result.stderr
    assert store.count_dead_letters() == 1


def test_replay_of_nothing_is_refused(run: Run, store: Store) -> None:
    land(store, 7)
    result = run("replay", "--world", WORLD, *DAYS)
    assert result.exit_code == 1
    assert f"world {WORLD} has no landing with an as_of from 2026-01-05" in result.stderr
    assert run("replay", "--world", WORLD, "--from", "2026-01-06", "--to", "2026-01-05").exit_code


def test_replay_goes_straight_to_a_topic_where_there_are_brokers(
    run: Run, store: Store, kafka_server: str, kafka_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(store, 5, 6)
    asked = ("replay", "--world", WORLD, *DAYS, "--topic", kafka_topic)
    assert "no brokers are configured" in run(*asked).stderr
    monkeypatch.setenv("RISKHUB_CONTROLBUS_BROKERS", kafka_server)

    result = run(*asked)

    assert result.stdout == f"2 of 2 landings told again, on topic {kafka_topic}\n"
    told = [each.event.subject for each in all_on(kafka_server, kafka_topic)]
    assert told == [f"{WORLD}/v5", f"{WORLD}/v6"]
    assert store.events_head() == 2
