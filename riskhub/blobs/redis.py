"""Blobs as Redis strings: the key is the reference without its ``redis:``.

No blob ever expires by itself. What Redis may still lose is the operator's to decide: it wants
persistence, and a ``maxmemory-policy`` that evicts nothing without a TTL (``noeviction`` or a
``volatile-`` one).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub.blobs.store import MAX_BLOB_BYTES, ContentAddressed
from riskhub.errors import BlobAltered, BlobsUnavailable

_SCAN_COUNT = 1000


class RedisBlobs(ContentAddressed):
    """A `BlobStore` in a Redis database, which it may share with anybody.

    Args:
        url: of the database; its options, such as ``socket_timeout``, win over ours.
        prefix: of every key, such as ``risk-blobs:``; without the glob characters of SCAN.
        timeout_sec: for connecting and for each reply.
    """

    def __init__(self, url: str, prefix: str, timeout_sec: float) -> None:
        self._prefix = f"{prefix}sha256:"
        self._redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=timeout_sec,
            socket_timeout=timeout_sec,
            retry=Retry(NoBackoff(), 1),  # a pooled connection may have died of old age
        )

    def refs(self) -> Iterator[str]:
        """See `BlobStore`."""
        with self._named():
            for key in self._redis.scan_iter(match=f"{self._prefix}*", count=_SCAN_COUNT):
                ref = f"redis:{key.decode(errors='replace')}"
                if self.accepts(ref):
                    yield ref

    def ping(self) -> None:
        """See `BlobStore`."""
        with self._named():
            self._redis.ping()

    def _ref(self, digest: str) -> str:
        return f"redis:{self._key(digest)}"

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{digest}"

    def _add(self, digest: str, content: bytes) -> bool:
        with self._named(), self._redis.pipeline(transaction=True) as transaction:
            transaction.set(self._key(digest), content, nx=True)
            transaction.persist(self._key(digest))  # of one that somebody gave a TTL
            added, _ = transaction.execute()
            return bool(added)

    def _replace(self, digest: str, content: bytes) -> None:
        with self._named():
            self._redis.set(self._key(digest), content)

    def _read(self, digest: str) -> bytes | None:
        key = self._key(digest)
        with self._named(), self._redis.pipeline(transaction=True) as transaction:
            transaction.exists(key)
            transaction.getrange(key, 0, MAX_BLOB_BYTES)  # GET, but bounded
            exists, content = transaction.execute(raise_on_error=False)
            if isinstance(content, redis.ResponseError) and "WRONGTYPE" in str(content):
                raise BlobAltered(self._ref(digest), "what is in the blob's place is not a string")
            for reply in (exists, content):
                if isinstance(reply, redis.RedisError):
                    raise reply
            return bytes(content) if exists else None

    def _has(self, digest: str) -> bool:
        with self._named():
            return bool(self._redis.exists(self._key(digest)))

    def _remove(self, digest: str) -> None:
        with self._named():
            self._redis.delete(self._key(digest))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            # What the server says may repeat what it was sent; how we failed to reach it can't.
            unreached = type(error) in (redis.ConnectionError, redis.TimeoutError)
            why = str(error) if unreached else type(error).__name__
            raise BlobsUnavailable(f"the Redis of the blobs can't be used: {why}") from error
