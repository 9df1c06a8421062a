"""Where the next page of a list starts, as text that a client hands back."""

from datetime import datetime

from riskhub.snapshot import format_instant, parse_instant
from riskhub.strict_json import violation

Key = tuple[datetime, int]


def cursor_of(key: Key | None) -> str | None:
    """The cursor for a key; None at the end of a list."""
    if key is None:
        return None
    instant, position = key
    return f"{format_instant(instant)}_{position}"


def key_of(cursor: str | None) -> Key | None:
    """The key that a cursor stands for; None without one.

    Raises:
        ContractViolation: this hub gave no such cursor.
    """
    if cursor is None:
        return None
    instant, _, position = cursor.rpartition("_")
    try:
        if not (position.isascii() and position.isdecimal() and len(position) <= 18):
            raise ValueError("no position")
        return parse_instant(instant), int(position)
    except ValueError as error:
        raise violation("cursor", "is not a cursor that this hub gave") from error
