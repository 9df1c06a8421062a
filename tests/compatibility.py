"""Whether a version of a JSON Schema may follow another one: full compatibility, both ways.

Backward: who knows the newer one can read what was written by the older one. Forward: who knows the
older one can read what is written by the newer one. So a field may be added if it is optional, an
optional one may go, and all else stays as it is. What the checker does not know it refuses.
"""

from collections.abc import Iterator, Sequence
from typing import Any

Schema = dict[str, Any]

_SAID_ONLY = {"$schema", "$id", "$comment", "title", "description", "examples"}
_SAME = {
    *("const", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems"),
    *("minProperties", "maxProperties"),
}
_SETS = {"type", "enum", "required"}
_SCHEMAS = {"properties", "items", "additionalProperties"}
_ABSENT = object()


def breaks(older: Schema, newer: Schema, at: str = "data") -> Iterator[str]:
    """What keeps one from following the other; nothing when it may."""
    for keyword in sorted((older.keys() | newer.keys()) - _SAID_ONLY):
        before, after = older.get(keyword, _ABSENT), newer.get(keyword, _ABSENT)
        if keyword in _SETS:
            if _as_set(before) != _as_set(after):
                yield f"{at}: {keyword} {_shown(before)} has become {_shown(after)}"
        elif keyword in _SAME:
            if (type(before), before) != (type(after), after):
                yield f"{at}: {keyword} {_shown(before)} has become {_shown(after)}"
        elif keyword in _SCHEMAS:
            yield from _break_within(keyword, before, after, at)
        else:
            yield f"{at}: {keyword} is not known here"


def breaks_in(history: Sequence[Schema]) -> Iterator[str]:
    """What keeps any version from following any of those before it: transitively."""
    for number, newer in enumerate(history):
        for earlier, older in enumerate(history[:number]):
            yield from (f"v{earlier + 1} to v{number + 1}: {each}" for each in breaks(older, newer))


def closed(schema: Schema, at: str = "data") -> Iterator[str]:
    """Objects that a later version could add no field to."""
    if "properties" in schema and schema.get("additionalProperties") is not True:
        yield at
    for name, each in schema.get("properties", {}).items():
        yield from closed(each, f"{at}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from closed(schema[keyword], f"{at}[]")


def _break_within(keyword: str, before: Any, after: Any, at: str) -> Iterator[str]:
    if keyword == "properties":
        fields = (before, after)
        ours, theirs = ({} if each is _ABSENT else each for each in fields)
        for name in sorted(ours.keys() & theirs.keys()):
            yield from breaks(ours[name], theirs[name], f"{at}.{name}")
    elif isinstance(before, dict) and isinstance(after, dict):
        yield from breaks(before, after, f"{at}[]")
    elif before is not after:
        yield f"{at}: {keyword} {_shown(before)} has become {_shown(after)}"


def _as_set(value: Any) -> frozenset[Any]:
    if value is _ABSENT:
        return frozenset()
    listed = value if isinstance(value, list) else [value]
    return frozenset((type(each), each) for each in listed)


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)
