"""The outbox over HTTP: a page at a time, and waiting for news."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from answers import fields_of, post, refuses_for_now
from asgi import Api
from builders import NOW, WORLD, wait_until
from feeding import EVENTS, MANY, STREAM, Counting, land

from api import feed
from api.edge import Edge
from api.feed import Feed, Which
from riskhub.controlbus.events import EXIT_SIGNAL, SNAPSHOT_UPDATED, NewEvent
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return Settings(home=tmp_path, database_url=url)


def signal_of(world_id: str, number: int = 1) -> NewEvent:
    key = f"{EXIT_SIGNAL}:{world_id}:{number}"
    return NewEvent(EXIT_SIGNAL, world_id, f"{world_id}/rule", key, NOW, {"number": number})


def get(api: Api, query: str = "", **headers: str) -> tuple[list[str], int]:
    """The subjects of a page, and what is next."""
    response = api.get(f"{EVENTS}{query}", headers=headers)
    assert response.status_code == 200, response.text
    page = response.json()
    return [event["subject"] for event in page["events"]], page["next"]


def feed_of(api: Api) -> Feed:
    edge: Edge = api.app.state.edge
    return edge.feed


# -- a page ---------------------------------------------------------------------------------------


def test_events_come_byte_for_byte_in_order_and_next_leads_behind_them(api: Api, hub: Hub) -> None:
    assert api.get(EVENTS).text == '{"events":[],"next":0}'
    land(hub, "v1", "v2", "v3")
    outbox = hub.store.events_after(0, limit=10)

    response = api.get(f"{EVENTS}?limit=2")

    told = b",".join(event.cloud_event() for event in outbox[:2])
    assert response.content == b'{"events":[%s],"next":%d}' % (told, outbox[1].sequence)
    assert response.headers["content-type"] == "application/json"
    assert response.links["next"]["url"] == f"{EVENTS}?limit=2&after={outbox[1].sequence}"
    last = outbox[-1].sequence
    assert get(api, f"?after={outbox[1].sequence}") == ([f"{WORLD}/v3"], last)
    assert get(api, f"?after={last}") == ([], last)


def test_types_and_a_world_choose_and_what_they_leave_out_is_not_looked_through_again(
    api: Api, hub: Hub
) -> None:
    land(hub, "v1", world_id="a")
    land(hub, "v1", world_id="b")
    hub.store.add_events([signal_of("a")])
    head = hub.store.events_head()

    assert get(api, "?world=a")[0] == ["a/v1", "a/rule"]
    assert get(api, f"?type={EXIT_SIGNAL}") == (["a/rule"], head)
    assert get(api, f"?type={EXIT_SIGNAL},{SNAPSHOT_UPDATED}&world=b")[0] == ["b/v1"]
    assert get(api, "?world=nowhere") == ([], head)


def test_from_now_on_is_behind_all_there_is(api: Api, hub: Hub) -> None:
    land(hub, "v1")
    head = hub.store.events_head()
    assert get(api, "?after=latest") == ([], head)
    land(hub, "v2")
    assert get(api, f"?after={head}")[0] == [f"{WORLD}/v2"]


def test_the_id_of_the_last_event_goes_before_after(api: Api, hub: Hub) -> None:
    land(hub, "v1", "v2")
    first = hub.store.events_after(0, limit=1)[0].sequence
    assert get(api, "?after=0", **{"Last-Event-ID": str(first)})[0] == [f"{WORLD}/v2"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=nothing", "type"),
        (f"type={EXIT_SIGNAL},", "type"),
        (f"type={EXIT_SIGNAL}&type={EXIT_SIGNAL}", "type"),
        ("world=no+world", "world"),
        ("after=-1", "after"),
        ("after=newest", "after"),
        ("after=", "after"),
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("limit=0", "limit"),
        ("since=3", "since"),
    ],
)
def test_a_question_that_is_none_is_refused(api: Api, query: str, field: str) -> None:
    assert fields_of(api.get(f"{EVENTS}?{query}"), 422) == [field]


def test_a_stream_has_no_end_to_wait_for(api: Api) -> None:
    for name in ("wait", "limit"):
        assert fields_of(api.get(f"{EVENTS}?{name}=1", headers=STREAM), 422) == [name]
    wrong = STREAM | {"Last-Event-ID": "x"}
    assert fields_of(api.get(EVENTS, headers=wrong), 422) == ["Last-Event-ID"]


def test_without_a_store_it_is_503(api: Api, hub: Hub) -> None:
    metadata.drop_all(hub.store.engine)
    for query in ("", "?after=latest", "?wait=30"):
        refuses_for_now(api.get(f"{EVENTS}{query}"))
    refuses_for_now(api.get(EVENTS, headers=STREAM))


# -- waiting for news -----------------------------------------------------------------------------


class Asked:
    """A request that waits, in a thread of its own."""

    def __init__(self, api: Api, query: str) -> None:
        self.answer: httpx.Response
        self.took = 0.0
        self._thread = threading.Thread(target=self._ask, args=(api, query))
        self._thread.start()

    def _ask(self, api: Api, query: str) -> None:
        started = time.monotonic()
        self.answer = api.get(f"{EVENTS}{query}")
        self.took = time.monotonic() - started

    def subjects(self) -> list[str]:
        self._thread.join(60)
        return [event["subject"] for event in self.answer.json()["events"]]


def somebody_waits(api: Api, how_many: int = 1) -> Callable[[], bool]:
    """Whether so many wait, and are watched for."""
    return lambda: feed_of(api)._waiting == how_many and feed_of(api)._fresh


def test_who_waits_is_answered_as_soon_as_something_lands(api: Api) -> None:
    asked = Asked(api, "?after=latest&wait=30")
    wait_until(somebody_waits(api))
    landed = time.monotonic()

    post(api, version="v1")

    assert asked.subjects() == [f"{WORLD}/v1"]
    assert time.monotonic() - landed < 2


def test_what_is_not_asked_for_wakes_nobody(api: Api, hub: Hub) -> None:
    asked = Asked(api, f"?world=b&type={EXIT_SIGNAL}&wait=30")
    wait_until(somebody_waits(api))
    hub.store.add_events([signal_of("a")])
    land(hub, "v1", world_id="b")
    wait_until(lambda: feed_of(api)._head == 2 and somebody_waits(api)())

    hub.store.add_events([signal_of("b")])

    assert asked.subjects() == ["b/rule"]


def test_who_waits_in_vain_is_told_so_at_the_end(api: Api, hub: Hub) -> None:
    land(hub, "v1")
    asked = Asked(api, "?after=latest&wait=1")
    assert asked.subjects() == []
    assert asked.answer.json()["next"] == hub.store.events_head()
    assert 1 <= asked.took < 10


def test_what_is_there_is_not_waited_for(api: Api, hub: Hub) -> None:
    land(hub, "v1")
    asked = Asked(api, "?wait=30")
    assert asked.subjects() == [f"{WORLD}/v1"]
    assert asked.took < 10


def test_who_waits_is_told_when_the_store_goes_away(api: Api, hub: Hub) -> None:
    asked = Asked(api, "?wait=30")
    wait_until(somebody_waits(api))
    metadata.drop_all(hub.store.engine)
    with pytest.raises(KeyError):
        asked.subjects()
    refuses_for_now(asked.answer)


def test_nobody_waits_for_a_process_that_ends(api: Api) -> None:
    asked = Asked(api, "?wait=30")
    wait_until(somebody_waits(api))
    feed_of(api).drain()
    assert asked.subjects() == []
    assert asked.took < 10


def test_many_who_wait_cost_what_one_does(api: Api, hub: Hub) -> None:
    counted = Counting(hub.store)
    feed_of(api)._store = counted  # type: ignore[assignment]

    async def all_of_them(client: httpx.AsyncClient) -> list[int]:
        waiting = [
            asyncio.create_task(client.get(f"{EVENTS}?after=latest&wait=30")) for _ in range(MANY)
        ]
        async with asyncio.timeout(60):
            while not somebody_waits(api, MANY)():
                await asyncio.sleep(0)
        counted.calls.clear()
        await asyncio.to_thread(land, hub, "v1")
        answers = await asyncio.gather(*waiting)
        return [len(answer.json()["events"]) for answer in answers]

    assert api.run(all_of_them) == [1] * MANY
    assert counted.calls["events_after"] == 1
    wait_until(feed_of(api)._watcher.done)  # type: ignore[union-attr]
    asked = counted.calls["events_head"]
    assert get(api)[0] == [f"{WORLD}/v1"]
    assert counted.calls["events_head"] == asked  # nobody waits, so nobody looks


def test_who_falls_behind_what_is_remembered_reads_the_store(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_KEPT_BYTES", 1)
    asked = Asked(api, "?wait=30&world=none")
    wait_until(somebody_waits(api))
    land(hub, "v1", "v2", "v3")
    wait_until(lambda: feed_of(api)._from == 3)  # all forgotten again

    async def read(client: httpx.AsyncClient) -> list[int]:
        page = await feed_of(api).next(1, Which(), 2, within_sec=0)
        return [event.sequence for event in page.events]

    assert api.run(read) == [2, 3]
    feed_of(api).drain()
    assert asked.subjects() == []


def test_memory_gives_pages_as_the_store_does(api: Api, hub: Hub) -> None:
    asked = Asked(api, "?wait=30&world=none")
    wait_until(somebody_waits(api))
    land(hub, "v1", "v2", "v3", world_id="a")
    land(hub, "v1", world_id="b")
    wait_until(lambda: feed_of(api)._head == 4)
    pages = [
        (after, Which(types, key), limit, size)
        for after in range(5)
        for types in (None, frozenset({SNAPSHOT_UPDATED}), frozenset({EXIT_SIGNAL}))
        for key in (None, "a", "b")
        for limit in (1, 2, 10)
        for size in (1, 10**6)
    ]

    async def both(client: httpx.AsyncClient) -> None:
        for after, which, limit, size in pages:
            there = await feed_of(api).read(after, which, limit, size)
            remembered = feed_of(api)._remembered(after, which, limit, size)
            assert remembered.events == there.events
            # Either may be further when it knows that there is nothing in between.
            assert {remembered.next, there.next} <= {4, *(event.sequence for event in there.events)}

    api.run(both)
    feed_of(api).drain()
    asked.subjects()
