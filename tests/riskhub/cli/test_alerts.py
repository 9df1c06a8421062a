"""`riskhub alerts`: what is wrong, who has seen it, what is silenced, and who takes it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alerting import condition
from databases import migrate
from inbox import inbox
from typer.testing import CliRunner, Result

from riskhub.alerts.reconcile import Alert, Severity, State
from riskhub.alerts.records import alert_row
from riskhub.cli import app
from riskhub.cli.frame import console
from riskhub.hub import utc_now
from riskhub.store import Store, create_engine


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path))
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setattr(console, "width", 160)
    monkeypatch.chdir(tmp_path)
    opened = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(opened.engine)
    yield opened
    opened.close()


def alerts(*words: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *words])


def write(store: Store, *, failing: bool = False) -> None:
    """One that is open, one that is over, and the watchdog."""
    now = utc_now()
    seen = [now - timedelta(minutes=90)] * 2 + [now]
    late = condition(detail="The newest is old.", severity=Severity.CRITICAL)
    dog = condition("watchdog", source="watchdog", severity=Severity.INFO)
    rows = [
        alert_row(Alert(late, State.OPEN, *seen, opened_at=seen[0]), over=False),
        alert_row(Alert(dog, State.OPEN, *seen, opened_at=seen[0]), over=False),
        alert_row(
            Alert(
                condition("dead-letters"),
                State.RESOLVED,
                *seen,
                opened_at=seen[0],
                resolved_at=now - timedelta(minutes=80),
            ),
            over=True,
        ),
    ]
    why = {"since": "2026-01-31T21:05:00+00:00", "why": "it answered 500", "failures": 3}
    store.write_alerts(
        rows,
        acknowledgements=[],
        turn=0,
        writer="alerts on here, process 7",
        receivers={"desk": why if failing else {}},
        now=now,
    )


def test_nobody_has_ever_watched(store: Store) -> None:
    told = alerts("list").output
    assert "Nothing is wrong that anybody knows of." in told
    assert "Nobody has ever watched here: `riskhub alerts`." in told


def test_what_is_wrong_now(store: Store) -> None:
    write(store)
    told = alerts("list").output
    for text in ("critical", "late:w/live is wrong", "The newest is old.", "1 h 30 min"):
        assert text in told
    assert "alerts on here, process 7 last looked" in told
    assert "dead-letters" not in told
    assert "watchdog" not in told
    everything = alerts("list", "--all").output
    assert "dead-letters" in everything
    assert "for 10 min" in everything


def test_as_json(store: Store) -> None:
    write(store)
    (row,) = map(json.loads, alerts("list", "--json").output.splitlines())
    assert (row["key"], row["severity"], row["state"]) == ("late:w/live", "critical", "open")
    assert len(alerts("list", "--all", "--json").output.splitlines()) == 2


def test_a_receiver_that_takes_nothing_is_told(store: Store) -> None:
    write(store, failing=True)
    assert "desk takes nothing since 2026-01-31T21:05:00+00:00: it answered 500" in (
        alerts("list").output
    )


def test_somebody_has_seen_it(store: Store) -> None:
    write(store)
    assert "late:w/live: seen by ann at" in alerts("ack", "late:w/live").output
    assert "seen by ann" in alerts("ack", "late:w/live", "--by", "bob").output
    (row,) = map(json.loads, alerts("list", "--json").output.splitlines())
    assert row["acknowledged_by"] == "ann"


@pytest.mark.parametrize("key", ["dead-letters", "nothing"])
def test_what_is_not_open_can_not_be_seen(store: Store, key: str) -> None:
    write(store)
    told = alerts("ack", key)
    assert told.exit_code == 1
    assert f"no alert {key} is open" in told.stderr


def test_a_silence_from_its_beginning_to_its_end(store: Store) -> None:
    assert "Nothing is silenced." in alerts("silences").output
    told = alerts("silence", "late:[x]/*", "--for", "2h", "--reason", "the desk moves")
    assert told.exit_code == 0
    assert told.output.startswith("silence 1: late:[x]/* until ")
    (row,) = map(json.loads, alerts("silences", "--json").output.splitlines())
    assert (row["pattern"], row["created_by"], row["reason"]) == (
        "late:[x]/*",
        "ann",
        "the desk moves",
    )
    (stored,) = store.silences(utc_now())
    assert stored["until"] - stored["since"] == timedelta(hours=2)
    shown = alerts("silences").output
    assert "late:[x]/*" in shown
    assert "the desk moves" in shown
    assert "silence 1 has ended" in alerts("unsilence", "1").output
    assert "Nothing is silenced." in alerts("silences").output
    assert alerts("unsilence", "1").exit_code == 1


@pytest.mark.parametrize("lasts", ["", "2", "0h", "-1h", "2w", "99999h", "1h30m"])
def test_a_time_that_is_none_is_refused(store: Store, lasts: str) -> None:
    assert alerts("silence", "*", "--for", lasts).exit_code == 2


def test_each_receiver_is_tried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with inbox() as good, inbox() as bad:
        bad.status = 500
        hooks = [{"name": "good", "url": good.url}, {"name": "bad", "url": bad.url}]
        monkeypatch.setenv("RISKHUB_ALERTS__WEBHOOKS", json.dumps(hooks))
        told = alerts("test")
    assert told.exit_code == 1
    assert "log: took it" in told.output
    assert "good: took it" in told.output
    assert "bad: it answered 500" in told.stderr
    assert [body["alerts"][0]["what"] for body in good.bodies] == ["opened", "resolved"]
