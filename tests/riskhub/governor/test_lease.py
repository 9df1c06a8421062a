"""One writer at a time, on real Redis and on the stand-in that `riskhub up` runs."""

from collections.abc import Iterator
from functools import partial

import pytest
import redis
from builders import wait_until
from stored import together

from riskhub.governor.lease import WRITER_KEY, Lease, LeaseLost, holder, owner

LEASE_SEC = 12.0


@pytest.fixture
def url(either_redis_url: str) -> str:
    """A Redis with nothing in it."""
    return either_redis_url


@pytest.fixture(params=[True, False], ids=["text", "bytes"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """As the hub connects, and as anybody may."""
    with redis.Redis.from_url(url, decode_responses=request.param) as connected:
        yield connected


@pytest.fixture
def mine(client: redis.Redis) -> Lease:
    return Lease(client, "mine", sec=LEASE_SEC)


@pytest.fixture
def other(url: str) -> Iterator[Lease]:
    with redis.Redis.from_url(url) as connected:
        yield Lease(connected, "other", sec=LEASE_SEC)


def remaining_ms(client: redis.Redis) -> int:
    return int(client.pttl(WRITER_KEY))


def test_the_first_to_ask_has_it_and_the_second_is_told_who(mine: Lease, other: Lease) -> None:
    assert mine.take()
    assert not other.take()
    assert (mine.holder(), other.holder()) == ("mine", "mine")


def test_taking_it_again_renews_it(client: redis.Redis, mine: Lease) -> None:
    mine.take()
    client.pexpire(WRITER_KEY, 100)
    assert mine.take()
    assert 11_000 < remaining_ms(client) <= 12_000


def test_asking_for_anothers_lease_does_not_make_it_longer(
    client: redis.Redis, mine: Lease, other: Lease
) -> None:
    mine.take()
    client.pexpire(WRITER_KEY, 5_000)
    assert not other.take()
    assert 0 < remaining_ms(client) <= 5_000


def test_one_that_ran_out_is_free(client: redis.Redis, mine: Lease, other: Lease) -> None:
    mine.take()
    client.pexpire(WRITER_KEY, 1)
    wait_until(other.take)
    assert holder(client) == "other"
    assert not mine.take()


def test_a_write_renews_the_lease(client: redis.Redis, mine: Lease) -> None:
    mine.take()
    client.pexpire(WRITER_KEY, 1_000)
    with mine.transaction() as transaction:
        transaction.set("budget", "1868")
    assert client.get("budget") in ("1868", b"1868")
    assert 11_000 < remaining_ms(client) <= 12_000


def test_who_does_not_hold_it_writes_nothing(
    client: redis.Redis, mine: Lease, other: Lease
) -> None:
    with pytest.raises(LeaseLost, match="nobody"), mine.transaction() as transaction:
        transaction.set("budget", "1868")
    other.take()
    with pytest.raises(LeaseLost, match="other"), mine.transaction() as transaction:
        transaction.set("budget", "1868")
    assert not client.exists("budget")


def test_who_loses_it_in_the_middle_of_a_write_writes_nothing(
    client: redis.Redis, mine: Lease, other: Lease
) -> None:
    def write_slowly() -> None:
        with mine.transaction() as transaction:
            transaction.set("budget", "1868")
            client.delete(WRITER_KEY)  # as if we had slept until it ran out,
            assert other.take()  # and another had begun

    mine.take()
    with pytest.raises(LeaseLost):
        write_slowly()
    assert not client.exists("budget")
    assert holder(client) == "other"
    assert 11_000 < remaining_ms(client) <= 12_000


def test_an_error_in_a_write_is_told_and_writes_nothing(client: redis.Redis, mine: Lease) -> None:
    def fail() -> None:
        with mine.transaction() as transaction:
            transaction.set("budget", "1868")
            raise ZeroDivisionError

    mine.take()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not client.exists("budget")


def test_what_is_given_back_is_free_at_once(mine: Lease, other: Lease) -> None:
    mine.take()
    mine.release()
    assert other.take()


def test_what_is_anothers_is_not_given_back(mine: Lease, other: Lease) -> None:
    other.take()
    mine.release()
    assert other.holder() == "other"


def test_a_redis_that_lost_it_all_has_a_free_lease(client: redis.Redis, mine: Lease) -> None:
    mine.take()
    client.flushdb()
    with pytest.raises(LeaseLost), mine.transaction() as transaction:
        transaction.set("budget", "1868")
    assert mine.take()


def test_a_redis_out_of_reach_is_no_lease(free_port) -> None:
    with redis.Redis(port=free_port(), retry=None) as nobody:
        lease = Lease(nobody, "mine", sec=LEASE_SEC)
        for call in (lease.take, lease.holder, lease.release):
            with pytest.raises(redis.ConnectionError):
                call()


def test_of_many_that_want_it_no_two_ever_write_on_the_same_state(
    url: str, client: redis.Redis
) -> None:
    refused = 0

    def want_it(name: int) -> None:
        nonlocal refused
        with redis.Redis.from_url(url) as connected:
            lease = Lease(connected, f"owner {name}", sec=0.002)  # gone before some are written
            tries = 0
            while connected.llen("written") < 200:
                if not lease.take():
                    continue
                tries += 1
                state = int(connected.get("state") or 0)
                if tries % 3 == 0:
                    connected.delete(WRITER_KEY)  # and of these before every one
                try:
                    with lease.transaction() as transaction:
                        transaction.set("state", state + 1)
                        transaction.rpush("written", state)
                except LeaseLost:
                    refused += 1

    together(*(partial(want_it, name) for name in range(4)))

    written = [int(state) for state in client.lrange("written", 0, -1)]
    assert written == list(range(len(written)))
    assert refused > 0


def test_every_owner_has_a_name_of_its_own_that_says_who_it_is() -> None:
    first, second = owner("governor"), owner("governor")
    assert first != second
    assert first.startswith("governor on ")
