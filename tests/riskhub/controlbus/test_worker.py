"""The loop of a worker, on a scripted bus: what is committed, what comes again, what is told."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from builders import NOW
from handling import Handles, Recorded, ScriptedBus, Times, record_of

from riskhub.controlbus.handlers import Handler
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.records import Record
from riskhub.controlbus.settings import WorkerSettings
from riskhub.controlbus.worker import Hurry, Worker
from riskhub.errors import StoreUnavailable


class Case:
    """A worker on a scripted bus. It ends when the bus is empty."""

    def __init__(self, bus: ScriptedBus, *handlers: Handler, **settings: Any) -> None:
        self.bus = bus
        self.records = Recorded()
        self.hurry = Hurry()
        self.metrics = WorkerMetrics()
        self.told: list[str] = []
        self.fields: list[dict[str, Any]] = []
        self.when_told: dict[str, Callable[[], None]] = {}
        self._handlers = handlers
        self._settings = WorkerSettings(**{"backoff_sec": 0.0, **settings})

    def run(self, *, once: bool = False) -> bool:
        return asyncio.run(self._run(once=once))

    def stop(self) -> None:
        """As a signal does, from a handler's thread."""
        self._loop.call_soon_threadsafe(self.worker.stop)
        self.hurry.stop()

    async def _run(self, *, once: bool) -> bool:
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(
            self.bus,
            self._handlers,
            self.records,
            self._settings,
            hurry=self.hurry,
            metrics=self.metrics,
            clock=lambda: NOW,
            monotonic=Times().monotonic,
            tell=self._tell,
            look_sec=0.0,
        )
        if not once:
            self.bus.when_empty = self.worker.stop
        return await self.worker.run(once=once)

    def _tell(self, event: str, **fields: Any) -> None:
        self.told.append(event)
        self.fields.append(fields)
        self.when_told.get(event, lambda: None)()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def batch(*subjects: str, type_: str = "exit_signal") -> list[Record]:
    return [record_of(world, int(n), type_) for world, n in (s.split("/") for s in subjects)]


def origins(*numbers: int) -> list[str]:
    return [f"script {number}" for number in numbers]


def test_batches_are_handled_and_committed_one_after_the_other() -> None:
    bus, handler = ScriptedBus(batch("a/1", "b/2"), batch("a/3")), Handles()
    case = Case(bus, handler)

    case.run()

    assert handler.calls == [["a/1", "b/2"], ["a/3"]]
    assert bus.committed == origins(1, 2, 3)
    assert bus.closed
    assert case.told == ["works"]


def test_nothing_is_committed_before_effects_and_dead_letters_are_stored() -> None:
    bus = ScriptedBus(batch("a/1", "a/2"))
    handler = Handles(for_ever={"a/1": ValueError("never")})
    case = Case(bus, handler)
    committed: list[int] = []
    handler.meanwhile = lambda: committed.append(len(bus.committed))
    add = case.records.add_dead_letters

    def add_and_look(letters: Sequence[dict[str, Any]]) -> None:
        committed.append(len(bus.committed))
        add(letters)

    case.records.add_dead_letters = add_and_look  # type: ignore[method-assign]
    case.run()

    assert set(committed) == {0}
    assert bus.committed == origins(1, 2)
    (letter,) = case.records.letters
    assert (letter["handler"], letter["origin"], letter["attempts"]) == ("notes", "script 1", 3)
    assert [each.record.origin for each in bus.buried] == origins(1)
    assert case.count("risk_hub_snapshot_dlq_total") == 1


def test_a_record_that_is_no_event_is_a_dead_letter_and_holds_up_nobody() -> None:
    bus, handler = ScriptedBus([Record(b"\xff{", "a", "script 0"), *batch("a/1")]), Handles()
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1"]
    (letter,) = case.records.letters
    assert (letter["handler"], letter["event_id"], letter["raw"]) == ("", "", b"\xff{")
    assert letter["reason"].startswith("is not JSON")
    assert bus.committed == origins(0, 1)


@pytest.mark.parametrize("event_id", ["x" * 256, "a\0b", "\ud800", "two\nlines"])
def test_an_id_that_can_not_be_kept_on_record_is_none(event_id: str) -> None:
    (good,) = batch("a/1")
    bad = json.dumps(json.loads(good.raw) | {"id": event_id}).encode()
    bus, handler = ScriptedBus([Record(bad, "a", "script 0"), good]), Handles()
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1"]
    assert case.records.letters[0]["reason"] == "id: is not 1 to 255 printable characters"


def test_types_that_nobody_wants_are_passed_over() -> None:
    bus, handler = ScriptedBus(batch("a/1", type_="news_of_tomorrow")), Handles()
    case = Case(bus, handler)

    case.run()

    assert handler.calls == []
    assert bus.committed == origins(1)
    assert case.count("riskhub_worker_passed_over_total", reason="type") == 1


@pytest.mark.parametrize(
    "outage", [StoreUnavailable("the database is away"), KafkaConnectionError("no broker")]
)
def test_an_outage_is_waited_for_and_told_once(outage: Exception) -> None:
    bus = ScriptedBus(batch("a/1"), batch("a/2"))
    handler = Handles(plan={"a/1": [outage] * 5})
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1", "a/2"]
    assert case.records.letters == []
    assert bus.committed == origins(1, 2)
    assert case.told == ["waits", "recovered", "works"]
    assert case.count("riskhub_worker_outages_total") == 5


def test_a_bus_that_is_away_is_waited_for() -> None:
    bus, handler = ScriptedBus(batch("a/1")), Handles()
    bus.failing = [KafkaConnectionError("no broker")] * 3
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1"]
    assert case.told == ["waits", "recovered", "works"]
    assert case.fields[0]["error"] == "KafkaConnectionError"


def test_brokers_that_are_away_without_a_word_are_not_taken_for_recovered() -> None:
    bus, handler = ScriptedBus(batch("a/1"), [], [], batch("a/2")), Handles()
    bus.lag_failing = [KafkaConnectionError("no broker")] * 3
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1", "a/2"]
    assert case.told == ["waits", "recovered", "works"]
    assert case.count("riskhub_worker_outages_total") == 3


def test_records_that_can_not_be_written_bring_the_batch_again_and_effects_once() -> None:
    bus, handler = ScriptedBus(batch("a/1")), Handles()
    case = Case(bus, handler)
    case.records.failing = StoreUnavailable("locked")
    give_back = bus.give_back

    async def mend() -> None:
        case.records.failing = None
        await give_back()

    bus.give_back = mend  # type: ignore[method-assign]
    case.run()

    assert handler.done == ["a/1"]
    assert bus.committed == origins(1)


def test_a_bug_of_ours_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    bus, handler = ScriptedBus(batch("a/1")), Handles()
    bus.failing = [AssertionError("inside a library")]
    case = Case(bus, handler)

    case.run()

    assert handler.done == ["a/1"]
    assert "a turn of the worker failed" in caplog.text


def test_told_to_stop_it_finishes_the_batch_in_hand_and_takes_no_other() -> None:
    bus, handler = ScriptedBus(batch("a/1"), batch("a/2")), Handles()
    case = Case(bus, handler)
    handler.meanwhile = case.stop

    case.run()

    assert bus.committed == origins(1)
    assert bus.closed


def test_told_to_stop_it_leaves_a_batch_that_waits_for_a_retry() -> None:
    bus = ScriptedBus(batch("a/1", "b/2"))
    handler = Handles(for_ever={"a/1": ValueError()})
    case = Case(bus, handler, backoff_sec=60.0)
    case.when_told = {"failed": case.stop}

    case.run()

    assert bus.committed == []
    assert handler.done == ["b/2"]
    assert case.records.letters == []


def test_a_batch_that_waits_for_a_retry_is_given_back_when_others_wait_for_it() -> None:
    bus = ScriptedBus(batch("a/1"))
    handler = Handles(plan={"a/1": [ValueError()]})
    case = Case(bus, handler, backoff_sec=60.0)
    case.when_told = {"failed": case.hurry.up}

    case.run()

    assert bus.given_back == 1
    assert handler.done == ["a/1"]
    assert bus.committed == origins(1)


def test_once_ends_when_there_is_nothing_left() -> None:
    bus, handler = ScriptedBus(batch("a/1"), batch("a/2")), Handles()

    assert Case(bus, handler).run(once=True)

    assert bus.committed == origins(1, 2)


def test_once_says_when_another_has_it_all() -> None:
    bus = ScriptedBus()
    bus.stands_by = True
    case = Case(bus, Handles())

    assert not case.run(once=True)
    assert case.told == ["stands by"]


def test_once_waits_for_no_outage() -> None:
    bus = ScriptedBus(batch("a/1"))
    case = Case(bus, Handles(for_ever={"a/1": StoreUnavailable("away")}))

    with pytest.raises(StoreUnavailable):
        case.run(once=True)

    assert bus.committed == []
    assert bus.closed


def test_the_page_of_metrics_tells_the_lag() -> None:
    case = Case(ScriptedBus(batch("a/1"), batch("a/2")), Handles())

    case.run()

    assert (
        case.metrics.registry.get_sample_value("riskhub_worker_lag_events", {"part": "script"})
        is not None
    )
