"""JSON as a contract that decides about money needs it: strict, and naming what it refuses.

Knows nothing of snapshots. Python's parser takes NaN, infinities, duplicate keys and lone
surrogates; here each is a `ContractViolation` with the path of the field.
"""

import json
import sys
from collections.abc import Collection, Iterable
from typing import Any

from riskhub.errors import ContractViolation, FieldError

Document = dict[str, Any]

MAX_DEPTH = 32
LARGEST = sys.float_info.max  # an integer beyond it would be infinite in the first sum it enters


def parse_json(raw: bytes) -> Document:
    """A JSON object from bytes, strictly.

    Raises:
        ContractViolation: not UTF-8, not JSON, not an object, NaN or Infinity, a number too large
            for a float, a duplicate key, a lone surrogate, or nesting deeper than 32.
    """
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise violation("body", f"is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise violation("body", f"is nested deeper than {MAX_DEPTH}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise violation("body", f"is not JSON: {error.msg} at {where}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise violation("body", "has a number with too many digits") from error
    if not isinstance(document, dict):
        raise violation("body", "must be a JSON object")
    _refuse_unstorable(document, may_have_surrogates=b"\\u" in raw)
    return document


def join_path(path: str, key: str | int) -> str:
    """The path of a field below another, such as ``weights.AAPL`` or ``points[3]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{shown(key)}" if path else shown(key)


def shown(key: str) -> str:
    """A producer's key as an error may repeat it: short and printable."""
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= 64 else f"{text[:61]}..."


def violation(field: str, message: str) -> ContractViolation:
    """A violation of one field."""
    return ContractViolation(FieldError(field, message))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise violation(shown(twice), "is given twice in one object")
    return document


def _no_constant(name: str) -> None:
    raise violation("body", f"holds {name}, which is not a JSON number")


def _refuse_unstorable(document: Document, *, may_have_surrogates: bool) -> None:
    """One pass over the values: finite numbers, bounded depth, text that UTF-8 can carry."""
    # Only containers are queued: a series of returns is a million floats.
    pending: list[tuple[str, Document | list[Any], int]] = [("", document, 1)]
    while pending:
        path, container, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise violation(path, f"is nested deeper than {MAX_DEPTH}")
        if may_have_surrogates and isinstance(container, dict):
            for key in container:
                _refuse_surrogates(path or "body", key)
        if _all_finite(container.values() if isinstance(container, dict) else container):
            continue
        items: Iterable[tuple[str | int, Any]] = (
            container.items() if isinstance(container, dict) else enumerate(container)
        )
        for place, item in items:
            if isinstance(item, float | int):
                if not -LARGEST <= item <= LARGEST:
                    raise violation(join_path(path, place), "is too large for a number")
            elif isinstance(item, dict | list):
                pending.append((join_path(path, place), item, depth + 1))
            elif isinstance(item, str) and may_have_surrogates:
                _refuse_surrogates(join_path(path, place), item)


def _all_finite(values: Collection[Any]) -> bool:
    """Whether these are numbers that sums can carry; False also when that takes a closer look.

    Weights, covariances and series are thousands of floats: their types and their sum are asked
    for at once, and only where that can't settle it are they looked at one by one.
    """
    return set(map(type, values)) <= {float} and sum(map(abs, values)) <= LARGEST


def _refuse_surrogates(path: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise violation(path, "holds a lone surrogate, which is not text") from error
