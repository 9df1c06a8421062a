"""Whose lag behind the outbox is told."""

from datetime import timedelta

from builders import NOW

from riskhub.standing import exposition
from riskhub.store.standing import OutboxReader, Standing

GROUP, ENGINE = "group:workers", "exit-engine"


def readers_of(relay: str | None) -> set[str]:
    """The readers whose lag the page has, of a hub that has had both."""
    since = NOW - timedelta(minutes=5)
    readers = [OutboxReader(GROUP, 3, 4, since), OutboxReader(ENGINE, 7, 0, None)]
    standing = Standing(7, since, readers, {}, 0, {}, None, 0, {}, 0, None)
    page = exposition(standing, None, NOW, relay=relay).decode()
    lines = [line for line in page.splitlines() if line.startswith("riskhub_outbox_lag_events{")]
    return {line.split('"')[1] for line in lines}


def test_a_group_of_workers_that_is_on_kafka_is_not_behind_the_outbox() -> None:
    assert readers_of(relay=None) == {GROUP, ENGINE}
    assert readers_of(relay="relay:topic") == {"relay:topic", ENGINE}
