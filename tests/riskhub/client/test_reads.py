"""Reading: parsed documents, None for nothing, pages that follow one another."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from builders import WORLD, accept
from scripted import Producer, Script, problem

from riskhub.client import ContractViolation, DigestMismatch, HubRefused, UnexpectedAnswer
from riskhub.errors import BlobAltered, BlobMissing, BlobUnusable

Make = Callable[..., Producer]


def stored(version: str = "v1", **others: Any) -> dict[str, Any]:
    return json.loads(accept(version=version, **others).body)


def found(document: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=document)


def test_latest_is_asked_for_as_it_was_wanted(producer: Make) -> None:
    script = Script(found(stored()))
    latest = producer(script).latest(WORLD, stage="paper", actor="a b", include_expired=True)
    assert latest == stored()
    url = script.requests[0].url
    assert url.path == f"/risk-hub/worlds/{WORLD}/snapshots/latest"
    assert dict(url.params) == {"stage": "paper", "actor": "a b", "include_expired": "true"}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"version": "v 1"}, {"version": "v 1"}),
        ({"as_of": "2026-01-31T21:00:00Z"}, {"as_of": "2026-01-31T21:00:00Z"}),
        (
            {
                "as_of": datetime(2026, 1, 31, 21, tzinfo=timezone(timedelta(hours=9))),
                "known_at": datetime(2026, 2, 1, tzinfo=UTC),
                "expand": True,
            },
            {
                "as_of": "2026-01-31T12:00:00.000000Z",
                "known_at": "2026-02-01T00:00:00.000000Z",
                "expand": "true",
            },
        ),
    ],
)
def test_lookup_by_version_or_instant(
    producer: Make, asked: dict[str, Any], sent: dict[str, str]
) -> None:
    script = Script(found(stored()))
    assert producer(script).lookup(WORLD, **asked) == stored()
    assert script.requests[0].url.path.endswith("/lookup")
    assert dict(script.requests[0].url.params) == sent


def test_a_time_without_a_zone_is_no_instant(producer: Make) -> None:
    with pytest.raises(ValueError, match="time zone"):
        producer(Script(problem(404))).lookup(WORLD, as_of=datetime(2026, 1, 1))  # noqa: DTZ001


def test_nothing_there_is_none(producer: Make) -> None:
    client = producer(Script(problem(404)))
    assert client.latest(WORLD) is None
    assert client.lookup(WORLD, version="v1") is None


def test_a_404_of_something_that_is_no_hub_is_not_nothing(producer: Make) -> None:
    with pytest.raises(HubRefused):
        producer(Script(httpx.Response(404, text="nginx"))).latest(WORLD)


def test_a_wrong_question_is_told_by_field(producer: Make) -> None:
    errors = [{"field": "version", "message": "or as_of: exactly one"}]
    with pytest.raises(ContractViolation, match="version: or as_of"):
        producer(Script(problem(422, errors=errors))).lookup(WORLD)


def test_reads_are_tried_again(producer: Make) -> None:
    script = Script(httpx.ReadTimeout("slow"), problem(503), found(stored()))
    assert producer(script).latest(WORLD) == stored()


@pytest.mark.parametrize(
    ("name", "error"), [("blob_missing", BlobMissing), ("blob_altered", BlobAltered)]
)
def test_a_blob_that_is_gone_is_told_at_once(
    producer: Make, name: str, error: type[BlobUnusable]
) -> None:
    script = Script(problem(502, "file:///x: is gone", error=name, ref="file:///x"))
    with pytest.raises(error, match=r"^file:///x: is gone$"):
        producer(script).latest(WORLD, expand=True)
    assert len(script.requests) == 1


def test_a_body_that_is_not_what_its_hash_says_is_told(producer: Make) -> None:
    altered = stored() | {"weights": {"BAC": 1.0}}
    with pytest.raises(DigestMismatch, match="version 'v1' of 'equities'"):
        producer(Script(found(altered))).latest(WORLD)


def test_what_lies_behind_a_reference_is_taken_on_trust(producer: Make) -> None:
    elsewhere = stored() | {"covariance_ref": "file:///x"}
    assert producer(Script(found(elsewhere))).latest(WORLD) == elsewhere


def test_pages_follow_one_another_and_never_to_another_host(producer: Make) -> None:
    first = httpx.Response(
        200,
        json={"snapshots": [stored("v3"), stored("v2")]},
        headers={"Link": '<http://evil/else?cursor=c%2B1&limit=2>; rel="next"'},
    )
    last = httpx.Response(200, json={"snapshots": [stored("v1")]})
    script = Script(first, last)
    documents = producer(script).list(WORLD, stage="paper", page_size=2)
    assert [document["version"] for document in documents] == ["v3", "v2", "v1"]
    assert [dict(request.url.params) for request in script.requests] == [
        {"stage": "paper", "limit": "2"},
        {"stage": "paper", "limit": "2", "cursor": "c+1"},
    ]
    assert {request.url.host for request in script.requests} == {"hub"}


def test_a_page_is_fetched_when_it_is_asked_for(producer: Make) -> None:
    script = Script(problem(401))
    producer(script).client.list(WORLD)
    assert script.requests == []


@pytest.mark.parametrize("body", ["{}", "[]", "<html>"])
def test_a_list_that_is_none_is_told(producer: Make, body: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        producer(Script(httpx.Response(200, text=body))).list(WORLD)
