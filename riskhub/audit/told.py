"""What is wrong with violations and exit signals: rows that tell, and the events that told. Pure.

Row and event are written in one transaction and removed by nothing: where the one is, the other is.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from riskhub.audit.events import content_of
from riskhub.audit.findings import Fault, Finding
from riskhub.controlbus.events import EXIT_SIGNAL, id_of, violation
from riskhub.snapshot import format_instant
from riskhub.store.audit_told import AuditedEpisode, Row

_OF_VIOLATION = ("position_notional", "budget_usd", "over_budget", "mode")
# What a signal's own columns say again of its data.
_OF_SIGNAL = ("signal_id", "episode_id", "signal", "why")
# What the last signal of an episode says of it, until the next one.
_OF_EPISODE = (
    *("rule", "kind", "world_id", "stage", "action", "severity", "mode"),
    *("target_fraction", "opened_at"),
)


def event_id_of_violation(row: Row) -> str:
    """The id of the event that tells of a row of `budget_violations`."""
    return violation(row).id


def event_id_of_signal(row: Row) -> str:
    """The id of the event that tells of a row of `exit_signals`."""
    return id_of(f"{EXIT_SIGNAL}:{row['signal_id']}")


def told_violation_findings(data: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether the table has what an event of a violation tells of, once.

    Args:
        data: of the event.
        rows: those of its symbol and instant.
    """
    name = f"{data['symbol']} {data['at']}"
    same = sum(all(row[field] == data.get(field) for field in _OF_VIOLATION) for row in rows)
    if same > 1:
        yield Finding("violations", "doubled", f"{name}: {same} times")
    elif not same and rows:
        differ = [field for field in _OF_VIOLATION if rows[0][field] != data.get(field)]
        told = ", ".join(f"{field} {data.get(field)} was told" for field in differ)
        yield Finding("violations", "altered", f"{name}: {told}, {rows[0][differ[0]]} is stored")
    elif not same:
        yield Finding("violations", "missing", name)


def is_verbatim(row: Row, data: Mapping[str, Any]) -> bool:
    """Whether a violation stands as it was told, also in how its numbers are written (1 or 1.0)."""
    return all(
        row[name] == data.get(name) and type(row[name]) is type(data.get(name))
        for name in _OF_VIOLATION
    )


def violation_findings(row: Row, *, is_told: bool) -> Iterator[Finding]:
    """Whether a violation was told."""
    if not is_told:
        name = f"{row['symbol']} {format_instant(row['at'])}"
        yield Finding("events of violations", "missing", name)


def told_signal_findings(data: Mapping[str, Any], row: Row | None) -> Iterator[Finding]:
    """Whether the table has the signal that an event tells of."""
    name = data["signal_id"]
    if row is None:
        yield Finding("exit signals", "missing", name)
    elif row["data"] != content_of(data):
        yield Finding("exit signals", "altered", f"{name}: its row and its event differ")


def signal_findings(row: Row, *, is_told: bool) -> Iterator[Finding]:
    """Whether a signal was told, and its row says of itself what it told."""
    name, data = row["signal_id"], row["data"]
    if not is_told:
        yield Finding("events of exit signals", "missing", name)
    if not isinstance(data, dict):
        yield Finding("exit signals", "altered", f"{name}: what it told can't be read")
        return
    said = {field: row[field] for field in _OF_SIGNAL} | {"at": format_instant(row["at"])}
    for field, value in said.items():
        if data.get(field) != value:
            yield Finding("exit signals", "altered", f"{name}: its {field} is not that it told")


def episode_findings(episode: AuditedEpisode) -> Iterator[Finding]:
    """Whether an episode is as its signals have told it, and remembered while it is open."""
    row, last = episode.row, episode.last
    name, wanted = row["id"], row["signals"]
    if episode.signals != wanted:
        fault: Fault = "missing" if episode.signals < wanted else "extra"
        yield Finding("exit signals", fault, f"{name}: {episode.signals} of {wanted} signals")
    elif last is not None and isinstance(last["data"], dict):
        yield from _as_told(row, last)
    if row["closed_at"] is None and not episode.is_remembered:
        yield Finding("exit states", "missing", f"{name} is open, and nobody watches it")
    elif row["closed_at"] is not None and episode.is_remembered:
        yield Finding("exit states", "altered", f"{name} is closed, and is named as open")


def _as_told(row: Row, last: Row) -> Iterator[Finding]:
    name, data = row["id"], last["data"]
    is_closed = row["closed_at"] is not None
    stored = {field: row[field] for field in _OF_EPISODE}
    stored["opened_at"] = format_instant(row["opened_at"])
    told = {field: data.get(field) for field in _OF_EPISODE}
    if is_closed:  # while it is open, the newest number may be newer than the last signal
        at = format_instant(row["closed_at"])
        stored |= {"closed_at": at, "why": row["closed_because"]}
        stored |= {field: row[field] for field in ("value", "worst")}
        told |= {field: data.get(field) for field in ("closed_at", "why", "value", "worst")}
    else:
        stored["value"], told["value"] = row["told"], data.get("value")
    stored["is_closed"], told["is_closed"] = is_closed, last["signal"] == "closed"
    for field, value in stored.items():
        if value != told[field]:
            yield Finding("exit episodes", "altered", f"{name}: its {field} is not that it told")


def unknown_episode_findings(named: Collection[str]) -> Iterator[Finding]:
    """Episodes that are remembered as open and are not there."""
    for episode_id in named:
        yield Finding("exit episodes", "missing", f"{episode_id} is remembered as open")
