"""When the store can't, and when many come at once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from answers import READS, SNAPSHOTS, post, problem_of, refuses_for_now
from asgi import Api, serving
from builders import WORLD, Clock, raw_document
from databases import migrate

from api.app import create_app
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store, create_engine, open_store
from riskhub.store.engine import writing
from riskhub.store.tables import metadata


def test_a_locked_store_is_503_for_writers_and_nothing_for_readers(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.engine.SQLITE_BUSY_TIMEOUT_SEC", 0.01)
    holder = Store(create_engine(settings.effective_database_url))
    migrate(holder.engine)
    hub = Hub(open_store(settings.effective_database_url), settings, clock)
    with serving(create_app(settings, hub)) as api:
        first = post(api)
        line = raw_document(version="v2", world_id=WORLD)
        with writing(holder.engine):
            assert "locked" in refuses_for_now(post(api, version="v2"))
            assert "locked" in refuses_for_now(api.post("/risk-hub/snapshots:batch", content=line))
            assert api.get(f"{SNAPSHOTS}/latest").content == first.content
            assert api.get("/readyz").status_code == 200
        assert post(api, version="v2").status_code == 201
    holder.close()


def test_a_store_without_tables_is_503_that_says_what_to_do(api: Api, hub: Hub) -> None:
    metadata.drop_all(hub.store.engine)
    for response in (post(api), *(api.get(url) for url in READS)):
        assert "riskhub migrate" in refuses_for_now(response)
    assert api.get("/healthz").status_code == 200
    metadata.create_all(hub.store.engine)
    assert post(api).status_code == 201


def test_a_store_that_can_not_be_reached_is_not_ready(api: Api, hub: Hub, tmp_path: Path) -> None:
    assert api.get("/readyz").json() == {"status": "ready", "store": "ok"}
    hub.store.close()
    (tmp_path / "hub.db").unlink()
    (tmp_path / "hub.db").mkdir()
    refuses_for_now(api.get("/readyz"))
    assert api.get("/healthz").json() == {"status": "ok"}


def test_other_methods_are_405_with_what_is_allowed(api: Api) -> None:
    response = api.request("DELETE", SNAPSHOTS)
    assert problem_of(response, 405)
    assert set(response.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "POST"}


# -- together -------------------------------------------------------------------------------------


def test_fifty_at_once_of_one_version_land_once(api: Api, hub: Hub) -> None:
    async def all_at_once(client: httpx.AsyncClient) -> list[httpx.Response]:
        raw = raw_document()
        return await asyncio.gather(*(client.post(SNAPSHOTS, content=raw) for _ in range(50)))

    responses = api.run(all_at_once)
    assert sorted(response.status_code for response in responses) == [200] * 49 + [201]
    assert len({response.content for response in responses}) == 1
    assert hub.store.head() == 1


def test_fifty_at_once_of_one_version_and_fifty_contents_have_one_winner(api: Api) -> None:
    async def all_at_once(client: httpx.AsyncClient) -> list[httpx.Response]:
        raws = [raw_document(ttl_sec=60 + number) for number in range(50)]
        return await asyncio.gather(*(client.post(SNAPSHOTS, content=raw) for raw in raws))

    responses = api.run(all_at_once)
    assert sorted(response.status_code for response in responses) == [201] + [409] * 49
    (winner,) = [response for response in responses if response.status_code == 201]
    assert {r.json()["stored"] for r in responses if r is not winner} == {winner.json()["hash"]}
    assert api.get(f"{SNAPSHOTS}/latest").content == winner.content


def test_a_failed_commit_answers_everybody_and_the_next_ones_land(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_offered: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    landings = api.app.state.edge.landings
    real = landings._work
    monkeypatch.setattr(landings, "_work", down)

    async def twenty(client: httpx.AsyncClient) -> list[httpx.Response]:
        raws = [raw_document(version=f"v{number}") for number in range(20)]
        return await asyncio.gather(*(client.post(SNAPSHOTS, content=raw) for raw in raws))

    for response in api.run(twenty):
        assert refuses_for_now(response) == "the disk is full"
    monkeypatch.setattr(landings, "_work", real)
    assert {response.status_code for response in api.run(twenty)} == {201}
    assert json.loads(hub.latest(WORLD) or "")["version"]
