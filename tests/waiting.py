"""Dagster's waiting between retries, without the wait."""

import time
from collections.abc import Callable

import pytest
from dagster._core.execution.plan import active


class Waits:
    """Dagster's time between retries, which passes at once; `meanwhile` happens in it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.meanwhile: list[Callable[[], None]] = []

    def time(self) -> float:
        return time.time() + self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        while self.meanwhile:
            self.meanwhile.pop()()


def waits_without_waiting(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Puts such a time in the place of Dagster's."""
    waits = Waits()
    monkeypatch.setattr(active, "time", waits)
    return waits
