"""Where daily prices come from, nested into `riskhub.settings`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class PriceSettings(BaseModel):
    """The source of the price panel."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["file", "s3", "table"] = Field(
        default="file",
        description="`file` is the one of `prices_path`. A name in .parquet or .pq is Parquet, in "
        ".gz a gzipped CSV, any other a CSV.",
    )
    s3_bucket: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Of kind `s3`."
    )
    s3_key: str | None = Field(
        default=None, min_length=1, max_length=1024, description="Of the object in the bucket."
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
    database_url: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="Of kind `table`: SQLAlchemy URL; without one, the hub's own database.",
    )
    table: str | None = Field(
        default=None,
        pattern=r"^([^.\s]+\.)?[^.\s]+$",
        description="Of kind `table`: its name, with its schema if it needs one: `market.prices`.",
    )
    day_column: str = Field(
        default="day", min_length=1, description="Of a table, and of Parquet in long form."
    )
    symbol_column: str = Field(default="symbol", min_length=1)
    price_column: str = Field(default="price", min_length=1)
    timeout_sec: float = Field(
        default=10.0, gt=0, description="Of kind `s3`: for connecting, and each read."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "s3" and not (self.s3_bucket and self.s3_key):
            raise ValueError("kind s3 needs a bucket and a key (s3_bucket, s3_key)")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key belong together")
        if self.kind == "table" and self.table is None:
            raise ValueError("kind table needs the name of the table (table)")
        if len({self.day_column, self.symbol_column, self.price_column}) < 3:
            raise ValueError("day_column, symbol_column and price_column are three columns")
        return self
