"""The exit engine's tables: a step is one transaction, and of two engines one writes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD
from exiting import STAGE, START, load, opened_episode, rule, write_rules
from sqlalchemy.exc import IntegrityError

from riskhub.controlbus.events import EXIT_SIGNAL, NewEvent
from riskhub.exits.book import RuleBook
from riskhub.exits.records import states_of
from riskhub.store import Store
from riskhub.store.engine import reading
from riskhub.store.exit_tables import exit_episodes, exit_signals, exit_states
from riskhub.store.exits import READER, EngineOvertaken, EngineStep, EpisodeFilter
from riskhub.store.tables import events

LATER = NOW + timedelta(seconds=10)
ID = "0123456789abcdef0123"


@pytest.fixture
def book(tmp_path: Path) -> RuleBook:
    return load(write_rules(tmp_path / "rules.yaml", rule()))


def event(signal_id: str) -> NewEvent:
    return NewEvent(
        type=EXIT_SIGNAL,
        key=WORLD,
        subject=WORLD,
        idempotency_key=f"exit_signal:{signal_id}",
        occurred_at=NOW,
        data={},
    )


def step_of(book: RuleBook, cursor: int = 7, **changes: Any) -> EngineStep:
    state, episode, signal = opened_episode(book, **changes)
    return EngineStep([state], [episode], [signal], [event(signal["signal_id"])], cursor)


def write(store: Store, step: EngineStep, turn: int, writer: str = "one") -> int:
    return store.write_exit_step(
        step, turn=turn, writer=writer, rules_digest="sha256:rules", now=NOW
    )


def counts(store: Store) -> list[int]:
    with reading(store.engine) as connection:
        return [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (exit_states, exit_episodes, exit_signals, events)
        ]


def test_nothing_is_remembered_before_the_first_step(store: Store) -> None:
    memory = store.exit_memory()
    assert (memory.turn, memory.states, memory.open_episodes) == (0, [], [])
    assert store.exit_engine() is None
    assert store.exit_episode(ID) is None
    assert store.exit_episodes(limit=9).rows == []


def test_a_step_writes_all_of_it_and_is_gone_on_from(store: Store, book: RuleBook) -> None:
    step = step_of(book)
    assert write(store, step, 0) == 1
    assert counts(store) == [1, 1, 1, 1]
    assert store.cursor(READER) == 7
    memory = store.exit_memory()
    assert memory.turn == 1
    (states,) = states_of(memory.states, memory.open_episodes).values()
    assert states["es-limit"].episode is not None
    assert states["es-limit"].episode.opened_at == START
    engine = store.exit_engine()
    assert engine is not None
    assert (engine["writer"], engine["at"]) == ("one", NOW)


def test_an_episode_that_closes_is_not_remembered_as_open(store: Store, book: RuleBook) -> None:
    write(store, step_of(book), 0)
    closed = step_of(book, closed_at=LATER, closed_because="back", signals=2)
    write(store, closed, 1)
    assert store.exit_memory().open_episodes == []
    (row,) = store.exit_episodes(limit=9).rows
    assert (row["closed_at"], row["closed_because"], row["signals"]) == (LATER, "back", 2)
    assert [each["signal_id"] for each in row["history"]] == [f"{row['id']}:1", f"{row['id']}:2"]


def test_who_was_overtaken_writes_nothing(
    store: Store, book: RuleBook, open_another: Callable[[], Store]
) -> None:
    other = open_another()
    write(store, EngineStep([], [], [], [], 1), 0)
    write(other, EngineStep([], [], [], [], 2), 1, "two")
    before = counts(store)
    for turn in (0, 1):
        with pytest.raises(EngineOvertaken):
            write(store, step_of(book), turn)
    assert counts(store) == before
    assert store.cursor(READER) == 2
    assert write(store, step_of(book), 2) == 3


def test_a_step_that_fails_half_way_leaves_nothing(store: Store, book: RuleBook) -> None:
    twice = step_of(book)
    broken = EngineStep(twice.states, twice.episodes, [*twice.signals] * 2, twice.events, 9)
    with pytest.raises(IntegrityError):
        write(store, broken, 0)
    assert counts(store) == [0, 0, 0, 0]
    assert (store.exit_memory().turn, store.cursor(READER)) == (0, 0)


def test_the_database_too_holds_that_one_is_open_at_most(store: Store, book: RuleBook) -> None:
    write(store, step_of(book), 0)
    with pytest.raises(IntegrityError):
        write(store, step_of(book, id=ID), 1)
    write(store, step_of(book, closed_at=LATER, signals=2), 1)
    write(store, step_of(book, id=ID), 2)


def test_signals_wait_for_the_stream_in_their_order(store: Store, book: RuleBook) -> None:
    write(store, step_of(book), 0)
    write(store, step_of(book, signals=2), 1)
    first, second = store.unstreamed_signals(limit=9)
    assert [row["data"]["number"] for row in (first, second)] == [1, 2]
    assert store.unstreamed_signals(limit=1) == [first]
    store.mark_streamed([first["id"]], LATER)
    assert store.unstreamed_signals(limit=9) == [second]
    (row,) = store.exit_episodes(limit=9).rows
    assert [each["streamed_at"] for each in row["history"]] == [LATER, None]


def test_who_acknowledged_first_stays_also_when_the_engine_writes_on(
    store: Store, book: RuleBook
) -> None:
    step = step_of(book)
    write(store, step, 0)
    episode_id = step.episodes[0]["id"]
    assert store.acknowledge(ID, by="me", now=NOW) is None
    for by, now in (("me", NOW), ("you", LATER)):
        found = store.acknowledge(episode_id, by=by, now=now)
        assert found is not None
        assert (found["acknowledged_by"], found["acknowledged_at"]) == ("me", NOW)
    write(store, step_of(book, signals=2, value=0.2), 1)
    row = store.exit_episode(episode_id)
    assert row is not None
    assert (row["acknowledged_by"], row["value"]) == ("me", 0.2)


def test_episodes_are_found_by_what_is_asked(store: Store, book: RuleBook) -> None:
    (_state, episode, _) = opened_episode(book)
    rows = [
        episode
        | {
            "id": f"{number:020x}",
            "world_id": f"w{number % 2}",
            "stage": STAGE if number < 4 else "live",
            "rule": f"r{number}",
            "opened_at": START + timedelta(days=number),
            "closed_at": None if number == 5 else START + timedelta(days=number, hours=1),
        }
        for number in range(6)
    ]
    write(store, EngineStep([], rows, [], [], 1), 0)

    def found(**which: Any) -> list[str]:
        return [row["rule"] for row in store.exit_episodes(EpisodeFilter(**which), limit=9).rows]

    assert found() == ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert found(world_id="w0") == ["r4", "r2", "r0"]
    assert found(stage="live", world_id="w0") == ["r4"]
    assert found(rule="r3") == ["r3"]
    assert found(is_open=True) == ["r5"]
    assert found(is_open=False) == ["r4", "r3", "r2", "r1", "r0"]
    assert found(since=START + timedelta(days=3, hours=1)) == ["r5", "r4", "r3"]


def test_pages_follow_each_other_also_where_many_open_at_once(store: Store, book: RuleBook) -> None:
    (_, episode, _) = opened_episode(book)
    rows = [episode | {"id": f"{n:020x}", "rule": f"r{n}"} for n in range(7)]
    write(store, EngineStep([], rows, [], [], 1), 0)
    walked: list[str] = []
    page = store.exit_episodes(limit=3)
    walked += [row["rule"] for row in page.rows]
    while page.next_key:
        page = store.exit_episodes(limit=3, after=page.next_key)
        walked += [row["rule"] for row in page.rows]
    assert walked == [f"r{n}" for n in reversed(range(7))]


def test_states_are_kept_as_they_are(store: Store, book: RuleBook) -> None:
    state, _, _ = opened_episode(book)
    remembered = state | {
        "episode_id": None,
        "streak": 1,
        "counted": START,
        "last_closed_at": NOW,
        "last_opening": "a",
        "reopened": 2,
    }
    write(store, EngineStep([remembered], [], [], [], 1), 0)
    memory = store.exit_memory()
    assert memory.states == [remembered]
    (states,) = states_of(memory.states, []).values()
    assert replace(states["es-limit"]).counted == START
