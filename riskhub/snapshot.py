"""The snapshot contract (v1): a document in, a validated `Snapshot` with its digest out.

The only place that knows the contract's fields, limits and hash. Pure: time is an argument,
nothing is read or stored. Each violation names its field.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from riskhub.digests import canonical_json, digest, floats_of, is_digest, readings_of
from riskhub.errors import ContractViolation, FieldError
from riskhub.strict_json import LARGEST, Document, join_path, shown, violation

DEFAULT_TTL_SEC = 900
MAX_TTL_SEC = 86_400
WEIGHT_SUM_TOLERANCE = 1e-3
MAX_POINTS_PER_SERIES = 200_000
MAX_POINTS = 1_000_000
DEFAULT_FUTURE_TOLERANCE = timedelta(minutes=5)

REF_FIELDS = ("covariance_ref", "realized_returns_ref", "stress_ref")
FIELDS = frozenset(
    {
        "world_id", "as_of", "version", "weights", "covariance", "realized_returns", "stress",
        "constraints", "ttl_sec", "provenance", "hash", "created_at", *REF_FIELDS,
    }
)  # fmt: skip

_WORLD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}([.,]\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One validated snapshot of a world, as it will be stored.

    `payload` is what the digest covers (canonical JSON); `body` is what the hub serves for ever:
    the payload with `hash` and `created_at`, large fields as references. `readings` are the other
    forms in which this content may have been digested. `as_of` and `received_at` are UTC instants.
    """

    world_id: str
    version: str
    as_of: datetime
    stage: str
    actor: str
    ttl_sec: int
    digest: str
    payload: bytes
    body: str
    received_at: datetime
    refs: tuple[str, ...] = ()
    readings: tuple[bytes, ...] = ()

    @property
    def expires_at(self) -> datetime:
        """When latest, list and lookup stop serving it; counted from the hub's receipt."""
        return self.received_at + timedelta(seconds=self.ttl_sec)

    def same_content(self, stored_digest: str) -> bool:
        """Whether `stored_digest`, in whichever algorithm, is the digest of this content."""
        if self.digest == stored_digest:
            return True
        algorithm, _, _ = stored_digest.partition(":")
        return any(
            digest(reading, algorithm) == stored_digest
            for reading in (self.payload, *self.readings)
        )


def validate(
    document: Document,
    *,
    world_id: str | None,
    actor: str,
    stage: str,
    received_at: datetime,
    future_tolerance: timedelta = DEFAULT_FUTURE_TOLERANCE,
    resolved: Document | None = None,
    offload: Callable[[Document], Document] | None = None,
) -> Snapshot:
    """Check a parsed document against the contract and normalise it.

    Args:
        document: as `parse_json` gives it; not changed.
        world_id: the world of the path; None where the body alone names it (the bulk door).
        actor: the producer, from ``X-Actor``.
        stage: such as ``paper`` or ``backtest``, from ``X-Stage``.
        received_at: the hub's clock, UTC.
        future_tolerance: how far ahead of `received_at` the snapshot's `as_of` may be.
        resolved: the values that the document's references stand for, by field; None where there
            is no blob store to resolve them with.
        offload: puts the large fields of what has been found right elsewhere, and gives the
            document with references to them.

    Raises:
        ContractViolation: with every field that breaks a rule.
    """
    errors = list(
        _violations(document, world_id, actor, stage, received_at, future_tolerance, resolved)
    )
    if errors:
        raise ContractViolation(*errors)

    content: Document = {
        key: value for key, value in document.items() if key not in ("hash", "created_at")
    }
    content["world_id"] = world_id or document["world_id"]
    content.setdefault("ttl_sec", DEFAULT_TTL_SEC)
    provenance = content.get("provenance", {}) | {"actor": actor, "stage": stage}
    content["provenance"] = provenance
    if "realized_returns" in content:
        content["realized_returns"] = floats_of(content["realized_returns"])

    offered = document.get("hash")
    payload, *readings = readings_of(content, resolved or {})
    algorithm = offered.partition(":")[0] if offered else "sha256"
    computed = digest(payload, algorithm)
    if offered and offered != computed:
        for reading in readings:
            if digest(reading, algorithm) == offered:
                payload, readings, computed = reading, [payload, *readings], offered
                break
        else:
            raise violation("hash", f"is {offered}, but the body's digest is {computed}")

    stored = content
    if "created_at" in document:
        # Kept for people; it decides nothing, so a retry with a new clock reading is a retry.
        produced = {"produced_at": document["created_at"], **provenance}
        stored = content | {"provenance": produced}
    if offload is not None:
        stored = offload(stored)
    as_stored = payload if stored is content and not readings else canonical_json(stored)
    return Snapshot(
        world_id=content["world_id"],
        version=content["version"],
        as_of=parse_instant(content["as_of"]),
        stage=stage,
        actor=actor,
        ttl_sec=content["ttl_sec"],
        digest=computed,
        payload=payload,
        body=_with_receipt(as_stored, computed, format_instant(received_at)),
        received_at=received_at,
        refs=tuple(stored[field] for field in REF_FIELDS if field in stored),
        readings=tuple(readings),
    )


def _with_receipt(payload: bytes, digest: str, created_at: str) -> str:
    """The payload with the two fields that it never has; written in, not serialised once more."""
    return f'{payload[:-1].decode("ascii")},"created_at":"{created_at}","hash":"{digest}"}}'


def parse_instant(text: str) -> datetime:
    """ISO 8601 with an offset or ``Z``, as a UTC instant; finer than a microsecond is cut.

    Raises:
        ValueError: anything else, also a time without an offset or outside years 1 to 9999.
    """
    if not _INSTANT.fullmatch(text):
        raise ValueError("must be ISO 8601 with an offset or Z, such as 2026-01-31T21:00:00Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999") from error


def format_instant(instant: datetime) -> str:
    """A UTC instant as the hub writes it: ``2026-01-31T21:00:00.000000Z``."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def covariance_pair(key: str) -> tuple[str, str] | None:
    """The two symbols of a covariance key ``A,B``; None when it isn't one."""
    first, comma, second = key.partition(",")
    return (first, second) if comma and _is_symbol(first) and _is_symbol(second) else None


# -- the contract, field by field -----------------------------------------------------------------


def _violations(
    document: Document,
    world_id: str | None,
    actor: str,
    stage: str,
    received_at: datetime,
    future_tolerance: timedelta,
    resolved: Document | None,
) -> Iterator[FieldError]:
    for key in document.keys() - FIELDS:
        yield FieldError(shown(key), "is not a field of the contract")
    yield from _check_world(document, world_id)
    if "version" not in document:
        yield FieldError("version", "is required")
    elif not _is_label(document["version"]):
        yield FieldError("version", "must be 1 to 128 printable characters")
    yield from _check_as_of(document, received_at + future_tolerance)
    yield from _check_weights(document)
    values = document | (resolved or {})
    if "covariance" in values:
        yield from _check_covariance(values["covariance"])
    if "realized_returns" in values:
        yield from _check_realized_returns(values["realized_returns"])
    if "stress" in values:
        yield from _check_stress(values["stress"])
    if "constraints" in document:
        yield from _check_constraints(document["constraints"])
    yield from _check_refs(document, resolved)
    ttl_sec = document.get("ttl_sec", DEFAULT_TTL_SEC)
    if type(ttl_sec) is not int or not 1 <= ttl_sec <= MAX_TTL_SEC:
        yield FieldError("ttl_sec", f"must be an integer from 1 to {MAX_TTL_SEC}")
    yield from _check_provenance(document.get("provenance", {}), actor, stage)
    if "created_at" in document and not _is_instant(document["created_at"]):
        yield FieldError("created_at", "must be ISO 8601 with an offset or Z")
    if "hash" in document and not is_digest(document["hash"]):
        yield FieldError("hash", "must be sha256:<64 hex digits> or blake3:<64 hex digits>")


def _check_world(document: Document, world_id: str | None) -> Iterator[FieldError]:
    named = document.get("world_id", world_id)
    if named is None:
        yield FieldError("world_id", "is required")
    elif not isinstance(named, str) or not is_world_id(named):
        yield FieldError("world_id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    elif world_id is not None and named != world_id:
        yield FieldError("world_id", f"is {named!r} in the body but {world_id!r} in the path")


def _check_as_of(document: Document, latest_allowed: datetime) -> Iterator[FieldError]:
    text = document.get("as_of")
    if not isinstance(text, str):
        yield FieldError("as_of", "is required, as ISO 8601 text with an offset or Z")
        return
    try:
        as_of = parse_instant(text)
    except ValueError as error:
        yield FieldError("as_of", str(error))
        return
    if as_of > latest_allowed:
        yield FieldError("as_of", "lies in the future of the hub's clock")


def _check_weights(document: Document) -> Iterator[FieldError]:
    weights = document.get("weights")
    if not isinstance(weights, dict) or not weights:
        yield FieldError("weights", "is required: an object of symbol to number")
        return
    sound = _all_symbols(weights) and _all_numbers(weights.values())
    for symbol, weight in {} if sound else weights.items():
        if not _is_symbol(symbol):
            problem = "is not a symbol (1 to 128 printable characters without a comma)"
        elif not _is_number(weight):
            problem = "must be a finite number"
        else:
            continue
        yield FieldError(join_path("weights", symbol), problem)
    if sound:
        try:
            # With the gross sum well in range no exposure made of these weights overflows.
            in_range = math.fsum(map(abs, weights.values())) < LARGEST / 2
        except OverflowError:
            in_range = False
        total = math.fsum(weights.values()) if in_range else math.inf
        if not 1 - WEIGHT_SUM_TOLERANCE <= total <= 1 + WEIGHT_SUM_TOLERANCE:
            yield FieldError("weights", f"sum to {total:.6g}, not to 1.0 ± {WEIGHT_SUM_TOLERANCE}")


def _check_covariance(covariance: Any) -> Iterator[FieldError]:
    if not isinstance(covariance, dict) or not covariance:
        yield FieldError("covariance", 'must be an object of "A,B" to number')
        return
    listed: dict[str, None] = {}  # a set that keeps the order, for the order of the errors
    for key, value in covariance.items():
        first, _, second = key.partition(",")
        if first not in listed or second not in listed:
            if covariance_pair(key) is None:
                yield FieldError(join_path("covariance", key), "is not a pair of symbols A,B")
                continue
            listed |= {first: None, second: None}
        if not _is_number(value):
            yield FieldError(join_path("covariance", key), "must be a finite number")
        elif first == second:
            if value < 0:
                yield FieldError(
                    join_path("covariance", key), "is a variance and must not be negative"
                )
        elif first > second:  # of two mirrored pairs one is seen here
            mirror = f"{second},{first}"
            mirrored = covariance.get(mirror, value)
            if _is_number(mirrored) and not math.isclose(value, mirrored, rel_tol=1e-9):
                yield FieldError(
                    join_path("covariance", mirror), f"differs from {key}: not symmetric"
                )
    for symbol in listed:
        if f"{symbol},{symbol}" not in covariance:
            yield FieldError(f"covariance.{symbol},{symbol}", "is missing: no variance of it")


def _check_realized_returns(realized: Any) -> Iterator[FieldError]:
    if not isinstance(realized, dict) or not realized:
        yield FieldError("realized_returns", "must be an object of series to a list of numbers")
        return
    total = 0
    for series, points in realized.items():
        path = join_path("realized_returns", series)
        if not _is_label(series):
            yield FieldError(path, "is not a name (1 to 128 printable characters)")
        if not isinstance(points, list) or not points:
            yield FieldError(path, "must be a list of numbers, oldest first")
            continue
        total += len(points)
        if len(points) > MAX_POINTS_PER_SERIES:
            yield FieldError(path, f"has more than {MAX_POINTS_PER_SERIES} points")
        for index, point in enumerate(points):
            if not _is_number(point):
                yield FieldError(f"{path}[{index}]", "must be a finite number")
                break
    if total > MAX_POINTS:
        yield FieldError("realized_returns", f"has more than {MAX_POINTS} points in all")


def _check_stress(stress: Any) -> Iterator[FieldError]:
    if not isinstance(stress, dict):
        yield FieldError("stress", "must be an object of scenario to measures")
        return
    for scenario, measures in stress.items():
        if not isinstance(measures, dict):
            yield FieldError(
                join_path("stress", scenario), "must be an object of measure to number"
            )
            continue
        for measure, value in measures.items():
            if not _is_number(value):
                path = join_path(join_path("stress", scenario), measure)
                yield FieldError(path, "must be a finite number")


def _check_constraints(constraints: Any) -> Iterator[FieldError]:
    if not isinstance(constraints, dict):
        yield FieldError("constraints", "must be an object")
        return
    if not constraints.keys() & {"candidate_id", "candidate_weight"}:
        return
    if not _is_label(constraints.get("candidate_id")):
        yield FieldError("constraints.candidate_id", "must be 1 to 128 printable characters")
    weight = constraints.get("candidate_weight")
    if not _is_number(weight) or not 0 < weight <= 1:
        yield FieldError("constraints.candidate_weight", "must be a number in (0, 1]")


def _check_refs(document: Document, resolved: Document | None) -> Iterator[FieldError]:
    for field in REF_FIELDS:
        if field not in document:
            continue
        inline_field = field.removesuffix("_ref")
        if not isinstance(document[field], str):
            yield FieldError(field, "must be a reference, as text")
        elif inline_field in document:
            yield FieldError(field, f"and {inline_field}: only one of them can be the truth")
        elif resolved is None:
            yield FieldError(field, "is refused: no blob store is configured; send it inline")


def _check_provenance(provenance: Any, actor: str, stage: str) -> Iterator[FieldError]:
    if not isinstance(provenance, dict):
        yield FieldError("provenance", "must be an object")
        return
    for name, header, value in (("actor", "X-Actor", actor), ("stage", "X-Stage", stage)):
        if not _is_label(value):
            yield FieldError(header, "must be 1 to 128 printable characters")
        if provenance.get(name, value) != value:
            yield FieldError(f"provenance.{name}", f"differs from the header {header}")


def is_world_id(text: str) -> bool:
    """Whether `text` can name a world."""
    return _WORLD_ID.fullmatch(text) is not None


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable()


def _is_symbol(value: Any) -> bool:
    return _is_label(value) and "," not in value


def _all_symbols(keys: Collection[str]) -> bool:
    """Whether each of these texts is a symbol; asked of thousands at once."""
    joined = "".join(keys)
    lengths = set(map(len, keys))
    return joined.isprintable() and "," not in joined and min(lengths) > 0 and max(lengths) <= 128


def _all_numbers(values: Collection[Any]) -> bool:
    return set(map(type, values)) <= {float, int} and all(
        -LARGEST <= value <= LARGEST for value in values
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (float, int) and -LARGEST <= value <= LARGEST


def _is_instant(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse_instant(value))
    except ValueError:
        return False
