"""Content-addressed blobs: large fields of snapshots, kept once under their digest.

`open_blobs` gives the store that the settings name (file, Redis or S3; none when everything stays
inline); `offload` and `resolve` move fields of a snapshot into it and back. A blob's reference
says where it is and what it holds, so each read proves that nothing was altered, and a reference
that the store would not have minted itself is never fetched.

What may be deleted is decided elsewhere: a store does not know who refers to it.
"""

from riskhub.blobs.fields import BLOB_FIELDS, offload, refs_of, resolve
from riskhub.blobs.opening import open_blobs
from riskhub.blobs.settings import BlobSettings
from riskhub.blobs.store import MAX_BLOB_BYTES, BlobStore

__all__ = [
    "BLOB_FIELDS",
    "MAX_BLOB_BYTES",
    "BlobSettings",
    "BlobStore",
    "offload",
    "open_blobs",
    "refs_of",
    "resolve",
]
