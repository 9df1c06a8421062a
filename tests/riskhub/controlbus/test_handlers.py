"""Which handlers a worker runs, and in which order."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from handling import Handles

from riskhub.controlbus.handlers import Context, Factory, HandlersInvalid, load_handlers
from riskhub.controlbus.settings import WorkerSettings
from riskhub.settings import Settings
from riskhub.store import Store


def loaded(handlers: list[Handles], *wanted: str) -> list[str]:
    worker = WorkerSettings(handlers=wanted or None)
    context = Context(Settings(worker=worker), cast(Store, None))
    given: list[Any] = []

    def point(handler: Handles) -> Callable[[], Factory]:
        def make(context: Context) -> Handles:
            given.append(context)
            return handler

        return lambda: make

    found = load_handlers(context, {handler.name: point(handler) for handler in handlers})
    assert given == [context] * len(found)
    return [handler.name for handler in found]


def test_all_that_are_installed_run_each_after_those_that_it_needs() -> None:
    handlers = [Handles("alert", after=["numbers"]), Handles("numbers", after=["validation"])]

    assert loaded([*handlers, Handles("validation")]) == ["validation", "numbers", "alert"]


def test_settings_name_which_of_them_run() -> None:
    assert loaded([Handles("alert"), Handles("numbers")], "alert") == ["alert"]


def test_one_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(HandlersInvalid, match="no handler desk; installed are alert, numbers"):
        loaded([Handles("alert"), Handles("numbers")], "desk", "alert")


def test_without_any_there_is_nothing_to_run() -> None:
    with pytest.raises(HandlersInvalid, match="no handlers to run"):
        loaded([])
