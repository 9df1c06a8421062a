"""Blobs as objects in S3, or in what speaks its protocol, such as MinIO.

One object a blob, ``<prefix>sha256/<64 hex>.json``. Objects never expire by themselves as long as
no lifecycle rule of the bucket says so.
"""

import base64
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from riskhub.blobs.settings import BlobSettings
from riskhub.blobs.store import MAX_BLOB_BYTES, ContentAddressed
from riskhub.errors import BlobsUnavailable

_ATTEMPTS = 2
_CONNECTIONS = 40  # as many threads as the API has for work that waits

# To "only if nothing is there": something is; two came at once; an S3 that can't do it.
_NOT_ADDED = {"PreconditionFailed", "ConditionalRequestConflict", "NotImplemented", "412", "501"}


class S3Blobs(ContentAddressed):
    """A `BlobStore` in a bucket, which it may share with anybody.

    Args:
        settings: of kind ``s3``. Without an access key, boto3 finds credentials its own ways.
    """

    def __init__(self, settings: BlobSettings) -> None:
        self._settings = settings
        self._bucket = settings.s3_bucket
        self._prefix = f"{settings.s3_prefix}sha256/"
        self._made: Any = None
        self._making = threading.Lock()

    def refs(self) -> Iterator[str]:
        """See `BlobStore`."""
        with self._named():
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Contents", ()):
                    ref = f"s3://{self._bucket}/{item['Key']}"
                    if self.accepts(ref):
                        yield ref

    def ping(self) -> None:
        """See `BlobStore`."""
        with self._named():
            self._client().head_bucket(Bucket=self._bucket)

    def _ref(self, digest: str) -> str:
        return f"s3://{self._bucket}/{self._key(digest)}"

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{digest}.json"

    def _add(self, digest: str, content: bytes) -> bool:
        with self._named():
            try:
                self._put(digest, content, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in _NOT_ADDED:
                    return False
                raise
            return True

    def _replace(self, digest: str, content: bytes) -> None:
        with self._named():
            self._put(digest, content)

    def _put(self, digest: str, content: bytes, **condition: str) -> None:
        # With the digest S3 itself refuses what was damaged on the way.
        checksum = base64.b64encode(bytes.fromhex(digest)).decode("ascii")
        self._client().put_object(
            Bucket=self._bucket,
            Key=self._key(digest),
            Body=content,
            ContentType="application/json",
            ChecksumSHA256=checksum,
            **condition,
        )

    def _read(self, digest: str) -> bytes | None:
        with self._named():
            try:
                found = self._client().get_object(Bucket=self._bucket, Key=self._key(digest))
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
            with closing(found["Body"]) as body:
                content: bytes = body.read(MAX_BLOB_BYTES + 1)
                body.read(1)  # at the end of a body, botocore checks that all of it came
                return content

    def _has(self, digest: str) -> bool:
        with self._named():
            try:
                self._client().head_object(Bucket=self._bucket, Key=self._key(digest))
            except ClientError as error:
                if _code(error) != "404":
                    raise
                self.ping()  # to HEAD, a missing bucket is the same 404
                return False
            return True

    def _remove(self, digest: str) -> None:
        with self._named():
            self._client().delete_object(Bucket=self._bucket, Key=self._key(digest))

    def _client(self) -> Any:
        """The one client, which threads may share; a boto3 session they may not."""
        with self._making:
            if self._made is None:
                self._made = new_client(self._settings)
            return self._made

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            why = f"{error.operation_name} is answered with {_code(error)}"
            raise BlobsUnavailable(f"the bucket {self._bucket} can't be used: {why}") from error
        except BotoCoreError as error:
            why = type(error).__name__  # its text may repeat parts of the request
            raise BlobsUnavailable(f"the bucket {self._bucket} can't be used: {why}") from error


class S3Access(Protocol):
    """The settings that a client needs, of whatever is kept in S3."""

    @property
    def s3_endpoint_url(self) -> str | None: ...
    @property
    def s3_region(self) -> str | None: ...
    @property
    def s3_access_key_id(self) -> str | None: ...
    @property
    def s3_secret_access_key(self) -> SecretStr | None: ...
    @property
    def timeout_sec(self) -> float: ...


def new_client(settings: S3Access) -> Any:
    """A boto3 client, which threads may share; connects when it is used."""
    secret = settings.s3_secret_access_key
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=settings.timeout_sec,
            read_timeout=settings.timeout_sec,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=_CONNECTIONS,
            # An endpoint of one's own rarely has a name in DNS for each bucket.
            s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            # We bring a checksum and verify the digest; other S3s choke on boto3's trailers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "an error without a code"))
