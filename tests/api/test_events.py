"""The outbox over HTTP: a page at a time, waiting for news, and as a stream on a socket."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from answers import fields_of, post, refuses_for_now
from asgi import Api
from builders import NOW, WORLD, accept, wait_until

from api import events, feed
from api.app import create_app
from api.edge import Edge
from api.feed import Feed, Which
from api.server import BoundedHttp
from riskhub.auth import Scope, TokenSpec
from riskhub.controlbus.events import EXIT_SIGNAL, SNAPSHOT_UPDATED, NewEvent
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.tables import metadata

EVENTS = "/risk-hub/events"
STREAM = {"Accept": "text/event-stream"}
MANY = 200


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return Settings(home=tmp_path, database_url=url)


def land(hub: Hub, *versions: str, world_id: str = WORLD) -> None:
    hub.land([accept(version=version, world_id=world_id) for version in versions])


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


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._store, name)


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


# -- a stream -------------------------------------------------------------------------------------


class Served:
    """An app on a socket, in a thread of this process."""

    def __init__(self, app: Any, settings: Settings) -> None:
        config = uvicorn.Config(
            app, port=0, http=BoundedHttp, ws="none", log_level="critical", access_log=False
        )
        config.settings = settings  # type: ignore[attr-defined]
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}{EVENTS}"
        self.app = app

    @property
    def feed(self) -> Feed:
        edge: Edge = self.app.state.edge
        return edge.feed

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        """As SIGTERM does."""
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def served(settings: Settings, hub: Hub) -> Iterator[Served]:
    tokens = (TokenSpec(name="r", secret="reader", scopes=frozenset({Scope.READ})),)  # type: ignore[arg-type]
    guarded = settings.model_copy(update={"tokens": tokens})
    served = Served(create_app(guarded, hub), guarded)
    served.start()
    yield served
    served.stop()


@contextmanager
def streaming(served: Served, query: str = "", **headers: str) -> Iterator[Iterator[str]]:
    """The lines of a stream."""
    sent = STREAM | {"Authorization": "Bearer reader"} | headers
    with httpx.stream("GET", f"{served.url}{query}", headers=sent, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield response.iter_lines()


def told(lines: Iterator[str]) -> dict[str, str]:
    """The fields of the next event."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and "data" in fields:
            return fields
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    raise AssertionError(f"the stream ended: {fields}")


def test_a_stream_tells_what_was_and_what_comes(served: Served, hub: Hub) -> None:
    land(hub, "v1")
    with streaming(served) as lines:
        first = told(lines)
        land(hub, "v2", world_id="b")
        second = told(lines)

    outbox = hub.store.events_after(0, limit=10)
    assert [first["data"], second["data"]] == [each.cloud_event().decode() for each in outbox]
    assert [first["id"], second["id"]] == [str(each.sequence) for each in outbox]
    assert first["event"] == second["event"] == SNAPSHOT_UPDATED


def test_a_stream_resumes_behind_the_last_id_and_keeps_to_its_filter(
    served: Served, hub: Hub
) -> None:
    land(hub, "v1", "v2")
    land(hub, "v3", world_id="b")
    land(hub, "v4")
    with streaming(served, f"?after=0&world={WORLD}") as lines:
        told(lines)
        last = told(lines)
    with streaming(served, f"?after=0&world={WORLD}", **{"Last-Event-ID": last["id"]}) as lines:
        assert json.loads(told(lines)["data"])["subject"] == f"{WORLD}/v4"
    with streaming(served, f"?after={last['id']}") as lines:
        assert json.loads(told(lines)["data"])["subject"] == "b/v3"


def test_a_heartbeat_moves_the_last_id_over_what_is_not_asked_for(
    served: Served, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SEC", 0.05)
    with streaming(served, "?world=none") as lines:
        assert next(line for line in lines if line.startswith("id:")) == "id: 0"
        land(hub, "v1", "v2")
        assert next(line for line in lines if line.startswith("id:") and line != "id: 0") == "id: 2"
        assert next(line for line in lines if line.startswith(":")) == ": still here"


def test_a_stream_ends_when_the_server_drains(served: Served, hub: Hub) -> None:
    land(hub, "v1")
    with streaming(served) as lines:
        told(lines)
        wait_until(lambda: served.feed._waiting == 1)
        began = time.monotonic()
        served.stop()
        assert [line for line in lines if line.startswith("data")] == []  # and no error
    assert time.monotonic() - began < 10


def test_a_client_that_leaves_is_waited_for_no_more(served: Served) -> None:
    with streaming(served):
        wait_until(lambda: served.feed._waiting == 1)
    wait_until(lambda: served.feed._waiting == 0)
    wait_until(served.feed._watcher.done)  # type: ignore[union-attr]


def test_a_stream_ends_with_its_token(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SEC", 0.05)
    with streaming(served) as lines:
        next(line for line in lines if line.startswith("id:"))
        edge: Edge = served.app.state.edge
        monkeypatch.setattr(edge.tokens, "grant_of", lambda _offered: None)
        assert "the bearer token is missing or wrong" in list(lines)[-2]
    assert httpx.get(served.url).status_code == 401


def test_a_stream_ends_when_the_store_goes_away(served: Served, hub: Hub) -> None:
    with streaming(served) as lines:
        wait_until(lambda: served.feed._waiting == 1)
        metadata.drop_all(hub.store.engine)
        assert "riskhub migrate" in [line for line in lines if line][-1]


def test_one_landing_reaches_many_streams(served: Served, hub: Hub) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(streaming(served)) for _ in range(MANY)]
        wait_until(lambda: served.feed._waiting == MANY and served.feed._fresh)
        counted = Counting(hub.store)
        served.feed._store = counted  # type: ignore[assignment]
        land(hub, "v1")
        assert {told(lines)["id"] for lines in streams} == {"1"}
        assert counted.calls["events_after"] <= 2
