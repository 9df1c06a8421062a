"""A run goes on or it is lost, never both: whoever is asleep, late, or out of reach."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from builders import wait_until

from riskhub_dagster import run_heartbeat
from riskhub_dagster.run_heartbeat import Heartbeat, RunLost, condemn, connect, forgive

RUN = "6f1a"


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The broker, which started long ago."""
    monkeypatch.setattr(run_heartbeat, "REDIS_SETTLES_SEC", 0)
    with connect(redis_url, timeout_sec=1.0) as connected:
        yield connected


@pytest.fixture
def ended() -> list[str]:
    """Why a process ended itself."""
    return []


Begin = Callable[..., Heartbeat]


@pytest.fixture
def begin(client: redis.Redis, ended: list[str]) -> Begin:
    """Makes the heartbeat of a worker; its process doesn't end when it ends itself."""

    def make(on: redis.Redis = client, **other: float) -> Heartbeat:
        chosen = {"every_sec": 0.05, "lost_after_sec": 5.0, "timeout_sec": 0.0} | other
        return Heartbeat(on, RUN, "runs@a 1", end=ended.append, **chosen)

    return make


def test_a_run_with_a_heartbeat_is_not_lost(client: redis.Redis, begin: Begin) -> None:
    with begin():
        assert not condemn(client, RUN)


def test_a_run_without_one_is_lost_and_stays_so(client: redis.Redis) -> None:
    assert condemn(client, RUN)
    assert condemn(client, RUN)


def test_it_beats_before_the_key_runs_out(
    client: redis.Redis, begin: Begin, ended: list[str]
) -> None:
    with begin(lost_after_sec=0.5):
        until = time.monotonic() + 1.5
        wait_until(lambda: condemn(client, RUN) or time.monotonic() > until)
        assert not condemn(client, RUN)
    assert ended == []


def test_what_was_judged_lost_before_it_began_is_not_begun(
    client: redis.Redis, begin: Begin
) -> None:
    assert condemn(client, RUN)

    with pytest.raises(RunLost, match=RUN), begin():
        pytest.fail("it was begun")


def test_a_run_that_is_resumed_may_beat_again(client: redis.Redis, begin: Begin) -> None:
    assert condemn(client, RUN)
    forgive(client, RUN)

    with begin():
        assert not condemn(client, RUN)


def test_a_run_that_has_ended_leaves_no_key(client: redis.Redis, begin: Begin) -> None:
    with begin():
        pass

    assert client.keys("*") == []


class OutOfReach:
    """A Redis that answers until the cable is pulled."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.is_pulled = False

    def pipeline(self, **options: bool) -> object:
        if self.is_pulled:
            raise redis.TimeoutError("no answer")
        return self._client.pipeline(**options)

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


def test_what_slept_until_it_was_judged_lost_ends_itself(
    client: redis.Redis, begin: Begin, ended: list[str]
) -> None:
    cable = OutOfReach(client)
    with begin(cable):
        cable.is_pulled = True
        client.delete(f"riskhub:run-worker:{RUN}")  # as Redis does when the time has come
        assert condemn(client, RUN)
        cable.is_pulled = False
        wait_until(lambda: bool(ended))

    assert ended == ["others have judged that it is lost"]
    assert condemn(client, RUN)  # its end takes nothing back


def test_who_can_not_reach_redis_ends_before_others_may_call_it_lost(
    client: redis.Redis, begin: Begin, ended: list[str]
) -> None:
    cable = OutOfReach(client)
    with begin(cable, lost_after_sec=1.0, timeout_sec=0.3):
        cable.is_pulled = True
        wait_until(lambda: bool(ended))
        assert not condemn(client, RUN)  # the key is still there
    assert ended == ["Redis was out of reach for too long: TimeoutError"]


def test_a_moment_out_of_reach_is_nothing(
    client: redis.Redis, begin: Begin, ended: list[str]
) -> None:
    cable = OutOfReach(client)
    with begin(cable, lost_after_sec=2.0):
        cable.is_pulled = True
        until = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > until)
        cable.is_pulled = False
        until = time.monotonic() + 2.5
        wait_until(lambda: bool(ended) or time.monotonic() > until)
    assert ended == []


def test_a_redis_that_has_just_started_judges_nobody(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_heartbeat, "REDIS_SETTLES_SEC", 1e9)

    assert not condemn(client, RUN)
