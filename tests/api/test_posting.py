"""The single door: what lands, what is refused, and what `dry_run` says of both."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from answers import BATCH, SNAPSHOTS, fields_of, post, problem_of
from asgi import Api
from builders import HEADERS, NOW, WORLD, Clock, raw_document

from riskhub.hub import Hub
from riskhub.snapshot import format_instant


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


# -- rehearsing -----------------------------------------------------------------------------------

REHEARSAL = f"{SNAPSHOTS}?dry_run=true"


def test_a_rehearsal_says_what_would_happen_and_stores_nothing(api: Api, hub: Hub) -> None:
    told = post(api, to=REHEARSAL)
    assert (told.status_code, told.headers["content-type"]) == (200, "application/json")
    would = told.json()
    assert would.keys() == {"dry_run", "status", "hash", "snapshot"}
    assert (would["dry_run"], would["status"]) == (True, 201)
    assert hub.store.head() == 0
    assert problem_of(api.get(f"{SNAPSHOTS}/latest?include_expired=true"), 404)

    landed = post(api)
    assert landed.status_code == 201  # the rehearsal was none of the attempts
    assert would["snapshot"] == landed.json()
    assert would["hash"] == landed.json()["hash"]

    again = post(api, to=REHEARSAL).json()
    assert (again["status"], again["snapshot"]) == (200, landed.json())
    assert hub.store.head() == 1


def test_a_rehearsal_is_refused_as_the_post_would_be(api: Api) -> None:
    landed = post(api)
    conflict = post(api, to=REHEARSAL, ttl_sec=60)
    assert problem_of(conflict, 409) == problem_of(post(api, ttl_sec=60), 409)
    assert fields_of(post(api, to=REHEARSAL, version="v2", ttl_sec=0), 422) == ["ttl_sec"]
    response = api.post(REHEARSAL, content=raw_document(), headers={"X-Stage": ""})
    assert fields_of(response, 400) == ["X-Stage"]
    assert api.get(f"{SNAPSHOTS}?include_expired=true").json()["snapshots"] == [landed.json()]


def test_a_rehearsal_counts_as_no_landing(api: Api, hub: Hub) -> None:
    post(api, to=REHEARSAL)
    assert b"risk_hub_snapshot_processed_total 0.0" in hub.telemetry.exposition([])


@pytest.mark.parametrize("no", ["false", "0", "False"])
def test_what_is_no_rehearsal_lands(api: Api, no: str) -> None:
    assert post(api, to=f"{SNAPSHOTS}?dry_run={no}").status_code == 201


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("dry_run=perhaps", "dry_run"),
        ("dry_run=", "dry_run"),
        ("dryrun=true", "dryrun"),
        ("dry_run=true&dry_run=false", "dry_run"),
        ("expand=true", "expand"),
    ],
)
def test_a_rehearsal_that_is_misspelt_does_not_land(
    api: Api, hub: Hub, query: str, named: str
) -> None:
    assert fields_of(post(api, to=f"{SNAPSHOTS}?{query}"), 422) == [named]
    assert hub.store.head() == 0


def test_the_bulk_door_has_no_rehearsal_and_lands_nothing_instead(api: Api, hub: Hub) -> None:
    line = raw_document(world_id=WORLD)
    assert fields_of(api.post(f"{BATCH}?dry_run=true", content=line), 422) == ["dry_run"]
    assert hub.store.head() == 0
