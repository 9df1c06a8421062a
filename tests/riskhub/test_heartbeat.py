"""A sign of life, for whoever restarts what hangs."""

import asyncio
from pathlib import Path

import pytest

from riskhub import heartbeat
from riskhub.heartbeat import AsyncStop, Stop


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


def test_a_loop_that_asks_whether_to_stop_shows_that_it_lives(file: Path) -> None:
    stop = Stop(file)
    assert not file.exists()
    assert not stop.wait(0)
    assert file.exists()
    file.unlink()
    heart = Stop(file)
    heart.set()
    assert heart.is_set()
    assert file.exists()


def test_a_loop_of_asyncio_does_too(file: Path) -> None:
    async def ask() -> bool:
        return AsyncStop(file).is_set()

    assert not asyncio.run(ask())
    assert file.exists()


def test_it_is_not_touched_at_each_of_many_turns(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    stop = Stop(file)
    stop.is_set()
    file.unlink()
    now[0] += 0.5
    stop.is_set()
    assert not file.exists()
    now[0] += 0.6
    stop.is_set()
    assert file.exists()


def test_without_a_file_nothing_is_touched() -> None:
    assert not Stop(None).wait(0)
