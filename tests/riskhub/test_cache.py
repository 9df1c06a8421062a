"""The cache of latest: whatever becomes of it, its answer is the database's.

One suite for fakeredis and for a real Redis; the store beneath is SQLite.
"""

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from builders import NOW, WORLD, accept
from databases import migrate

from riskhub.cache import _KEY_PREFIX, Answer, LatestCache, Memory, Question, Shared, _check, _key
from riskhub.store import Filter, Store, create_engine
from riskhub.store.reading import Stored

ANY = Question(WORLD)
QUESTIONS = [
    Question(world, stage, actor)
    for world, stage, actor in itertools.product(
        (WORLD, "fx", "rates"), (None, "paper", "live", "test"), (None, "a", "b", "nobody")
    )
]


class Observed:
    """What the cache said that it did."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def cache(self, level: str, outcome: str) -> None:
        self.counts[level, outcome] += 1


class Watched:
    """The database as the cache sees it: counts the looks at the table, and can be interrupted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.looks = 0
        self.before_look: Callable[[], None] = lambda: None
        self.after_look: Callable[[], None] = lambda: None

    def stamps(self, world_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        return self.store.stamps(world_ids)

    def latest(self, world_id: str, which: Filter, *, now: datetime) -> Stored | None:
        self.looks += 1
        self.before_look()
        found = self.store.latest(world_id, which, now=now)
        self.after_look()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(store.engine)
    yield store
    store.close()


@pytest.fixture(params=["fakeredis", "redis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "fakeredis":
        made: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    else:
        made = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    with made:
        yield made


class Process:
    """One process of the hub: its own memory, the Redis and database of all."""

    def __init__(
        self, store: Store, client: redis.Redis | None, *, memory: int = 0, **shared: Any
    ) -> None:
        self.source, self.observed = Watched(store), Observed()
        self.memory = Memory(memory)
        self.shared = Shared(client, self.observed, **shared) if client is not None else None
        self.cache = LatestCache(self.source, self.memory, self.shared, self.observed)

    def ask(self, question: Question = ANY, now: datetime = NOW) -> str | None:
        (answer,) = self.cache.answer([question], now)
        return answer.body if answer else None

    def answers_as_the_database(self, now: datetime = NOW) -> None:
        answers = self.cache.answer(QUESTIONS, now)
        for question, answer in zip(QUESTIONS, answers, strict=True):
            stored = of_database(self.source.store, question, now)
            assert (answer.body if answer else None) == (stored.body if stored else None), question
            assert (answer.as_of if answer else None) == (stored.as_of if stored else None)


def of_database(store: Store, question: Question, now: datetime) -> Stored | None:
    return store.latest(question.world_id, Filter(question.stage, question.actor), now=now)


def land_a_few(store: Store, round_: int = 0) -> None:
    """Newer in each round, of several stages and actors, in two worlds."""
    of_each = itertools.product((WORLD, "fx"), ("paper", "live"), ("a", "b"))
    store.land(
        [
            accept(
                world_id=world,
                version=f"{round_} {number}",
                as_of=f"2026-01-31T{round_:02}:{number:02}:00Z",
                stage=stage,
                actor=actor,
                ttl_sec=60 * (number + 1),
            )
            for number, (world, stage, actor) in enumerate(of_each)
        ]
    )


# -- hits and misses ------------------------------------------------------------------------------


def test_each_level_answers_what_it_has_and_says_so(store: Store, client: redis.Redis) -> None:
    store.land([accept()])
    first, other = Process(store, client, memory=10_000), Process(store, client, memory=10_000)

    assert first.ask() == first.ask() == other.ask() == other.ask() == accept().body

    assert (first.source.looks, other.source.looks) == (1, 0)
    assert first.observed.counts == {
        ("memory", "miss"): 1,
        ("redis", "miss"): 1,
        ("memory", "hit"): 1,
    }
    assert other.observed.counts == {
        ("memory", "miss"): 1,
        ("redis", "hit"): 1,
        ("memory", "hit"): 1,
    }


def test_without_redis_memory_alone_answers(store: Store) -> None:
    store.land([accept()])
    process = Process(store, None, memory=10_000)
    assert process.ask() == process.ask() == accept().body
    assert process.source.looks == 1
    assert {level for level, _ in process.observed.counts} == {"memory"}


def test_a_world_in_which_nothing_landed_costs_no_look(store: Store, client: redis.Redis) -> None:
    process = Process(store, client, memory=10_000)
    store.land([accept()])
    unknown = [Question("rates"), Question(WORLD, "live"), Question(WORLD, "live", "a")]
    assert process.cache.answer(unknown, NOW) == [None, None, None]
    assert process.cache.answer([], NOW) == []
    assert process.source.looks == 0
    # Nothing by this actor is an answer; that it is nothing is remembered like any other.
    assert process.cache.answer([Question(WORLD, None, "nobody")], NOW)[0] is not None
    assert process.ask(Question(WORLD, None, "nobody")) is None
    assert process.source.looks == 1


def test_a_landing_costs_only_the_answers_that_it_may_change(
    store: Store, client: redis.Redis
) -> None:
    land_a_few(store)
    process = Process(store, client, memory=100_000)
    process.answers_as_the_database()
    store.land([accept(version="new", stage="live", as_of="2026-01-30T00:00:00Z")])
    process.source.looks = 0
    process.answers_as_the_database()
    of_live = [q for q in QUESTIONS if q.world_id == WORLD and q.stage in (None, "live")]
    assert process.source.looks == len(of_live)


def test_questions_of_every_stage_and_actor_are_answered_together(
    store: Store, client: redis.Redis
) -> None:
    with_memory, without = Process(store, client, memory=100_000), Process(store, client)
    for round_ in range(3):
        land_a_few(store, round_)
        for process in (with_memory, without, with_memory):
            process.answers_as_the_database()


# -- expiry ---------------------------------------------------------------------------------------


def test_a_key_lives_as_long_as_its_answer(store: Store, client: redis.Redis) -> None:
    store.land([accept(ttl_sec=7_200)])
    Process(store, client).ask(now=NOW + timedelta(hours=1))
    (key,) = client.keys("*")
    assert key.startswith(_KEY_PREFIX.encode())
    assert 3_500_000 < client.pttl(key) <= 3_600_000


def test_what_expires_gives_way_to_what_is_alive_then_to_nothing(
    store: Store, client: redis.Redis
) -> None:
    land_a_few(store)
    processes = [Process(store, client, memory=100_000), Process(store, client)]
    moments = [
        *(timedelta(seconds=60 * number) for number in range(10)),
        *(timedelta(seconds=60 * number) - timedelta(microseconds=1) for number in range(1, 10)),
    ]
    for moment in sorted(moments):
        for process in processes:
            process.answers_as_the_database(NOW + moment)
    assert processes[0].ask(now=NOW + timedelta(hours=1)) is None


def test_an_answer_that_is_about_to_expire_is_kept_for_no_time_at_all(
    store: Store, client: redis.Redis
) -> None:
    store.land([accept(ttl_sec=60)])
    last = NOW + timedelta(seconds=60) - timedelta(microseconds=1)
    assert Process(store, client).ask(now=last) == accept(ttl_sec=60).body
    assert Process(store, client).ask(now=NOW + timedelta(seconds=60)) is None


# -- a Redis that lost, lies, or holds what is old ------------------------------------------------


def values_of(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.get(key) for key in client.keys("*")}


def flushed(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    client.flushall()


def restored(client: redis.Redis, old: dict[bytes, bytes]) -> None:
    client.mset(old)


def exchanged(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    held = values_of(client)
    values = list(held.values())
    client.mset(dict(zip(held, values[1:] + values[:1], strict=True)))


def altered(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    for number, (key, value) in enumerate(values_of(client).items()):
        place = number * 7 % len(value)
        client.set(key, value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :])


def cut_short(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    for number, (key, value) in enumerate(values_of(client).items()):
        client.set(key, value[: number % 20])


def filled_with_noise(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    for number, key in enumerate(client.keys("*")):
        client.set(key, bytes(range(256)) * number)


def of_other_types(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
    for number, key in enumerate(client.keys("*")):
        client.delete(key)
        if number % 2:
            client.hset(key, "a", "b")
        else:
            client.rpush(key, "a")


def with_the_right_check(rest: Callable[[bytes], bytes]) -> Callable[..., None]:
    def lie(client: redis.Redis, _old: dict[bytes, bytes]) -> None:
        for question in QUESTIONS:
            value = client.get(_key(question))
            if value is not None:
                told = rest(value[16:])
                client.set(_key(question), _check(question, told) + told)

    return lie


LIES: dict[str, Callable[[redis.Redis, dict[bytes, bytes]], None]] = {
    "flushed": flushed,
    "restored from before": restored,
    "another question's": exchanged,
    "altered": altered,
    "cut short": cut_short,
    "noise": filled_with_noise,
    "other types": of_other_types,
    "nothing, rightly checked": with_the_right_check(lambda _: b""),
    "no instant, rightly checked": with_the_right_check(lambda _: b"1 tomorrow\n{}"),
    "no stamp, rightly checked": with_the_right_check(lambda rest: b"x" + rest),
    "no text, rightly checked": with_the_right_check(lambda rest: rest + b"\xff"),
    "an old stamp, rightly checked": with_the_right_check(
        lambda rest: b"1 " + rest.partition(b" ")[2]
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_no_lie_of_redis_is_repeated(
    store: Store, client: redis.Redis, lie: Callable[[redis.Redis, dict[bytes, bytes]], None]
) -> None:
    land_a_few(store)
    Process(store, client).answers_as_the_database()
    old = values_of(client)
    land_a_few(store, 1)
    Process(store, client).answers_as_the_database()
    assert len(old) > 10

    lie(client, old)

    process = Process(store, client)
    process.answers_as_the_database()
    assert process.source.looks > 0
    # And what was a lie has been put right.
    looks = process.source.looks
    healed = Process(store, client)
    healed.answers_as_the_database()
    assert healed.source.looks <= looks


def test_an_answer_of_another_database_is_not_taken_for_ours(
    store: Store, client: redis.Redis, tmp_path: Path
) -> None:
    elsewhere = Store(create_engine(f"sqlite:///{tmp_path / 'elsewhere.db'}"))
    migrate(elsewhere.engine)
    land_a_few(elsewhere, 9)
    land_a_few(store)
    for _ in range(2):
        Process(elsewhere, client).answers_as_the_database()
        Process(store, client).answers_as_the_database()
    elsewhere.close()


# -- a Redis that is down, slow, or no Redis ------------------------------------------------------


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that lets each connection be talked to; its port, and the connections so far."""
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept_all() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            threads.append(threading.Thread(target=talk, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept_all)
    acceptor.start()
    try:
        yield server.getsockname()[1], connections
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        acceptor.join()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()


def never_answers(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            pass


def always_answers(reply: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65_536):
                connection.sendall(reply)

    return talk


class Seconds:
    """A monotonic clock that the test alone moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def impatient_client(port: int) -> redis.Redis:
    return redis.Redis(
        port=port, socket_timeout=0.05, socket_connect_timeout=0.05, retry=None, protocol=2
    )


def test_a_redis_that_is_down_is_asked_once_a_second(
    store: Store, free_port: Callable[[], int]
) -> None:
    land_a_few(store)
    seconds = Seconds()
    with impatient_client(free_port()) as client:
        process = Process(store, client, monotonic=seconds)
        for _ in range(5):
            process.answers_as_the_database()
        assert process.observed.counts["redis", "failure"] == 1
        seconds.now += 1
        process.answers_as_the_database()
        assert process.observed.counts["redis", "failure"] == 2
        assert process.shared is not None
        assert not process.shared.answers()


def test_a_redis_that_never_answers_delays_one_request_a_second(store: Store) -> None:
    land_a_few(store)
    seconds = Seconds()
    with listening(never_answers) as (port, connections), impatient_client(port) as client:
        process = Process(store, client, monotonic=seconds)
        for number in range(1, 4):
            for _ in range(5):
                process.answers_as_the_database()
            assert process.observed.counts["redis", "failure"] == number
            seconds.now += 1
        # One for the attempt; the client may set its name on a second before it asks.
        assert len(connections) <= 2 * number


def test_a_redis_that_dies_between_read_and_write_back_costs_no_answer(store: Store) -> None:
    land_a_few(store)
    server = fakeredis.FakeServer()
    with fakeredis.FakeRedis(server=server) as client:
        process = Process(store, client)

        def die() -> None:
            server.connected = False

        process.source.after_look = die
        process.answers_as_the_database()
        assert process.observed.counts["redis", "failure"] == 1


REPLIES = [
    *(b"+OK\r\n", b":5\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$3\r\nabc\r\n"),
    *(b"*1\r\n:7\r\n", b"*1\r\n*1\r\n+a\r\n", b"*48\r\n" + b":7\r\n" * 48),
    *(b"-ERR no\r\n", b"-LOADING soon\r\n", b"-READONLY no\r\n"),
    *(
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*x\r\n",
        b"$x\r\n",
        b":x\r\n",
        b"\r\n",
        b"\xff\xfe\r\n",
    ),
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: ascii(reply[:20]))
def test_whatever_answers_in_place_of_redis_changes_nothing(store: Store, reply: bytes) -> None:
    land_a_few(store)
    seconds = Seconds()
    with listening(always_answers(reply)) as (port, _), impatient_client(port) as client:
        process = Process(store, client, monotonic=seconds)
        for _ in range(3):
            process.answers_as_the_database()
            assert process.ask() == process.ask()
            seconds.now += 1
        assert process.shared is not None
        process.shared.answers()


# -- landings in between --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before_look", "after_look"])
def test_a_write_back_that_a_landing_overtook_loses(
    store: Store, client: redis.Redis, moment: str
) -> None:
    """The landing commits between the stamp and the table, or between the table and the cache."""
    store.land([accept()])
    newer = accept(version="v2", as_of="2026-01-31T21:04:00Z")
    slow, other = Process(store, client, memory=10_000), Process(store, client, memory=10_000)

    def land_meanwhile() -> None:
        if not landed:
            landed.append(store.land([newer]))
            assert other.ask() == newer.body  # and is cached under its stamp

    landed: list[Any] = []
    setattr(slow.source, moment, land_meanwhile)
    first = slow.ask()  # began before the landing: either is right
    assert first in (accept().body, newer.body)

    for process in (slow, other, Process(store, client)):
        assert process.ask() == newer.body


def test_an_answer_is_never_older_than_the_database_was_when_asked(
    store: Store, client: redis.Redis
) -> None:
    """Fifty at once, in processes of their own, while snapshots land."""
    processes = [Process(store, client, memory=100_000 * (n % 2)) for n in range(5)]
    store.land([accept(version="0", as_of="2026-01-31T00:00:00Z")])
    gate = threading.Barrier(51)

    def as_of(body: str | None) -> str:
        assert body is not None
        return body.split('"as_of":"')[1][:20]

    def ask(number: int) -> int:
        gate.wait()
        for _ in range(6):
            before = of_database(store, ANY, NOW)
            got = processes[number % 5].ask()
            after = of_database(store, ANY, NOW)
            assert before is not None
            assert after is not None
            assert as_of(before.body) <= as_of(got) <= as_of(after.body)
        return number

    def land() -> int:
        gate.wait()
        for minute in range(40):
            store.land([accept(version=str(minute), as_of=f"2026-01-31T01:{minute:02}:00Z")])
        return 50

    with ThreadPoolExecutor(51) as pool:
        asked = [pool.submit(ask, number) for number in range(50)]
        landing = pool.submit(land)
        assert [future.result(120) for future in [*asked, landing]] == list(range(51))


# -- memory ---------------------------------------------------------------------------------------


def test_memory_keeps_to_its_bound_and_forgets_the_longest_unused() -> None:
    memory = Memory(max_bytes=10_000)
    questions = [Question(f"w{number}") for number in range(100)]
    answer = Answer(1, "x" * 1_000, NOW)
    for question in questions:
        memory.put(question, answer)
        assert memory.get(questions[0]) == answer  # asked for all the time, so it stays
    kept = [question for question in questions if memory.get(question) is not None]
    assert 5 <= len(kept) < 10
    assert kept == [questions[0], *questions[101 - len(kept) :]]


def test_memory_does_not_keep_what_is_larger_than_all_of_it() -> None:
    memory = Memory(max_bytes=2_000)
    memory.put(ANY, Answer(1, "x" * 500, NOW))
    memory.put(ANY, Answer(2, "x" * 5_000, NOW))
    assert memory.get(ANY) is None
    memory.put(ANY, Answer(3, "x" * 500, NOW))
    assert memory.get(ANY) == Answer(3, "x" * 500, NOW)


def test_memory_counts_an_answer_that_is_replaced_once() -> None:
    memory = Memory(max_bytes=2_500)
    memory.put(Question("other"), Answer(1, "x" * 500, NOW))
    for stamp in range(100):
        memory.put(ANY, Answer(stamp, "x" * 500, NOW))
    assert memory.get(Question("other")) is not None
    assert memory.get(ANY) == Answer(99, "x" * 500, NOW)


def test_memory_of_no_bytes_keeps_nothing() -> None:
    memory = Memory(max_bytes=0)
    memory.put(ANY, Answer(1, None))
    assert memory.get(ANY) is None


def test_an_answer_holds_under_its_stamp_until_it_expires() -> None:
    answer = Answer(7, "{}", NOW)
    assert answer.holds(7, NOW - timedelta(microseconds=1))
    assert not answer.holds(7, NOW)
    assert not answer.holds(8, NOW - timedelta(microseconds=1))
    assert Answer(7, None).holds(7, datetime.max.replace(tzinfo=UTC))
