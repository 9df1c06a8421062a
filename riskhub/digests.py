"""What the digest of a snapshot covers, and how it is taken.

Pure. Knows the contract's hash rule and nothing of its fields' rules.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import blake3

from riskhub.strict_json import Document

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_DIGESTS: Mapping[str, Callable[[bytes], str]] = {
    "sha256": lambda payload: hashlib.sha256(payload).hexdigest(),
    "blake3": lambda payload: str(blake3.blake3(payload).hexdigest()),
}


def canonical_json(content: Document) -> bytes:
    """The form that digests cover: sorted keys, no spaces, floats as `repr`, ASCII."""
    return _CANONICAL.encode(content).encode("ascii")


def digest(payload: bytes, algorithm: str = "sha256") -> str:
    """``sha256:<hex>`` or ``blake3:<hex>`` of canonical JSON."""
    return f"{algorithm}:{_DIGESTS[algorithm](payload)}"


def is_digest(value: Any) -> TypeGuard[str]:
    """Whether it is the text of a digest, of whatever."""
    return (
        isinstance(value, str) and re.fullmatch(r"(sha256|blake3):[0-9a-f]{64}", value) is not None
    )


def verify_digest(document: Document, resolved: Document | None = None) -> bool:
    """Whether the `hash` of a body is the digest of its content.

    Args:
        document: a snapshot as the hub serves it.
        resolved: the values that its references stand for, by field. Where the producer digested
            before it offloaded, or the hub offloaded, the hash covers these.
    """
    offered = document.get("hash")
    if not is_digest(offered):
        return False
    content = {key: value for key, value in document.items() if key not in ("hash", "created_at")}
    algorithm, _, _ = offered.partition(":")
    return any(digest(each, algorithm) == offered for each in readings_of(content, resolved or {}))


def inline(document: Document, resolved: Document) -> Document:
    """The document with its references replaced by what they stand for."""
    kept = {
        key: value for key, value in document.items() if key.removesuffix("_ref") not in resolved
    }
    if "realized_returns" in resolved:  # whoever put them there may have written 0 for 0.0
        resolved = resolved | {"realized_returns": floats_of(resolved["realized_returns"])}
    return kept | resolved


def readings_of(content: Document, resolved: Document) -> list[bytes]:
    """What a digest of this content may cover: as it stands, first; then as others read it.

    A client of the first generation takes its hash before it offloads; and `produced_at`, which
    the hub writes where a producer sent `created_at`, was in no producer's hash.
    """
    forms = [content]
    if resolved:
        forms.append(inline(content, resolved))
    provenance = content.get("provenance")
    if isinstance(provenance, dict) and "produced_at" in provenance:
        rest = {key: value for key, value in provenance.items() if key != "produced_at"}
        forms += [form | {"provenance": rest} for form in forms]
    return [canonical_json(form) for form in forms]


def floats_of(realized: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Realized returns with every point a float, as digests have them."""
    return {series: list(map(float, points)) for series, points in realized.items()}
