"""Events on a real Kafka: what the relay takes, how late an event is, how late its numbers are.

- Relay: a backlog brought to a topic, against a bare aiokafka producer that sends the same bytes
  from memory, each with its key (idempotent, all acknowledged), with that client's own defaults.
- Landing to topic: at 200 landings a second, from the answer of the API to a consumer.
- Worker: from an event at the topic to its numbers in the database, at ten landings a second.
- A backlog of 100,000 events: as long for each ten thousand at its end as at its beginning, in
  memory that does not grow.

Database, broker, API, relay, worker and load share the machine.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import numpy as np
import psutil
import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks._hub import HEADERS, serving
from riskhub.controlbus import kafka
from riskhub.controlbus.events import SNAPSHOT_UPDATED, parse
from riskhub.controlbus.relay import Relay, reader_of
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.snapshot import validate
from riskhub.store import Store, create_engine, migrate
from tests.service_resolution import (
    fresh_database,
    fresh_topic,
    resolve_kafka,
    resolve_postgres,
)

EVENTS = 20_000
ROUNDS = 3
LEAST_SHARE = 0.7
LANDINGS_PER_SEC, SECONDS = 200, 15
MOST_ON_TOPIC_MS = 100.0
MEASURED_PER_SEC, MEASURED_SECONDS = 10, 20
MOST_MEASURED_MS = 250.0
BACKLOG = 100_000
MOST_GROWTH = 1.25
WORLDS = 50


def run() -> bool:
    """Measure each; whether all are within their limits."""
    with (
        resolve_postgres(durable=True).serve() as server,
        resolve_kafka().serve() as brokers,
    ):
        within = []
        for measure in (relay_throughput, landing_to_topic, event_to_numbers, backlog):
            with fresh_database(server) as database:
                engine = create_engine(database)
                migrate(engine)
                engine.dispose()
                settings = Settings(
                    database_url=database,
                    controlbus_brokers=brokers,
                    controlbus_topic=measure.__name__,
                )
                within.append(measure(settings))
        return all(within)


def brokers_of(settings: Settings) -> str:
    assert settings.controlbus_brokers is not None
    return settings.controlbus_brokers


def fill(store: Store, count: int, first: int = 0) -> None:
    """So many landings of 100 weights, over fifty worlds."""
    weights = {f"S{number:03d}": 0.01 for number in range(100)}
    document = {"as_of": "2026-01-02T21:00:00Z", "version": "v0", "weights": weights}
    for start in range(first, first + count, 500):
        store.land(
            [
                validate(
                    document | {"version": f"v{number}"},
                    world_id=f"w{number % WORLDS}",
                    actor="bench",
                    stage="paper",
                    received_at=utc_now(),
                )
                for number in range(start, min(start + 500, first + count))
            ]
        )


# -- the relay ------------------------------------------------------------------------------------


def relay_throughput(settings: Settings) -> bool:
    """Events a second, ours and bare, in turn on topics of their own."""
    store, brokers = Store(create_engine(settings.effective_database_url)), brokers_of(settings)
    fill(store, EVENTS)
    records, page = [], store.events_after(0, limit=2_000)
    while page:
        records += [(event.key.encode(), event.cloud_event()) for event in page]
        page = store.events_after(page[-1].sequence, limit=2_000)
    shares, ours, bare = [], [], []
    for _ in range(ROUNDS):
        with fresh_topic(brokers) as relayed, fresh_topic(brokers) as sent:
            of_round = settings.model_copy(update={"controlbus_topic": relayed})
            ours.append(EVENTS / asyncio.run(_relayed(store, of_round)))
            bare.append(EVENTS / asyncio.run(_sent(brokers, sent, records)))
        shares.append(ours[-1] / bare[-1])
    store.close()
    size = statistics.mean(len(raw) for _, raw in records)
    print(
        f"controlbus: relay of {EVENTS:,} events of {size:,.0f} bytes: "
        f"{statistics.median(ours):,.0f}/s, bare producer {statistics.median(bare):,.0f}/s; share "
        f"{statistics.median(shares):.2f} (at least {LEAST_SHARE})",
        flush=True,
    )
    return statistics.median(shares) >= LEAST_SHARE


async def _relayed(store: Store, settings: Settings) -> float:
    stop, head = asyncio.Event(), store.events_head()
    relay = Relay(store, settings, clock=utc_now, tell=lambda *_, **__: None)
    began = time.perf_counter()
    relaying = asyncio.create_task(relay.run(stop))
    while await asyncio.to_thread(store.cursor, reader_of(settings)) < head:
        await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    stop.set()
    await relaying
    return took


async def _sent(brokers: str, topic: str, records: list[tuple[bytes, bytes]]) -> float:
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True, acks="all")
    began = time.perf_counter()
    await producer.start()
    sent = [await producer.send(topic, key=key, value=raw) for key, raw in records]
    await asyncio.gather(*sent)
    took = time.perf_counter() - began
    await producer.stop()
    return took


# -- processes ------------------------------------------------------------------------------------


@contextmanager
def daemon(settings: Settings, command: str) -> Iterator[psutil.Process]:
    """A `riskhub` process beside us."""
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ) | {
            "RISKHUB_HOME": home,
            "RISKHUB_DATABASE_URL": str(settings.database_url),
            "RISKHUB_CONTROLBUS_BROKERS": str(settings.controlbus_brokers),
            "RISKHUB_CONTROLBUS_TOPIC": settings.controlbus_topic,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "riskhub", command],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


class Noted:
    """What a thread of our own notes the time of, by version, while a block runs."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._stop = threading.Event()
        self._ready = threading.Event()

    @contextmanager
    def noted(self) -> Iterator["Noted"]:
        thread = threading.Thread(target=self._note)
        thread.start()
        self._ready.wait(60)
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _note(self) -> None:
        raise NotImplementedError


class Arrivals(Noted):
    """When the event of each landing came to a consumer of the topic."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def _note(self) -> None:
        asyncio.run(self._consume())

    async def _consume(self) -> None:
        consumer = AIOKafkaConsumer(
            self._settings.controlbus_topic, bootstrap_servers=self._settings.controlbus_brokers
        )
        await consumer.start()
        self._ready.set()
        while not self._stop.is_set():
            for records in (await consumer.getmany(timeout_ms=50)).values():
                now = time.time()
                for event in (parse(record.value) for record in records):
                    if event.type == SNAPSHOT_UPDATED:
                        self.at[event.data["version"]] = now
        await consumer.stop()


class Rows(Noted):
    """When the numbers of each landing were there, to a few milliseconds."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self._database = database.replace("+psycopg", "")

    def _note(self) -> None:
        seen = 0
        with psycopg.connect(self._database, autocommit=True) as connection:
            self._ready.set()
            while not self._stop.wait(0.005):
                newer = "SELECT position, version FROM risk_metrics WHERE position > %s"
                for position, version in connection.execute(newer, (seen,)).fetchall():
                    self.at.setdefault(version, time.time())
                    # A worker may be done with a later one first: look back a little each time.
                    seen = max(seen, position - 100)


def post_steadily(
    port: int, rate: int, seconds: int, body: Callable[[str], dict]
) -> dict[str, float]:  # type: ignore[type-arg]
    """Post so many snapshots a second over eight connections; when each was answered."""
    answered: dict[str, float] = {}
    headers = dict(line.split(": ") for line in HEADERS.strip().split("\r\n"))

    def produce(lane: int, lanes: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            for number in range(lane, rate * seconds, lanes):
                wait = began + number / rate - time.time()
                if wait > 0:
                    time.sleep(wait)
                world = f"/risk-hub/worlds/w{number % WORLDS}/snapshots"
                answer = client.post(world, json=body(f"v{number}"))
                assert answer.status_code == 201, answer.text
                answered[f"v{number}"] = time.time()

    began = time.time()
    threads = [threading.Thread(target=produce, args=(lane, 8)) for lane in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def wait_for(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.05)


def snapshot(version: str) -> dict[str, object]:
    """A small snapshot of symbols that have prices."""
    return {
        "as_of": "2022-12-28T21:00:00Z",
        "version": version,
        "weights": {"AAPL": 0.4, "JPM": 0.3, "XOM": 0.3},
    }


def landing_to_topic(settings: Settings) -> bool:
    """Milliseconds from the answer of a landing to its event at a consumer."""
    with ExitStack() as stack:
        asyncio.run(kafka.ensure_topic(settings, settings.controlbus_topic))
        port = stack.enter_context(serving(str(settings.database_url), None))
        stack.enter_context(daemon(settings, "relay"))
        arrivals = stack.enter_context(Arrivals(settings).noted())
        post_steadily(port, 5, 2, lambda version: snapshot(f"warm-{version}"))
        wait_for(lambda: len(arrivals.at) == 10, 60)
        answered = post_steadily(port, LANDINGS_PER_SEC, SECONDS, snapshot)
        wait_for(lambda: answered.keys() <= arrivals.at.keys(), 60)
        late = [1000 * (arrivals.at[version] - at) for version, at in answered.items()]
    p50, p99 = np.percentile(late, 50), np.percentile(late, 99)
    print(
        f"controlbus: landing to topic at {LANDINGS_PER_SEC}/s: p50 {p50:.0f} ms, p99 {p99:.0f} ms "
        f"(at most {MOST_ON_TOPIC_MS:.0f})",
        flush=True,
    )
    return bool(p99 <= MOST_ON_TOPIC_MS)


def event_to_numbers(settings: Settings) -> bool:
    """Milliseconds from an event at a consumer of the topic to its row of numbers."""
    with ExitStack() as stack:
        asyncio.run(kafka.ensure_topic(settings, settings.controlbus_topic))
        port = stack.enter_context(serving(str(settings.database_url), None))
        stack.enter_context(daemon(settings, "relay"))
        stack.enter_context(daemon(settings, "worker"))
        landed = stack.enter_context(Arrivals(settings).noted())
        rows = stack.enter_context(Rows(str(settings.database_url)).noted())
        post_steadily(port, 5, 2, lambda version: snapshot(f"warm-{version}"))
        wait_for(lambda: len(rows.at) == 10, 120)
        answered = post_steadily(port, MEASURED_PER_SEC, MEASURED_SECONDS, snapshot)
        wait_for(lambda: answered.keys() <= rows.at.keys(), 60)
        late = [1000 * (rows.at[version] - landed.at[version]) for version in answered]
    p50, p99 = np.percentile(late, 50), np.percentile(late, 99)
    print(
        f"controlbus: event to numbers at {MEASURED_PER_SEC}/s: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms (at most {MOST_MEASURED_MS:.0f})",
        flush=True,
    )
    return bool(p99 <= MOST_MEASURED_MS)


def backlog(settings: Settings) -> bool:
    """Of a long backlog, how much longer its last tenths take than its first, and memory."""
    store = Store(create_engine(settings.effective_database_url))
    fill(store, BACKLOG)
    asyncio.run(kafka.ensure_topic(settings, settings.controlbus_topic))
    tenth, times, memory = BACKLOG // 10, [time.perf_counter()], []
    with daemon(settings, "relay") as process:
        for number in range(1, 11):
            while store.cursor(reader_of(settings)) < number * tenth:
                time.sleep(0.01)
            times.append(time.perf_counter())
            with suppress(psutil.NoSuchProcess):
                memory.append(process.memory_info().rss / 2**20)
    store.close()
    took = np.diff(times)
    # The first tenth has the start of the process in it.
    growth = float(took[6:].mean() / took[1:5].mean())
    more = memory[-1] / memory[1]
    print(
        f"controlbus: a backlog of {BACKLOG:,} events in {times[-1] - times[0]:.1f} s; the last "
        f"tenths take {growth:.2f} times the first (at most {MOST_GROWTH}), memory "
        f"{memory[-1]:.0f} MiB, {more:.2f} times (at most {MOST_GROWTH})",
        flush=True,
    )
    return growth <= MOST_GROWTH and more <= MOST_GROWTH


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
