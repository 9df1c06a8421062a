"""What tests of workers are made of: handlers that fail as told, events, a bus that is scripted."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from builders import NOW

from riskhub.controlbus.events import NewEvent, OutboxEvent, parse
from riskhub.controlbus.records import Letter, Record
from riskhub.controlbus.settling import Delivered

TYPE = "exit_signal"


def record_of(world: str, number: int, type_: str = TYPE) -> Record:
    """The record of event `number` of a world; the same each time."""
    new = NewEvent(type_, world, f"{world}/{number}", f"{type_}:{world}:{number}", NOW, {})
    event = OutboxEvent(
        number, new.type, new.key, new.id, new.subject, NOW, new.id, new.stored_data()
    )
    return Record(event.cloud_event(), world, f"script {number}", (("content-type", b"json"),))


def delivered(*subjects: str) -> list[Delivered]:
    """Events by subject, such as ``a/1``."""
    found = []
    for subject in subjects:
        world, number = subject.split("/")
        record = record_of(world, int(number))
        found.append(Delivered(parse(record.raw), record))
    return found


class Handles:
    """A handler that writes down what it is given, and raises what it is told to.

    `plan`: by subject what is raised, one after the other; the last for ever when `for_ever`.
    """

    def __init__(
        self,
        name: str = "notes",
        *,
        after: Collection[str] = (),
        types: Collection[str] = (TYPE,),
        plan: Mapping[str, Iterable[Exception]] | None = None,
        for_ever: Mapping[str, Exception] | None = None,
        log: list[Any] | None = None,
    ) -> None:
        self.name = name
        self.after = after
        self.types = types
        self.calls: list[list[str]] = []
        self.done: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._plan = {subject: list(errors) for subject, errors in (plan or {}).items()}
        self._for_ever = for_ever or {}
        self._log = log if log is not None else []

    def handle(self, events: Sequence[Any]) -> None:
        subjects = [event.subject for event in events]
        self.calls.append(subjects)
        self._log.append((self.name, *subjects))
        self.meanwhile()
        for subject in subjects:
            if left := self._plan.get(subject):
                raise left.pop(0)
            if subject in self._for_ever:
                raise self._for_ever[subject]
        self.done += subjects


class Recorded:
    """A worker's records, in memory. `failing`: what each call raises while it is set."""

    def __init__(self) -> None:
        self.marks: dict[str, set[str]] = defaultdict(set)
        self.letters: list[dict[str, Any]] = []
        self.failing: Exception | None = None

    def handled(self, handler: str, event_ids: Collection[str]) -> set[str]:
        self._fail()
        return self.marks[handler] & set(event_ids)

    def note_handled(self, handler: str, event_ids: Collection[str], now: datetime) -> None:
        self._fail()
        self.marks[handler].update(event_ids)

    def add_dead_letters(self, letters: Sequence[dict[str, Any]]) -> None:
        self._fail()
        self.letters += letters

    def forget_handled(self, before: datetime) -> int:
        return 0

    def _fail(self) -> None:
        if self.failing:
            raise self.failing


@dataclass
class Times:
    """Time that only waiting moves. `interrupt_at`: others wait for the batch from then on."""

    seconds: float = 0.0
    waited: list[float] = field(default_factory=list)
    interrupt_at: float = float("inf")

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> bool:
        if seconds:
            self.waited.append(seconds)
        self.seconds = min(self.seconds + seconds, max(self.interrupt_at, self.seconds))
        return self.seconds >= self.interrupt_at


class ScriptedBus:
    """Gives records in batches, as a bus does, and what was not committed again."""

    def __init__(self, *batches: Sequence[Record]) -> None:
        self.ahead = [list(batch) for batch in batches]
        self.in_hand: list[Record] = []
        self.committed: list[str] = []
        self.buried: list[Letter] = []
        self.failing: list[Exception] = []
        self.lag_failing: list[Exception] = []
        self.given_back = 0
        self.closed = False
        self.stands_by = False
        self.when_empty: Callable[[], None] = lambda: None

    async def take(self, limit: int, wait_sec: float) -> Sequence[Record]:
        assert not self.in_hand, "the batch before was neither committed nor given back"
        if self.failing:
            raise self.failing.pop(0)
        if not self.ahead:
            self.when_empty()
            return []
        self.in_hand = self.ahead.pop(0)
        return self.in_hand

    async def commit(self) -> None:
        self.committed += [record.origin for record in self.in_hand]
        self.in_hand = []

    async def give_back(self) -> None:
        self.given_back += 1
        if self.in_hand:
            self.ahead.insert(0, self.in_hand)
        self.in_hand = []

    async def bury(self, letters: Sequence[Letter]) -> None:
        self.buried += letters

    async def lag(self) -> Mapping[str, int]:
        if self.lag_failing:
            raise self.lag_failing.pop(0)
        return {"script": sum(map(len, self.ahead))}

    async def close(self) -> None:
        self.closed = True
