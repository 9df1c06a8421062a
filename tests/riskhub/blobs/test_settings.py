"""The settings of blobs: what can't work is refused before anything starts."""

from typing import Any

import pytest

from riskhub.blobs import BlobSettings
from riskhub.settings import Settings, SettingsInvalid, load_settings


def test_s3_needs_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_BLOBS__KIND", "s3")
    with pytest.raises(SettingsInvalid, match=r"RISKHUB_BLOBS: .*s3_bucket"):
        load_settings()
    monkeypatch.setenv("RISKHUB_BLOBS__S3_BUCKET", "bucket")
    assert load_settings().blobs.s3_bucket == "bucket"


@pytest.mark.parametrize(
    "impossible",
    [
        {"redis_prefix": "risk-blobs"},
        {"redis_prefix": ""},
        {"redis_prefix": "risk*:"},
        {"redis_prefix": "risk[ab]:"},
        {"redis_url": "http://127.0.0.1"},
        {"s3_prefix": "risk-blobs"},
        {"s3_prefix": "/risk-blobs/"},
        {"s3_prefix": "a/../b/"},
        {"s3_prefix": "a//"},
        {"s3_prefix": "a%2F/"},
        {"s3_prefix": "a/\n"},
        {"s3_bucket": "Upper"},
        {"s3_bucket": "bucket/elsewhere"},
        {"s3_bucket": "ab"},
        {"s3_endpoint_url": "127.0.0.1:9000"},
        {"s3_endpoint_url": "http://:9000"},
        {"s3_endpoint_url": "http://key:s3cret@127.0.0.1:9000"},
        {"s3_access_key_id": "key"},
        {"s3_secret_access_key": "s3cret"},
        {"timeout_sec": 0},
        {"timeout_sec": "inf"},
    ],
)
def test_what_cannot_work_is_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        BlobSettings.model_validate(impossible)


@pytest.mark.parametrize(
    "possible",
    [
        {"s3_prefix": ""},
        {"s3_prefix": "risk/v1.0/blobs/"},
        {"redis_prefix": "{risk}:blobs:"},
        {"redis_url": "rediss://user:s3cret@redis.example:6380/1"},
        {"s3_endpoint_url": "https://minio.example:9000"},
    ],
)
def test_what_works_is_taken(possible: dict[str, Any]) -> None:
    BlobSettings.model_validate(possible)


def test_no_secret_is_shown() -> None:
    settings = Settings(
        blobs=BlobSettings.model_validate(
            {
                "redis_url": "redis://:s3cret@127.0.0.1",
                "s3_access_key_id": "key",
                "s3_secret_access_key": "s3cret",
            }
        )
    )
    assert "s3cret" not in repr(settings)
