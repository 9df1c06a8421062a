"""A world's landings told again: their ids, their order, and nothing that does not verify."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import ACTOR, STAGE, WORLD, Clock, raw_document
from databases import migrate
from on_topic import all_on

from riskhub.blobs import BlobStore, open_blobs
from riskhub.blobs.settings import BlobSettings
from riskhub.controlbus.events import OutboxEvent, parse
from riskhub.controlbus.kafka import NoBrokers
from riskhub.controlbus.replay import (
    HANDLER,
    NotTold,
    Replayed,
    into_outbox,
    onto_topic,
    replay,
)
from riskhub.errors import BlobMissing, BlobsUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing
from riskhub.store.tables import snapshots

FIRST, LAST = date(2026, 1, 5), date(2026, 1, 7)
COVARIANCE = {"BAC,BAC": 0.0004, "BAC,JPM": 0.0003, "JPM,JPM": 0.0003}


@pytest.fixture(params=["sqlite", "postgres"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    settings = Settings(
        home=tmp_path,
        database_url=url,
        inline_cov_threshold=2,
        blobs=BlobSettings(kind="file", directory=tmp_path / "blobs"),
    )
    store = Store(create_engine(settings.effective_database_url))
    migrate(store.engine)
    yield Hub(store, settings, Clock(), blobs=open_blobs(settings))
    store.close()


def land(hub: Hub, *days: int, world_id: str = WORLD, **fields: Any) -> None:
    """A snapshot at noon of each January day, `v` and the day its version."""
    hub.land(
        [
            hub.accept(
                raw_document(version=f"v{day}", as_of=f"2026-01-{day:02}T12:00:00Z", **fields),
                world_id=world_id,
                actor=ACTOR,
                stage=STAGE,
            )
            for day in days
        ]
    )


def told_again(hub: Hub, **options: Any) -> tuple[Replayed, list[OutboxEvent]]:
    """What a replay into the outbox says, and what it put there."""
    head = hub.store.events_head()
    done = replay(hub, WORLD, FIRST, LAST, into_outbox(hub.store), **options)
    return done, hub.store.events_after(head, limit=100)


def test_the_landings_of_the_days_are_told_in_landing_order_as_they_were(hub: Hub) -> None:
    land(hub, 4, 7, 5, 6, 8)
    land(hub, 6, world_id="other")
    before = {event.subject: event for event in hub.store.events_after(0, limit=100)}

    done, again = told_again(hub)

    assert (done.told, done.dead) == (3, [])
    assert [event.subject for event in again] == [f"{WORLD}/v{day}" for day in (7, 5, 6)]
    for event in again:
        first = before[event.subject]
        assert (event.id, event.data, event.occurred_at) == (
            first.id, first.data, first.occurred_at,
        )  # fmt: skip
        assert event.sequence > first.sequence


def test_a_second_replay_tells_each_landing_once_more_not_twice(hub: Hub) -> None:
    land(hub, 5, 6)
    told_again(hub)
    done, again = told_again(hub)
    assert done.told == len(again) == 2


def test_pages_are_gone_through_to_the_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskhub.controlbus.replay._PAGE", 2)
    land(hub, 5, 6, 7)
    advanced: list[int] = []
    done, again = told_again(hub, advanced=advanced.append)
    assert done.told == len(again) == 3
    assert advanced == [2, 3]


def test_a_dry_run_checks_and_tells_nothing(hub: Hub) -> None:
    land(hub, 5, 6)
    alter(hub, "v5")
    done, again = told_again(hub, dry_run=True)
    assert (done.told, len(done.dead), again) == (1, 1, [])
    assert hub.store.count_dead_letters() == 0


# -- what does not verify -------------------------------------------------------------------------


def alter(hub: Hub, version: str, old: str = '"BAC":0.5', new: str = '"BAC":0.6') -> None:
    """Change the body of a landing behind the hub's back."""
    of_version = snapshots.c.version == version
    with writing(hub.store.engine) as connection:
        body = connection.execute(sa.select(snapshots.c.body).where(of_version)).scalar_one()
        assert old in body
        altered = sa.update(snapshots).where(of_version)
        connection.execute(altered.values(body=body.replace(old, new)))


def blob_of(hub: Hub, version: str) -> tuple[str, Path]:
    """The reference of a landing's covariance, and the file that it stands for."""
    body = next(
        json.loads(event.data)
        for event in hub.store.events_after(0, limit=100)
        if event.subject == f"{WORLD}/{version}"
    )
    ref = body["covariance_ref"]
    named = ref.rpartition("/")[2].partition(".")[0][-64:]
    (file,) = (Path(hub.settings.home) / "blobs").rglob(f"*{named[2:]}*")
    return ref, file


def reason_of(done: Replayed) -> str:
    (letter,) = done.dead
    return letter.reason


def test_a_body_that_was_altered_is_a_dead_letter_and_the_others_are_told(hub: Hub) -> None:
    land(hub, 5, 6, 7)
    alter(hub, "v6")

    done, again = told_again(hub)

    assert [event.subject for event in again] == [f"{WORLD}/v5", f"{WORLD}/v7"]
    (letter,) = hub.store.dead_letters(limit=10)
    assert "does not have the digest" in letter["reason"] == reason_of(done)
    told = (letter["handler"], letter["key"], letter["attempts"], letter["died_at"])
    assert told == (HANDLER, WORLD, 2, hub.clock())
    assert letter["origin"] == "outbox 2"
    assert parse(letter["raw"]).subject == f"{WORLD}/v6"
    told_again(hub)
    assert hub.store.count_dead_letters() == 1  # it dies once, however often it is tried


def test_what_verifies_again_is_told_and_no_dead_letter_any_more(hub: Hub) -> None:
    land(hub, 5, 6)
    alter(hub, "v6")
    told_again(hub)
    assert hub.store.count_dead_letters() == 1
    alter(hub, "v6", old='"BAC":0.6', new='"BAC":0.5')

    assert told_again(hub, dry_run=True)[0].told == 2
    assert hub.store.count_dead_letters() == 1
    assert told_again(hub)[0].told == 2

    assert hub.store.dead_letters(limit=10) == []
    alter(hub, "v6")
    told_again(hub)
    assert hub.store.count_dead_letters() == 1  # it may die once more


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"version":"v5"', '"version":"v9"', "does not have the digest"),
        ('"hash":"sha256:', '"hash":"sha255:', "does not have the digest"),
        ("{", "", "is not JSON"),
    ],
)
def test_other_ways_to_alter_a_body_are_seen_too(hub: Hub, old: str, new: str, why: str) -> None:
    land(hub, 5)
    alter(hub, "v5", old, new)
    assert why in reason_of(told_again(hub)[0])


def test_another_sound_body_in_its_place_is_seen(hub: Hub) -> None:
    land(hub, 5, 6)
    with writing(hub.store.engine) as connection:
        other = sa.select(snapshots.c.body).where(snapshots.c.version == "v6")
        body = connection.execute(other).scalar_one()
        swapped = sa.update(snapshots).where(snapshots.c.version == "v5").values(body=body)
        connection.execute(swapped)
    assert "is not the one that landed" in reason_of(told_again(hub)[0])


def test_references_are_resolved_and_what_they_stand_for_is_checked(hub: Hub) -> None:
    land(hub, 5, covariance=COVARIANCE)
    land(hub, 6, covariance=COVARIANCE | {"JPM,JPM": 0.0004})
    assert told_again(hub)[0].told == 2
    ref, file = blob_of(hub, "v5")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"0.0004", b"0.0005"))

    done, again = told_again(hub)

    assert [event.subject for event in again] == [f"{WORLD}/v6"]
    assert ref in reason_of(done)
    file.unlink()
    assert "nothing under this reference" in reason_of(told_again(hub)[0])


class Stumbling:
    """A blob store whose first `get`s fail."""

    def __init__(self, blobs: BlobStore, *failures: Exception) -> None:
        self._blobs = blobs
        self._failures = list(failures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def get(self, ref: str) -> bytes:
        if self._failures:
            raise self._failures.pop()
        return self._blobs.get(ref)


def test_what_was_read_wrong_once_is_read_once_more(hub: Hub) -> None:
    land(hub, 5, covariance=COVARIANCE)
    assert hub.blobs is not None
    hub.blobs = Stumbling(hub.blobs, BlobMissing("ref", "not yet there"))  # type: ignore[assignment]
    done, again = told_again(hub)
    assert (done.told, done.dead, len(again)) == (1, [], 1)


def test_a_blob_store_that_is_away_ends_the_replay_and_kills_nothing(hub: Hub) -> None:
    land(hub, 5, covariance=COVARIANCE)
    assert hub.blobs is not None
    hub.blobs = Stumbling(hub.blobs, BlobsUnavailable("away"))  # type: ignore[assignment]
    with pytest.raises(BlobsUnavailable):
        told_again(hub)
    assert hub.store.count_dead_letters() == 0


# -- straight to a topic --------------------------------------------------------------------------


@pytest.fixture
def brokers(hub: Hub, kafka_server: str, kafka_topic: str) -> Settings:
    return hub.settings.model_copy(
        update={"controlbus_brokers": kafka_server, "controlbus_topic": kafka_topic}
    )


@pytest.mark.parametrize("hub", ["sqlite"], indirect=True)
def test_onto_a_topic_they_go_by_world_in_the_same_bytes(
    hub: Hub, brokers: Settings, kafka_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.controlbus.replay.BATCH_BYTES", 1_000)
    monkeypatch.setattr("riskhub.controlbus.replay._PAGE", 2)
    land(hub, 7, 5, 6)
    outbox = hub.store.events_after(0, limit=10)

    with onto_topic(brokers, brokers.controlbus_topic) as emit:
        done = replay(hub, WORLD, FIRST, LAST, emit)

    found = all_on(kafka_server, brokers.controlbus_topic)
    assert done.told == 3
    assert [each.event.raw for each in found] == [event.cloud_event() for event in outbox]
    assert {(each.key, each.partition) for each in found} == {(WORLD, found[0].partition)}
    assert found[0].headers["content-type"].startswith(b"application/cloudevents+json")
    assert hub.store.events_head() == outbox[-1].sequence


@pytest.mark.parametrize("hub", ["sqlite"], indirect=True)
def test_a_topic_that_is_not_there_is_made(hub: Hub, brokers: Settings, kafka_server: str) -> None:
    land(hub, 5)
    topic = f"{brokers.controlbus_topic}.replay"
    with onto_topic(brokers, topic) as emit:
        replay(hub, WORLD, FIRST, LAST, emit)
    assert [each.event.subject for each in all_on(kafka_server, topic)] == [f"{WORLD}/v5"]


def test_without_brokers_there_is_no_topic(tmp_path: Path, free_port: Any) -> None:
    with ExitStack() as stack, pytest.raises(NoBrokers):
        stack.enter_context(onto_topic(Settings(home=tmp_path), "t"))
    nobody = Settings(home=tmp_path, controlbus_brokers=f"127.0.0.1:{free_port()}")
    with ExitStack() as stack, pytest.raises(NotTold, match="Kafka"):
        stack.enter_context(onto_topic(nobody, "t"))
