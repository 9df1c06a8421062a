"""`riskhub dlq`, as a person types it, and what a worker makes of what was sent again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW, accept
from databases import migrate
from on_topic import all_on
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.controlbus.events import parse
from riskhub.controlbus.replay import HANDLER
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine
from riskhub.store.tables import snapshots

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Types a command, on a wide terminal."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    """A hub that nothing has landed in."""
    store = Store(create_engine(load_settings().effective_database_url))
    migrate(store.engine)
    yield store
    store.close()


def die(store: Store, raw: bytes | None = None, **fields: Any) -> None:
    """Give up on the event of a landing, or on other bytes."""
    if raw is None:
        before = store.events_head()
        store.land([accept(version=f"v{before}")])
        (event,) = store.events_after(before, limit=1)
        raw, event_id = event.cloud_event(), event.id
    else:
        event_id = ""
    letter = {
        "handler": "stress",
        "event_id": event_id,
        "type": "risk_snapshot_updated",
        "key": "equities",
        "origin": "outbox 1",
        "reason": "no [such] thing",
        "attempts": 3,
        "raw": raw,
        "died_at": NOW,
    }
    store.add_dead_letters([letter | fields])


def test_without_dead_letters_it_says_so(run: Run, store: Store) -> None:
    result = run("dlq", "list")

    assert result.exit_code == 0
    assert result.stdout == "There are no dead letters.\n"


def test_they_are_listed_newest_first_with_the_reason(run: Run, store: Store) -> None:
    die(store)
    die(store, b"\xff", handler="", type="", key="")

    lines = run("dlq", "list").stdout.splitlines()

    rows = [line for line in lines if "│" in line]
    assert [row.split("│")[1].strip() for row in rows] == ["2", "1"]
    assert "(no event)" in rows[0]
    assert "no [such] thing" in rows[1]
    assert lines[-1] == (
        "2 wait to be seen to: `riskhub dlq redrive` sends them again, `riskhub dlq drop` "
        "removes them."
    )
    first, second = map(json.loads, run("dlq", "list", "--json").stdout.splitlines())
    assert (first["id"], second["handler"], "raw" in first) == (2, "stress", False)


def test_one_is_shown_with_its_event(run: Run, store: Store) -> None:
    die(store)
    die(store, b"\xff{")

    shown = run("dlq", "show", "1").stdout

    assert "reason       no [such] thing" in shown
    assert "died_at      2026-01-31T21:05:00" in shown
    event = json.loads(shown[shown.index("{") :])
    assert event["type"] == "risk_snapshot_updated"
    assert run("dlq", "show", "2").stdout.endswith("b'\\xff{'\n")
    missing = run("dlq", "show", "3")
    assert (missing.exit_code, missing.stderr) == (1, "riskhub: there is no dead letter 3\n")


def test_an_event_of_the_outbox_is_repeated_with_its_id(run: Run, store: Store) -> None:
    die(store)

    result = run("dlq", "redrive", "1")

    assert (result.exit_code, result.stdout) == (0, "sent again: 1\n")
    first, second = store.events_after(0, limit=10)
    assert second.id == first.id
    letter = store.dead_letter(1)
    assert letter is not None
    assert letter["redriven_at"] is not None
    assert run("dlq", "list").stdout == "There are no dead letters.\n"
    assert "(sent again)" in run("dlq", "list", "--all").stdout


def test_all_are_sent_oldest_first_but_for_those_that_can_not_be(run: Run, store: Store) -> None:
    die(store)
    die(store)
    die(store, b"nonsense")
    store.note_redriven(1, NOW)

    result = run("dlq", "redrive", "--all")

    assert result.exit_code == 1
    assert result.stdout == "sent again: 1\n"
    assert "dead letter 3 is no event (is not JSON" in result.stderr
    assert store.count_dead_letters() == 1


def test_an_event_that_went_with_its_snapshot_is_refused(run: Run, store: Store) -> None:
    die(store)
    with store.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM events"))

    result = run("dlq", "redrive", "1")

    assert result.exit_code == 1
    assert "the outbox has event 1 no more" in result.stderr
    assert store.count_dead_letters() == 1


def test_what_did_not_verify_is_not_sent_but_to_be_repaired_and_replayed(
    run: Run, store: Store
) -> None:
    die(store, handler=HANDLER)
    die(store)
    head = store.events_head()

    result = run("dlq", "redrive", "--all")

    assert (result.exit_code, result.stdout) == (1, "sent again: 1\n")
    assert result.stderr == (
        "riskhub: dead letter 1 did not verify when it was replayed, so it is not sent as it is: "
        "bring back its blob or row, then "
        "`riskhub events replay --world equities --from 2026-01-31 --to 2026-01-31`\n"
    )
    assert [event.subject for event in store.events_after(head, limit=10)] == ["equities/v1"]
    die(store, b"nonsense", handler=HANDLER)
    assert "then replay its day of world equities" in run("dlq", "redrive", "3").stderr
    assert store.count_dead_letters() == 2


def test_what_nothing_is_to_be_done_about_is_removed(run: Run, store: Store) -> None:
    die(store, b"nonsense", handler="", type="")
    die(store)

    result = run("dlq", "drop", "1", "7")

    assert (result.exit_code, result.stdout) == (1, "removed: 1\n")
    assert result.stderr == "riskhub: there is no dead letter 7\n"
    assert [letter["id"] for letter in store.dead_letters(limit=10)] == [2]
    assert run("dlq", "drop").exit_code == 2


def test_ids_or_all_have_to_be_given(run: Run, store: Store) -> None:
    assert run("dlq", "redrive").exit_code == 2
    assert run("dlq", "redrive", "1", "--all").exit_code == 2
    assert "there is no dead letter 7" in run("dlq", "redrive", "7").stderr


def test_with_brokers_the_bytes_go_to_the_topic_as_they_came(
    run: Run,
    store: Store,
    kafka_server: str,
    kafka_topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    die(store)
    monkeypatch.setenv("RISKHUB_CONTROLBUS_BROKERS", kafka_server)
    monkeypatch.setenv("RISKHUB_CONTROLBUS_TOPIC", kafka_topic)

    result = run("dlq", "redrive", "--all")

    assert (result.exit_code, result.stdout) == (0, "sent again: 1\n")
    (on_topic,) = all_on(kafka_server, kafka_topic)
    (event,) = store.events_after(0, limit=10)
    assert (on_topic.key, on_topic.event.raw) == ("equities", event.cloud_event())


def test_brokers_that_are_away_are_named_and_nothing_is_noted(
    run: Run,
    store: Store,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    die(store)
    monkeypatch.setenv("RISKHUB_CONTROLBUS_BROKERS", f"127.0.0.1:{free_port()}")

    result = run("dlq", "redrive", "--all")

    assert result.exit_code == 1
    assert result.stderr.startswith("riskhub: Kafka: ")
    assert store.count_dead_letters() == 1


def test_what_killed_an_event_is_mended_and_a_worker_goes_on_with_it(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_WORKER__BACKOFF_SEC", "0")
    store.land([accept()])
    good = store.events_after(0, limit=1)[0]
    body = json.loads(good.data)
    body["weights"] = {"BAC": "half"}
    write(store, json.dumps(body))

    assert run("worker", "--once").exit_code == 0
    (letter,) = store.dead_letters(limit=10)
    assert letter["handler"] == "validation"
    assert run("dlq", "redrive", str(letter["id"])).exit_code == 0
    assert run("worker", "--once").exit_code == 0
    assert len(store.dead_letters(limit=10)) == 2  # it has died again
    assert store.pending_days().days

    write(store, json.dumps(body | {"weights": {"BAC": 1.0}}))
    assert run("dlq", "redrive", "--all").stdout == "sent again: 1\n"
    assert run("worker", "--once").exit_code == 0

    assert store.pending_days().days == ()
    assert store.count_dead_letters() == 0
    assert parse(letter["raw"]).id == good.id


def test_while_kafka_is_away_a_worker_goes_on_from_the_outbox(
    run: Run, store: Store, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_CONTROLBUS_BROKERS", f"127.0.0.1:{free_port()}")
    store.land([accept()])

    result = run("worker", "--outbox", "--once")

    assert (result.exit_code, "bus=outbox" in result.stdout) == (0, True)
    assert store.pending_days().days == ()


def write(store: Store, body: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(sa.update(snapshots).values(body=body))
