"""Sending dead letters again: to the topic that they were on, or into the outbox once more."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from riskhub.controlbus import kafka, replay
from riskhub.controlbus.events import EventMalformed, parse
from riskhub.errors import RiskHubError
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store
from riskhub.store.derived import Row

_PAGE = 200


class NotRedriven(RiskHubError):
    """A dead letter can't be sent again; the text says why."""


@dataclass(slots=True)
class Redriven:
    """How many dead letters were sent again, and why others were not."""

    sent: int = 0
    reasons: list[str] = field(default_factory=list)


def redrive(settings: Settings, store: Store, letters: Iterable[Row]) -> Redriven:
    """Send dead letters again, and note it. Handlers that are done with an event pass it over.

    With brokers the bytes go to the topic as they came; else the outbox repeats the event, if it
    still has it. What did not verify when it was replayed is never sent as it is.

    Raises:
        NotRedriven: the brokers can't be reached; those that were sent are noted.
    """
    done = Redriven()
    sound = _verified(letters, done)
    if settings.controlbus_brokers:
        try:
            asyncio.run(_to_topic(settings, store, sound, done))
        except (KafkaError, TimeoutError) as error:
            reason = str(error) or "no broker acknowledged one in time"
            raise NotRedriven(f"Kafka: {reason}") from error
        return done
    for letter in sound:
        try:
            _to_outbox(store, letter)
        except NotRedriven as reason:
            done.reasons.append(str(reason))
        else:
            store.note_redriven(letter["id"], utc_now())
            done.sent += 1
    return done


def waiting(store: Store) -> Iterator[Row]:
    """The dead letters that nobody has sent again, as they are now; oldest first."""
    ids: list[int] = []
    before: int | None = None
    while page := store.dead_letters(limit=_PAGE, before=before, redriven=False):
        ids += [letter["id"] for letter in page]
        before = ids[-1]
    for letter_id in reversed(ids):  # one at a time: they may be large
        if (letter := store.dead_letter(letter_id)) and letter["redriven_at"] is None:
            yield letter


def _verified(letters: Iterable[Row], done: Redriven) -> Iterator[Row]:
    """Those that may be sent as they are; of the others, why not."""
    for letter in letters:
        if letter["handler"] == replay.HANDLER:
            done.reasons.append(
                f"dead letter {letter['id']} did not verify when it was replayed, so it is not "
                f"sent as it is: bring back its blob or row, then {_replay_of(letter)}"
            )
        else:
            yield letter


def _replay_of(letter: Row) -> str:
    """The command that replays what the letter is about, as far as it can be told."""
    try:
        day = str(parse(letter["raw"]).data["as_of"])[:10]
    except (EventMalformed, KeyError):
        return f"replay its day of world {letter['key']}"
    return f"`riskhub events replay --world {letter['key']} --from {day} --to {day}`"


async def _to_topic(
    settings: Settings, store: Store, letters: Iterable[Row], done: Redriven
) -> None:
    producer = await kafka.start_producer(settings)
    try:
        for letter in letters:
            try:
                async with asyncio.timeout(settings.controlbus.ack_timeout_sec):
                    await producer.send_and_wait(
                        settings.controlbus_topic,
                        letter["raw"],
                        key=letter["key"].encode() or None,
                    )
            except MessageSizeTooLargeError as error:
                done.reasons.append(f"dead letter {letter['id']} is too large: {error}")
                # After such a gap the brokers take nothing more of it.
                await kafka.close_producer(producer)
                producer = await kafka.start_producer(settings)
            else:
                store.note_redriven(letter["id"], utc_now())
                done.sent += 1
    finally:
        await kafka.close_producer(producer)


def _to_outbox(store: Store, letter: Row) -> None:
    try:
        sequence = parse(letter["raw"]).sequence
    except EventMalformed as error:
        raise NotRedriven(
            f"dead letter {letter['id']} is no event ({error}), which only a topic takes"
        ) from error
    if not store.repeat_events([sequence]):
        raise NotRedriven(
            f"dead letter {letter['id']}: the outbox has event {sequence} no more; it went with "
            "its snapshot"
        )
