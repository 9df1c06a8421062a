"""Whoever watches: what is on record, what survives a crash or an outage, and who takes over."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import Ear, facts, stored
from builders import Clock, wait_until
from databases import migrate

from riskhub.alerts.deliver import Deliverer
from riskhub.alerts.facts import Facts
from riskhub.alerts.loop import Watch, run
from riskhub.errors import StoreUnavailable
from riskhub.settings import Settings
from riskhub.store import Store, create_engine
from riskhub.store.alerts import WatchOvertaken

KEY = "dead-letters"
WRONG = facts(stored=stored(dead_letters=3))
RIGHT = facts()
AWAY = facts(stored=None, stored_problem="it is away")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def another() -> Store:
        opened.append(Store(create_engine(url)))
        return opened[-1]

    migrate(another().engine)
    yield another
    for store in opened:
        store.close()


@dataclass
class Watching:
    """A process that watches; the test has its facts, its clock, and its receiver."""

    store: Store
    name: str = "mine"
    clock: Clock = field(default_factory=Clock)
    seen: Facts = RIGHT
    ear: Ear = field(default_factory=Ear)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = Watch(
            self.store,
            Settings(alerts={"open_after_sec": 20, "resolve_after_sec": 60}),  # type: ignore[arg-type]
            lambda: self.seen,
            Deliverer([self.ear], tell=self.tell, monotonic=lambda: self.clock().timestamp()),
            writer=self.name,
            clock=self.clock,
            tell=self.tell,
        )

    def tell(self, event: str, **_: object) -> None:
        self.told.append(event)

    def look(self, seen: Facts | None = None, *, after: float = 10.0) -> list[tuple[str, str]]:
        """Look after so many seconds; gives what was heard since the last look."""
        self.clock.advance(after)
        self.seen = seen or self.seen
        before = len(self.ear.heard)
        self.watch.beat()
        return self.ear.heard[before:]


@pytest.fixture
def mine(open_store: Callable[[], Store]) -> Watching:
    it = Watching(open_store())
    it.watch.take_over()
    return it


def on_record(store: Store) -> list[dict[str, Any]]:
    return [row for row in store.alerts(limit=99).rows if row["key"] != "watchdog"]


def test_an_alert_is_on_record_from_its_opening_to_its_end(mine: Watching) -> None:
    assert mine.look(WRONG) == [("opened", KEY)]
    (row,) = on_record(mine.store)
    assert (row["state"], row["severity"], row["over"]) == ("open", "warning", False)
    assert row["notified"]["desk"]["what"] == "opened"
    assert mine.look() == []
    mine.look(RIGHT)
    assert mine.look(after=60) == [("resolved", KEY)]
    mine.look()
    (row,) = on_record(mine.store)
    assert (row["state"], row["over"]) == ("resolved", True)
    assert row["resolved_at"] == mine.clock() - timedelta(seconds=10)
    assert mine.store.alert_watch() == {
        "id": 1, "turn": 7, "writer": "mine", "at": mine.clock(), "receivers": {"desk": {}}
    }  # fmt: skip
    assert mine.look(WRONG) == [("opened", KEY)]
    assert len(on_record(mine.store)) == 2


def test_the_watchdog_is_always_open(mine: Watching) -> None:
    mine.look()
    (row,) = mine.store.alerts(limit=9, is_open=True).rows
    assert row["key"] == "watchdog"


def test_who_takes_over_goes_on_where_the_other_stopped(
    mine: Watching, open_store: Callable[[], Store]
) -> None:
    mine.look(WRONG)
    theirs = Watching(open_store(), "theirs", mine.clock)
    theirs.watch.take_over()
    assert theirs.look(WRONG) == []
    theirs.look(RIGHT)
    assert theirs.look(after=60) == [("resolved", KEY)]
    assert len(on_record(mine.store)) == 1


def test_who_was_overtaken_writes_and_tells_nothing(
    mine: Watching, open_store: Callable[[], Store]
) -> None:
    mine.look()
    theirs = Watching(open_store(), "theirs", mine.clock)
    theirs.watch.take_over()
    theirs.look()
    with pytest.raises(WatchOvertaken):
        mine.look(WRONG)
    assert mine.ear.heard == []
    assert on_record(mine.store) == []


def test_what_was_not_delivered_is_due_to_whoever_takes_over(
    mine: Watching, open_store: Callable[[], Store]
) -> None:
    mine.ear.fails = True
    mine.look(WRONG)
    mine.look(RIGHT)
    mine.look(after=60)
    (row,) = on_record(mine.store)
    assert (row["state"], row["over"], row["notified"]) == ("resolved", False, {})
    assert mine.store.alert_watch()["receivers"]["desk"]["why"] == "it is away"  # type: ignore[index]
    theirs = Watching(open_store(), "theirs", mine.clock)
    theirs.watch.take_over()
    assert theirs.look() == [("opened", KEY)]
    assert theirs.look() == [("resolved", KEY)]
    theirs.look()
    assert on_record(mine.store)[0]["over"]


def test_a_crash_before_the_mark_tells_it_twice_and_never_not_at_all(
    mine: Watching, open_store: Callable[[], Store]
) -> None:
    class Crash(Exception):
        pass

    send = mine.ear.send

    def dies_after(*given: Any) -> None:
        send(*given)
        raise Crash

    mine.ear.send = dies_after  # type: ignore[method-assign]
    with pytest.raises(Crash):
        mine.look(WRONG)
    assert mine.ear.heard == [("opened", KEY)]
    theirs = Watching(open_store(), "theirs", mine.clock)
    theirs.watch.take_over()
    assert theirs.look(WRONG) == [("opened", KEY)]
    assert len(on_record(mine.store)) == 1


def test_who_acknowledges_is_heard_and_not_written_over(
    mine: Watching, open_store: Callable[[], Store]
) -> None:
    mine.look(WRONG)
    other = open_store()
    seen = other.acknowledge_alert(KEY, by="ann", now=mine.clock())
    assert seen is not None
    assert other.acknowledge_alert(KEY, by="bob", now=mine.clock())["acknowledged_by"] == "ann"  # type: ignore[index]
    assert mine.look(after=5 * 3600) == []
    assert on_record(other)[0]["acknowledged_by"] == "ann"
    assert other.acknowledge_alert("another", by="ann", now=mine.clock()) is None


def test_a_silence_is_kept_until_it_ends(mine: Watching, open_store: Callable[[], Store]) -> None:
    other, now = open_store(), mine.clock()
    number = other.add_silence(
        "dead-*", since=now, until=now + timedelta(hours=1), by="ann", reason="works on it"
    )
    assert mine.look(WRONG) == []
    assert [row["pattern"] for row in other.silences(mine.clock())] == ["dead-*"]
    assert other.end_silence(number, mine.clock())
    assert not other.end_silence(number, mine.clock())
    assert mine.look() == [("opened", KEY)]


def test_old_alerts_are_forgotten(mine: Watching) -> None:
    mine.look(WRONG)
    mine.look(RIGHT)
    mine.look(after=60)
    mine.look()
    assert len(on_record(mine.store)) == 1
    mine.look(after=91 * 86_400)
    assert on_record(mine.store) == []


# --- without a database ----------------------------------------------------------------------


@pytest.fixture
def outage(mine: Watching, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    names = ("alert_memory", "alert_marks", "write_alerts", "forget_alerts")

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("it is away")

    def switch(is_away: bool) -> None:
        for name in names:
            if is_away:
                monkeypatch.setattr(mine.store, name, away)
        if not is_away:
            monkeypatch.undo()

    return switch


def test_that_the_database_is_away_is_told_and_that_it_is_back(
    mine: Watching, outage: Callable[[bool], None]
) -> None:
    mine.look(WRONG)
    outage(True)
    assert mine.look(AWAY) == []
    assert mine.look(after=20) == [("opened", "database")]
    assert mine.told.count("goes on from memory") == 1
    outage(False)
    mine.watch.take_over()
    mine.look(WRONG)
    # What was wrong before still is, and nobody hears of it again.
    assert mine.look(after=60) == [("resolved", "database")]
    mine.look()
    assert {row["key"]: row["state"] for row in on_record(mine.store)} == {
        KEY: "open",
        "database": "resolved",
    }


def test_what_ended_while_the_database_was_away_is_on_record_in_the_end(
    mine: Watching, outage: Callable[[bool], None]
) -> None:
    mine.look(WRONG)
    outage(True)
    mine.look(RIGHT)
    assert mine.look(after=60) == [("resolved", KEY)]
    assert mine.look() == []
    outage(False)
    assert mine.look() == []
    assert [row["over"] for row in on_record(mine.store)] == [True]


def test_who_began_without_a_database_watches_all_the_same(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Watching(open_store(), seen=AWAY)

    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("it is away")

    for name in ("alert_marks", "write_alerts", "forget_alerts"):
        monkeypatch.setattr(it.store, name, away)
    waits = iter(range(6))

    def wait(_: float) -> bool:
        it.clock.advance(10)
        return next(waits) == 5

    run(it.watch, away, interval_sec=10, wait=wait, tell=it.tell)
    assert it.ear.heard == [("opened", "database")]


def test_when_another_watches_what_only_this_one_told_is_ended(
    mine: Watching, outage: Callable[[bool], None]
) -> None:
    outage(True)
    mine.look(AWAY)
    mine.look(after=20)
    mine.watch.stand_by()
    assert mine.ear.heard == [("opened", "database"), ("resolved", "database")]
    assert not mine.watch.is_on_duty
    mine.watch.stand_by()
    assert len(mine.ear.heard) == 2


# --- one at a time ---------------------------------------------------------------------------


def test_one_watches_the_other_stands_by_and_takes_over(open_store: Callable[[], Store]) -> None:
    stops = {name: threading.Event() for name in ("a", "b")}
    both = {name: Watching(open_store(), name, seen=WRONG) for name in stops}

    def work(name: str) -> None:
        it = both[name]

        def wait(seconds: float) -> bool:
            return stops[name].wait(min(seconds, 0.02))

        run(it.watch, it.store.reading_alone, interval_sec=0.02, wait=wait, tell=it.tell)

    threads = {name: threading.Thread(target=work, args=(name,)) for name in both}
    try:
        threads["a"].start()
        wait_until(lambda: both["a"].ear.heard == [("opened", KEY)])
        threads["b"].start()
        wait_until(lambda: "stands by" in both["b"].told)
        stops["a"].set()
        threads["a"].join(10)
        wait_until(lambda: both["b"].watch.is_on_duty and "watches" in both["b"].told)
        both["b"].seen = RIGHT
        both["b"].clock.advance(10)
        watched = both["b"].store
        wait_until(lambda: on_record(watched)[0]["gone_since"] is not None)
        both["b"].clock.advance(60)
        wait_until(lambda: both["b"].ear.heard == [("resolved", KEY)])
    finally:
        for stop in stops.values():
            stop.set()
        for thread in threads.values():
            if thread.ident is not None:
                thread.join(10)
    assert both["a"].ear.heard == [("opened", KEY)]


def test_a_fault_of_ours_ends_nothing(open_store: Callable[[], Store]) -> None:
    it = Watching(open_store())

    def breaks() -> Facts:
        raise ValueError("a bug")

    it.watch._gather = breaks
    waits = iter([False, False, True])
    run(it.watch, it.store.reading_alone, interval_sec=1, wait=lambda _: next(waits), tell=it.tell)
    assert it.told.count("failed") == 1
