"""Fields of a snapshot into the blob store and back."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from builders import snapshot_document
from hypothesis import given
from hypothesis import strategies as st

from riskhub.blobs import BLOB_FIELDS, BlobStore, offload, refs_of, resolve
from riskhub.blobs.file import FileBlobs
from riskhub.errors import BlobAltered, BlobMissing, RefRefused
from riskhub.snapshot import REF_FIELDS

COVARIANCE = {"BAC,BAC": 0.0004, "JPM,JPM": 2, "BAC,JPM": 0.0001}
RETURNS = {"BAC": [0.01, -0.02, 0], "JPM": [1, 0.5]}
STRESS = {"2008": {"loss": -0.4, "days": 250}, "calm": {}}
FIELDS = {"covariance": COVARIANCE, "realized_returns": RETURNS, "stress": STRESS}


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path)


def canonical(value: Any) -> bytes:
    """The contract's form, from nothing of riskhub's."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_the_contract_knows_these_references() -> None:
    assert tuple(BLOB_FIELDS.values()) == REF_FIELDS


def test_large_fields_go_and_their_references_stay(blobs: BlobStore) -> None:
    document = snapshot_document(**FIELDS, constraints={"a": [1, 2, 3]})
    before = copy.deepcopy(document)

    lighter = offload(document, blobs, 1)

    assert document == before
    assert lighter == snapshot_document(
        constraints={"a": [1, 2, 3]},
        covariance_ref=blobs.put(canonical(COVARIANCE)),
        realized_returns_ref=blobs.put(b'{"BAC":[0.01,-0.02,0.0],"JPM":[1.0,0.5]}'),
        stress_ref=blobs.put(canonical(STRESS)),
    )
    assert sorted(refs_of(lighter)) == sorted(blobs.refs())
    assert resolve(lighter, blobs) == FIELDS


@pytest.mark.parametrize(
    ("field", "numbers"), [("covariance", 3), ("realized_returns", 5), ("stress", 2)]
)
def test_a_field_goes_when_it_holds_more_numbers_than_the_threshold(
    blobs: BlobStore, field: str, numbers: int
) -> None:
    document = snapshot_document(**{field: FIELDS[field]})

    assert offload(document, blobs, numbers) == document
    assert list(blobs.refs()) == []

    lighter = offload(document, blobs, numbers - 1)
    assert field not in lighter
    assert refs_of(lighter) == [lighter[BLOB_FIELDS[field]]]


def test_an_integer_stays_one_except_among_returns(blobs: BlobStore) -> None:
    resolved = resolve(offload(snapshot_document(**FIELDS), blobs, 0), blobs)

    assert type(resolved["covariance"]["JPM,JPM"]) is int
    assert type(resolved["stress"]["2008"]["days"]) is int
    points = [point for series in resolved["realized_returns"].values() for point in series]
    assert set(map(type, points)) == {float}


def test_an_offloaded_document_stays_as_it_is(blobs: BlobStore) -> None:
    lighter = offload(snapshot_document(**FIELDS), blobs, 0)
    assert offload(lighter, blobs, 0) == lighter


def test_a_field_beside_its_own_reference_is_left_for_the_contract_to_refuse(
    blobs: BlobStore,
) -> None:
    document = snapshot_document(covariance=COVARIANCE, covariance_ref="anything")
    assert offload(document, blobs, 0) == document
    assert list(blobs.refs()) == []


@pytest.mark.parametrize("field", BLOB_FIELDS)
@pytest.mark.parametrize(
    "malformed",
    [
        None, 7, "text", [], [0.1, 0.2], {"a": None}, {"a": "0.1", "b": "0.2"}, {"a": [[1], [2]]},
        {"a": True, "b": False}, {"a": [True, 1]}, {"a": {"b": True}}, {"a": {"b": [1, 2]}},
        {"a": float("nan"), "b": 1}, {"a": [float("inf"), 1]}, {"a": {"b": float("nan")}},
        {"a": [0.1, float("nan")]}, {"a": 10**400, "b": 1}, {"a": [10**400]}, {"a": {"b": 10**400}},
        {"\ud800": 0.1, "b": 1}, {"\ud800": [0.1]}, {"a": {"\ud800": 0.1}},
        {1: 0.1, "b": 1}, {(1,): [0.1]}, {"a": [1j]}, {"a": [0.1], "b": 1}, {"a": {"b": 1}, "c": 2},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_malformed_stays_for_the_contract_to_refuse(
    blobs: BlobStore, field: str, malformed: Any
) -> None:
    document = snapshot_document(**{field: malformed})
    assert offload(document, blobs, 0) is not document
    assert offload(document, blobs, 0)[field] is malformed
    assert list(blobs.refs()) == []


def test_a_document_without_references_resolves_to_nothing(blobs: BlobStore) -> None:
    assert resolve(snapshot_document(**FIELDS), blobs) == {}
    assert refs_of(snapshot_document(**FIELDS)) == []


@pytest.mark.parametrize("ref", [None, 7, "", [], {"a": 1}, "file:///etc/passwd", "\ud800"])
def test_a_foreign_reference_is_refused_by_name(blobs: BlobStore, ref: Any) -> None:
    with pytest.raises(RefRefused, match="not a reference of the configured blob store"):
        resolve({"stress_ref": ref}, blobs)


def test_a_reference_to_nothing_is_missing(blobs: BlobStore) -> None:
    lighter = offload(snapshot_document(stress=STRESS), blobs, 0)
    blobs.delete(lighter["stress_ref"])
    with pytest.raises(BlobMissing) as caught:
        resolve(lighter, blobs)
    assert caught.value.ref == lighter["stress_ref"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[1,2]", b"{", b"null", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff", b'{"a":"\\ud800"}'],
)
def test_a_blob_that_is_no_json_object_is_altered(blobs: BlobStore, content: bytes) -> None:
    ref = blobs.put(content)
    with pytest.raises(BlobAltered) as caught:
        resolve({"covariance_ref": ref}, blobs)
    assert caught.value.ref == ref


floats = st.floats(allow_nan=False, allow_infinity=False)
numbers = floats | st.integers()
points = floats | st.integers(-(2**53), 2**53)  # of a return, an integer becomes a float
names = st.text(st.characters(codec="utf-8"))
covariances = st.dictionaries(names, numbers)
returns = st.dictionaries(names, st.lists(points))
stresses = st.dictionaries(names, st.dictionaries(names, numbers))


@given(
    fields=st.fixed_dictionaries(
        {}, optional={"covariance": covariances, "realized_returns": returns, "stress": stresses}
    ),
    threshold=st.integers(0, 6),
)
def test_whatever_is_offloaded_resolves_to_what_it_was(
    fields: dict[str, Any], threshold: int
) -> None:
    counted: dict[str, Callable[[Any], int]] = {
        "covariance": len,
        "realized_returns": lambda value: sum(map(len, value.values())),
        "stress": lambda value: sum(map(len, value.values())),
    }
    with TemporaryDirectory() as directory:
        blobs = FileBlobs(Path(directory))
        lighter = offload(fields, blobs, threshold)
        resolved = resolve(lighter, blobs)

    large = {field for field, value in fields.items() if counted[field](value) > threshold}
    assert resolved.keys() == large
    inline = {field: value for field, value in lighter.items() if field in BLOB_FIELDS}
    assert inline | resolved == fields
    for field in large:
        content = canonical(resolved[field])
        assert lighter[BLOB_FIELDS[field]].endswith(f"{hashlib.sha256(content).hexdigest()}.json")
