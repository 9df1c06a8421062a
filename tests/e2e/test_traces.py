"""One trace from a POST to its risk numbers, through the processes that make them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from builders import HEADERS, WORLD, snapshot_document, wait_until
from collecting import Collector, collecting
from daemons import Daemon
from served import api_process, log_of, migrate_database, migrate_home

from riskhub.store import open_store

SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"
POST = "POST /risk-hub/worlds/{world_id}/snapshots"
CALLER = "0af7651916cd43dd8448eb211c80319c"
CALLING = "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def post(port: int, version: str, **headers: str) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{port}{SNAPSHOTS}",
        json=snapshot_document(version=version),
        headers=HEADERS | headers,
    )
    assert answer.status_code == 201, answer.text


def test_one_trace_leads_from_a_post_to_its_numbers(
    tmp_path: Path, free_port: Callable[[], int], collector: Collector
) -> None:
    migrate_home(tmp_path)
    port = free_port()
    with (
        api_process(tmp_path, port, **collector.environment()),
        closing(Daemon("worker", tmp_path, collector.environment())),
    ):
        post(port, "v1")
        post(port, "v2", traceparent=f"00-{CALLER}-{CALLING}-01")
        wait_until(
            lambda: (
                all(len(collector.named(name)) == 2 for name in (POST, "land", "numbers", "stress"))
                and {span.parent for span in collector.named("stress batch")}
                <= {span.id for span in collector.named("worker batch")}
            ),
            within_sec=90,
        )
    posts = {span.trace: span for span in collector.named(POST)}
    called = posts.pop(CALLER)
    ((trace, root),) = posts.items()
    lands = {span.attributes["risk.version"]: span for span in collector.named("land")}
    numbers = {span.attributes["risk.version"]: span for span in collector.named("numbers")}

    # Who was not called in a trace: from the request on, it is one.
    assert (root.parent, root.service) == ("", "riskhub-api")
    assert (lands["v1"].trace, lands["v1"].parent) == (trace, root.id)
    assert (numbers["v1"].trace, numbers["v1"].parent) == (trace, lands["v1"].id)
    assert numbers["v1"].service == "riskhub-worker"
    assert numbers["v1"].attributes["risk.world"] == WORLD
    assert numbers["v1"].attributes["event.id"] == lands["v1"].attributes["event.id"]
    of_trace = {span.name for span in collector.spans if span.trace == trace}
    assert {"validation", "numbers", "stress"} <= of_trace
    # And the batches that it was part of are linked with it.
    batches = {span.id: span for span in collector.named("numbers batch")}
    (of_batch,) = numbers["v1"].links
    assert (trace, lands["v1"].id) in batches[of_batch[1]].links
    assert batches[of_batch[1]].parent in {span.id for span in collector.named("worker batch")}

    # Who was: the request is in the caller's trace, and what it landed is linked, both ways.
    assert called.parent == CALLING
    assert lands["v2"].links == {(CALLER, called.id)}
    assert called.links == {(lands["v2"].trace, lands["v2"].id)}
    assert numbers["v2"].trace == lands["v2"].trace
    assert not any(span.failed for span in collector.spans)


def test_through_kafka_the_relay_is_part_of_it(
    tmp_path: Path, postgres_url: str, kafka_server: str, kafka_topic: str, collector: Collector,
    free_port: Callable[[], int],
) -> None:  # fmt: skip
    migrate_database(postgres_url)
    settings = {
        "RISKHUB_DATABASE_URL": postgres_url,
        "RISKHUB_CONTROLBUS_BROKERS": kafka_server,
        "RISKHUB_CONTROLBUS_TOPIC": kafka_topic,
        "RISKHUB_WORKER__GROUP": kafka_topic,
        **collector.environment(),
    }
    port = free_port()
    with (
        api_process(tmp_path, port, **settings),
        closing(Daemon("relay", tmp_path, settings)),
        closing(Daemon("worker", tmp_path, settings)),
    ):
        post(port, "v1")
        wait_until(
            lambda: bool(collector.named("numbers") and collector.named(POST)), within_sec=120
        )
    (numbers,), (land,), (root,) = map(collector.named, ("numbers", "land", POST))
    relayed = [
        span
        for span in collector.named("relay")
        if span.attributes["event.id"] == land.attributes["event.id"]
    ]
    assert {span.parent for span in relayed} == {land.id}
    assert {span.trace for span in relayed} == {root.trace} == {numbers.trace}


def test_a_collector_that_is_away_holds_up_nobody(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    migrate_home(tmp_path)
    port, nowhere = free_port(), f"http://127.0.0.1:{free_port()}"
    with (
        api_process(tmp_path, port, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere),
        closing(open_store(f"sqlite:///{tmp_path / 'hub.db'}")) as store,
    ):
        post(port, "v1")
        assert store.events_head() == 1, log_of(tmp_path)
