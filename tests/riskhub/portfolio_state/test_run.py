"""The beat of the updater, and what it tells."""

from typing import Any

import pytest
import redis

from riskhub.portfolio_state import (
    Book,
    Equity,
    HighWater,
    NoPortfolioState,
    PortfolioUpdate,
    run,
    update_of,
)

NOW = 1_738_000_000.0


class Time:
    """Time that passes only by waiting, and by what a beat takes; ends after so many waits."""

    def __init__(self, waits: int) -> None:
        self.now, self._waits = 0.0, waits

    def is_set(self) -> bool:
        return self._waits == 0

    def wait(self, timeout: float) -> bool:
        self._waits -= 1
        self.now += timeout
        return self.is_set()


def beats(
    outcomes: list[PortfolioUpdate | Exception], takes: list[float]
) -> tuple[list[float], list[str]]:
    """When each beat began, and what was told."""
    passing, began, told = Time(len(outcomes)), [], []

    def beat(now: float) -> PortfolioUpdate:
        outcome = outcomes[len(began)]
        began.append(now - NOW)
        passing.now += takes[len(began) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    run(
        beat,
        interval_sec=5,
        stop=passing,
        tell=told.append,
        clock=lambda: NOW + passing.now,
        monotonic=lambda: passing.now,
    )
    return began, told


def an_update(**changes: Any) -> PortfolioUpdate:
    return update_of(
        Book({}, changes.pop("malformed", ())),
        Equity(changes.pop("usd", 100.0), NOW, changes.pop("flow", None)),
        changes.pop("mark", HighWater(100.0, NOW)),
    )


def test_the_beat_is_steady_whatever_a_beat_takes() -> None:
    began, _ = beats([an_update()] * 5, takes=[0.0, 1.5, 4.9, 12.0, 0.0])

    assert began == pytest.approx([0, 5, 10, 15, 30])


def test_a_failure_is_told_once_and_tried_again_at_each_beat() -> None:
    down = redis.ConnectionError("refused")
    began, told = beats(
        [down, down, an_update(), an_update(), NoPortfolioState("equity_stale", "31 s"), down],
        takes=[0.0] * 6,
    )

    assert began == pytest.approx([0, 5, 10, 15, 20, 25])
    assert [line.split(" ")[0] for line in told] == ["refused;", "published:", "no", "refused;"]


def test_what_is_wrong_with_a_state_is_told_when_it_changes() -> None:
    known = HighWater(100.0, NOW, 7.0)
    many = tuple(f"S{number:02}" for number in range(25))
    _, told = beats(
        [
            an_update(malformed=("XRP",), mark=None),
            an_update(malformed=("XRP",)),
            an_update(malformed=many),
            an_update(mark=known),
            an_update(mark=known, flow=57.0),
        ],
        takes=[0.0] * 5,
    )

    assert told[0] == "no high-water mark was kept: it begins at 100.00 USD"
    assert told[1].startswith("published: equity 100.00 USD, drawdown 0.00% from 100.00 USD")
    assert told[2] == "malformed positions, in no sum: XRP"
    assert told[3].endswith("S18, S19 and 5 more")
    assert told[4] == "no position is malformed any more"
    assert told[5].startswith("net_flow_usd is not known any more")
    assert "net_flow_usd is known again" in told
    assert told[-1].endswith("the high-water mark goes from 100.00 to 150.00 USD")
    assert sum(line.startswith("malformed positions") for line in told) == 2
