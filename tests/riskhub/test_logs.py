"""Log lines: of our own code and of libraries, for programs and for people."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from riskhub import logs
from riskhub.settings import Settings

PASSWORD = "a-p4ssword-of-it"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logs._logger, sys.excepthook, threading.excepthook)
    yield
    root.handlers, level, logs._logger, sys.excepthook, threading.excepthook = before
    root.setLevel(level)


class Lines:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self) -> list[dict[str, Any]]:
        read = self._capsys.readouterr()
        assert read.err == ""
        return [json.loads(line) for line in read.out.splitlines()]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Reads what was logged as JSON, and nothing else was said."""
    logs.configure(Settings(log_format="json", token=SecretStr(PASSWORD)))
    return Lines(capsys)


def test_what_is_told_is_a_line_of_json(lines: Lines) -> None:
    logs.tell("budgets", symbols=18, total_usd=1.5, reason=None)
    (line,) = lines()
    at = datetime.fromisoformat(line.pop("at"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert line == {
        "event": "budgets", "level": "info", "symbols": 18, "total_usd": 1.5, "reason": None,
    }  # fmt: skip


def test_bad_news_has_a_level_of_its_own(lines: Lines) -> None:
    logs.tell("failed", error="KafkaError")
    logs.tell("dead letter", subject="a/1")
    logs.tell_error("request", status=500)
    assert [line["level"] for line in lines()] == ["warning", "error", "error"]


def test_libraries_log_in_the_same_form(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").warning("shut %s", "down", extra={"workers": 2})
    (line,) = lines()
    del line["at"]
    assert line == {
        "event": "shut down", "level": "warning", "logger": "uvicorn.error", "workers": 2,
    }  # fmt: skip


def test_an_exception_is_a_field_with_what_it_came_of(lines: Lines) -> None:
    try:
        try:
            raise LookupError(f"redis://:{PASSWORD}@host")
        except LookupError as error:
            raise ValueError("of it") from error
    except ValueError:
        logging.getLogger("riskhub").exception("went wrong")
    (line,) = lines()
    first, second = line["exception"]
    assert (first["type"], first["says"]) == ("ValueError", "of it")
    assert (second["type"], second["says"]) == ("LookupError", "redis://***@host")
    assert Path(__file__).name in second["frames"][0]


def test_what_ends_a_process_or_a_thread_is_a_line(lines: Lines) -> None:
    hooks = (sys.excepthook, threading.excepthook)
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    try:
        logs.configure(Settings(log_format="json"))
        error = RuntimeError("the end")
        sys.excepthook(RuntimeError, error, None)
        args = threading.ExceptHookArgs((RuntimeError, error, None, None))
        threading.excepthook(args)
    finally:
        sys.excepthook, threading.excepthook = hooks
    assert [(line["event"], line["level"]) for line in lines()] == [
        ("the process ends", "critical"),
        ("a thread ends", "critical"),
    ]


def test_what_a_line_is_about_is_bound_to_a_task_or_thread(lines: Lines) -> None:
    with logs.about(world="a", event_id="1"):
        with logs.about(event_id="2"):
            logs.tell("failed")
            logging.getLogger("riskhub").error("failed", extra={"world": "b"})
        threading.Thread(target=logs.tell, args=("elsewhere",)).start()
        logs.tell("dead letter", event_id="3")
    logs.tell("after")
    about = {
        line["event"] + line["level"]: (line.get("world"), line.get("event_id")) for line in lines()
    }
    assert about == {
        "failedwarning": ("a", "2"),
        "failederror": ("b", "2"),
        "elsewhereinfo": (None, None),
        "dead lettererror": ("a", "3"),
        "afterinfo": (None, None),
    }


def test_numbers_that_json_has_not_and_objects_are_words(lines: Lines) -> None:
    logs.tell("odd", nan=float("nan"), path=Path("a"), error=ValueError("x"), of={"b": [1]})
    (line,) = lines()
    assert [line[name] for name in ("nan", "path", "error", "of")] == ["NaN", "a", "x", {"b": [1]}]


def test_secrets_are_masked_by_name_by_form_and_by_value(lines: Lines) -> None:
    logs.tell("offered", token="abc", why=f"it is {PASSWORD}", url="amqp://u:p@host")
    logging.getLogger("x").warning("with %s", PASSWORD, extra={"headers": {"Cookie": "abc"}})
    told, logged = lines()
    assert (told["token"], told["why"], told["url"]) == ("***", "it is ***", "amqp://***@host")
    assert (logged["event"], logged["headers"]) == ("with ***", {"Cookie": "***"})


def test_below_the_level_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="json", log_level="warning"))
    logs.tell("budgets")
    logging.getLogger("riskhub").info("budgets")
    logs.tell("failed")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_libraries_that_chat_are_heard_from_warning_on(lines: Lines) -> None:
    logging.getLogger("aiokafka.consumer").info("joined")
    logging.getLogger("aiokafka.consumer").error("left")
    assert [line["event"] for line in lines()] == ["left"]


def test_what_a_library_says_over_and_over_is_heard_once_a_minute() -> None:
    now = [100.0]
    sparing = logs._Sparing(lambda: now[0])

    def heard(name: str, *words: str) -> list[str]:
        records = [logging.LogRecord(name, logging.ERROR, "", 0, word, (), None) for word in words]
        return [record.msg for record in records if sparing.filter(record)]

    assert heard("aiokafka.conn", "away", "away", "gone", "away") == ["away", "gone"]
    assert heard("aiokafka.client", "away") == ["away"]
    assert heard("riskhub.auth", "again", "again") == ["again", "again"]
    now[0] += 59
    assert heard("aiokafka.conn", "away") == []
    now[0] += 2
    assert heard("aiokafka.conn", "away") == ["away"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="text"))
    logs.tell("no budgets", reason="portfolio_too_old", total=1.5, of="a=b\n")
    logging.getLogger("riskhub").error("gave up", exc_info=ValueError("why"))
    read = capsys.readouterr()
    at, _, told = read.out.partition(" ")
    assert len(at) == len("at=2026-01-31T21:00:00Z")
    assert told == 'event="no budgets" reason=portfolio_too_old total=1.5 of="a=b\\n"\n'
    assert 'event="gave up" level=error logger=riskhub\n  ValueError: why\n' in read.err


def test_before_it_is_configured_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    logs.tell("relays", topic="t", password="x")
    assert capsys.readouterr().out.endswith("event=relays topic=t password=***\n")


@pytest.mark.parametrize(("format_", "is_json"), [("auto", False), ("json", True), ("text", False)])
def test_the_form_follows_the_settings(
    capsys: pytest.CaptureFixture[str], format_: Any, is_json: bool
) -> None:
    logs.configure(Settings(log_format=format_))
    logs.configure(Settings(log_format=format_))  # again: no line comes twice
    logging.getLogger("riskhub").error("once")
    read = capsys.readouterr()
    assert (read.out + read.err).count("once") == 1
    assert read.out.startswith("{") == is_json
