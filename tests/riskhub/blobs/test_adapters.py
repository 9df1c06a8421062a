"""One suite for every blob store: file, Redis, S3."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import service_resolution

from riskhub.blobs import BlobSettings, BlobStore, open_blobs
from riskhub.errors import BlobAltered, BlobMissing, RefRefused
from riskhub.settings import Settings

CONTENT = b'{"A,A":0.0004}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@dataclass(frozen=True)
class Adapter:
    """A blob store, and a way behind its back: `plant` writes any content beside or over it."""

    kind: str
    settings: Settings
    blobs: BlobStore
    ref: str
    """The reference of `CONTENT`, as the contract spells it."""
    plant: Callable[[str, bytes], None]

    def opened_again(self) -> BlobStore:
        opened = open_blobs(self.settings)
        assert opened is not None
        return opened


@pytest.fixture(params=["file", "redis", "s3"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    if request.param == "file":
        directory = tmp_path / "blobs"
        settings = BlobSettings(kind="file", directory=directory)
        ref = f"file://{directory}/sha256/{DIGEST[:2]}/{DIGEST}.json"

        def plant(ref: str, content: bytes) -> None:
            path = Path(ref.removeprefix("file://"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        settings = BlobSettings(kind="redis", redis_url=url)
        ref = f"redis:risk-blobs:sha256:{DIGEST}"

        def plant(ref: str, content: bytes) -> None:
            with redis.Redis.from_url(url) as client:
                client.set(ref.removeprefix("redis:"), content)

    else:
        settings = request.getfixturevalue("s3_bucket")
        ref = f"s3://{settings.s3_bucket}/risk-blobs/sha256/{DIGEST}.json"

        def plant(ref: str, content: bytes) -> None:
            bucket, _, key = ref.removeprefix("s3://").partition("/")
            service_resolution.s3_resource(settings).Object(bucket, key).put(Body=content)

    whole = Settings(blobs=settings, home=tmp_path)
    blobs = open_blobs(whole)
    assert blobs is not None
    return Adapter(request.param, whole, blobs, ref, plant)


@pytest.fixture
def blobs(adapter: Adapter) -> BlobStore:
    return adapter.blobs


@pytest.mark.parametrize(
    "content",
    [CONTENT, b"", b"\x00\xff\r\n", os.urandom(3 << 20)],
    ids=["json", "empty", "binary", "3 MiB"],
)
def test_what_was_put_is_what_is_got(adapter: Adapter, content: bytes) -> None:
    ref = adapter.blobs.put(content)

    assert adapter.blobs.get(ref) == content
    assert adapter.opened_again().get(ref) == content


def test_the_reference_is_as_the_contract_spells_it(adapter: Adapter) -> None:
    assert adapter.blobs.put(CONTENT) == adapter.ref
    assert adapter.blobs.accepts(adapter.ref)
    assert adapter.opened_again().accepts(adapter.ref)


def test_content_is_kept_once(blobs: BlobStore) -> None:
    assert blobs.put(CONTENT) == blobs.put(CONTENT)
    assert len(list(blobs.refs())) == 1


def test_each_content_has_a_reference_of_its_own(blobs: BlobStore) -> None:
    assert blobs.put(b"{}") != blobs.put(b"{ }")
    assert len(set(blobs.refs())) == 2


def test_an_empty_store_answers(adapter: Adapter) -> None:
    assert list(adapter.blobs.refs()) == []
    assert not adapter.blobs.exists(adapter.ref)
    adapter.blobs.delete(adapter.ref)
    with pytest.raises(BlobMissing) as caught:
        adapter.blobs.get(adapter.ref)
    assert caught.value.ref == adapter.ref


def test_ping_returns_when_the_store_answers(blobs: BlobStore) -> None:
    blobs.ping()


def test_a_blob_is_there_until_it_is_deleted(blobs: BlobStore) -> None:
    kept, ref = blobs.put(b"kept"), blobs.put(CONTENT)
    assert blobs.exists(ref)

    blobs.delete(ref)
    blobs.delete(ref)

    assert not blobs.exists(ref)
    assert list(blobs.refs()) == [kept]
    with pytest.raises(BlobMissing):
        blobs.get(ref)
    assert blobs.put(CONTENT) == ref
    assert blobs.get(ref) == CONTENT


@pytest.mark.parametrize(
    "found", [CONTENT[:-1], b"", CONTENT + b" ", CONTENT.replace(b"4", b"5")],
    ids=["truncated", "emptied", "longer", "another value"],
)  # fmt: skip
def test_an_altered_blob_is_never_served_and_the_next_put_heals_it(
    adapter: Adapter, found: bytes
) -> None:
    ref = adapter.blobs.put(CONTENT)
    adapter.plant(ref, found)

    with pytest.raises(BlobAltered) as caught:
        adapter.blobs.get(ref)

    assert caught.value.ref == ref
    assert adapter.blobs.put(CONTENT) == ref
    assert adapter.blobs.get(ref) == CONTENT


def test_all_references_are_listed(adapter: Adapter) -> None:
    count = 64 if adapter.kind == "file" else 1001  # S3 lists a thousand at a time
    with ThreadPoolExecutor(8) as pool:
        put = set(pool.map(adapter.blobs.put, (b"%d" % number for number in range(count))))

    assert len(put) == count
    assert set(adapter.blobs.refs()) == put


def test_what_is_not_a_blob_is_not_listed(adapter: Adapter) -> None:
    ref = adapter.blobs.put(CONTENT)
    for name in (DIGEST[:-1], f"{DIGEST}0", DIGEST.upper(), f".{DIGEST}.0.tmp", "note"):
        adapter.plant(ref.replace(DIGEST, name, -1), CONTENT)
    adapter.plant(ref.replace("sha256", "sha257"), CONTENT)

    assert list(adapter.blobs.refs()) == [ref]


@pytest.mark.parametrize(
    "impostor",
    [
        lambda ref: "",
        lambda ref: DIGEST,
        lambda ref: ref.upper(),
        lambda ref: ref.replace(DIGEST, DIGEST.upper()),
        lambda ref: ref.replace(DIGEST, DIGEST[:-1]),
        lambda ref: ref.replace(DIGEST, DIGEST + "0"),
        lambda ref: ref.replace(DIGEST, DIGEST[:-1] + "g"),
        lambda ref: ref.replace(DIGEST, DIGEST[:-1] + "\N{FULLWIDTH DIGIT ONE}"),
        lambda ref: ref.replace(DIGEST, DIGEST[:-1] + "\N{ARABIC-INDIC DIGIT ONE}"),
        lambda ref: ref.replace("sha256", "sha256/../sha256"),
        lambda ref: ref.replace("sha256", "./sha256"),
        lambda ref: ref.replace("sha256", "sha1"),
        lambda ref: ref.replace("sha", "%73ha"),
        lambda ref: ref.replace("sha256", "/sha256"),
        lambda ref: ref.replace("blobs", "other-blobs"),
        lambda ref: ref.replace("s", "\N{LATIN SMALL LETTER LONG S}", 1),
        lambda ref: ref.partition(":")[2],
        lambda ref: f" {ref}",
        lambda ref: f"{ref} ",
        lambda ref: f"{ref}\n",
        lambda ref: f"{ref}\x00",
        lambda ref: f"{ref}?versionId=1",
        lambda ref: f"{ref}#",
        lambda ref: f"{ref}{ref}",
        lambda ref: f"\ud800{ref}",
        lambda ref: f"file:///etc/sha256/{DIGEST[:2]}/{DIGEST}.json",
        lambda ref: f"s3://another-bucket/risk-blobs/sha256/{DIGEST}.json",
        lambda ref: f"http://169.254.169.254/sha256/{DIGEST}.json",
    ],
)
def test_what_the_store_does_not_mint_is_refused(
    adapter: Adapter, impostor: Callable[[str], str]
) -> None:
    refused = impostor(adapter.blobs.put(CONTENT))

    assert not adapter.blobs.accepts(refused)
    for use in (adapter.blobs.get, adapter.blobs.exists, adapter.blobs.delete):
        with pytest.raises(RefRefused):
            use(refused)
    assert adapter.blobs.exists(adapter.ref)


def test_a_refusal_is_short_and_printable(blobs: BlobStore) -> None:
    with pytest.raises(RefRefused) as caught:
        blobs.get("\x1b[2J" + "f" * 1_000_000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_threads_put_and_read_together(blobs: BlobStore) -> None:
    contents = [json.dumps({"n": number % 4}).encode() for number in range(48)]
    start = threading.Barrier(12)

    def put_and_get(some: list[bytes]) -> Iterator[bool]:
        start.wait()
        return iter([blobs.get(blobs.put(content)) == content for content in some])

    with ThreadPoolExecutor(12) as pool:
        parts = [contents[number::12] for number in range(12)]
        assert all(same for sames in pool.map(put_and_get, parts) for same in sames)

    assert len(set(blobs.refs())) == 4


def test_more_than_a_blob_may_hold_is_not_put(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.blobs.store.MAX_BLOB_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        blobs.put(b"x" * 11)
    assert list(blobs.refs()) == []


def test_no_more_than_a_blob_may_hold_is_read(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = adapter.blobs.put(CONTENT)
    adapter.plant(ref, CONTENT + b" " * 1000)
    monkeypatch.setattr(f"riskhub.blobs.{adapter.kind}.MAX_BLOB_BYTES", 100)

    with pytest.raises(BlobAltered):
        adapter.blobs.get(ref)


# -- Redis alone ----------------------------------------------------------------------------------


def test_in_redis_nothing_expires_even_where_somebody_set_a_ttl(redis_url: str) -> None:
    settings = Settings(blobs=BlobSettings(kind="redis", redis_url=redis_url, redis_prefix="own:"))
    blobs = open_blobs(settings)
    assert blobs is not None
    with redis.Redis.from_url(redis_url) as client:
        ref = blobs.put(CONTENT)
        key = ref.removeprefix("redis:")
        assert key == f"own:sha256:{DIGEST}"
        assert client.ttl(key) == -1

        client.expire(key, 1000)
        assert blobs.put(CONTENT) == ref
        assert client.ttl(key) == -1

        client.set(key, b"altered", ex=1000)
        blobs.put(CONTENT)
        assert client.ttl(key) == -1


def test_in_redis_another_type_in_the_place_of_a_blob_is_altered(redis_url: str) -> None:
    blobs = open_blobs(Settings(blobs=BlobSettings(kind="redis", redis_url=redis_url)))
    assert blobs is not None
    with redis.Redis.from_url(redis_url) as client:
        ref = f"redis:risk-blobs:sha256:{DIGEST}"
        client.hset(f"risk-blobs:sha256:{DIGEST}", "a", "b")
        with pytest.raises(BlobAltered):
            blobs.get(ref)
        assert blobs.put(CONTENT) == ref
        assert blobs.get(ref) == CONTENT


# -- which store the settings name ----------------------------------------------------------------


def test_inline_has_no_store() -> None:
    assert open_blobs(Settings()) is None


def test_without_a_directory_the_blobs_are_at_home(tmp_path: Path) -> None:
    blobs = open_blobs(Settings(home=tmp_path, blobs=BlobSettings(kind="file")))
    assert blobs is not None
    assert blobs.put(CONTENT).startswith(f"file://{tmp_path}/blobs/sha256/")


def test_without_a_redis_the_blobs_are_in_the_hubs(redis_url: str) -> None:
    blobs = open_blobs(Settings(redis_url=redis_url, blobs=BlobSettings(kind="redis")))
    assert blobs is not None
    blobs.put(CONTENT)
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists(f"risk-blobs:sha256:{DIGEST}")
