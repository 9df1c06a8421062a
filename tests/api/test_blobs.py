"""Large fields through both doors: offloaded by hub or client, given back, never trusted."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from answers import BATCH, SNAPSHOTS, fields_of, post, problem_of, refuses_for_now
from asgi import Api
from builders import ACTOR, STAGE, WORLD, Clock, raw_document, snapshot_document

from riskhub.blobs import BLOB_FIELDS, BlobSettings, BlobStore, offload
from riskhub.blobs.file import FileBlobs
from riskhub.digests import canonical_json, verify_digest
from riskhub.hub import Hub
from riskhub.settings import Settings

THRESHOLD = 2
COVARIANCE = {"BAC,BAC": 0.04, "BAC,JPM": 0.01, "JPM,JPM": 0.09}
LARGE: dict[str, Any] = {
    "covariance": COVARIANCE,
    "realized_returns": {"portfolio": [0.01, -0.02, 0.0]},
    "stress": {"2008": {"pnl": -0.4, "drawdown": 0.6}, "2020": {"pnl": -0.3}},
}
SMALL: dict[str, Any] = {
    "covariance": {"BAC,BAC": 0.04, "JPM,JPM": 0.09},
    "realized_returns": {"portfolio": [0.01, -0.02]},
    "stress": {"2008": {"pnl": -0.4}},
}
EXPANDED = [f"{SNAPSHOTS}/latest?expand=true", f"{SNAPSHOTS}/lookup?version=v1&expand=true"]

Answer = dict[str, Any]
Offer = Callable[[dict[str, Any]], Answer]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        inline_cov_threshold=THRESHOLD,
        blobs=BlobSettings(kind="file", directory=tmp_path / "blobs"),
    )


@pytest.fixture
def blobs(hub: Hub) -> BlobStore:
    assert hub.blobs is not None
    return hub.blobs


@pytest.fixture(params=["single", "bulk"])
def offer(request: pytest.FixtureRequest, api: Api) -> Offer:
    """Posts a document through one of the doors; gives what is answered to it."""

    def single(document: dict[str, Any]) -> Answer:
        response = api.post(SNAPSHOTS, content=json.dumps(document))
        return response.json() | {"status": response.status_code}

    def bulk(document: dict[str, Any]) -> Answer:
        line = json.dumps({"world_id": WORLD} | document)
        response = api.post(BATCH, content=line)
        assert response.status_code == 200, response.text
        answer: Answer = response.json()
        return answer

    return single if request.param == "single" else bulk


def digest_of(document: dict[str, Any]) -> str:
    """The digest of a producer's document, by the letter of the contract."""
    content = {"ttl_sec": 900, "world_id": WORLD} | document
    content["provenance"] = {"actor": ACTOR, "stage": STAGE}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def stored(api: Api, version: str = "v1", **query: str) -> dict[str, Any]:
    response = api.get(f"{SNAPSHOTS}/lookup", params={"version": version} | query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def refused_fields(answer: Answer) -> list[str]:
    assert answer["status"] == 422, answer
    return [error["field"] for error in answer["errors"]]


def blob_failures(api: Api, kind: str) -> float:
    (line,) = [
        line
        for line in api.get("/metrics").text.splitlines()
        if line.startswith(f'riskhub_blob_failures_total{{kind="{kind}"}}')
    ]
    return float(line.rpartition(" ")[2])


def path_of(ref: str) -> Path:
    return Path(ref.removeprefix("file://"))


# -- offloaded by the hub -------------------------------------------------------------------------


def test_the_hub_offloads_what_is_large_and_its_hash_is_of_what_was_posted(
    api: Api, offer: Offer, blobs: BlobStore
) -> None:
    document = snapshot_document(**LARGE)
    assert offer(document)["status"] == 201
    body = stored(api)
    assert body["hash"] == digest_of(document)
    assert not LARGE.keys() & body.keys()
    assert {json.dumps(json.loads(blobs.get(body[ref]))) for ref in BLOB_FIELDS.values()} == {
        json.dumps(value) for value in map(json.loads, map(canonical_json, LARGE.values()))
    }
    expanded = stored(api, expand="true")
    assert expanded == {
        **{field: value for field, value in body.items() if field not in BLOB_FIELDS.values()},
        **LARGE,
    }
    assert verify_digest(expanded)
    assert not verify_digest(body)
    assert verify_digest(body, LARGE)


def test_what_is_not_large_stays_where_it_is(api: Api, offer: Offer, blobs: BlobStore) -> None:
    assert offer(snapshot_document(**SMALL))["status"] == 201
    assert SMALL.items() <= stored(api).items()
    assert list(blobs.refs()) == []


def test_every_read_expands_and_none_does_unasked(api: Api) -> None:
    posted = post(api, **LARGE)
    assert "covariance_ref" in posted.json()
    one, another = (api.get(url) for url in EXPANDED)
    assert one.content == another.content
    assert LARGE.items() <= one.json().items()
    listed = api.get(f"{SNAPSHOTS}?expand=true").json()["snapshots"]
    assert listed == [one.json()]
    assert api.get(f"{SNAPSHOTS}/latest").content == posted.content
    assert api.get(f"{SNAPSHOTS}?expand=false").json()["snapshots"] == [posted.json()]


def test_a_rehearsal_puts_nothing_into_the_blob_store(api: Api, blobs: BlobStore) -> None:
    told = post(api, to=f"{SNAPSHOTS}?dry_run=true", **LARGE).json()
    assert (told["status"], told["hash"]) == (201, digest_of(snapshot_document(**LARGE)))
    assert list(blobs.refs()) == []
    assert post(api, **LARGE).json()["hash"] == told["hash"]
    kept = sorted(blobs.refs())
    assert post(api, to=f"{SNAPSHOTS}?dry_run=true", **LARGE).json()["status"] == 200
    assert sorted(blobs.refs()) == kept


def test_what_is_refused_leaves_nothing_in_the_blob_store(offer: Offer, blobs: BlobStore) -> None:
    assert refused_fields(offer(snapshot_document(**LARGE, ttl_sec=0))) == ["ttl_sec"]
    wrong = "sha256:" + "0" * 64
    assert refused_fields(offer(snapshot_document(**LARGE, hash=wrong))) == ["hash"]
    assert list(blobs.refs()) == []


@pytest.mark.parametrize("produced", [{}, {"created_at": "2026-01-31T20:59:00Z"}])
@pytest.mark.parametrize("expand", ["false", "true"])
def test_a_stored_body_posted_as_it_is_served_is_a_duplicate(
    api: Api, offer: Offer, clock: Clock, produced: dict[str, str], expand: str
) -> None:
    assert offer(snapshot_document(**LARGE, **produced))["status"] == 201
    clock.advance(5)
    served = stored(api, expand=expand)
    assert ("produced_at" in served["provenance"]) == bool(produced)
    assert offer(served)["status"] == 200
    assert stored(api, expand=expand) == served


# -- offloaded by the client ----------------------------------------------------------------------


def test_a_client_may_offload_and_hash_what_it_sends(
    api: Api, offer: Offer, blobs: BlobStore
) -> None:
    lighter = offload(snapshot_document(**LARGE), blobs, THRESHOLD)
    lighter["hash"] = digest_of(lighter)
    assert offer(lighter)["status"] == 201
    body = stored(api)
    assert lighter.items() <= body.items()
    assert verify_digest(body)
    assert LARGE.items() <= stored(api, expand="true").items()
    assert offer(lighter)["status"] == 200


def test_a_client_of_the_first_generation_may_hash_before_it_offloads(
    api: Api, offer: Offer, blobs: BlobStore
) -> None:
    document = snapshot_document(**LARGE)
    lighter = offload(document, blobs, THRESHOLD) | {"hash": digest_of(document)}
    assert offer(lighter)["status"] == 201
    body = stored(api)
    assert body["hash"] == digest_of(document)
    assert body["covariance_ref"] == lighter["covariance_ref"]
    assert verify_digest(stored(api, expand="true"))
    # One content, whoever offloads: the same client without its offloading is a retry.
    assert offer(document)["status"] == 200


def test_points_of_a_blob_are_floats_however_they_are_written(
    api: Api, offer: Offer, blobs: BlobStore
) -> None:
    ref = blobs.put(b'{"portfolio":[1,0,-1]}')
    meant = snapshot_document(realized_returns={"portfolio": [1.0, 0.0, -1.0]})
    document = snapshot_document(realized_returns_ref=ref, hash=digest_of(meant))
    assert offer(document)["status"] == 201
    expanded = stored(api, expand="true")
    assert verify_digest(expanded)
    assert offer(expanded)["status"] == 200


def test_a_hash_that_is_of_neither_is_refused(offer: Offer, blobs: BlobStore) -> None:
    lighter = offload(snapshot_document(**LARGE), blobs, THRESHOLD)
    other = snapshot_document(**LARGE | {"covariance": COVARIANCE | {"BAC,JPM": 0.02}})
    assert refused_fields(offer(lighter | {"hash": digest_of(other)})) == ["hash"]


@pytest.mark.parametrize(
    ("field", "content", "named"),
    [
        ("covariance", {"A,A": 1.0, "B,B": 1.0, "A,B": 0.1, "B,A": 0.2}, "covariance.A,B"),
        ("covariance", {"A,A": 1.0, "A,B": 0.1}, "covariance.B,B"),
        ("realized_returns", {"portfolio": [0.1, "0.2"]}, "realized_returns.portfolio[1]"),
        ("stress", {"2008": {"pnl": True}}, "stress.2008.pnl"),
        ("stress", {"2008": -0.4}, "stress.2008"),
    ],
)
def test_the_contract_holds_for_what_a_reference_stands_for(
    offer: Offer, blobs: BlobStore, field: str, content: Any, named: str
) -> None:
    ref = blobs.put(canonical_json(content))
    assert refused_fields(offer(snapshot_document(**{BLOB_FIELDS[field]: ref}))) == [named]


@pytest.mark.parametrize("content", [b"[1]", b"not json", b"", b'{"A,A": NaN}'])
def test_a_blob_that_is_no_field_is_refused(offer: Offer, blobs: BlobStore, content: bytes) -> None:
    ref = blobs.put(content)
    assert refused_fields(offer(snapshot_document(covariance_ref=ref))) == ["covariance_ref"]


def test_a_field_and_its_reference_are_not_both_the_truth(offer: Offer, blobs: BlobStore) -> None:
    ref = blobs.put(canonical_json(COVARIANCE))
    document = snapshot_document(covariance=COVARIANCE, covariance_ref=ref)
    assert refused_fields(offer(document)) == ["covariance_ref"]


# -- what is not ours -----------------------------------------------------------------------------


@contextmanager
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def read(_blobs: FileBlobs, _digest: str) -> bytes:
        raise AssertionError("a reference that is not ours was fetched")

    with monkeypatch.context() as patch:
        patch.setattr(FileBlobs, "_read", read)
        yield


DIGEST = hashlib.sha256(canonical_json(COVARIANCE)).hexdigest()
FOREIGN: dict[str, Callable[[str], Any]] = {
    "elsewhere": lambda ours: ours.replace("/blobs/", "/elsewhere/"),
    "a file of the system": lambda _: "file:///etc/passwd",
    "up and down again": lambda ours: ours.replace("/sha256/", "/../blobs/sha256/"),
    "a step that is none": lambda ours: ours.replace("/sha256/", "/./sha256/"),
    "up to a file": lambda ours: f"{ours}/../../../../hub.db",
    "another bucket": lambda _: f"s3://other/risk-blobs/sha256/{DIGEST}",
    "another store": lambda _: f"redis:risk-blobs:sha256:{DIGEST}",
    "the web": lambda _: f"http://127.0.0.1:1/sha256/{DIGEST[:2]}/{DIGEST}.json",
    "the web, disguised": lambda ours: ours.replace("file://", "file://127.0.0.1"),
    "no scheme": lambda ours: ours.removeprefix("file://"),
    "upper case": lambda ours: ours.replace(DIGEST, DIGEST.upper()),
    "escaped": lambda ours: ours.replace("/sha256/", "/sha25%36/"),
    "another shard": lambda ours: ours.replace(f"/{DIGEST[:2]}/", "/00/"),
    "a line break": lambda ours: f"{ours}\n",
    "a null byte": lambda ours: f"{ours}\0",
    "the digest alone": lambda _: DIGEST,
    "nothing": lambda _: "",
    "a number": lambda _: 5,
    "null": lambda _: None,
    "true": lambda _: True,
    "a list": lambda ours: [ours],
    "an object": lambda ours: {"ref": ours},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_reference_that_is_not_ours_is_refused_and_never_fetched(
    tmp_path: Path,
    api: Api,
    offer: Offer,
    blobs: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    foreign: Callable[[str], Any],
) -> None:
    ours = blobs.put(canonical_json(COVARIANCE))
    # What is refused is there: it is not for want of content that it is.
    FileBlobs(tmp_path / "elsewhere").put(canonical_json(COVARIANCE))
    ref = foreign(ours)
    with nothing_is_read(monkeypatch):
        answer = offer(snapshot_document(**dict.fromkeys(BLOB_FIELDS.values(), ref)))
    assert sorted(refused_fields(answer)) == sorted(BLOB_FIELDS.values())
    assert "/etc/passwd" not in json.dumps(answer)
    assert api.get(f"{SNAPSHOTS}/latest").status_code == 404


def test_a_planted_link_is_refused_whatever_it_leads_to(
    tmp_path: Path, offer: Offer, blobs: BlobStore
) -> None:
    ref = blobs.put(canonical_json(COVARIANCE))
    elsewhere = tmp_path / "elsewhere"
    path_of(ref).rename(elsewhere)
    path_of(ref).symlink_to(elsewhere)
    answer = offer(snapshot_document(covariance_ref=ref))
    assert refused_fields(answer) == ["covariance_ref"]


def test_without_a_blob_store_every_reference_is_refused(
    api: Api, offer: Offer, blobs: BlobStore, hub: Hub
) -> None:
    ref = blobs.put(canonical_json(COVARIANCE))
    hub.blobs = None
    assert refused_fields(offer(snapshot_document(covariance_ref=ref))) == ["covariance_ref"]


# -- what is gone ---------------------------------------------------------------------------------


def vanish(ref: str) -> None:
    path_of(ref).unlink()


def alter(ref: str) -> None:
    path_of(ref).write_bytes(canonical_json(COVARIANCE | {"BAC,BAC": 0.05}))


GONE = pytest.mark.parametrize(("harm", "kind"), [(vanish, "missing"), (alter, "altered")])


@GONE
def test_a_blob_that_is_gone_is_refused_in_a_post_and_counted(
    api: Api, offer: Offer, blobs: BlobStore, harm: Callable[[str], None], kind: str
) -> None:
    ref = blobs.put(canonical_json(COVARIANCE))
    harm(ref)
    answer = offer(snapshot_document(covariance_ref=ref))
    assert refused_fields(answer) == ["covariance_ref"]
    assert f"is {kind}" in answer["detail"]
    assert blob_failures(api, kind) == 1


@GONE
def test_a_blob_that_is_gone_is_a_named_error_when_it_is_asked_for(
    api: Api, harm: Callable[[str], None], kind: str
) -> None:
    posted = post(api, **LARGE)
    ref = posted.json()["covariance_ref"]
    harm(ref)
    for count, url in enumerate([*EXPANDED, f"{SNAPSHOTS}?expand=true"], 1):
        problem = problem_of(api.get(url), 502)
        assert (problem["error"], problem["ref"]) == (f"blob_{kind}", ref)
        assert blob_failures(api, kind) == count
    assert api.get(f"{SNAPSHOTS}/latest").content == posted.content


@GONE
def test_a_post_heals_a_blob_that_is_gone(
    api: Api, offer: Offer, harm: Callable[[str], None], kind: str
) -> None:
    document = snapshot_document(**LARGE)
    offer(document)
    harm(stored(api)["covariance_ref"])
    assert offer(document)["status"] == 200
    assert stored(api, expand="true")["covariance"] == COVARIANCE


# -- when the blob store can't --------------------------------------------------------------------


@contextmanager
def blob_store_down(settings: Settings) -> Iterator[None]:
    """The directory of the blobs is no directory for a while."""
    directory = settings.blobs.directory
    assert directory is not None
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.touch()
    yield
    directory.unlink()
    aside.rename(directory)


def test_without_the_blob_store_what_needs_it_is_told_to_come_again(
    api: Api, hub: Hub, settings: Settings, blobs: BlobStore
) -> None:
    posted = post(api, **LARGE)
    lighter = raw_document(version="v2", covariance_ref=posted.json()["covariance_ref"])
    heavy = raw_document(version="v3", world_id=WORLD, **LARGE)
    with blob_store_down(settings):
        refuses_for_now(api.post(SNAPSHOTS, content=heavy))
        refuses_for_now(api.post(SNAPSHOTS, content=lighter))
        refuses_for_now(api.post(BATCH, content=heavy))
        for url in EXPANDED:
            refuses_for_now(api.get(url))
        refuses_for_now(api.get("/readyz"))
        assert b"risk_hub_snapshot_failed_total 3.0" in hub.telemetry.exposition([])
        assert blob_failures(api, "unavailable") == 3 + len(EXPANDED)
        # And what does not goes on.
        assert api.get(f"{SNAPSHOTS}/latest").content == posted.content
        assert post(api, version="small", as_of="2026-01-31T20:00:00Z").status_code == 201
    assert api.post(SNAPSHOTS, content=heavy).status_code == 201
    assert api.post(SNAPSHOTS, content=lighter).status_code == 201
    assert api.get("/readyz").json() == {"status": "ready", "store": "ok", "blobs": "ok"}


def test_a_rehearsal_needs_no_blob_store_for_what_is_inline(api: Api, settings: Settings) -> None:
    (settings.home / "blobs").mkdir(exist_ok=True)
    with blob_store_down(settings):
        assert post(api, to=f"{SNAPSHOTS}?dry_run=true", **LARGE).json()["status"] == 201


def test_references_that_are_gone_are_named_all_at_once(api: Api, blobs: BlobStore) -> None:
    refs = {ref: blobs.put(canonical_json({"n": [float(i)]})) for i, ref in enumerate(BLOB_FIELDS)}
    for ref in refs.values():
        vanish(ref)
    response = post(api, **{BLOB_FIELDS[field]: ref for field, ref in refs.items()})
    assert sorted(fields_of(response, 422)) == sorted(BLOB_FIELDS.values())
