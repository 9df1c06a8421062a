"""From a producer's document to the bytes that are sent, the same at each attempt.

With the hub's own code: what it would refuse is refused here, before anything is sent, and the
digest is the one that it will find.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from riskhub.blobs import BLOB_FIELDS, BlobStore, offload
from riskhub.digests import canonical_json, digest
from riskhub.errors import BlobsUnavailable, ContractViolation, FieldError
from riskhub.snapshot import DEFAULT_FUTURE_TOLERANCE, validate
from riskhub.strict_json import LARGEST, Document, join_path, parse_json, violation

_log = logging.getLogger("riskhub.client")


@dataclass(frozen=True, slots=True)
class Prepared:
    """One snapshot as it goes out. `offloaded` are the fields that the body names by reference."""

    world_id: str
    version: str
    digest: str
    body: bytes = field(repr=False)
    offloaded: Document = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a producer says of all its snapshots, and where it keeps their large fields."""

    actor: str
    stage: str
    blobs: BlobStore | None = None
    threshold: int = 4096
    future_tolerance: timedelta = DEFAULT_FUTURE_TOLERANCE

    def prepare(self, document: Document, world_id: str | None, now: datetime) -> Prepared:
        """Check a document, move its large fields to the blob store, and hash what is left.

        Raises:
            ContractViolation: naming each field that the hub would refuse.
        """
        plain = as_json(document)
        snapshot = validate(
            plain,
            world_id=world_id,
            actor=self.actor,
            stage=self.stage,
            received_at=now,
            future_tolerance=self.future_tolerance,
            resolved={},  # what is behind a reference that the document came with, the hub judges
        )
        payload, digest_text, offloaded = snapshot.payload, snapshot.digest, Document()
        if self.blobs is not None and plain.keys() & BLOB_FIELDS.keys():
            content = json.loads(payload)
            sent = self._offload(content, self.blobs)
            offloaded = {key: value for key, value in content.items() if key not in sent}
            if offloaded:
                payload = canonical_json(sent)
                digest_text = digest(payload, snapshot.digest.partition(":")[0])
        receipt = {"hash": digest_text}
        if "created_at" in plain:
            receipt["created_at"] = plain["created_at"]
        body = payload[:-1] + b"," + canonical_json(receipt)[1:]
        return Prepared(snapshot.world_id, snapshot.version, digest_text, body, offloaded)

    def _offload(self, content: Document, blobs: BlobStore) -> Document:
        try:
            return offload(content, blobs, self.threshold)
        except BlobsUnavailable as error:
            # Inline it is the same snapshot to the hub, which offloads it itself.
            _log.warning("%s; large fields go inline", error)
            return content

    def offload_again(self, offloaded: Document) -> None:
        """Put fields back that the blob store lost; their references are what they were."""
        if self.blobs is not None:
            offload(offloaded, self.blobs, self.threshold)


def as_json(document: Document) -> Document:
    """A copy of a document with nothing in it but what JSON has.

    Raises:
        ContractViolation: NaN or infinity (by field), or a value that is not JSON at all.
    """
    try:
        raw = json.dumps(document, allow_nan=False)
    except TypeError as error:
        raise violation("body", f"is not JSON: {error}") from error
    except ValueError as error:  # NaN, an infinity, or a document that holds itself
        found = list(_not_finite("", document, depth=1))
        raise ContractViolation(*found or [FieldError("body", f"is not JSON: {error}")]) from error
    except RecursionError as error:
        raise violation("body", "is nested too deeply") from error
    return parse_json(raw.encode())


def _not_finite(path: str, value: Any, depth: int) -> Iterator[FieldError]:
    if isinstance(value, float) and not -LARGEST <= value <= LARGEST:
        yield FieldError(path, f"is {value}, not a finite number")
    elif isinstance(value, dict | list | tuple) and depth < 32:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            place = key if isinstance(key, int) else str(key)
            yield from _not_finite(join_path(path, place), item, depth + 1)
