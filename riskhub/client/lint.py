"""A snapshot file against the contract, offline: what is wrong, and what may have been meant."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from riskhub.digests import verify_digest
from riskhub.errors import ContractViolation, FieldError
from riskhub.snapshot import DEFAULT_TTL_SEC, MAX_TTL_SEC, parse_instant, validate
from riskhub.strict_json import Document, parse_json

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What there is to say of one file. Without problems there is a `digest`, if it is known."""

    problems: tuple[FieldError, ...]
    hints: tuple[str, ...]
    digest: str | None = None


def lint(
    raw: bytes,
    *,
    world_id: str | None,
    actor: str | None,
    stage: str | None,
    now: datetime,
    stale_after: timedelta,
    future_tolerance: timedelta,
) -> Finding:
    """Check a file's bytes as the hub would.

    Args:
        world_id, actor, stage: as they will be posted; None for those in the file itself.
        now: the hub's clock, UTC.
        stale_after: the age of `as_of` from which on a world counts as stale.
    """
    try:
        document = parse_json(raw)
    except ContractViolation as violation:
        return Finding(violation.errors, ())
    provenance = document.get("provenance")
    given = provenance if isinstance(provenance, dict) else {}
    actor = actor or _text(given.get("actor"))
    stage = stage or _text(given.get("stage"))
    named = bool(actor and stage and (world_id or "world_id" in document))
    hints = list(_hints(document, now, stale_after))
    problems: tuple[FieldError, ...] = ()
    digest = None
    try:
        snapshot = validate(
            document,
            world_id=world_id or (None if "world_id" in document else UNKNOWN),
            actor=actor or UNKNOWN,
            stage=stage or UNKNOWN,
            received_at=now,
            future_tolerance=future_tolerance,
            resolved={},
        )
        digest = snapshot.digest if named else None
    except ContractViolation as violation:
        problems = violation.errors
        if any(error.field == "hash" for error in problems):
            hints.append(_about_hash(document, actor, stage))
    if not named:
        hints.append(
            "the digest covers world, actor and stage: name them with --world, --actor and --stage"
        )
    return Finding(problems, tuple(hints), digest)


def _hints(document: Document, now: datetime, stale_after: timedelta) -> Iterator[str]:
    yield from _about_weights(document.get("weights"))
    as_of, created_at = _instant(document.get("as_of")), _instant(document.get("created_at"))
    if as_of and now - as_of >= stale_after:
        yield f"as_of is {_long(now - as_of)} old: the world counts as stale"
    ttl_sec = document.get("ttl_sec", DEFAULT_TTL_SEC)
    if type(ttl_sec) is not int or not 1 <= ttl_sec <= MAX_TTL_SEC:
        return
    if created_at and created_at + timedelta(seconds=ttl_sec) <= now:
        yield (
            f"ttl_sec has run out since it was made {_long(now - created_at)} ago; "
            "posted now it counts again, from the hub's receipt"
        )


def _about_weights(weights: Any) -> Iterator[str]:
    if not isinstance(weights, dict) or not weights:
        return
    values = [value for value in weights.values() if type(value) in (float, int)]
    if len(values) != len(weights):
        return
    total = math.fsum(values)
    if math.isclose(total, 100, rel_tol=1e-3):
        yield "weights look like percentages: divide them by 100"
    elif abs(total) < 1e-3:
        yield "weights of a long-short book without capital sum to 0: add what is held in cash"
    elif abs(total - 1) > 1e-3:
        yield f"weights lack {1 - total:.6g}: cash is a position too, or they want normalising"


def _about_hash(document: Document, actor: str | None, stage: str | None) -> str:
    if verify_digest(document):
        return (
            "hash is that of the body as it stands; it must cover world_id, ttl_sec and "
            "provenance.actor and .stage as well, which the hub fills in"
        )
    named = f"as {actor or UNKNOWN}, {stage or UNKNOWN}"
    return f"hash covers the body with sorted keys, without spaces ({named}); or leave it out"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _instant(value: Any) -> datetime | None:
    try:
        return parse_instant(value)
    except (ValueError, TypeError):
        return None


def _long(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
