"""The client against the API as it is deployed: a process on a socket, that goes and comes back."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import snapshot_document
from served import api_process, migrate_home

from riskhub.blobs.settings import BlobSettings
from riskhub.client import AsyncRiskHubClient, RetryPolicy, RiskHubClient, Status, VersionConflict
from riskhub.settings import Settings

WORLD = "equities"
AT_ONCE = RetryPolicy(attempts=2, first_sec=0.01)
COVARIANCE = {"BAC,BAC": 0.1, "JPM,JPM": 0.2, "BAC,JPM": 0.05}


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int]) -> Settings:
    migrate_home(tmp_path)
    return Settings(
        home=tmp_path,
        api_port=free_port(),
        token="a token of many bytes, ü",
        blobs=BlobSettings(kind="file"),
        inline_cov_threshold=2,
    )


def environment(settings: Settings) -> dict[str, str]:
    assert settings.token
    return {
        "RISKHUB_TOKEN": settings.token.get_secret_value(),
        "RISKHUB_BLOBS__KIND": "file",
        "RISKHUB_INLINE_COV_THRESHOLD": "2",
    }


def client(settings: Settings, **others: object) -> RiskHubClient:
    return RiskHubClient.from_settings(settings, actor="optimizér", stage="paper", **others)


def test_what_is_published_can_be_read_in_every_way(settings: Settings) -> None:
    document = snapshot_document(covariance=COVARIANCE, ttl_sec=86_400)
    with (
        api_process(settings.home, settings.api_port, **environment(settings)),
        client(settings) as hub,
    ):
        assert hub.latest(WORLD) is None
        published = hub.publish(document, world_id=WORLD)
        assert published.status is Status.CREATED
        assert hub.publish(document, world_id=WORLD).status is Status.DUPLICATE
        with pytest.raises(VersionConflict) as caught:
            hub.publish(document | {"weights": {"BAC": 1.0}}, world_id=WORLD)
        assert caught.value.stored == published.digest
        latest = hub.latest(WORLD, stage="paper", actor="optimizér")
        assert latest == published.body
        assert hub.lookup(WORLD, version="v1") == latest
        assert hub.lookup(WORLD, as_of=document["as_of"], known_at=latest["created_at"]) == latest
        expanded = hub.latest(WORLD, expand=True)
        assert expanded["covariance"] == COVARIANCE
        for number in range(2, 8):
            hub.publish(snapshot_document(version=f"v{number}", ttl_sec=86_400), world_id=WORLD)
        versions = [found["version"] for found in hub.list(WORLD, page_size=3)]
        assert sorted(versions) == [f"v{number}" for number in range(1, 8)]


def test_what_waited_in_the_spool_lands_in_order_when_the_hub_is_back(settings: Settings) -> None:
    spool = settings.home / "spool"
    served = environment(settings)
    with client(settings, spool=spool, retry=AT_ONCE) as hub:
        with api_process(settings.home, settings.api_port, **served) as process:
            hub.publish(snapshot_document(version="v0"), world_id=WORLD)
            process.terminate()
            process.wait(60)
        for number in range(1, 6):
            document = snapshot_document(version=f"v{number}", covariance=COVARIANCE)
            assert hub.publish(document, world_id=WORLD).status is Status.SPOOLED
        assert hub.drain().left == 5
        with api_process(settings.home, settings.api_port, **served):
            drained = hub.drain()
            assert (drained.landed, drained.rejected, drained.left) == (5, (), 0)
            landed = sorted(
                hub.list(WORLD, include_expired=True), key=lambda found: found["created_at"]
            )
    assert [found["version"] for found in landed] == [f"v{number}" for number in range(6)]


def test_many_producers_on_one_loop(settings: Settings) -> None:
    async def produce() -> list[Status]:
        async with AsyncRiskHubClient.from_settings(settings, actor="a", stage="paper") as hub:
            documents = [snapshot_document(version=f"v{number}") for number in range(50)]
            landings = (hub.publish(document, world_id=WORLD) for document in documents)
            return [published.status for published in await asyncio.gather(*landings)]

    with api_process(settings.home, settings.api_port, **environment(settings)):
        assert asyncio.run(produce()) == [Status.CREATED] * 50
        assert asyncio.run(produce()) == [Status.DUPLICATE] * 50
