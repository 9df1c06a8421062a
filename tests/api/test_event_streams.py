"""The outbox as a stream of server-sent events, on a socket."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from builders import WORLD, wait_until
from feeding import EVENTS, MANY, STREAM, Counting, land

from api import events
from api.app import create_app
from api.edge import Edge
from api.feed import Feed
from api.server import BoundedHttp
from riskhub.auth import Scope, TokenSpec
from riskhub.controlbus.events import SNAPSHOT_UPDATED
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return Settings(home=tmp_path, database_url=url)


class Served:
    """An app on a socket, in a thread of this process."""

    def __init__(self, app: Any, settings: Settings) -> None:
        # Without a `log_config` of its own: uvicorn's would stay with the loggers of this process.
        config = uvicorn.Config(
            app, port=0, http=BoundedHttp, ws="none", log_config=None, access_log=False
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
