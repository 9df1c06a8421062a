"""S3 for the tests: given, MinIO's binary, or moto's server."""

import http.client
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
from sqlalchemy import make_url

from riskhub.blobs.settings import BlobSettings

from .forms import STAND_INS, Form, at, given, missing
from .processes import running, scratch_directory

S3_URL = "RISKHUB_TEST_S3_URL"

_S3_KEY, _S3_SECRET = "riskhub", "riskhub-secret"


def resolve_s3(environ: Mapping[str, str] = os.environ) -> Form:
    """The form S3 takes here. Starts nothing."""
    if url := environ.get(S3_URL):
        return Form(given(S3_URL, url), True, partial(at, url))
    if not environ.get(STAND_INS) and (binary := shutil.which("minio")):
        label = f"local binary ({binary})"
        return Form(label, True, partial(_serve_s3, partial(_minio_command, binary)))
    if find_spec("moto"):
        return Form("stand-in (moto's server)", False, partial(_serve_s3, _moto_command))
    return missing("S3", S3_URL, "minio")


@contextmanager
def fresh_bucket(url: str) -> Iterator[BlobSettings]:
    """Settings of a new, empty bucket on the S3 of ``url``, removed afterwards."""
    parsed = make_url(url)
    settings = BlobSettings.model_validate(
        {
            "kind": "s3",
            "s3_bucket": f"riskhub-test-{secrets.token_hex(6)}",
            "s3_endpoint_url": f"{parsed.drivername}://{url.rpartition('@')[2]}",
            "s3_region": "us-east-1",
            "s3_access_key_id": parsed.username,
            "s3_secret_access_key": parsed.password,
            "timeout_sec": 30.0,
        }
    )
    bucket = s3_resource(settings).create_bucket(Bucket=settings.s3_bucket)
    try:
        yield settings
    finally:
        bucket.objects.all().delete()
        bucket.delete()


def s3_resource(settings: BlobSettings) -> Any:
    """boto3's own view of the S3 that ``settings`` name, to look behind an adapter's back."""
    assert settings.s3_secret_access_key is not None
    return boto3.session.Session().resource(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )


@contextmanager
def _serve_s3(command: Callable[[Path, int], list[str]]) -> Iterator[str]:
    account = {"MINIO_ROOT_USER": _S3_KEY, "MINIO_ROOT_PASSWORD": _S3_SECRET}
    with (
        scratch_directory("s3") as scratch,
        running(
            partial(command, scratch),
            _http_answers,
            scratch,
            signal.SIGTERM,
            env={**os.environ, **account},
        ) as port,
    ):
        yield f"http://{_S3_KEY}:{_S3_SECRET}@127.0.0.1:{port}"


def _minio_command(binary: str, scratch: Path, port: int) -> list[str]:
    return [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(scratch / "data")]


def _moto_command(scratch: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def _http_answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
