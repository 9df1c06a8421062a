"""How a batch is brought to its end: in one call if it goes well, and else event by event."""

from collections.abc import Sequence
from typing import Any

import pytest
from builders import NOW
from handling import Handles, Recorded, Times, delivered

from riskhub.controlbus.handlers import Handler, HandlersInvalid, Outage, in_order
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.records import Letter
from riskhub.controlbus.settling import GivenUp, Settler, reason_of
from riskhub.errors import BlobsUnavailable, StoreUnavailable


class Case:
    """A settler with all that it touches, in memory."""

    def __init__(self, *handlers: Handler, attempts: int = 3, times: Times | None = None) -> None:
        self.times = times or Times()
        self.records = Recorded()
        self.metrics = WorkerMetrics()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.settler = Settler(
            in_order(handlers),
            self.records,
            attempts=attempts,
            backoff_sec=0.5,
            metrics=self.metrics,
            clock=lambda: NOW,
            monotonic=self.times.monotonic,
            wait=self.times.wait,
            tell=lambda event, **fields: self.told.append((event, fields)),
        )

    def settle(self, *subjects: str) -> list[Letter]:
        return self.settler.settle(delivered(*subjects))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def subjects_of(letters: Sequence[Letter]) -> list[str]:
    return [f"{letter.record.key}/{letter.record.origin.split()[1]}" for letter in letters]


def test_a_batch_that_goes_well_is_one_call_and_on_record() -> None:
    handler = Handles()
    case = Case(handler)

    assert case.settle("a/1", "b/2", "a/3") == []

    assert handler.calls == [["a/1", "b/2", "a/3"]]
    assert len(case.records.marks["notes"]) == 3
    assert case.times.waited == []
    assert case.count("risk_hub_snapshot_processed_total") == 3


def test_what_was_handled_before_or_comes_twice_is_passed_over() -> None:
    handler = Handles()
    case = Case(handler)
    case.settle("a/1")

    case.settle("a/1", "a/2", "a/2")

    assert handler.calls == [["a/1"], ["a/2"]]
    assert case.count("riskhub_worker_passed_over_total", reason="duplicate") == 2


def test_a_failure_that_passes_costs_pauses_that_double_and_nothing_else() -> None:
    handler = Handles(plan={"a/1": [ValueError()] * 3})
    case = Case(handler, attempts=4)

    assert case.settle("a/1") == []

    assert handler.done == ["a/1"]
    assert case.times.waited == [0.5, 1.0, 2.0]
    assert case.count("risk_hub_snapshot_failed_total") == 3
    assert case.count("risk_hub_snapshot_retry_total") == 3
    assert [event for event, _ in case.told] == ["failed"] * 3


def test_after_its_last_attempt_an_event_is_a_dead_letter_that_says_why() -> None:
    case = Case(Handles(for_ever={"a/1": ValueError("no such thing")}))

    (letter,) = case.settle("a/1")

    assert (letter.handler, letter.attempts, letter.type) == ("notes", 3, "exit_signal")
    assert letter.reason.startswith("ValueError: no such thing (handling:")
    assert letter.record.raw == delivered("a/1")[0].record.raw
    assert case.records.marks["notes"] == set()
    assert case.told[-1][0] == "dead letter"


def test_of_an_expected_failure_the_reason_is_its_sentence() -> None:
    assert reason_of(HandlersInvalid("there are none")) == "there are none"


def test_a_reason_has_only_what_a_database_takes() -> None:
    assert reason_of(ValueError("a\0b\ud800c")) == "ValueError: a\N{REPLACEMENT CHARACTER}b?c"


def test_with_one_attempt_there_is_no_pause() -> None:
    case = Case(Handles(for_ever={"a/1": ValueError()}), attempts=1)

    assert subjects_of(case.settle("a/1", "a/2")) == ["a/1"]
    assert case.times.waited == []


def test_a_poisoned_event_of_many_is_found_in_few_calls() -> None:
    subjects = [f"w{n}/{n}" for n in range(256)]
    handler = Handles(for_ever={"w77/77": ValueError()})
    case = Case(handler)

    assert subjects_of(case.settle(*subjects)) == ["w77/77"]

    assert sorted(handler.done) == sorted(set(subjects) - {"w77/77"})
    assert len(handler.calls) <= 2 * 8 + 1 + 2


def test_only_its_own_world_waits_for_a_poisoned_event_and_order_per_world_is_kept() -> None:
    times = Times()
    handler = Handles(for_ever={"a/1": ValueError()})
    done_at: dict[str, float] = {}
    handler.meanwhile = lambda: done_at.update(
        dict.fromkeys((s for s in handler.calls[-1]), times.seconds)
    )
    case = Case(handler, times=times)

    letters = case.settle("a/1", "b/2", "a/3", "c/4", "a/5", "b/6")

    assert subjects_of(letters) == ["a/1"]
    assert {key: [s for s in handler.done if s[0] == key] for key in "abc"} == {
        "a": ["a/3", "a/5"],
        "b": ["b/2", "b/6"],
        "c": ["c/4"],
    }
    assert {s: done_at[s] for s in ("b/2", "b/6", "c/4")} == {"b/2": 0, "b/6": 0, "c/4": 0}
    assert done_at["a/5"] == 0.5 + 1.0  # the retries of a/1, and no more


def test_two_poisoned_worlds_wait_side_by_side() -> None:
    case = Case(Handles(for_ever={"a/1": ValueError(), "b/2": ValueError()}))

    assert sorted(subjects_of(case.settle("a/1", "b/2"))) == ["a/1", "b/2"]
    assert case.times.seconds == 0.5 + 1.0


def test_a_world_of_poisoned_events_gives_each_its_attempts_in_order() -> None:
    handler = Handles(for_ever={"a/1": ValueError(), "a/2": ValueError()})
    case = Case(handler)

    assert subjects_of(case.settle("a/1", "a/2", "a/3")) == ["a/1", "a/2"]
    assert handler.done == ["a/3"]


def test_handlers_get_an_event_in_their_order_and_not_what_died_before_them() -> None:
    log: list[Any] = []
    first = Handles("judge", for_ever={"a/1": ValueError()}, log=log)
    then = Handles("measure", after=["judge"], log=log)
    last = Handles("report", after=["measure"], log=log)
    free = Handles("audit", log=log)
    case = Case(last, then, free, first)

    assert subjects_of(case.settle("a/1", "b/2")) == ["a/1"]

    assert (then.done, last.done, free.done) == (["b/2"], ["b/2"], ["a/1", "b/2"])
    names = [entry[0] for entry in log]
    assert names.index("judge") < names.index("measure") < names.index("report")


def test_after_it_was_sent_again_a_dead_letter_goes_to_those_that_were_kept_from_it() -> None:
    first = Handles("judge", plan={"a/1": [ValueError()] * 4})
    then = Handles("measure", after=["judge"])
    case = Case(first, then)
    assert subjects_of(case.settle("a/1")) == ["a/1"]

    assert case.settle("a/1") == []

    assert (first.done, then.done) == (["a/1"], ["a/1"])


@pytest.mark.parametrize(
    "outage", [StoreUnavailable("gone"), BlobsUnavailable("gone"), Outage("gone")]
)
def test_an_outage_is_no_events_fault_and_keeps_what_is_done(outage: Exception) -> None:
    first, then = Handles("judge"), Handles("measure", after=["judge"], plan={"b/2": [outage]})
    case = Case(first, then)

    with pytest.raises(type(outage)):
        case.settle("a/1", "b/2")
    assert case.settle("a/1", "b/2") == []

    assert first.calls == [["a/1", "b/2"]]
    assert then.done == ["a/1", "b/2"]
    assert case.count("risk_hub_snapshot_failed_total") == 0


def test_a_pause_ends_when_others_wait_for_the_batch() -> None:
    handler = Handles(for_ever={"a/1": ValueError()})
    case = Case(handler, times=Times(interrupt_at=0.7))

    with pytest.raises(GivenUp):
        case.settle("a/1", "b/2")

    assert handler.done == ["b/2"]
    assert len(case.records.marks["notes"]) == 1


def test_handlers_that_wait_for_each_other_or_for_one_that_is_not_there_are_refused() -> None:
    with pytest.raises(HandlersInvalid, match="wait for each other: a, b"):
        in_order([Handles("a", after=["b"]), Handles("b", after=["a"])])
    with pytest.raises(HandlersInvalid, match="handler a needs b to run before it"):
        in_order([Handles("a", after=["b"])])
    with pytest.raises(HandlersInvalid, match="two handlers have one name"):
        in_order([Handles("a"), Handles("a")])
