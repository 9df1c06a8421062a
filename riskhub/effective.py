"""The effective settings, written out for people and programs, with every secret masked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from pydantic import BaseModel, SecretStr

from riskhub.environment import given_as
from riskhub.settings import Settings, depth, given_in_environment, given_in_file

MASK = "***"
_SECRET_NAMES = {"sha256", "s3_access_key_id"}

Origin = Literal["default", "file", "environment", "named file"]


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting: its path such as ``governor.mode``, its value as JSON has it, its origin.

    A `named file` is one that ``RISKHUB_<NAME>_FILE`` names.
    """

    key: str
    value: Any
    origin: Origin


def effective(settings: Settings) -> list[Effective]:
    """All settings, in the order of their definition.

    Args:
        settings: from `load_settings` of this process; of others the origin isn't known.
    """
    in_environment, in_file = given_in_environment(), given_in_file()

    def origin(path: tuple[str, ...]) -> Origin:
        if depth(in_environment, path) == len(path):
            return "named file" if _is_in_named_file(path) else "environment"
        return "file" if depth(in_file, path) == len(path) else "default"

    return [
        Effective(".".join(path), _masked(path[-1], value), origin(path))
        for path, value in _leaves(settings)
    ]


def masked_url(text: str) -> str:
    """A URL without what may be secret: its password, a user without one, such parameters."""
    text = re.sub(r"^([^:/?]+://)?([^:/?@]*:)?.*@", rf"\1\2{MASK}@", text, flags=re.DOTALL)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", rf"\1{MASK}", text)


def _is_in_named_file(path: tuple[str, ...]) -> bool:
    nearest = (given_as(path[:length]) for length in range(len(path), 0, -1))
    return next(filter(None, nearest), "").endswith("_FILE")


def _leaves(settings: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in _fields(settings):
        if isinstance(value, BaseModel) or is_dataclass(value):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _fields(settings: Any) -> Iterator[tuple[str, Any]]:
    """Of a pydantic model, or a dataclass."""
    if isinstance(settings, BaseModel):
        yield from settings
    else:
        yield from ((field.name, getattr(settings, field.name)) for field in fields(settings))


def _masked(name: str, value: Any) -> Any:
    """As JSON has it, without what is secret."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr) or name in _SECRET_NAMES:
        return MASK
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        return {key: _masked(key, item) for key, item in value.items()}
    if isinstance(value, tuple | frozenset):
        items = sorted(value) if isinstance(value, frozenset) else value
        return [_masked(name, item) for item in items]
    return masked_url(str(value))
