"""Where large fields of a snapshot are kept, nested into `riskhub.settings`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class BlobSettings(BaseModel):
    """The blob store that client and hub share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["inline", "file", "redis", "s3"] = Field(
        default="inline", description="`inline` offloads nothing: large fields stay in the body."
    )
    directory: Path | None = Field(
        default=None, description="Of kind `file`: the directory; without one, `home`/blobs."
    )
    redis_url: str | None = Field(
        default=None, description="Of kind `redis`: where; without one, the hub's Redis."
    )
    redis_prefix: str = Field(default="risk-blobs:", min_length=1)
    s3_bucket: str | None = None
    s3_prefix: str = Field(default="risk-blobs/", description="Every key begins with it.")
    s3_endpoint_url: str | None = Field(default=None, description="MinIO's, say; else AWS.")
    s3_region: str | None = None
    s3_access_key_id: str | None = Field(
        default=None, description="Without one, boto3's own ways to find credentials."
    )
    s3_secret_access_key: SecretStr | None = None
    timeout_sec: float = Field(default=5.0, gt=0, description="For connecting, and each read.")
