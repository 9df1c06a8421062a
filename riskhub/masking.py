"""What must not be logged, taken out of what is about to be: by name, by form, and by value. Pure.

A field whose name says that it is secret loses its value; in each text the user and password of a
URL, what follows ``Bearer``, ``password=`` and the like are replaced, and so is every value that
the caller knows to be secret, wherever it stands.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

MASK = "***"

_NAMES = r"pass(?:word|wd|phrase)?|pwd|secret|token|authori[sz]ation|dsn|credentials?|cookie"
_KEYS = r"(?:api|access|private|secret)[_-]?key(?:[_-]?id)?"
_SECRET_NAME = re.compile(rf"(?i)(?:^|[_.-])(?:{_NAMES}|{_KEYS})s?(?:$|[_.-])")
# To the last @ of what has no space: a password that was not escaped may hold one, or a slash.
_IN_URL = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://)[^\s"'<>]*@""")
_ASSIGNED = re.compile(
    rf"""(?ix) ( (?:{_NAMES}|{_KEYS}) [\w-]{{0,64}} )
    (?: (\s?=\s?["']?) [^\s,;&"']+  |  (["']\s*:\s*["']) [^"']+ )"""
)
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*:\s*)[^\r\n]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}")
_SHORTEST = 6
_DEEPEST = 8


class Mask:
    """Masks values; made once, for the secrets that a process has."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        """Know these to be secret.

        Args:
            secrets: of fewer than six characters they are not looked for: they'd be found in words.
        """
        # The longest first: one may be in another.
        self._secrets = sorted({one for one in secrets if len(one) >= _SHORTEST}, key=len)[::-1]

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """A value of JSON, or another object as its text, without what is secret."""
        if type(value) is str:
            return self.text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth > _DEEPEST:
            return MASK
        if isinstance(value, Mapping):
            return {
                key: MASK if item is not None and is_secret_name(key) else self(item, depth + 1)
                for key, item in ((self.text(str(key)), item) for key, item in value.items())
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self(item, depth + 1) for item in value]
        return self.text(str(value))

    def text(self, text: str) -> str:
        """A text without what is secret."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        if "=" not in text and ":" not in text and " " not in text:
            return text  # none of the forms can be in it, and most texts cost only this
        text = _IN_URL.sub(rf"\1{MASK}@", text)
        text = _HEADER.sub(rf"\1\2{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        return _ASSIGNED.sub(_without_value, text)


@lru_cache(1024)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name is secret, whatever it holds: ``sasl_password``, ``token``."""
    return _SECRET_NAME.search(name) is not None


def _without_value(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2] or found[3]}{MASK}"
