"""Landings that arrive together share a transaction, and each hears what became of it."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from builders import accept

from riskhub.errors import StoreUnavailable
from riskhub.snapshot import Snapshot
from riskhub.store import Landing
from riskhub.store.landing import Outcome
from riskhub.together import MAX_GROUP, MAX_WEIGHT, Together

FIRST = accept(version="first")


class Database:
    """Stands for the store: notes its transactions, and can be held or fail in one of them."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.failures: dict[str, Exception] = {}
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def land(self, offered: Sequence[Snapshot]) -> list[Landing]:
        versions = [snapshot.version for snapshot in offered]
        self.transactions.append(versions)
        self.entered.set()
        assert self.go_on.wait(30)
        for version in versions:
            if version in self.failures:
                raise self.failures[version]
        return [Landing(Outcome.CREATED, version, version) for version in versions]

    def hold(self) -> None:
        self.entered.clear()
        self.go_on.clear()


async def land_while_one_commits(
    group_commit: Together[Snapshot, Landing], database: Database, versions: Sequence[str]
) -> list[Landing | BaseException]:
    """One landing whose commit is in progress, and then all of these; what each was told."""
    database.hold()
    first = asyncio.create_task(group_commit.do(FIRST))
    await asyncio.to_thread(database.entered.wait, 30)
    waiting = [asyncio.create_task(group_commit.do(accept(version=v))) for v in versions]
    await asyncio.sleep(0)  # each of them has joined the queue
    database.go_on.set()
    return await asyncio.gather(first, *waiting, return_exceptions=True)


def test_alone_a_landing_waits_for_nobody() -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        for version in ("a", "b"):
            landing = await group_commit.do(accept(version=version))
            assert landing.body == version
        assert database.transactions == [["a"], ["b"]]
        await group_commit.close()

    asyncio.run(scenario())


def test_what_arrives_during_a_commit_shares_the_next_in_order() -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        versions = [f"v{number}" for number in range(50)]
        told = await land_while_one_commits(group_commit, database, versions)
        assert database.transactions == [["first"], versions]
        assert [getattr(landing, "body", landing) for landing in told] == ["first", *versions]
        await group_commit.close()

    asyncio.run(scenario())


def test_a_transaction_takes_no_more_than_the_limit() -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        versions = [f"v{number}" for number in range(MAX_GROUP + 1)]
        await land_while_one_commits(group_commit, database, versions)
        assert [len(group) for group in database.transactions] == [1, MAX_GROUP, 1]
        await group_commit.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [StoreUnavailable("down"), RuntimeError("a bug")])
def test_a_failed_commit_is_told_to_its_own_and_the_queue_goes_on(failure: Exception) -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        database.failures["first"] = failure
        told = await land_while_one_commits(group_commit, database, ["a", "b"])
        assert told[0] is failure
        assert [getattr(landing, "body", landing) for landing in told[1:]] == ["a", "b"]
        assert (await group_commit.do(accept(version="c"))).body == "c"
        await group_commit.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [StoreUnavailable("down"), RuntimeError("a bug")])
def test_a_failed_group_leaves_none_of_its_own_waiting(failure: Exception) -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        database.failures["v1"] = failure
        versions = [f"v{number}" for number in range(MAX_GROUP + 3)]
        told = await land_while_one_commits(group_commit, database, versions)
        assert told[1 : MAX_GROUP + 1] == [failure] * MAX_GROUP
        assert [getattr(landing, "body", landing) for landing in told[-3:]] == versions[-3:]
        await group_commit.close()

    asyncio.run(scenario())


def test_a_client_that_leaves_takes_nobody_along() -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        database.hold()
        leaving = asyncio.create_task(group_commit.do(FIRST))
        await asyncio.to_thread(database.entered.wait, 30)
        also_leaving = asyncio.create_task(group_commit.do(accept(version="a")))
        staying = asyncio.create_task(group_commit.do(accept(version="b")))
        await asyncio.sleep(0)
        leaving.cancel()
        also_leaving.cancel()
        await asyncio.gather(leaving, also_leaving, return_exceptions=True)
        database.go_on.set()
        assert (await staying).body == "b"
        assert leaving.cancelled()
        assert also_leaving.cancelled()
        assert database.transactions == [["first"], ["a", "b"]]  # what was given is landed
        await group_commit.close()

    asyncio.run(scenario())


def test_closing_finishes_what_was_given() -> None:
    async def scenario() -> None:
        database = Database()
        group_commit = Together(database.land, "landing")
        database.hold()
        given = [asyncio.create_task(group_commit.do(FIRST))]
        await asyncio.to_thread(database.entered.wait, 30)
        given.append(asyncio.create_task(group_commit.do(accept(version="a"))))
        await asyncio.sleep(0)
        closing = asyncio.create_task(group_commit.close())
        database.go_on.set()
        await closing
        assert [task.result().body for task in given] == ["first", "a"]

    asyncio.run(scenario())


def test_a_group_is_bounded_by_what_its_items_weigh_and_an_item_alone_is_always_done() -> None:
    async def scenario() -> None:
        database = Database()
        heavy = {"a": MAX_WEIGHT // 2, "b": MAX_WEIGHT // 2, "c": 3 * MAX_WEIGHT}
        group_commit = Together(database.land, "landing", lambda it: heavy.get(it.version, 0))
        await land_while_one_commits(group_commit, database, ["light", "a", "b", "c", "d"])
        await group_commit.close()
        assert database.transactions == [["first"], ["light", "a", "b"], ["c"], ["d"]]

    asyncio.run(scenario())
