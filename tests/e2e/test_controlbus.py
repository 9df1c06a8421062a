"""What holds of events while everything is killed: none is lost, effects happen once, in order.

Ten thousand landings over real processes: an API, two relays, three workers, a Kafka broker. Each
is killed outright (and started again) in the middle of the load, in an order that a seed decides.
"""

import os
import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, raw_document, wait_until
from daemons import Daemon
from on_topic import all_on, first_told
from served import api_process, migrate_database
from service_resolution import KafkaBroker

from riskhub.controlbus.events import METRICS_UPDATED
from riskhub.controlbus.relay import reader_of
from riskhub.settings import Settings
from riskhub.store import open_store

LANDINGS = 10_000
WORLDS = 20
CLIENTS = 8
SEED = int(os.environ.get("RISKHUB_TEST_SEED") or secrets.randbelow(10**6))


class Api:
    """The API, on a port that it keeps."""

    def __init__(self, stack: ExitStack, home: Path, port: int, settings: dict[str, str]) -> None:
        self._start = lambda: stack.enter_context(api_process(home, port, **settings))
        self.process = self._start()

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.process = self._start()


class Producers:
    """Clients that post unique snapshots, each until it is acknowledged."""

    def __init__(self, port: int, count: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._numbers = iter(range(count))
        self._taking = threading.Lock()
        self.acknowledged: set[str] = set()
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._produce) for _ in range(CLIENTS)]
            yield
        for client in clients:
            client.result()

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.acknowledged) >= count or bool(self.wrong), within_sec=120)
        assert self.wrong == []

    def _produce(self) -> None:
        pause = threading.Event()
        with httpx.Client(base_url=self._url, headers=HEADERS, timeout=30) as client:
            while True:
                with self._taking:
                    number = next(self._numbers, None)
                if number is None:
                    return
                while not self._acknowledged(client, number):
                    pause.wait(0.05)

    def _acknowledged(self, client: httpx.Client, number: int) -> bool:
        world, version = f"w{number % WORLDS}", f"v{number}"
        weight = 0.1 + 0.8 * number / LANDINGS
        body = raw_document(version=version, weights={"BAC": weight, "JPM": 1 - weight})
        try:
            answer = client.post(f"/risk-hub/worlds/{world}/snapshots", content=body)
        except httpx.TransportError:
            return False
        if answer.status_code in (200, 201):
            self.acknowledged.add(version)
            return True
        if answer.status_code != 503:
            self.wrong.append(f"{answer.status_code} {answer.text}")
        return False


class Broker:
    """The broker, killed and started again like the others."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker

    def kill_and_start(self) -> None:
        self._broker.kill()
        self._broker.start()


@pytest.mark.timeout(600)
def test_ten_thousand_landings_while_everything_is_killed(
    tmp_path: Path, postgres_url: str, kafka_broker: KafkaBroker, free_port: Callable[[], int]
) -> None:
    print(f"RISKHUB_TEST_SEED={SEED}")
    seeded = random.Random(SEED)  # noqa: S311 - for the order of trouble
    migrate_database(postgres_url)
    port = free_port()
    settings = {
        "RISKHUB_DATABASE_URL": postgres_url,
        "RISKHUB_CONTROLBUS_BROKERS": kafka_broker.bootstrap,
        "RISKHUB_CONTROLBUS__ACK_TIMEOUT_SEC": "5",
    }
    with ExitStack() as stack:
        store = open_store(postgres_url)
        stack.callback(store.close)
        api = Api(stack, tmp_path, port, settings)

        def daemon(name: str) -> Daemon:
            started = Daemon(name, tmp_path, settings)
            stack.callback(started.close)
            return started

        relays = [daemon("relay") for _ in range(2)]
        workers = [daemon("worker") for _ in range(2)]
        trouble = [*relays, workers[0], Broker(kafka_broker), api, workers[1], relays[0]]
        seeded.shuffle(trouble)
        producers = Producers(port, LANDINGS)
        with producers.running():
            for number, victim in enumerate(trouble, start=1):
                producers.wait_for(number * LANDINGS // (len(trouble) + 2))
                victim.kill_and_start()
                if number == len(trouble) // 2:
                    workers.append(daemon("worker"))  # a rebalance in the middle
        assert len(producers.acknowledged) == LANDINGS

        ours = Settings(database_url=postgres_url, controlbus_brokers=kafka_broker.bootstrap)
        landed = store.events_after(
            0, limit=10**6, types=["risk_snapshot_updated"], page_bytes=2**40
        )
        assert len(landed) == LANDINGS
        last = landed[-1].sequence
        wait_until(lambda: store.cursor(reader_of(ours)) >= last, within_sec=120)
        # All are measured: Dagster would find nothing to do.
        wait_until(lambda: store.pending_days().days == (), within_sec=240)
        for each in workers:
            assert each.terminate() == 0, each.log()
        wait_until(lambda: store.cursor(reader_of(ours)) == store.events_head(), within_sec=60)

        told = first_told(all_on(kafka_broker.bootstrap, ours.controlbus_topic))
        on_topic = {event.id for events in told.values() for event in events}
        assert {event.id for event in landed} <= on_topic
        for world, events in told.items():
            in_order = [event.id for event in events if event.type == landed[0].type]
            assert in_order == [event.id for event in landed if event.key == world]
        numbers = store.events_after(0, limit=10**6, types=[METRICS_UPDATED], page_bytes=2**40)
        once = Counter(event.subject for event in numbers)
        assert set(once.values()) == {1}
        assert len(once) == LANDINGS
        assert store.count_dead_letters() == 0
