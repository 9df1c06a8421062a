"""Fields of a snapshot into the blob store, and back.

A snapshot carries a large field itself or, under another name, the reference of a blob that holds
the field's canonical JSON. Whether a document is valid is not asked here: what isn't well-formed
stays where it is, for the contract to refuse by name.
"""

from collections.abc import Collection, Mapping
from typing import Any

from riskhub.blobs.store import BlobStore, Puts, refused
from riskhub.digests import canonical_json
from riskhub.errors import BlobAltered, ContractViolation
from riskhub.strict_json import LARGEST, Document, parse_json

BLOB_FIELDS: Mapping[str, str] = {
    "covariance": "covariance_ref",
    "realized_returns": "realized_returns_ref",
    "stress": "stress_ref",
}
"""Each field that a blob can stand in for, and the field that then holds the reference."""


def offload(document: Document, blobs: Puts, threshold: int) -> Document:
    """A new document, in which each large field is replaced by the reference of its blob.

    Args:
        document: a snapshot, valid or not; not changed.
        blobs: where the content is put before its reference is written.
        threshold: how many numbers a field may hold and still stay inline.

    Raises:
        BlobsUnavailable: nothing is lost, and fields already put do no harm there.
    """
    lighter = dict(document)
    for field, ref_field in BLOB_FIELDS.items():
        if field not in document or ref_field in document:
            continue
        content = _blob_of(field, document[field], threshold)
        if content is not None:
            del lighter[field]
            lighter[ref_field] = blobs.put(content)
    return lighter


def resolve(document: Document, blobs: BlobStore) -> Document:
    """The values that the document's references stand for, such as ``{"covariance": {...}}``.

    Raises:
        RefRefused: a reference that this store doesn't mint, or that isn't text; not fetched.
        BlobMissing, BlobAltered, BlobsUnavailable: as `BlobStore.get`; a blob that isn't a JSON
            object is altered, too.
    """
    return {
        field: _value_of(document[ref_field], blobs)
        for field, ref_field in BLOB_FIELDS.items()
        if ref_field in document
    }


def refs_of(document: Document) -> list[str]:
    """The references in a document, whoever minted them."""
    refs = (document.get(ref_field) for ref_field in BLOB_FIELDS.values())
    return [ref for ref in refs if isinstance(ref, str)]


def _value_of(ref: Any, blobs: BlobStore) -> Document:
    if not isinstance(ref, str):
        raise refused(ref)
    try:
        return parse_json(blobs.get(ref))
    except ContractViolation as error:
        raise BlobAltered(ref, f"the blob is not a field of a snapshot ({error})") from error


def _blob_of(field: str, value: Any, threshold: int) -> bytes | None:
    """The content for the blob store; None for a field that is small or not well-formed."""
    try:
        rows = _rows(field, value)
        if sum(map(len, rows)) <= threshold or not all(map(_all_numbers, rows)):
            return None
        if field == "realized_returns":
            value = {series: list(map(float, points)) for series, points in value.items()}
        content = canonical_json(value)
        if b"\\ud" in content:  # a character beyond 16 bits, or half of one: no text to read again
            parse_json(content)
        return content
    except (AttributeError, TypeError, ValueError, ContractViolation):
        return None


def _rows(field: str, value: Any) -> list[Collection[Any]]:
    if field == "covariance":
        return [value.values()]
    if field == "stress":
        return [measures.values() for measures in value.values()]
    return list(value.values())


def _all_numbers(row: Collection[Any]) -> bool:
    # A series is a hundred thousand floats: they are asked all at once.
    kinds = set(map(type, row))
    return (
        bool not in kinds
        and all(issubclass(kind, float | int) for kind in kinds)
        and min(row, default=0) >= -LARGEST
        and max(row, default=0) <= LARGEST
    )
