"""What is wrong with a landing, a world, or what a topic has of an event.

Pure: rows in, findings out. A landing that is young may still be on its way: what is made of it is
then not missed, but what is there must be right all the same.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from riskhub.audit.findings import Finding
from riskhub.blobs.fields import refs_of
from riskhub.controlbus.events import OutboxEvent
from riskhub.errors import ContractViolation
from riskhub.snapshot import format_instant, parse_instant
from riskhub.store.audit import AuditedLanding, Row
from riskhub.strict_json import Document, parse_json

_TOLD_OF_NUMBERS = (
    *("horizon_days", "window", "n", "volatility", "current_drawdown", "max_drawdown"),
    *("unavailable", "returns_digest", "covariance_digest", "code_version"),
)


def name_of(landing: AuditedLanding) -> str:
    """How an example names it."""
    return f"{landing.row['world_id']}/{landing.row['version']}"


def body_findings(landing: AuditedLanding) -> tuple[list[Finding], Document | None]:
    """What a stored body says otherwise than its row; with the body, where it can be read."""
    row, name = landing.row, name_of(landing)
    try:
        body = parse_json(row["body"].encode())
        stamped = {
            "world_id": (body.get("world_id"), row["world_id"]),
            "version": (body.get("version"), row["version"]),
            "hash": (body.get("hash"), row["digest"]),
            "created_at": (body.get("created_at"), format_instant(row["received_at"])),
            "as_of": (parse_instant(body["as_of"]), row["as_of"]),
            "stage": (body["provenance"]["stage"], row["stage"]),
            "actor": (body["provenance"]["actor"], row["actor"]),
            "ttl_sec": (
                row["received_at"] + timedelta(seconds=body["ttl_sec"]),
                row["expires_at"],
            ),
        }
    except (ContractViolation, KeyError, TypeError, ValueError) as error:
        return [Finding("bodies", "altered", f"{name}: can't be read: {error!r}")], None
    found = [
        Finding("bodies", "altered", f"{name}: its {field} is not that of its row")
        for field, (said, stored) in stamped.items()
        if said != stored
    ]
    named = set(refs_of(body))
    found += (Finding("references", "missing", f"{name}: {ref}") for ref in named - landing.refs)
    found += (Finding("references", "extra", f"{name}: {ref}") for ref in landing.refs - named)
    return found, body


def landing_findings(
    landing: AuditedLanding, *, is_settled: bool, told_again: bool
) -> Iterator[Finding]:
    """What is wrong with what follows from a landing.

    Args:
        is_settled: all that is made of it should be there by now.
        told_again: that its event is in the outbox more than once is no fault.
    """
    name, row = name_of(landing), landing.row
    if not landing.world_known:
        yield Finding("worlds", "missing", f"{row['world_id']} {row['stage']}")
    if not landing.told:
        yield Finding("events of landings", "missing", name)
    elif landing.told > 1 and not told_again:
        yield Finding("events of landings", "doubled", f"{name}: {landing.told} times")
    yield from _of_verdict(landing, is_settled)


def _of_verdict(landing: AuditedLanding, is_settled: bool) -> Iterator[Finding]:
    name, row, verdict = name_of(landing), landing.row, landing.verdict
    if verdict is None:
        if is_settled:
            yield Finding("verdicts", "missing", name)
        return
    if (verdict["digest"], verdict["day"]) != (row["digest"], row["as_of"].date()):
        yield Finding("verdicts", "altered", f"{name}: of another digest or day")
    yield from _of_stays(landing, is_rejected=not verdict["accepted"])
    if verdict["accepted"]:
        if landing.in_quarantine:
            yield Finding("quarantine", "extra", f"{name} is accepted")
        yield from _of_accepted(landing, is_settled)
        return
    if not landing.in_quarantine:
        yield Finding("quarantine", "missing", f"{name} is rejected")
    for what, there in _made(landing):
        if there:
            yield Finding(what, "extra", f"{name} is rejected")


def _of_stays(landing: AuditedLanding, *, is_rejected: bool) -> Iterator[Finding]:
    """Whether each time that a landing was in the quarantine was told, and each that was told was.

    Why it was rejected may have been found anew since then: that is not compared.
    """
    name, row, told_at = name_of(landing), landing.row, set()
    for told in landing.quarantine_told:
        at = told["occurred_at"]
        told_at.add(at)
        # Where its clock had stepped back, what is accepted may have left as if it had never been.
        if is_rejected and not any(_covers(stay, at) for stay in landing.stays):
            yield Finding("quarantine", "missing", f"{name}: told of since {format_instant(at)}")
        try:
            data = json.loads(told["data"])
            said = (data["as_of"], data["stage"])
        except (ValueError, KeyError, TypeError):
            continue  # found by itself: `riskhub.audit.events`
        if said != (format_instant(row["as_of"]), row["stage"]):
            yield Finding("events of the quarantine", "altered", f"{name}: another as_of or stage")
    for stay in landing.stays:
        if stay["since"] not in told_at:
            since = format_instant(stay["since"])
            yield Finding("events of the quarantine", "missing", f"{name}: since {since}")


def _covers(stay: Row, at: datetime) -> bool:
    """Whether it was in the quarantine then; what entered again at once has not left."""
    until: datetime | None = stay["until"]
    return stay["since"] <= at and (until is None or at < until)


def _made(landing: AuditedLanding) -> list[tuple[str, Any]]:
    return [
        ("weights", landing.weights),
        ("numbers", landing.numbers),
        ("stress", landing.stress),
    ]


def _of_accepted(landing: AuditedLanding, is_settled: bool) -> Iterator[Finding]:
    name, row = name_of(landing), landing.row
    if is_settled:
        for what, there in _made(landing):
            if not there:
                yield Finding(what, "missing", name)
    for what, made in (("numbers", landing.numbers), ("stress", landing.stress)):
        if made and (made["snapshot_digest"], made["day"]) != (row["digest"], row["as_of"].date()):
            yield Finding(what, "altered", f"{name}: of another digest or day")
    if landing.numbers:
        yield from _of_numbers(landing, landing.numbers)
    if landing.stress and landing.results != landing.scenarios:
        fault: Any = "missing" if landing.results < landing.scenarios else "extra"
        example = f"{name}: {landing.results} of {landing.scenarios} scenarios"
        yield Finding("stress results", fault, example)


def _of_numbers(landing: AuditedLanding, numbers: Row) -> Iterator[Finding]:
    name = name_of(landing)
    if (numbers["unavailable"] is None) != bool(landing.tails):
        fault: Any = "extra" if landing.tails else "missing"
        yield Finding("tails", fault, f"{name}: {len(landing.tails)}")
    if (numbers["contributions_level"] is not None) != bool(landing.contributions):
        fault = "extra" if landing.contributions else "missing"
        yield Finding("contributions", fault, f"{name}: {landing.contributions}")
    if not landing.numbers_told:
        yield Finding("events of numbers", "missing", name)
    elif not any(_tells(data, numbers, landing.tails) for data in landing.numbers_told):
        yield Finding("numbers", "altered", f"{name}: no event tells of what is stored")


def _tells(data: str, numbers: Row, tails: Sequence[Row]) -> bool:
    """Whether an event of numbers tells of these."""
    by_kind = {(tail["method"], tail["level"]): tail for tail in tails}
    try:
        told = json.loads(data)
        return (
            all(told[name] == numbers[name] for name in _TOLD_OF_NUMBERS)
            and told["hash"] == numbers["snapshot_digest"]
            and len(told["tails"]) == len(by_kind)
            and all(
                (tail := by_kind.get((said["method"], said["level"]))) is not None
                and all(said[name] == tail[name] for name in ("var", "es", "source"))
                for said in told["tails"]
            )
        )
    except (ValueError, KeyError, TypeError):  # it is no such event any more
        return False


def weights_findings(landing: AuditedLanding, body: Document) -> Iterator[Finding]:
    """Whether the stored weights of a landing are those of its body."""
    if landing.weights and landing.weights != body.get("weights"):
        yield Finding("weights", "altered", f"{name_of(landing)}: not those of its body")


def topic_findings(
    events: Sequence[OutboxEvent],
    on_topic: Mapping[str, bytes],
    digest_of: Callable[[bytes, int], bytes],
    buried: set[str],
) -> Iterator[Finding]:
    """Whether a topic has events, in their own bytes.

    Args:
        on_topic: by id, the digest of the bytes that it has.
        digest_of: takes such a digest, of bytes and sequence.
        buried: those that the relay has given up on; a dead letter tells of them.
    """
    for event in events:
        example = f"{event.type} {event.subject} ({event.sequence})"
        if (there := on_topic.get(event.id)) is None:
            if event.id not in buried:
                yield Finding("events on the topic", "missing", example)
        elif there != digest_of(event.cloud_event(), event.sequence):
            yield Finding("events on the topic", "altered", example)


def world_findings(world: Row) -> Iterator[Finding]:
    """Whether the news of a world are those of its landings; see `AuditStore.audited_worlds`.

    What retention has removed was news once, and remains so.
    """
    name = f"{world['world_id']} {world['stage']}"
    newest, noted = world["newest"], world["newest_as_of"]
    if newest is not None and (noted is None or noted < newest):
        yield Finding("worlds", "altered", f"{name}: its newest as_of is {newest}, not {noted}")
    alive, noted = world["alive"], world["alive_until"]
    if alive is not None and noted != alive:
        yield Finding("worlds", "altered", f"{name}: alive until {alive}, not {noted}")
