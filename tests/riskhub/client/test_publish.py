"""Publishing: checked here, the same bytes at each attempt, and each refusal by its name."""

import json
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import ABSENT, ACTOR, NOW, STAGE, WORLD, accept, snapshot_document
from scripted import Producer, Script, Time, created, problem

from riskhub.blobs import BlobStore, open_blobs
from riskhub.blobs.settings import BlobSettings
from riskhub.client import (
    AsyncRiskHubClient,
    Forbidden,
    HubError,
    HubRefused,
    HubUnavailable,
    RetryPolicy,
    RiskHubClient,
    Status,
    TooLarge,
    Unauthorized,
    UnexpectedAnswer,
)
from riskhub.digests import verify_digest
from riskhub.errors import (
    BlobsUnavailable,
    ContractViolation,
    FieldError,
    RiskHubError,
    VersionConflict,
)
from riskhub.settings import Settings

Make = Callable[..., Producer]
DOWN = httpx.ConnectError("refused")
COVARIANCE = {"BAC,BAC": 0.1, "JPM,JPM": 0.2, "BAC,JPM": 0.05}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    settings = Settings(home=tmp_path, blobs=BlobSettings(kind="file"))
    return open_blobs(settings)


@pytest.mark.parametrize(("status", "came"), [(201, Status.CREATED), (200, Status.DUPLICATE)])
def test_a_landing_is_told_with_what_was_stored(producer: Make, status: int, came: Status) -> None:
    script = Script(lambda request: httpx.Response(status, content=request.content))
    published = producer(script).publish(snapshot_document(), world_id=WORLD)
    expected = accept()
    assert (published.status, published.world_id) == (came, WORLD)
    assert (published.version, published.digest) == ("v1", expected.digest)
    assert published.body["weights"] == {"BAC": 0.5, "JPM": 0.5}


def test_what_is_sent_is_the_validated_body_with_its_digest(producer: Make) -> None:
    script = Script(created)
    document = snapshot_document(created_at="2026-01-31T21:00:01Z", constraints={"ü": [1, 1.0]})
    producer(script, token="secret").publish(document, world_id=WORLD)
    request = script.requests[0]
    sent = json.loads(request.content)
    assert sent == document | {
        "world_id": WORLD,
        "ttl_sec": 900,
        "provenance": {"actor": ACTOR, "stage": STAGE},
        "hash": accept(document).digest,
    }
    assert request.url == f"http://hub/risk-hub/worlds/{WORLD}/snapshots"
    assert (request.headers["X-Actor"], request.headers["X-Stage"]) == (ACTOR, STAGE)
    assert request.headers["Authorization"] == "Bearer secret"
    assert accept(sent).digest == sent["hash"]


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_a_hash_that_was_given_is_checked_and_its_algorithm_kept(
    producer: Make, algorithm: str
) -> None:
    from riskhub.digests import digest

    offered = digest(accept().payload, algorithm)
    published = producer(Script(created)).publish(snapshot_document(hash=offered), world_id=WORLD)
    assert published.digest == offered


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"weights": {"A": 0.5}}, "weights"),
        ({"weights": {"A": float("nan")}}, "weights.A"),
        ({"constraints": {"a": [1, {"b": float("inf")}]}}, "constraints.a[1].b"),
        ({"constraints": {"a": {1, 2}}}, "body"),
        ({"provenance": {"actor": "other"}}, "provenance.actor"),
        ({"version": ABSENT}, "version"),
        ({"hash": "sha256:" + "0" * 64}, "hash"),
        ({"as_of": "2026-02-28T21:00:00Z"}, "as_of"),
    ],
)
def test_what_breaks_the_contract_is_never_sent(
    producer: Make, overrides: dict[str, Any], field: str
) -> None:
    script = Script(created)
    with pytest.raises(ContractViolation) as caught:
        producer(script).publish(snapshot_document(**overrides), world_id=WORLD)
    assert [error.field for error in caught.value.errors] == [field]
    assert script.requests == []


def test_a_document_that_holds_itself_is_refused(producer: Make) -> None:
    document = snapshot_document()
    document["constraints"] = {"again": document}
    with pytest.raises(ContractViolation, match="body"):
        producer(Script(created)).publish(document, world_id=WORLD)


def test_the_document_is_not_changed(producer: Make, blobs: BlobStore) -> None:
    document = snapshot_document(covariance=dict(COVARIANCE))
    before = json.dumps(document)
    producer(Script(created), blobs=blobs, inline_cov_threshold=1).publish(document, world_id=WORLD)
    assert json.dumps(document) == before


# -- trying again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        httpx.DecodingError("garbled"),
        problem(500),
        problem(503),
        problem(429),
        httpx.Response(502, text="bad gateway"),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_with_the_same_bytes(
    producer: Make, time: Time, failure: httpx.Response | Exception
) -> None:
    script = Script(failure, failure, created)
    assert producer(script).publish(snapshot_document(), world_id=WORLD).status == "created"
    assert len({request.content for request in script.requests}) == 1
    assert len(script.requests) == 3
    assert time.slept == [1.0, 2.0]


def test_waits_grow_to_a_bound_and_are_shortened_by_chance(producer: Make, time: Time) -> None:
    time.chance = 0.5
    with pytest.raises(HubUnavailable, match=r"tried 4 times: ConnectError: refused"):
        producer(Script(DOWN)).publish(snapshot_document(), world_id=WORLD)
    assert time.slept == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7.0),
        (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9.0),
        (format_datetime(NOW + timedelta(seconds=9)).replace("+0000", "-0000"), 9.0),
        (format_datetime(NOW - timedelta(seconds=9), usegmt=True), 1.0),
        ("0", 1.0),
        ("soon", 1.0),
    ],
)
def test_retry_after_is_honoured_in_both_forms(
    producer: Make, time: Time, header: str, wait: float
) -> None:
    busy = problem(503)
    busy.headers["Retry-After"] = header
    producer(Script(busy, created)).publish(snapshot_document(), world_id=WORLD)
    assert time.slept == [wait]


def test_who_must_wait_beyond_the_deadline_gives_up_at_once(producer: Make, time: Time) -> None:
    busy = problem(429, "too many")
    busy.headers["Retry-After"] = "3600"
    with pytest.raises(HubUnavailable, match="tried once: answered 429: too many"):
        producer(Script(busy)).publish(snapshot_document(), world_id=WORLD)
    assert time.slept == []


def test_attempts_end_with_the_deadline(producer: Make, time: Time) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        time.seconds += timeouts["read"]
        raise httpx.ReadTimeout("slow", request=request)

    script = Script(slow)
    retry = RetryPolicy(attempts=100, first_sec=1, max_sec=1, deadline_sec=25)
    with pytest.raises(HubUnavailable):
        producer(script, retry=retry, timeout=10).publish(snapshot_document(), world_id=WORLD)
    assert [request.extensions["timeout"]["read"] for request in script.requests] == [10, 10, 3]
    assert time.seconds == 1025.0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(400), HubRefused),
        (problem(401), Unauthorized),
        (problem(403), Forbidden),
        (problem(404), HubRefused),
        (problem(408), HubRefused),
        (problem(409, stored="sha256:a", offered="sha256:b"), VersionConflict),
        (problem(413), TooLarge),
        (problem(422), ContractViolation),
        (httpx.Response(418, text="teapot"), HubRefused),
        (httpx.Response(302, headers={"Location": "http://else"}), UnexpectedAnswer),
        (httpx.Response(200, text="<html>log in</html>"), UnexpectedAnswer),
        (httpx.Response(201, text="[]"), UnexpectedAnswer),
        (httpx.UnsupportedProtocol("no scheme"), HubError),
        (httpx.LocalProtocolError("bad header"), HubError),
    ],
    ids=repr,
)
def test_a_refusal_has_a_name_and_is_never_tried_again(
    producer: Make, spool: Path, answer: Any, error: type[RiskHubError]
) -> None:
    script = Script(answer)
    with pytest.raises(error) as caught:
        producer(script, spool=spool, token="secret").publish(snapshot_document(), world_id=WORLD)
    assert type(caught.value) is error
    assert len(script.requests) == 1
    assert not spool.exists()
    assert "secret" not in str(caught.value)


def test_a_conflict_names_both_digests(producer: Make) -> None:
    script = Script(problem(409, stored="sha256:a", offered="sha256:b"))
    with pytest.raises(VersionConflict) as caught:
        producer(script).publish(snapshot_document(), world_id=WORLD)
    assert (caught.value.stored, caught.value.offered) == ("sha256:a", "sha256:b")


def test_what_the_hub_alone_refuses_comes_with_its_fields(producer: Make) -> None:
    errors = [{"field": "as_of", "message": "lies in the future"}]
    with pytest.raises(ContractViolation) as caught:
        producer(Script(problem(422, errors=errors))).publish(snapshot_document(), world_id=WORLD)
    assert caught.value.errors == (FieldError("as_of", "lies in the future"),)


# -- large fields ---------------------------------------------------------------------------------


def test_large_fields_are_offloaded_and_the_digest_covers_what_is_sent(
    producer: Make, blobs: BlobStore
) -> None:
    script = Script(created)
    client = producer(script, blobs=blobs, inline_cov_threshold=2)
    published = client.publish(snapshot_document(covariance=COVARIANCE), world_id=WORLD)
    sent = json.loads(script.requests[0].content)
    assert "covariance" not in sent
    assert json.loads(blobs.get(sent["covariance_ref"])) == COVARIANCE
    assert published.digest == sent["hash"]
    assert verify_digest(sent)


def test_a_hash_taken_before_offloading_is_checked_before_and_replaced(
    producer: Make, blobs: BlobStore
) -> None:
    document = snapshot_document(covariance=COVARIANCE)
    document["hash"] = accept(document).digest
    script = Script(created)
    producer(script, blobs=blobs, inline_cov_threshold=2).publish(document, world_id=WORLD)
    sent = json.loads(script.requests[0].content)
    assert sent["hash"] != document["hash"]
    assert verify_digest(sent)


@pytest.mark.parametrize("again", [201, 422])
def test_a_blob_that_the_hub_lost_is_put_back_once(
    producer: Make, blobs: BlobStore, again: int
) -> None:
    missing = problem(422, errors=[{"field": "covariance_ref", "message": "is missing: nothing"}])

    def lose(request: httpx.Request) -> httpx.Response:
        blobs.delete(json.loads(request.content)["covariance_ref"])
        return missing

    script = Script(lose, created if again == 201 else missing)
    client = producer(script, blobs=blobs, inline_cov_threshold=2)
    document = snapshot_document(covariance=COVARIANCE)
    if again == 201:
        client.publish(document, world_id=WORLD)
    else:
        with pytest.raises(ContractViolation, match="covariance_ref"):
            client.publish(document, world_id=WORLD)
    first, second = (request.content for request in script.requests)
    assert first == second
    assert json.loads(blobs.get(json.loads(second)["covariance_ref"])) == COVARIANCE


def test_a_reference_of_others_is_not_healed(producer: Make, blobs: BlobStore) -> None:
    missing = problem(422, errors=[{"field": "covariance_ref", "message": "is missing: nothing"}])
    script = Script(missing)
    document = snapshot_document(covariance_ref="s3://bucket/other")
    with pytest.raises(ContractViolation):
        producer(script, blobs=blobs).publish(document, world_id=WORLD)
    assert len(script.requests) == 1


def test_without_its_blob_store_a_snapshot_goes_inline(
    producer: Make, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(content: bytes) -> str:
        raise BlobsUnavailable("the store is down")

    monkeypatch.setattr(blobs, "put", down)
    script = Script(created)
    client = producer(script, blobs=blobs, inline_cov_threshold=2)
    client.publish(snapshot_document(covariance=COVARIANCE), world_id=WORLD)
    sent = json.loads(script.requests[0].content)
    assert sent["covariance"] == COVARIANCE
    assert verify_digest(sent)


# -- how a client is made -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RiskHubClient, AsyncRiskHubClient])
@pytest.mark.parametrize("actor", ["", " a", "a\n", "прог"])
def test_an_actor_that_no_header_carries_is_refused_at_once(kind: type, actor: str) -> None:
    if actor:
        with pytest.raises(ContractViolation, match="X-Actor"):
            kind("http://hub", actor=actor, stage=STAGE)


@pytest.mark.parametrize("url", ["http://hub:port", "hub:8000", "hub", "", "ftp://hub", "http://"])
def test_a_base_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(HubError, match="base URL"):
        RiskHubClient(url, actor=ACTOR, stage=STAGE)


def test_a_base_url_may_have_a_path(producer: Make) -> None:
    script = Script(created)
    with RiskHubClient(
        "http://hub/prefix/", actor=ACTOR, stage=STAGE, transport=httpx.MockTransport(script)
    ) as client:
        client.publish(snapshot_document(as_of="2020-01-01T00:00:00Z"), world_id="..")
    assert script.requests[0].url.raw_path == b"/prefix/risk-hub/worlds/%2E%2E/snapshots"


def test_client_and_hub_share_their_settings(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        api_port=8123,
        token="secret",
        inline_cov_threshold=2,
        blobs=BlobSettings(kind="file"),
    )
    script = Script(created)
    with RiskHubClient.from_settings(
        settings, actor=ACTOR, stage=STAGE, transport=httpx.MockTransport(script)
    ) as client:
        client.publish(
            snapshot_document(as_of="2020-01-01T00:00:00Z", covariance=COVARIANCE), world_id=WORLD
        )
    request = script.requests[0]
    assert str(request.url).startswith("http://127.0.0.1:8123/risk-hub/")
    assert request.headers["Authorization"] == "Bearer secret"
    assert "covariance_ref" in json.loads(request.content)
