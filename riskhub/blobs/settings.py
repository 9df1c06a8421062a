"""Where large fields of a snapshot are kept, nested into `riskhub.settings`.

Client and hub mint and recognise references by these: both need the same ones.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class BlobSettings(BaseModel):
    """The blob store that client and hub share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["inline", "file", "redis", "s3"] = Field(
        default="inline", description="`inline` offloads nothing: large fields stay in the body."
    )
    directory: Path | None = Field(
        default=None, description="Of kind `file`: the directory; without one, `home`/blobs."
    )
    redis_url: str | None = Field(
        default=None,
        pattern="^(rediss?|unix)://",
        repr=False,  # it may hold a password
        description="Of kind `redis`: where; without one, the hub's Redis.",
    )
    redis_prefix: str = Field(
        default="risk-blobs:",
        pattern=r"^[A-Za-z0-9._/{}:-]*:$",  # without the glob characters of SCAN
        description="Every key begins with it; ends with a colon.",
    )
    s3_bucket: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Of kind `s3`: the bucket, which has to be there.",
    )
    s3_prefix: str = Field(
        default="risk-blobs/",
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*$",
        description="Every key begins with it; empty, or ends with a slash.",
    )
    s3_endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s?#/:][^@\s?#]*$",  # credentials have settings of their own
        description="MinIO's, say; else AWS.",
    )
    s3_region: str | None = None
    s3_access_key_id: str | None = Field(
        default=None, description="Without one, boto3's own ways to find credentials."
    )
    s3_secret_access_key: SecretStr | None = None
    timeout_sec: float = Field(default=5.0, gt=0, description="For connecting, and each read.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "s3" and self.s3_bucket is None:
            raise ValueError("kind s3 needs a bucket (s3_bucket)")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key belong together")
        return self
