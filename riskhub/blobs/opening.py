"""From the settings to the blob store that they name."""

from typing import TYPE_CHECKING

from riskhub.blobs.file import FileBlobs
from riskhub.blobs.redis import RedisBlobs
from riskhub.blobs.store import BlobStore

if TYPE_CHECKING:  # it imports this package for the settings of blobs
    from riskhub.settings import Settings


def open_blobs(settings: "Settings") -> BlobStore | None:
    """The blob store of client and hub; None when large fields stay inline.

    Opens no connection and reads nothing: a store that can't be reached says so when it is used.
    """
    blobs = settings.blobs
    match blobs.kind:
        case "inline":
            return None
        case "file":
            return FileBlobs(blobs.directory or settings.home.resolve() / "blobs")
        case "redis":
            url = blobs.redis_url or settings.effective_redis_url
            return RedisBlobs(url, blobs.redis_prefix, blobs.timeout_sec)
        case "s3":
            from riskhub.blobs.s3 import S3Blobs  # noqa: PLC0415 - boto3 is slow to import

            return S3Blobs(blobs)
