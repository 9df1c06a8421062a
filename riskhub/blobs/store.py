"""What a blob store is, and what all of them share: the digest, and the check of a reference.

An adapter brings six primitives on digests (`ContentAddressed`); that content is verified on each
read, that a foreign reference is never fetched and that a damaged blob is healed by the next `put`
is decided here, once.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from riskhub.errors import BlobAltered, BlobMissing, RefRefused

MAX_BLOB_BYTES = 256 * 2**20
"""No more than this is put, and none is read beyond it, whatever the store claims to have."""

_DIGEST = re.compile(r"([0-9a-f]{64})(?:\.json)?\Z")
_LONGEST_TAIL = 64 + len(".json")


class Puts(Protocol):
    """Where content can be put under a reference: a blob store, or what stands before one."""

    def put(self, content: bytes) -> str:
        """Keep `content` and give its reference."""


class BlobStore(Protocol):
    """Blobs under references made of their sha256. Safe to share between threads.

    Each method that does I/O raises `BlobsUnavailable` when the store can't be reached or
    refuses, and each that takes a reference `RefRefused` before any I/O when it isn't one that
    this store mints.
    """

    def put(self, content: bytes) -> str:
        """Keep `content` and give its reference, durable once this returns.

        Idempotent, and what is there already is verified: a blob that was altered is replaced.

        Raises:
            ValueError: `content` is larger than `MAX_BLOB_BYTES`.
        """

    def ref_of(self, content: bytes) -> str:
        """The reference that `put` would give. No I/O."""

    def get(self, ref: str) -> bytes:
        """The content, whose digest was verified.

        Raises:
            BlobMissing: nothing is there.
            BlobAltered: something else is there.
        """

    def accepts(self, ref: str) -> bool:
        """Whether `ref` is, character by character, one that this store mints. No I/O."""

    def exists(self, ref: str) -> bool:
        """Whether something is there; its content is not looked at."""

    def refs(self) -> Iterator[str]:
        """Each reference that the store has something under, in no order; one may repeat.

        Read as it is asked for, not all at once. What is put or deleted meanwhile may or may not
        be among them.
        """

    def delete(self, ref: str) -> None:
        """Remove the blob; absent is fine."""

    def ping(self) -> None:
        """Return when the store answers; the error says why it doesn't."""


class ContentAddressed(ABC):
    """A `BlobStore` from primitives on digests: 64 lower-case hex digits, already checked."""

    def put(self, content: bytes) -> str:
        """See `BlobStore`."""
        if len(content) > MAX_BLOB_BYTES:
            raise ValueError(f"a blob has at most {MAX_BLOB_BYTES} bytes, not {len(content)}")
        digest = _sha256(content)
        if not self._add(digest, content) and not self._holds(digest):
            self._replace(digest, content)
        return self._ref(digest)

    def ref_of(self, content: bytes) -> str:
        """See `BlobStore`."""
        return self._ref(_sha256(content))

    def ref_with(self, digest: str) -> str:
        """The reference of content with this sha256, in 64 hex digits. No I/O."""
        return self._ref(digest)

    def get(self, ref: str) -> bytes:
        """See `BlobStore`."""
        digest = self._own(ref)
        content = self._read(digest)
        if content is None:
            raise BlobMissing(ref, "the blob store has nothing under this reference")
        if _sha256(content) != digest:
            raise BlobAltered(ref, "the blob's content does not have this digest")
        return content

    def accepts(self, ref: str) -> bool:
        """See `BlobStore`."""
        return self._digest_in(ref) is not None

    def exists(self, ref: str) -> bool:
        """See `BlobStore`."""
        return self._has(self._own(ref))

    def delete(self, ref: str) -> None:
        """See `BlobStore`."""
        self._remove(self._own(ref))

    @abstractmethod
    def refs(self) -> Iterator[str]:
        """See `BlobStore`."""

    @abstractmethod
    def ping(self) -> None:
        """See `BlobStore`."""

    @abstractmethod
    def _ref(self, digest: str) -> str:
        """The one reference of a digest."""

    @abstractmethod
    def _add(self, digest: str, content: bytes) -> bool:
        """Put if absent, atomically. False: not put, because something may be there."""

    @abstractmethod
    def _replace(self, digest: str, content: bytes) -> None:
        """Put over whatever is there, atomically."""

    @abstractmethod
    def _read(self, digest: str) -> bytes | None:
        """What is there, not verified and cut after `MAX_BLOB_BYTES`; None when nothing is.

        Raises:
            BlobAltered: what is there is nothing that a store puts, such as a symbolic link.
        """

    @abstractmethod
    def _has(self, digest: str) -> bool: ...

    @abstractmethod
    def _remove(self, digest: str) -> None: ...

    def _holds(self, digest: str) -> bool:
        try:
            content = self._read(digest)
        except BlobAltered:
            return False
        return content is not None and _sha256(content) == digest

    def _own(self, ref: str) -> str:
        digest = self._digest_in(ref)
        if digest is None:
            raise refused(ref)
        return digest

    def _digest_in(self, ref: str) -> str | None:
        # Not the parts of a reference are compared but all of it with the one we would mint: there
        # is nothing to normalise and so nothing to get wrong.
        found = _DIGEST.search(ref[-_LONGEST_TAIL:])
        return found[1] if found and ref == self._ref(found[1]) else None


def digest_named(ref: str) -> str | None:
    """The sha256 that a reference of any blob store ends in; None when it is no reference."""
    found = _DIGEST.search(ref[-_LONGEST_TAIL:])
    return found[1] if found else None


def refused(ref: object) -> RefRefused:
    """The refusal of what is offered as a reference, shown short and printable."""
    text = ref if isinstance(ref, str) and ref.isprintable() else ascii(ref)
    return RefRefused(text[:256], "is not a reference of the configured blob store")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
