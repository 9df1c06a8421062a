"""The few types of Kafka's protocol that the stand-in reads and writes, all of them big-endian."""

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class Reader:
    """Reads a message from its beginning."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def number(self, kind: str) -> int:
        """An integer, by the letter that `struct` has for it."""
        (found,) = struct.unpack_from(f">{kind}", self._message, self._at)
        self._at += struct.calcsize(kind)
        return int(found)

    def text(self) -> str:
        """A string; a null one is empty."""
        return self._bytes(self.number("h")).decode()

    def blob(self) -> bytes:
        """Bytes; null ones are empty."""
        return self._bytes(self.number("i"))

    def array(self, read: Callable[["Reader"], T]) -> list[T]:
        """What `read` reads, as often as the message says."""
        return [read(self) for _ in range(self.number("i"))]

    def rest(self) -> bytes:
        """What has not been read."""
        return self._message[self._at :]

    def _bytes(self, length: int) -> bytes:
        start = self._at
        self._at += max(length, 0)
        return self._message[start : self._at]


def numbers(kinds: str, *values: int) -> bytes:
    """Integers, by the letters that `struct` has for them."""
    return struct.pack(f">{kinds}", *values)


def text(value: str) -> bytes:
    """A string."""
    return numbers("h", len(value.encode())) + value.encode()


def blob(value: bytes) -> bytes:
    """Bytes."""
    return numbers("i", len(value)) + value


def array(items: Iterable[bytes]) -> bytes:
    """Several of the same."""
    found = list(items)
    return numbers("i", len(found)) + b"".join(found)
