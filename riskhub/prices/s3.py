"""A panel as one object in S3, or in what speaks its protocol, such as MinIO."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from riskhub.blobs.s3 import new_client
from riskhub.prices.files import panel_of_file
from riskhub.prices.panel import (
    NotAPanel,
    PricePanel,
    PricesCorrupt,
    PricesMissing,
    PricesUnavailable,
)
from riskhub.prices.settings import PriceSettings

_MISSING = {"NoSuchKey", "NoSuchBucket", "404"}  # to HEAD, either is a 404


@dataclass(frozen=True, slots=True)
class PriceObject:
    """A `PriceSource` in a bucket. `settings`: of kind ``s3``."""

    settings: PriceSettings

    @property
    def label(self) -> str:
        """See `PriceSource`."""
        return f"price object s3://{self.settings.s3_bucket}/{self.settings.s3_key}"

    def fingerprint(self) -> str:
        """See `PriceSource`."""
        with self._named():
            found = _client(self.settings).head_object(**self._object())
            return f"{found['ETag']}-{found['ContentLength']}-{found['LastModified'].isoformat()}"

    def load(self) -> PricePanel:
        """See `PriceSource`."""
        with self._named():
            found = _client(self.settings).get_object(**self._object())
            with closing(found["Body"]) as body:
                content = body.read()
        try:
            return panel_of_file(content, str(self.settings.s3_key), self.settings)
        except NotAPanel as refusal:
            raise PricesCorrupt(self.label, str(refusal)) from refusal

    def _object(self) -> dict[str, Any]:
        return {"Bucket": self.settings.s3_bucket, "Key": self.settings.s3_key}

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "an error without a code"))
            if code in _MISSING:
                raise PricesMissing(self.label) from error
            why = f"{error.operation_name} is answered with {code}"
            raise PricesUnavailable(self.label, why) from error
        except BotoCoreError as error:
            # Its text may repeat parts of the request.
            raise PricesUnavailable(self.label, type(error).__name__) from error


@lru_cache(maxsize=2)
def _client(settings: PriceSettings) -> Any:
    return new_client(settings)
