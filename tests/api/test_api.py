"""What the HTTP edge answers: statuses, problem details, and the stored bodies byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi import Api, serving
from builders import HEADERS, NOW, WORLD, Clock, raw_document

from api.app import create_app
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.snapshot import format_instant
from riskhub.store import Store, create_engine, migrate, open_store
from riskhub.store.engine import writing
from riskhub.store.tables import metadata

SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"
READS = [f"{SNAPSHOTS}/latest", SNAPSHOTS, f"{SNAPSHOTS}/lookup?version=v1"]


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem details of a refusal, checked for what every one of them holds."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "errors"} <= problem.keys()
    return problem


def fields_of(response: httpx.Response, status: int) -> list[str]:
    return [error["field"] for error in problem_of(response, status)["errors"]]


def post(api: Api, *, to: str = SNAPSHOTS, **overrides: Any) -> httpx.Response:
    return api.post(to, content=raw_document(**overrides))


# -- posting --------------------------------------------------------------------------------------


def test_first_landing_is_201_the_same_again_200_other_content_409(api: Api, clock: Clock) -> None:
    first = post(api)
    assert (first.status_code, first.headers["content-type"]) == (201, "application/json")

    clock.advance(60)
    again = post(api)
    assert (again.status_code, again.content) == (200, first.content)

    other = post(api, ttl_sec=60)
    problem = problem_of(other, 409)
    assert problem["stored"] == first.json()["hash"]
    assert problem["offered"] != problem["stored"]
    assert problem["stored"] in problem["detail"]
    assert problem["offered"] in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == ["version"]
    assert api.get(f"{SNAPSHOTS}/latest").content == first.content


def test_the_stored_body_is_the_contracts(api: Api) -> None:
    body = post(api, created_at="2026-01-31T21:00:01Z").json()
    assert body == {
        "world_id": WORLD,
        "as_of": "2026-01-31T21:00:00Z",
        "version": "v1",
        "weights": {"BAC": 0.5, "JPM": 0.5},
        "ttl_sec": 900,
        "provenance": {
            "actor": HEADERS["X-Actor"],
            "stage": HEADERS["X-Stage"],
            "produced_at": "2026-01-31T21:00:01Z",
        },
        "hash": body["hash"],
        "created_at": format_instant(NOW),
    }


def test_every_door_gives_the_same_bytes(api: Api) -> None:
    posted = post(api, weights={"é": 1, "b": -0.0, "c": 1e-5}).content
    for url in ("latest", "lookup?version=v1", "lookup?as_of=2026-01-31T21:00:00Z"):
        assert api.get(f"{SNAPSHOTS}/{url}").content == posted
    listed = api.get(SNAPSHOTS).content
    assert listed == b'{"snapshots":[' + posted + b'],"next":null}'


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"ttl_sec": 0}, "ttl_sec"),
        ({"weights": {"A": 0.5}}, "weights"),
        ({"weights": {"A": "1"}}, "weights.A"),
        ({"as_of": "2026-01-31T21:00:00"}, "as_of"),
        ({"as_of": "2026-01-31T21:10:01Z"}, "as_of"),
        ({"version": ""}, "version"),
        ({"world_id": "fx"}, "world_id"),
        ({"provenance": {"actor": "somebody else"}}, "provenance.actor"),
        ({"hash": "sha256:" + "0" * 64}, "hash"),
        ({"stress_ref": "s3://elsewhere"}, "stress_ref"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_broken_contract_is_422_and_names_the_field(
    api: Api, overrides: dict[str, Any], field: str
) -> None:
    assert fields_of(post(api, **overrides), 422) == [field]
    assert api.get(f"{SNAPSHOTS}/latest").status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b'{"a":' * 10_000, b'{"\\ud800": 1}', b"[" * 60_000],
    ids=["empty", "cut", "list", "not UTF-8", "NaN", "deep", "surrogate", "deeper"],
)
def test_what_is_not_a_json_object_is_422(api: Api, body: bytes) -> None:
    assert fields_of(api.post(SNAPSHOTS, content=body), 422) == ["body"]


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        ({"X-Actor": ""}, ["X-Actor"]),
        ({"X-Stage": ""}, ["X-Stage"]),
        ({"X-Actor": "", "X-Stage": ""}, ["X-Actor", "X-Stage"]),
    ],
)
def test_a_producer_that_does_not_say_who_it_is_gets_400(
    api: Api, headers: dict[str, str], missing: list[str]
) -> None:
    response = api.post(SNAPSHOTS, content=raw_document(), headers=headers)
    assert fields_of(response, 400) == missing


def test_a_name_in_the_header_that_is_not_printable_is_422(api: Api) -> None:
    response = api.post(SNAPSHOTS, content=raw_document(), headers={"X-Actor": "a\tb"})
    assert fields_of(response, 422) == ["X-Actor"]


@pytest.mark.parametrize("world", ["a%20b", "a%0A", "%C3%A4", "x" * 129])
def test_a_path_that_names_no_world_is_422(api: Api, world: str) -> None:
    for response in (
        post(api, to=f"/risk-hub/worlds/{world}/snapshots"),
        api.get(f"/risk-hub/worlds/{world}/snapshots/latest"),
    ):
        assert fields_of(response, 422) == ["world_id"]


class TestBodyLimit:
    """A body is read up to the limit and never beyond it."""

    limit = 64 * 1024

    def body(self, size: int) -> bytes:
        empty = raw_document(constraints={"padding": ""})
        return raw_document(constraints={"padding": "x" * (size - len(empty))})

    def test_up_to_the_limit_it_lands(self, api: Api) -> None:
        assert api.post(SNAPSHOTS, content=self.body(self.limit)).status_code == 201

    def test_beyond_it_is_413(self, api: Api) -> None:
        assert fields_of(api.post(SNAPSHOTS, content=self.body(self.limit + 1)), 413) == ["body"]

    def test_beyond_it_without_a_declared_length_is_413_before_the_end_is_read(
        self, api: Api
    ) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1024
                yield b" " * 1024

        assert fields_of(api.post(SNAPSHOTS, content=endless()), 413) == ["body"]
        assert sent == self.limit + 1024

    def test_a_declared_length_beyond_it_is_413_before_anything_is_read(self, api: Api) -> None:
        async def unread() -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")
            yield b""

        headers = {"Content-Length": str(self.limit + 1)}
        assert problem_of(api.post(SNAPSHOTS, content=unread(), headers=headers), 413)


# -- reading --------------------------------------------------------------------------------------


def test_where_there_is_nothing_it_is_404_and_the_list_empty(api: Api) -> None:
    for url in ("latest", "lookup?version=v1", "lookup?as_of=2026-01-31T21:00:00Z"):
        assert WORLD in problem_of(api.get(f"{SNAPSHOTS}/{url}"), 404)["detail"]
    assert api.get(SNAPSHOTS).json() == {"snapshots": [], "next": None}
    assert problem_of(api.get("/nowhere"), 404)


def test_latest_is_by_instant_and_filters_by_stage_and_actor(api: Api) -> None:
    post(api, version="newest", as_of="2026-01-31T22:00:00+01:00")
    post(api, version="later text", as_of="2026-01-31T21:59:00+01:00")
    live = HEADERS | {"X-Stage": "live", "X-Actor": "other"}
    old = raw_document(version="live", as_of="2026-01-31T19:00:00Z")
    api.post(SNAPSHOTS, content=old, headers=live)

    def version(query: str = "") -> str:
        return str(api.get(f"{SNAPSHOTS}/latest{query}").json()["version"])

    assert version() == version("?stage=paper") == version("?actor=optimizer") == "newest"
    assert version("?stage=live") == version("?actor=other") == "live"
    assert problem_of(api.get(f"{SNAPSHOTS}/latest?stage=live&actor=optimizer"), 404)
    listed = api.get(f"{SNAPSHOTS}?stage=live").json()["snapshots"]
    assert [snapshot["version"] for snapshot in listed] == ["live"]


def test_the_expired_are_gone_unless_asked_for(api: Api, clock: Clock) -> None:
    posted = post(api, ttl_sec=60)
    clock.advance(60)
    for url in (f"{SNAPSHOTS}/latest?", f"{SNAPSHOTS}/lookup?version=v1&"):
        assert problem_of(api.get(url), 404)
        assert api.get(f"{url}include_expired=true").content == posted.content
    assert api.get(SNAPSHOTS).json()["snapshots"] == []
    assert api.get(f"{SNAPSHOTS}?include_expired=true").json()["snapshots"] == [posted.json()]
    assert post(api, ttl_sec=60).status_code == 200  # a retry is a retry, also after the expiry


def test_the_next_link_leads_through_everything_once_and_keeps_the_question(api: Api) -> None:
    for number in range(7):
        post(api, version=f"v {number}")
    url, walked = f"{SNAPSHOTS}?limit=3&stage=paper&include_expired=true", []
    pages = 0
    while url:
        response = api.get(url)
        pages += 1
        walked += [snapshot["version"] for snapshot in response.json()["snapshots"]]
        following = response.links.get("next", {}).get("url")
        assert (following is None) == (response.json()["next"] is None)
        if following:
            assert {"stage=paper", "include_expired=true", "limit=3"} <= set(
                following.partition("?")[2].split("&")
            )
        url = following
    assert walked == [f"v {number}" for number in reversed(range(7))]
    assert pages == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=many", "limit"),
        ("?cursor=x", "cursor"),
        ("?cursor=%FF", "cursor"),
        ("?cursor=%C3%A4", "cursor"),
        ("?cursor=MjAyNi0wMS0zMVQyMTowMDowMFovLTE=", "cursor"),  # position -1
        ("?include_expired=maybe", "include_expired"),
        ("?stage=%00", "stage"),
        ("/latest?actor=a%00b", "actor"),
        ("/lookup?version=%00", "version"),
        ("/lookup", "version"),
        ("/lookup?version=v1&as_of=2026-01-31T21:00:00Z", "version"),
        ("/lookup?as_of=2026-01-31", "as_of"),
        ("/lookup?as_of=2026-01-31T21:00:00+00:00", "as_of"),  # a bare plus is a space in a query
    ],
)
def test_a_question_that_makes_no_sense_is_422_and_names_the_parameter(
    api: Api, query: str, field: str
) -> None:
    assert fields_of(api.get(SNAPSHOTS + query), 422) == [field]


def test_lookup_by_instant_is_the_newest_at_or_before_it(api: Api) -> None:
    for hour in (18, 20, 19):
        post(api, version=str(hour), as_of=f"2026-01-31T{hour}:00:00Z")

    def version(as_of: str) -> str:
        response = api.get(f"{SNAPSHOTS}/lookup", params={"as_of": as_of})
        return str(response.json()["version"])

    assert version("2026-01-31T21:00:00+01:00") == "20"
    assert version("2026-01-31T19:59:59Z") == "19"
    assert problem_of(api.get(f"{SNAPSHOTS}/lookup?as_of=2026-01-31T17:59:59Z"), 404)


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["s3cret", "gehäuse"])
def test_only_the_token_opens_the_door(hub: Hub, settings: Settings, token: str) -> None:
    guarded = settings.model_copy(update={"token": Settings(token=token).token})
    with serving(create_app(guarded, hub)) as api:
        for wrong in ("", "Bearer", "Bearer ", f"Bearer {token}x", f"Basic {token}", token):
            headers = {"Authorization": wrong.encode()}
            for response in (
                *(api.get(url, headers=headers) for url in READS),
                api.post(SNAPSHOTS, content=raw_document(), headers=headers),
                api.post("/risk-hub/snapshots:batch", content=b"", headers=headers),
            ):
                assert problem_of(response, 401)
                assert response.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": f"Bearer {token}".encode()}
        assert api.post(SNAPSHOTS, content=raw_document(), headers=right).status_code == 201
        for url in READS:
            assert api.get(url, headers=right).status_code == 200
        assert api.get("/healthz").status_code == api.get("/readyz").status_code == 200


def test_a_stranger_learns_nothing_of_what_else_is_wrong(hub: Hub, settings: Settings) -> None:
    guarded = settings.model_copy(update={"token": Settings(token="s3cret").token})
    with serving(create_app(guarded, hub)) as api:
        assert problem_of(
            api.post("/risk-hub/worlds/a%20b/snapshots", headers={"X-Actor": ""}), 401
        )


# -- when the store can't -------------------------------------------------------------------------


def refuses_for_now(response: httpx.Response) -> str:
    detail = str(problem_of(response, 503)["detail"])
    assert response.headers["retry-after"].isdecimal()
    return detail


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
