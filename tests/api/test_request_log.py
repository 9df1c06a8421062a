"""Request ids, and the lines of a request."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from answers import problem_of
from asgi import serving
from builders import ACTOR, WORLD, snapshot_document

from api.app import create_app
from api.request_log import lines_of
from riskhub import logs
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings

SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"
ID = "X-Request-Id"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is told from now on, with what it is about."""
    lines: list[dict[str, Any]] = []

    def noted(level: str) -> Any:
        def note(event: str, **fields: Any) -> None:
            about = logs._about.get()
            lines.append({"event": event, "level": level, **(about() if about else {}), **fields})

        return note

    monkeypatch.setattr(logs, "tell", noted("info"))
    monkeypatch.setattr(logs, "tell_error", noted("error"))
    return lines


def with_lines(settings: Settings) -> Settings:
    return settings.model_copy(update={"access_log": True})


def test_each_answer_has_an_id_of_its_own(settings: Settings, hub: Hub) -> None:
    with serving(create_app(settings, hub)) as api:
        ids = {api.get(path).headers[ID] for path in ("/healthz", "/nowhere", SNAPSHOTS)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


@pytest.mark.parametrize(
    "sent", ["abc-1", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abc"]
)
def test_one_that_was_sent_is_echoed(settings: Settings, hub: Hub, sent: str) -> None:
    with serving(create_app(settings, hub)) as api:
        assert api.get("/healthz", headers={ID: sent}).headers[ID] == sent


@pytest.mark.parametrize("sent", ["", "a b", 'a"b', "x" * 129, "é", "<script>"])
def test_one_that_is_not_sane_is_not(settings: Settings, hub: Hub, sent: str) -> None:
    with serving(create_app(settings, hub)) as api:
        answer = api.get("/healthz", headers={ID: sent.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers[ID])


def test_what_is_our_fault_has_it_in_the_problem(
    settings: Settings, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the database is away")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    with serving(create_app(settings, hub)) as api:
        refused = problem_of(api.post(SNAPSHOTS, json={}, headers={ID: "mine"}), 422)
        assert "request_id" not in refused
        for raises, status in ((away, 503), (broken, 500)):
            monkeypatch.setattr(hub.store, "land", raises)
            answer = api.post(SNAPSHOTS, json=snapshot_document(), headers={ID: "mine"})
            assert problem_of(answer, status)["request_id"] == "mine"


def test_a_request_is_one_line(settings: Settings, hub: Hub, told: list[dict[str, Any]]) -> None:
    with serving(create_app(with_lines(settings), hub)) as api:
        answer = api.post(SNAPSHOTS, json=snapshot_document(), headers={ID: "mine"})
    (line,) = told
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "request", "level": "info", "method": "POST", "status": 201,
        "bytes": len(answer.content), "request_id": "mine", "world": WORLD, "actor": ACTOR,
        "stage": line["stage"], "route": "/risk-hub/worlds/{world_id}/snapshots",
    }  # fmt: skip


def test_a_path_that_is_none_is_not_repeated(
    settings: Settings, hub: Hub, told: list[dict[str, Any]]
) -> None:
    with serving(create_app(with_lines(settings), hub)) as api:
        api.get("/s3cret?token=s3cret")
    assert told[0]["route"] == "_unmatched"
    assert "s3cret" not in str(told)


def test_a_failure_is_logged_with_what_the_request_is_about(
    settings: Settings,
    hub: Hub,
    told: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[dict[str, Any]] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            about = logs._about.get()
            seen.append(dict(about() if about else {}))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("of a payload")

    notes = Notes()
    logging.getLogger("api.last_resort").addHandler(notes)
    monkeypatch.setattr(hub.store, "land", broken)
    with serving(create_app(with_lines(settings), hub)) as api:
        api.post(SNAPSHOTS, json=snapshot_document(), headers={ID: "mine"})
    logging.getLogger("api.last_resort").removeHandler(notes)
    assert (seen[0]["request_id"], seen[0]["world"]) == ("mine", WORLD)
    assert (told[0]["status"], told[0]["level"]) == (500, "error")
    (record,) = (one for one in caplog.records if one.name == "api.last_resort")
    assert "of a payload" not in str(vars(record)["exception"])


def test_lines_are_for_production(settings: Settings) -> None:
    assert not lines_of(settings)
    assert lines_of(with_lines(settings))
    assert lines_of(settings.model_copy(update={"profile": "prod"}))
    assert not lines_of(settings.model_copy(update={"profile": "prod", "access_log": False}))
