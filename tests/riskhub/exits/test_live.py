"""The loop: it follows the outbox, looks at ages, tells once, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from builders import NOW, WORLD, Clock, wait_until
from databases import migrate
from exiting import STAGE, compute_world, load, rule, write_rules, write_verdict
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub.controlbus.events import EXIT_SIGNAL
from riskhub.errors import StoreUnavailable
from riskhub.exits.book import RuleBook
from riskhub.exits.live import ExitEngine, run, run_once
from riskhub.exits.observe import observe
from riskhub.exits.replay import Moment, replay
from riskhub.exits.stream import EXIT_STREAM, bring
from riskhub.store import Store, create_engine
from riskhub.store.exits import READER

RULES = (
    rule(),
    rule(id="stale", kind="stale", enter="critical", leave="stale"),
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(create_engine(url))
    migrate(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        connected.set_retry(Retry(NoBackoff(), 0))
        yield connected


@pytest.fixture
def book(tmp_path: Path) -> RuleBook:
    return load(write_rules(tmp_path / "rules.yaml", *RULES))


@dataclass
class Alone:
    """An engine in this process; the test has its clock and reads what it tells."""

    store: Store
    book: RuleBook
    client: redis.Redis
    clock: Clock = field(default_factory=Clock)
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = ExitEngine(
            self.store,
            self.book,
            self.client,
            writer="mine",
            look_sec=10.0,
            timeless_stages={"backtest"},
            clock=self.clock,
            tell=self.tell,
        )

    def tell(self, event: str, **fields: object) -> None:
        self.told.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.told if event != "takes over"]

    def compute(self, es: float | None, version: str, **row: Any) -> int:
        """A snapshot of now, with its numbers."""
        return compute_world(self.store, es, **{"as_of": self.clock.now, "version": version} | row)


@pytest.fixture
def alone(store: Store, book: RuleBook, client: redis.Redis) -> Alone:
    made = Alone(store, book, client)
    made.engine.take_over()
    return made


def streamed(client: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(entry["json"]) for _, entry in client.xrange(EXIT_STREAM)]  # type: ignore[union-attr]


def told_once(client: redis.Redis) -> list[str]:
    """The signals as a consumer takes them, which passes over an id that it has seen."""
    return list({entry["signal_id"]: entry["signal"] for entry in streamed(client)}.values())


def signal_events(store: Store) -> list[dict[str, Any]]:
    found = store.events_after(0, limit=99, types=[EXIT_SIGNAL])
    return [json.loads(event.cloud_event()) for event in found]


# --- what it tells ---------------------------------------------------------------------------


def test_numbers_over_the_limit_become_an_episode_an_event_and_an_entry(
    alone: Alone, store: Store, client: redis.Redis
) -> None:
    alone.engine.beat()
    alone.clock.advance(1)
    alone.compute(0.1, "a")
    alone.engine.beat()
    (row,) = store.exit_episodes(limit=9).rows
    assert (row["rule"], row["world_id"], row["opened_at"]) == ("es-limit", WORLD, alone.clock.now)
    assert row["history"][0]["streamed_at"] == alone.clock.now
    (event,) = signal_events(store)
    assert (event["type"], event["partitionkey"]) == ("exit_signal", WORLD)
    (entry,) = streamed(client)
    assert entry == {"event_type": "exit.signal"} | {
        name: event["data"][name] for name in entry if name != "event_type"
    }
    assert entry["signal_id"] == f"{row['id']}:1"
    ((told, fields),) = [each for each in alone.told if each[0] != "takes over"]
    assert (told, fields["rule"], fields["to"]) == ("opened", "es-limit", pytest.approx(0.5))


def test_an_event_wakes_it_between_two_looks_and_only_once(alone: Alone, store: Store) -> None:
    alone.engine.beat()
    alone.clock.advance(1)
    alone.compute(0.1, "a")
    alone.engine.beat()
    assert alone.events == ["opened"]
    cursor = store.cursor(READER)
    assert cursor == store.events_head() - 1  # the signal's own event is the last
    turn = store.exit_memory().turn
    for _ in range(3):
        alone.engine.beat()
    assert (alone.events, store.exit_memory().turn) == (["opened"], turn)


def test_age_needs_no_event(alone: Alone, store: Store) -> None:
    alone.compute(0.03, "a")
    alone.engine.beat()
    alone.clock.advance(1795)
    alone.engine.beat()
    assert alone.events == []
    alone.clock.advance(10)
    alone.engine.beat()
    assert alone.events == ["opened"]
    assert store.exit_episodes(limit=9).rows[0]["rule"] == "stale"
    alone.compute(0.03, "b")
    alone.clock.advance(10)
    alone.engine.beat()
    assert alone.events == ["opened", "closed"]


def test_history_is_left_to_the_replay(alone: Alone) -> None:
    alone.compute(0.1, "a", stage="backtest")
    alone.engine.beat()
    alone.clock.advance(9999)
    alone.engine.beat()
    assert alone.events == []


def test_a_rejected_snapshot_takes_back_what_it_opened(alone: Alone) -> None:
    alone.compute(0.06, "a")
    alone.clock.advance(1)
    position = alone.compute(0.1, "b")
    alone.engine.beat()
    as_of = alone.clock.now
    alone.clock.advance(1)
    write_verdict(
        alone.store, position, now=alone.clock.now, accepted=False,
        version="b", world_id=WORLD, stage=STAGE, as_of=as_of,
    )  # fmt: skip
    alone.engine.beat()
    assert alone.events == ["opened", "closed"]


def test_a_world_that_the_rules_leave_ends_what_is_open(
    alone: Alone, store: Store, tmp_path: Path, client: redis.Redis
) -> None:
    alone.compute(0.1, "a")
    alone.engine.beat()
    fewer = load(write_rules(tmp_path / "fewer.yaml", rule(worlds=["fx"])))
    other = Alone(store, fewer, client, alone.clock)
    other.engine.take_over()
    other.engine.beat()
    assert other.events == ["closed"]
    assert store.exit_memory().open_episodes == []


def test_a_stage_that_becomes_timeless_ends_what_is_open(
    alone: Alone, store: Store, book: RuleBook, client: redis.Redis
) -> None:
    alone.compute(0.1, "a")
    alone.engine.beat()
    other = Alone(store, book, client, alone.clock)
    other.engine._timeless = frozenset({STAGE})
    other.engine.take_over()
    other.engine.beat()
    other.engine.beat()
    assert other.events == ["closed"]


# --- dying and going on ----------------------------------------------------------------------


class Died(BaseException):
    """Kill -9, as far as the code can see."""


@contextmanager
def dies(target: Any, name: str, *, after: bool = False) -> Iterator[None]:
    """In the block, calling this ends the process: before it does anything, or just after."""
    original = getattr(target, name)

    def die(*args: Any, **kwargs: Any) -> Any:
        if after:
            original(*args, **kwargs)
        raise Died

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(target, name, die)
        yield


@pytest.mark.parametrize(
    ("where", "after"),
    [
        ("observed", False),
        ("write_exit_step", False),
        ("write_exit_step", True),
        ("unstreamed_signals", False),
        ("mark_streamed", False),
        ("mark_streamed", True),
    ],
)
def test_wherever_it_dies_each_signal_is_decided_once_and_told_at_least_once(
    alone: Alone,
    store: Store,
    book: RuleBook,
    client: redis.Redis,
    where: str,
    after: bool,
) -> None:
    alone.engine.beat()
    alone.clock.advance(1)
    alone.compute(0.1, "a")
    with dies(store, where, after=after), pytest.raises(Died):
        alone.engine.beat()

    successor = Alone(store, book, client, alone.clock)
    successor.engine.take_over()
    successor.engine.beat()
    successor.clock.advance(1)
    successor.compute(0.04, "b")
    successor.engine.beat()

    (row,) = store.exit_episodes(limit=9).rows
    assert [each["signal"] for each in row["history"]] == ["opened", "closed"]
    assert all(each["streamed_at"] for each in row["history"])
    assert [event["data"]["signal"] for event in signal_events(store)] == ["opened", "closed"]
    entries = [entry["signal_id"] for entry in streamed(client)]
    assert list(dict.fromkeys(entries)) == [f"{row['id']}:1", f"{row['id']}:2"]
    assert len(entries) == (3 if (where, after) == ("mark_streamed", False) else 2)


def test_of_two_engines_that_both_think_they_are_alone_one_writes(
    alone: Alone, store: Store, book: RuleBook, client: redis.Redis
) -> None:
    other = Alone(store, book, client, alone.clock)
    other.engine.take_over()
    alone.compute(0.1, "a")
    other.engine.beat()
    with pytest.raises(Exception, match="another exit engine"):
        alone.engine.beat()
    assert (alone.events, other.events) == ([], ["opened"])
    alone.engine.take_over()
    alone.engine.beat()
    assert alone.events == []


def test_a_backlog_is_looked_at_as_it_is_now(alone: Alone, store: Store) -> None:
    for number, es in enumerate((0.1, 0.2, 0.03)):
        alone.clock.advance(60)
        alone.compute(es, f"v{number}")
    alone.engine.beat()
    assert alone.events == []
    assert store.cursor(READER) == store.events_head()


# --- Redis -----------------------------------------------------------------------------------


def test_without_redis_it_decides_on_and_brings_what_waited(
    alone: Alone, store: Store, client: redis.Redis
) -> None:
    with pytest.MonkeyPatch.context() as patched:

        def away(*_: Any, **__: Any) -> Any:
            raise redis.ConnectionError("refused")

        patched.setattr(client, "pipeline", away)
        for number, es in enumerate((0.1, 0.2, 0.03)):
            alone.clock.advance(20)
            alone.compute(es, f"v{number}")
            alone.engine.beat()
        assert alone.events == ["opened", "stream away", "closed"]
        assert streamed(client) == []
    alone.engine.beat()
    assert alone.events[-1] == "stream back"
    assert [entry["signal"] for entry in streamed(client)] == ["opened", "closed"]
    assert store.unstreamed_signals(limit=9) == []
    assert bring(store, client, NOW) == 0


def test_the_stream_does_not_grow_for_ever(
    alone: Alone, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.exits.stream.SIGNALS_KEPT", 1)
    for _ in range(300):
        client.xadd(EXIT_STREAM, {"json": "{}"})
    alone.compute(0.1, "a")
    alone.engine.beat()
    assert client.xlen(EXIT_STREAM) < 300


# --- live and replay -------------------------------------------------------------------------


def test_a_replay_of_what_was_observed_comes_to_what_was_told(
    alone: Alone, store: Store, book: RuleBook
) -> None:
    moments = []
    for number, es in enumerate((0.03, 0.1, None, 0.12, 0.06, 0.04, 0.09, 0.01)):
        alone.clock.advance(20)
        alone.compute(es, f"v{number}")
        (seen,) = observe(store, book).values()
        moments.append(Moment(alone.clock.now, seen))
        alone.engine.beat()
    again = replay(book, iter(moments))
    rows = {row["id"]: row for row in store.exit_episodes(limit=9).rows}
    assert len(again.episodes) == len(rows) == 2
    for episode in again.episodes:
        row = rows[episode.id]
        assert (episode.opened_at, episode.closed_at) == (row["opened_at"], row["closed_at"])
        assert (episode.worst, episode.evidence) == (row["worst"], row["evidence"])
    told = [event["data"]["signal_id"] for event in signal_events(store)]
    assert [signal.id for signal in again.signals] == told


# --- the loop --------------------------------------------------------------------------------


def beats(enough: int) -> Callable[[float], bool]:
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        assert seconds > 0
        waited.append(seconds)
        return len(waited) >= enough

    return wait


def test_one_at_a_time_and_the_next_takes_over(
    alone: Alone, store: Store, book: RuleBook, client: redis.Redis, url: str
) -> None:
    other = Alone(Store(create_engine(url)), book, client, alone.clock)
    alone.compute(0.1, "a")
    with store.reading_alone(READER) as mine:
        assert mine is not None
        run(
            other.engine, other.store.reading_alone,
            interval_sec=1, wait=beats(3), tell=other.tell,
        )  # fmt: skip
        assert other.told == [("stands by", {})]
        assert not run_once(other.engine, other.store.reading_alone, tell=other.tell)
    run(other.engine, other.store.reading_alone, interval_sec=1, wait=beats(2), tell=other.tell)
    assert other.events[-1] == "opened"
    other.store.close()


def test_what_fails_is_told_once_and_tried_again(alone: Alone, store: Store) -> None:
    alone.compute(0.1, "a")
    fails = iter([True, True, False, False])
    original = store.observed

    def sometimes(**asked: Any) -> Any:
        if next(fails, False):
            raise StoreUnavailable("away")
        return original(**asked)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "observed", sometimes)
        run(alone.engine, store.reading_alone, interval_sec=1, wait=beats(4), tell=alone.tell)
    assert [event for event in alone.events if event != "stands by"] == ["failed", "opened"]


def test_a_fault_of_ours_is_told_with_its_traceback_and_ends_nothing(
    alone: Alone, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "observed", lambda **_: 1 / 0)
        run(alone.engine, store.reading_alone, interval_sec=1, wait=beats(3), tell=alone.tell)
    assert alone.events == ["failed"]
    assert "ZeroDivisionError" in caplog.text


# --- the process -----------------------------------------------------------------------------


@contextmanager
def started(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "riskhub", "exit-engine"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_killed_and_started_again_it_goes_on_and_sigterm_ends_it(
    store: Store, url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    clock = Clock()
    clock.now = clock.now.now(clock.now.tzinfo) - timedelta(seconds=5)
    rules = write_rules(tmp_path / "live.yaml", rule(mode="enforce"))
    environment = {
        "RISKHUB_HOME": str(tmp_path / "home"),
        "RISKHUB_DATABASE_URL": url,
        "RISKHUB_REDIS_URL": redis_url,
        "RISKHUB_EXIT_RULES_PATH": str(rules),
        "RISKHUB_EXITS__INTERVAL_SEC": "0.05",
        "PYTHONUNBUFFERED": "1",
    }
    compute_world(store, 0.1, as_of=clock.now, version="a")
    with started(environment) as first:
        wait_until(lambda: len(told_once(client)) == 1, within_sec=90)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    clock.advance(1)
    compute_world(store, 0.02, as_of=clock.now, version="b")
    with started(environment) as second:
        wait_until(lambda: len(told_once(client)) == 2, within_sec=90)
        lines: list[str] = []
        assert second.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(second.stdout or []))
        reader.start()
        second.terminate()
        assert second.wait(20) == 0
        reader.join(20)
    assert told_once(client) == ["opened", "closed"]
    assert any("event=closed rule=es-limit" in line for line in lines)
