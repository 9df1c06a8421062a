"""`deploy/s3/policy.json`: what the blob store needs in its bucket, and nothing else."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from service_resolution import free_port
from service_resolution.processes import comes_up, running_process, scratch_directory
from service_resolution.s3 import _http_answers

from riskhub.blobs import BlobSettings, open_blobs
from riskhub.blobs.s3 import new_client
from riskhub.errors import BlobsUnavailable
from riskhub.settings import Settings

POLICY = Path(__file__).parents[2] / "deploy" / "s3" / "policy.json"
BUCKET, OTHER = "riskhub-blobs", "somebody-elses"


@pytest.fixture(scope="module")
def restricted() -> Iterator[BlobSettings]:
    """A bucket, and the credentials of a user with our policy, on an S3 that enforces it."""
    port = free_port()
    with (
        scratch_directory("iam") as scratch,
        running_process(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            scratch,
            signal.SIGTERM,
        ) as process,
    ):
        assert comes_up(lambda: _http_answers(port), process)
        anyone: dict[str, Any] = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "region_name": "us-east-1",
            "aws_access_key_id": "root",
            "aws_secret_access_key": "root",
        }
        session = boto3.session.Session()
        s3, iam = session.client("s3", **anyone), session.client("iam", **anyone)
        for bucket in (BUCKET, OTHER):
            s3.create_bucket(Bucket=bucket)
        iam.create_user(UserName="riskhub")
        key = iam.create_access_key(UserName="riskhub")["AccessKey"]
        policy = json.loads(POLICY.read_text())
        # To look at a bucket's head takes s3:ListBucket in AWS; in moto an action of its own.
        policy["Statement"][1]["Action"] = ["s3:ListBucket", "s3:HeadBucket"]
        iam.put_user_policy(
            UserName="riskhub", PolicyName="blobs", PolicyDocument=json.dumps(policy)
        )
        # From now on moto asks who it is, and what he may.
        httpx.post(f"{anyone['endpoint_url']}/moto-api/reset-auth", content="0").raise_for_status()
        yield BlobSettings.model_validate(
            {
                "kind": "s3",
                "s3_bucket": BUCKET,
                "s3_endpoint_url": anyone["endpoint_url"],
                "s3_region": "us-east-1",
                "s3_access_key_id": key["AccessKeyId"],
                "s3_secret_access_key": key["SecretAccessKey"],
                "timeout_sec": 30.0,
            }
        )


def test_the_blob_store_does_all_that_it_does(restricted: BlobSettings) -> None:
    blobs = open_blobs(Settings(blobs=restricted))
    assert blobs is not None
    blobs.ping()
    ref = blobs.put(b'{"a": 1}')
    assert blobs.put(b'{"a": 1}') == ref
    assert blobs.get(ref) == b'{"a": 1}'
    assert blobs.exists(ref)
    assert list(blobs.refs()) == [ref]
    blobs.delete(ref)
    assert not blobs.exists(ref)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("put_object", {"Bucket": BUCKET, "Key": "elsewhere/x", "Body": b""}),
        ("get_object", {"Bucket": BUCKET, "Key": "elsewhere/x"}),
        ("put_object", {"Bucket": OTHER, "Key": "risk-blobs/x", "Body": b""}),
        ("list_objects_v2", {"Bucket": OTHER}),
        ("list_buckets", {}),
        ("delete_bucket", {"Bucket": BUCKET}),
        ("put_bucket_policy", {"Bucket": BUCKET, "Policy": "{}"}),
        ("create_bucket", {"Bucket": "another"}),
    ],
)
def test_it_can_do_nothing_else(
    restricted: BlobSettings, verb: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as refusal:
        getattr(new_client(restricted), verb)(**arguments)
    assert refusal.value.response["Error"]["Code"] == "AccessDenied"


def test_another_bucket_is_refused_by_name(restricted: BlobSettings) -> None:
    blobs = open_blobs(Settings(blobs=restricted.model_copy(update={"s3_bucket": OTHER})))
    assert blobs is not None
    with pytest.raises(BlobsUnavailable, match=OTHER):
        blobs.put(b"{}")


def test_the_policy_names_no_wildcard_verb() -> None:
    for statement in json.loads(POLICY.read_text())["Statement"]:
        actions = statement["Action"]
        assert not [each for each in ([actions] if isinstance(actions, str) else actions)
                    if "*" in each]  # fmt: skip
