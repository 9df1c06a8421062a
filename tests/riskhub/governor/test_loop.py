"""The governor as a process: its beat, standing by, failures, and two of them at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from builders import wait_until
from databases import migrate
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub.embedded_redis import serve
from riskhub.errors import StoreUnavailable
from riskhub.governor import BudgetCycle, GovernorSettings, PublishFailed, run_cycle
from riskhub.governor.counters import COUNTERS_KEY
from riskhub.governor.history import History
from riskhub.governor.lease import WRITER_KEY, Lease, holder
from riskhub.governor.loop import Governor, once, run
from riskhub.store import Store, create_engine

NOW = 1_738_000_000.0
BUDGET_KEY = "quantum:portfolio:budget:BTCUSDT"
SETTINGS = GovernorSettings()


# --- the beat --------------------------------------------------------------------------------


@dataclass
class Time:
    """Seconds that pass only while something takes or waits for them."""

    now: float = 1_000.0
    beats: list[float] = field(default_factory=list)
    waits: int = 0

    def beat(self, *, takes: float = 0.0, writes: bool = True) -> bool:
        self.beats.append(self.now - 1_000.0)
        self.now += takes
        return writes

    def wait(self, seconds: float, *, enough: int, early: float = 0.0) -> bool:
        assert seconds > 0
        self.waits += 1
        self.now += seconds - early
        return self.waits == enough


def beats_of(beat: Callable[[Time], bool], *, count: int, early: float = 0.0) -> list[float]:
    passing = Time()
    run(
        lambda: beat(passing),
        interval_sec=10.0,
        monotonic=lambda: passing.now,
        wait=partial(passing.wait, enough=count, early=early),
    )
    return passing.beats


def test_beats_keep_their_time_however_long_each_takes() -> None:
    takes = iter([0.0, 3.5, 9.0, 0.25, 0.0])
    beats = beats_of(lambda passing: passing.beat(takes=next(takes)), count=5)
    assert beats == pytest.approx([0, 10, 20, 30, 40])


def test_beats_that_were_missed_are_not_made_up_for() -> None:
    takes = iter([0.0, 25.0, 0.0, 0.0])
    beats = beats_of(lambda passing: passing.beat(takes=next(takes)), count=4)
    assert beats == pytest.approx([0, 10, 40, 50])


def test_a_wait_that_ends_a_little_early_makes_no_second_beat() -> None:
    beats = beats_of(lambda passing: passing.beat(takes=0.001), count=4, early=0.01)
    assert beats == pytest.approx([0, 10, 20, 30], abs=0.1)


def test_who_does_not_write_looks_again_soon_and_then_falls_in_with_the_beat() -> None:
    writes = iter([True, False, False, True, True])
    beats = beats_of(lambda passing: passing.beat(writes=next(writes)), count=5)
    assert beats == pytest.approx([0, 10, 11, 12, 20])


# --- one governor ----------------------------------------------------------------------------


@pytest.fixture
def url(either_redis_url: str) -> str:
    """A Redis with nothing in it."""
    return either_redis_url


def connect(url: str) -> redis.Redis:
    """As `riskhub governor` does: the next beat is the retry."""
    client = redis.Redis.from_url(url, decode_responses=True)
    client.set_retry(Retry(NoBackoff(), 0))
    return client


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as connected:
        write_inputs(connected, NOW)
        yield connected


def write_inputs(client: redis.Redis, now: float) -> None:
    client.hset("quantum:position:snapshot:BTCUSDT", "position_amt", "1")
    client.hset("quantum:state:market:BTCUSDT", "vol_regime", "NORMAL_VOL")
    state = {"equity_usd": "100000", "drawdown": "0", "timestamp": repr(now)}
    client.hset("quantum:state:portfolio", mapping=state)


@dataclass
class Alone:
    """A governor in this process; the test has its clock and reads what it tells."""

    client: redis.Redis
    owner: str
    now: float = NOW
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    """Happens in each cycle, before it reads."""

    def __post_init__(self) -> None:
        self.lease = Lease(self.client, self.owner, sec=SETTINGS.lease_sec)
        self.aside = ThreadPoolExecutor(1)
        history = History(
            lambda row, budgets: self.kept.append((row, budgets)),
            mode="shadow",
            every_sec=60.0,
            aside=self.aside,
            monotonic=lambda: self.now,
            failed=lambda error: self.tell("history lost", why=str(error)),
            back=lambda lost: self.tell("history back", lost=lost),
        )
        self.governor = Governor(
            self.lease, self.cycle, history, clock=lambda: self.now, tell=self.tell
        )

    def cycle(self, now: float) -> BudgetCycle:
        self.before()
        return run_cycle(self.client, SETTINGS, now, lease=self.lease)

    def tell(self, event: str, **fields: object) -> None:
        self.told.append((event, fields))

    def beat(self) -> bool:
        return self.governor.beat()

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.told]


@pytest.fixture
def govern(url: str) -> Iterator[Callable[..., Alone]]:
    """Makes governors, each with a connection of its own."""
    made: list[Alone] = []

    def make(owner: str = "mine", at: str = url) -> Alone:
        made.append(Alone(connect(at), owner))
        return made[-1]

    yield make
    for one in made:
        one.aside.shutdown()
        one.client.close()


def test_a_beat_writes_budgets_keeps_them_on_record_and_tells_of_them_once(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine = govern()
    assert mine.beat()
    mine.now += 10
    assert mine.beat()

    budget = client.hgetall(BUDGET_KEY)
    assert float(budget["budget_usd"]) == pytest.approx(1_868.0)
    assert int(budget["timestamp"]) == NOW + 10
    mine.aside.shutdown()
    ((row, (kept,)),) = mine.kept
    assert (row["writer"], kept["symbol"]) == ("mine", "BTCUSDT")
    ((event, figures),) = mine.told
    assert (event, figures["symbols"], figures["total_usd"]) == ("budgets", 1, 1_868.0)
    assert (figures["equity_usd"], figures["portfolio_state"]) == (100_000.0, "fresh")


def test_a_change_of_policy_is_told(client: redis.Redis, govern: Callable[..., Alone]) -> None:
    mine = govern()
    mine.beat()
    mine.now += 40
    mine.beat()
    mine.now += 900
    assert mine.beat()  # without budgets there was a cycle all the same

    (_, before), (_, after), (event, figures) = mine.told
    assert (before["portfolio_state"], after["portfolio_state"]) == ("fresh", "last_known_good")
    assert (event, figures["reason"]) == ("no budgets", "portfolio_too_old")


def test_what_is_no_symbol_is_told(client: redis.Redis, govern: Callable[..., Alone]) -> None:
    mine = govern()
    mine.beat()
    client.hset("quantum:position:snapshot:cluster:x", "position_amt", "1")
    mine.beat()
    assert [figures.get("refused_symbols") for _, figures in mine.told] == [None, "cluster:x"]


def test_who_finds_the_lease_taken_stands_by_and_writes_nothing(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    Lease(client, "other", sec=60).take()
    mine = govern()
    assert not mine.beat()
    assert not mine.beat()
    assert not client.exists(BUDGET_KEY)
    assert mine.told == [("stands by", {"writer": "other"})]
    client.delete(WRITER_KEY)
    assert mine.beat()
    assert mine.events == ["stands by", "budgets"]


def test_who_slept_through_the_end_of_its_lease_does_not_write_over_its_successor(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine, other = govern("mine"), govern("other")
    other.now = NOW + 13

    def sleeps() -> None:
        client.delete(WRITER_KEY)  # as it does when it runs out
        assert other.beat()

    mine.before = sleeps
    assert not mine.beat()

    assert int(client.hget(BUDGET_KEY, "timestamp")) == NOW + 13
    assert holder(client) == "other"
    assert mine.events == ["failed"]
    mine.before = lambda: None
    assert not mine.beat()
    assert mine.events == ["failed", "recovered", "stands by"]


def test_who_leaves_writes_once_more_and_gives_the_lease_back(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine = govern()
    mine.beat()
    mine.now += 9
    mine.governor.leave()
    assert int(client.hget(BUDGET_KEY, "timestamp")) == NOW + 9
    assert holder(client) is None


def test_who_stands_by_leaves_without_a_word(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    Lease(client, "other", sec=60).take()
    mine = govern()
    mine.beat()
    client.delete(WRITER_KEY)  # free, and not for somebody who leaves
    mine.governor.leave()
    assert not client.exists(BUDGET_KEY)
    assert holder(client) is None


def test_a_lease_that_is_given_back_is_the_next_ones_at_once(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine, other = govern("mine"), govern("other")
    mine.beat()
    assert not other.beat()
    mine.governor.release()
    assert other.beat()


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), OSError("away"), ValueError("bug")])
def test_nothing_that_fails_ends_the_loop_and_it_is_told_once(
    client: redis.Redis,
    govern: Callable[..., Alone],
    failure: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mine = govern()

    def fails() -> None:
        raise failure

    mine.before = fails
    assert [mine.beat() for _ in range(3)] == [False] * 3
    mine.before = lambda: None
    assert mine.beat()

    assert mine.events == ["failed", "recovered", "budgets"]
    assert mine.told[0][1]["error"] == type(failure).__name__
    assert mine.told[1][1] == {"failures": 3}
    expected = not isinstance(failure, ValueError)
    assert len(caplog.records) == (0 if expected else 1)


def test_who_fails_in_a_way_that_nobody_expected_lets_another_try(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine = govern()

    def fails() -> None:
        raise ValueError

    mine.before = fails
    assert not mine.beat()
    assert holder(client) is None


@contextmanager
def served(port: int) -> Iterator[None]:
    """A Redis that lives while the block does, and has forgotten everything the next time."""
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=serve, args=("127.0.0.1", port), kwargs={"ready": ready.set, "stop": stop}
    )
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        stop.set()
        thread.join()


def test_a_redis_that_goes_and_comes_back_is_written_again_and_its_failures_are_counted(
    govern: Callable[..., Alone], free_port: Callable[[], int]
) -> None:
    port = free_port()
    address = f"redis://127.0.0.1:{port}/0"
    mine = govern(at=address)
    with served(port), connect(address) as client:
        write_inputs(client, NOW)
        assert mine.beat()
    assert [mine.beat() for _ in range(3)] == [False] * 3
    with served(port), connect(address) as client:
        write_inputs(client, NOW + 60)
        mine.now = NOW + 60
        assert mine.beat()
        assert int(client.hget(BUDGET_KEY, "timestamp")) == NOW + 60
        assert client.hget(COUNTERS_KEY, "p28_redis_write_fail_total") == "3"
        assert mine.beat()
        assert client.hget(COUNTERS_KEY, "p28_redis_write_fail_total") == "3"
    assert mine.events == ["budgets", "failed", "recovered"]


def test_one_cycle_alone_is_recorded_and_leaves_the_lease_free(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine, kept = govern(), []

    def record(row: Any, budgets: Any) -> None:
        kept.append((row["writer"], len(budgets)))

    cycle = once(mine.lease, mine.cycle, record, mode="shadow", now=NOW)

    assert cycle is not None
    assert len(cycle.budgets) == 1
    assert kept == [("mine", 1)]
    assert holder(client) is None
    Lease(client, "other", sec=60).take()
    assert once(mine.lease, mine.cycle, record, mode="shadow", now=NOW) is None
    assert kept == [("mine", 1)]
    assert holder(client) == "other"


def test_one_cycle_alone_counts_that_redis_did_not_take_it(
    client: redis.Redis, govern: Callable[..., Alone]
) -> None:
    mine, kept = govern(), []

    def away() -> None:
        raise PublishFailed("writing 1 budgets failed")

    mine.before = away
    with pytest.raises(PublishFailed):
        once(mine.lease, mine.cycle, lambda *rows: kept.append(rows), mode="shadow", now=NOW)

    assert client.hget(COUNTERS_KEY, "p28_redis_write_fail_total") == "1"
    assert (kept, holder(client)) == ([], None)


def test_nor_does_a_redis_that_takes_no_count_hide_why(
    client: redis.Redis, govern: Callable[..., Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = govern()

    def gone() -> None:
        monkeypatch.setattr(mine.lease, "transaction", refuse)
        raise PublishFailed("the one that counts")

    def refuse() -> Any:
        raise redis.ConnectionError("gone")

    mine.before = gone
    with pytest.raises(PublishFailed, match="the one that counts"):
        once(mine.lease, mine.cycle, lambda *_: None, mode="shadow", now=NOW)


# --- two at once -----------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `riskhub governor` on a database of the test's own."""
    database = f"sqlite:///{tmp_path / 'hub.db'}"
    engine = create_engine(database)
    migrate(engine)
    engine.dispose()
    started: list[subprocess.Popen[str]] = []

    def start(url: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        own = {
            "RISKHUB_HOME": str(tmp_path),
            "RISKHUB_DATABASE_URL": database,
            "RISKHUB_REDIS_URL": url,
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "riskhub", "governor", *arguments],
                env=os.environ | own | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def process_of(writer: str | None) -> int:
    """The process id in the name of a lease's owner."""
    return int(str(writer).split("process ")[1].split()[0])


def writes(client: redis.Redis) -> bool:
    return bool(client.exists(WRITER_KEY) and client.exists(BUDGET_KEY))


def budget_age_sec(client: redis.Redis) -> float:
    """Of the budget as its consumers see it, whose time is in whole seconds."""
    return time.time() - float(client.hget(BUDGET_KEY, "timestamp"))


def test_when_the_writer_is_killed_another_takes_over_within_15_s(
    url: str, client: redis.Redis, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    write_inputs(client, time.time())
    both = [processes(url) for _ in range(2)]
    wait_until(lambda: writes(client))
    first = holder(client)
    victim = next(process for process in both if process.pid == process_of(first))
    survivor = next(process for process in both if process is not victim)
    # So that the other one is there, too: it finds the lease taken, and says so.
    assert survivor.stdout is not None
    assert "stands by" in survivor.stdout.readline()
    assert holder(client) == first

    victim.kill()
    killed_at = time.monotonic()
    oldest = 0.0

    def taken_over() -> bool:
        nonlocal oldest
        oldest = max(oldest, budget_age_sec(client))
        return holder(client) not in {None, first} and budget_age_sec(client) < 5

    wait_until(taken_over, within_sec=20)

    assert time.monotonic() - killed_at < 15
    assert process_of(holder(client)) == survivor.pid
    assert oldest < 15 + 1  # whole seconds


def test_sigterm_gives_the_lease_back_and_the_other_one_has_it_a_look_later(
    redis_url: str, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    with connect(redis_url) as client:
        write_inputs(client, time.time())
        first = processes(redis_url)
        wait_until(lambda: writes(client))
        second = processes(redis_url)
        assert second.stdout is not None
        assert "stands by" in second.stdout.readline()

        first.send_signal(signal.SIGTERM)
        assert first.wait(5) == 0
        wait_until(lambda: holder(client) is not None, within_sec=4)

        assert process_of(holder(client)) == second.pid
        assert "event=budgets symbols=1" in second.stdout.readline()


def test_two_that_are_in_a_hurry_never_write_the_same_instant(
    redis_url: str, tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    hurry = {"RISKHUB_GOVERNOR__HISTORY_SEC": "0"}
    with connect(redis_url) as client:
        write_inputs(client, time.time())
        both = [processes(redis_url, "--interval", "0.1", **hurry) for _ in range(2)]
        store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
        try:
            wait_until(lambda: len(store.budget_cycles(limit=50)) >= 20)
            both[0].send_signal(signal.SIGTERM)
            assert both[0].wait(5) == 0
            second = f"process {both[1].pid} "
            wait_until(
                lambda: sum(second in row["writer"] for row in store.budget_cycles(limit=50)) >= 20
            )
            rows = store.budget_cycles(limit=1_000)[::-1]
        finally:
            store.close()
    # One after the other, not in turns: at most one change of hands.
    hands = [row["writer"] for row in rows]
    assert sum(a != b for a, b in pairwise(hands)) <= 1


def test_one_cycle_from_the_command_line(
    redis_url: str, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    with connect(redis_url) as client:
        nothing = processes(redis_url, "--once")
        out, _ = nothing.communicate(timeout=30)
        assert (nothing.returncode, out.strip()) == (1, "riskhub: no budgets: portfolio_missing")
        write_inputs(client, time.time())
        done = processes(redis_url, "--once")
        out, _ = done.communicate(timeout=30)
        assert done.returncode == 0
        assert "event=budgets symbols=1" in out
        assert client.exists(BUDGET_KEY)
        Lease(client, "other", sec=60).take()
        idle = processes(redis_url, "--once")
        out, _ = idle.communicate(timeout=30)
        assert idle.returncode == 0
        assert 'event="stands by" writer=other' in out


def test_without_redis_or_database_it_waits_for_them(
    free_port: Callable[[], int], tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    port = free_port()
    nobody = f"postgresql://nobody@127.0.0.1:{free_port()}/hub"
    process = processes(f"redis://127.0.0.1:{port}/0", RISKHUB_DATABASE_URL=nobody)
    assert process.stdout is not None
    assert 'event="without database"' in process.stdout.readline()
    assert "event=failed error=ConnectionError" in process.stdout.readline()
    with served(port), connect(f"redis://127.0.0.1:{port}/0") as client:
        write_inputs(client, time.time())
        wait_until(lambda: writes(client))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "event=recovered" in out
    assert 'event="history lost" error=StoreUnavailable' in out


def test_a_database_that_is_not_migrated_costs_receipts_and_no_budget(
    redis_url: str, tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    with connect(redis_url) as client:
        write_inputs(client, time.time())
        process = processes(redis_url, RISKHUB_DATABASE_URL=empty)
        wait_until(lambda: writes(client))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert 'event="without database"' in out
    assert "run `riskhub migrate`" in out
    assert 'event="history lost" error=StoreNotMigrated' in out
