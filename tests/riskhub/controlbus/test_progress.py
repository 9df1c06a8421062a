"""How far a group of workers is on a topic, as `riskhub alerts` asks it."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from builders import Clock, wait_until

from riskhub.alerts.sources import GROUP, _GroupSource
from riskhub.controlbus.kafka import group_progress
from riskhub.settings import Settings

WITHIN_SEC = 30.0


@pytest.fixture
def settings(tmp_path: Path, kafka_server: str, kafka_topic: str) -> Settings:
    return Settings(
        home=tmp_path,
        controlbus_brokers=kafka_server,
        controlbus_topic=kafka_topic,
        worker={"group": f"group-of-{kafka_topic}"},  # type: ignore[arg-type]
        alerts={"timeout_sec": WITHIN_SEC},  # type: ignore[arg-type]
    )


def progress(settings: Settings) -> tuple[int, int] | None:
    return asyncio.run(group_progress(settings, settings.worker.group, within_sec=WITHIN_SEC))


async def put(settings: Settings, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.controlbus_brokers)
    await producer.start()
    try:
        for number in range(count):
            await producer.send_and_wait(settings.controlbus_topic, b"x", partition=number % 2)
    finally:
        await producer.stop()


async def take(settings: Settings, count: int) -> None:
    """Read so many as the group does, and commit them."""
    consumer = AIOKafkaConsumer(
        settings.controlbus_topic,
        bootstrap_servers=settings.controlbus_brokers,
        group_id=settings.worker.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        for _ in range(count):
            await consumer.getone()
        await consumer.commit()
    finally:
        await consumer.stop()


@pytest.fixture(autouse=True)
def coordinated(request: pytest.FixtureRequest) -> None:
    """Brokers that are new find out only when they are asked who keeps a group's place."""
    if "settings" not in request.fixturenames:
        return
    settings = request.getfixturevalue("settings")

    def answers() -> bool:
        try:
            return progress(settings) is None
        except GroupCoordinatorNotAvailableError:
            return False

    wait_until(answers)


def test_what_lies_before_a_group_is_what_it_has_not_committed(settings: Settings) -> None:
    asyncio.run(put(settings, 10))
    assert progress(settings) is None
    asyncio.run(take(settings, 10))
    assert progress(settings) == (10, 0)
    asyncio.run(put(settings, 3))
    assert progress(settings) == (10, 3)


def test_a_group_that_does_not_move_is_seen_to_stand_still(settings: Settings) -> None:
    clock = Clock()
    source = _GroupSource(settings, clock)
    assert source.look() == (None, None)
    asyncio.run(put(settings, 4))
    asyncio.run(take(settings, 4))
    found, problem = source.look()
    assert (found and found.since, problem) == (None, None)
    asyncio.run(put(settings, 6))
    begun = clock()
    for _ in range(3):
        found, _ = source.look()
        assert found is not None
        assert (found.reader, found.behind) == (GROUP + settings.worker.group, 6)
        assert found.since == begun
        clock.advance(10)
    asyncio.run(take(settings, 2))
    found, _ = source.look()
    assert found is not None
    assert found.since == begun + timedelta(seconds=30)


def test_brokers_that_are_away_are_a_problem_in_time(tmp_path: Path) -> None:
    nobody = Settings(
        home=tmp_path,
        controlbus_brokers="127.0.0.1:1",
        alerts={"timeout_sec": 1},  # type: ignore[arg-type]
    )
    with pytest.raises((KafkaError, TimeoutError, OSError)):
        asyncio.run(group_progress(nobody, "g", within_sec=1))
    found, problem = _GroupSource(nobody, Clock()).look()
    assert found is None
    assert problem
