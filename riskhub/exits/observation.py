"""What is known of a world and a stage at a moment, and what a rule reads in it. Pure.

A number that is not there is a `Reading` without a value that says why; it is never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from riskhub.exits.rules import (
    ZONES,
    ConcentrationRule,
    DrawdownRule,
    ExpiredRule,
    ModelZoneRule,
    Rule,
    StaleRule,
    StressLossRule,
    TailRule,
)
from riskhub.snapshot import format_instant

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Landed:
    """The newest snapshot that is not in the quarantine."""

    position: int
    version: str
    as_of: datetime
    digest: str
    received_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest snapshot that has a row of risk numbers.

    Attributes:
        metrics: its row of `risk_metrics`.
        tails: its rows of `risk_tails`, by method and level.
        losses: P&L of each scenario with its sign turned, fractions of equity: a loss is positive.
        not_stressed: why there is no such number, by scenario; empty where none was computed.
        stressed: whether its stress results are there at all.
    """

    metrics: Mapping[str, Any]
    tails: Mapping[tuple[str, str], Mapping[str, Any]]
    losses: Mapping[str, float]
    not_stressed: Mapping[str, str]
    stressed: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of a world and a stage.

    Attributes:
        zones: rows of `var_backtests`, the newest of each method and level.
        rejected: positions, of those that evidence names, that are in the quarantine.
    """

    world_id: str
    stage: str
    measured: Measured | None = None
    landed: Landed | None = None
    zones: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    rejected: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """One rule's number.

    Attributes:
        value: None when there is none; `missing` then says why.
        of: what the number is of: an `as_of`, or the midnight of a backtest's day.
        position: the snapshot that it was made from.
        evidence: how it came about; JSON values.
        parts: what the value is the worst of, by name, if of anything.
        missing_parts: why there is no such part.
    """

    value: float | None
    of: datetime
    position: int
    evidence: Mapping[str, Any]
    missing: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    missing_parts: Mapping[str, str] = field(default_factory=dict)


def read(rule: Rule, seen: Observation, now: datetime) -> Reading | None:
    """What a rule reads in an observation; None when there is no snapshot to speak of."""
    if isinstance(rule, StaleRule | ExpiredRule):
        return _age(rule, seen.landed, now) if seen.landed else None
    if seen.measured is None:
        return None
    if isinstance(rule, ModelZoneRule):
        return _zone(rule, seen.measured, seen.zones)
    if isinstance(rule, TailRule):
        return _tail(rule, seen.measured)
    if isinstance(rule, StressLossRule):
        return _stress(rule, seen.measured)
    return _column(rule, seen.measured)


def _of_snapshot(version: str, as_of: datetime, digest: str, position: int) -> dict[str, Any]:
    return {
        "version": version,
        "as_of": format_instant(as_of),
        "digest": digest,
        "position": position,
    }


def _reading(
    measured: Measured, value: float | None, missing: str | None = None, **told: Any
) -> Reading:
    row = measured.metrics
    snapshot = _of_snapshot(row["version"], row["as_of"], row["snapshot_digest"], row["position"])
    return Reading(value, row["as_of"], row["position"], snapshot | told, missing)


def _of_returns(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("horizon_days", "window", "n", "returns_source", "returns_digest", "code_version")
    return {name: row[name] for name in names}


def _tail(rule: TailRule, measured: Measured) -> Reading:
    row = measured.metrics
    tail = measured.tails.get((rule.method, rule.level))
    if tail is None:
        why = row["unavailable"] or row["absent"].get(rule.method) or "it was not computed"
        return _reading(measured, None, why)
    told = _of_returns(row) | {"source": tail["source"], "var": tail["var"], "es": tail["es"]}
    return _reading(measured, tail[rule.kind], **told)


def _column(rule: DrawdownRule | ConcentrationRule, measured: Measured) -> Reading:
    row = measured.metrics
    if isinstance(rule, ConcentrationRule):
        names = ("largest", "herfindahl", "effective_names", "gross", "net")
        return _reading(measured, row[rule.measure], **{name: row[name] for name in names})
    value = row[f"{rule.measure}_drawdown"]
    if value is None:
        why = row["unavailable"] or row["absent"].get("drawdown") or "there are no returns"
        return _reading(measured, None, why)
    return _reading(measured, value, **_of_returns(row))


def _stress(rule: StressLossRule, measured: Measured) -> Reading:
    losses = {name: loss for name, loss in measured.losses.items() if rule.considers(name)}
    without = {name: why for name, why in measured.not_stressed.items() if rule.considers(name)}
    row = measured.metrics
    snapshot = _of_snapshot(row["version"], row["as_of"], row["snapshot_digest"], row["position"])
    if not losses:
        why = "no scenario of it has a result" if measured.stressed else "it was not stressed yet"
        return Reading(None, row["as_of"], row["position"], snapshot, why, {}, without)
    # Of equal ones the first by name, so that it is the same each time.
    worst = min(losses, key=lambda name: (-losses[name], name))
    told = snapshot | {"scenario": worst, "scenarios": len(losses), "unavailable": len(without)}
    return Reading(losses[worst], row["as_of"], row["position"], told, None, losses, without)


def _zone(
    rule: ModelZoneRule,
    measured: Measured,
    zones: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Reading:
    row = zones.get((rule.method, rule.level))
    if row is None:
        return _reading(measured, None, "it has no backtest")
    names = ("zone", "exceedances", "observations", "multiplier", "window", "code_version")
    told = {"day": row["day"].isoformat()} | {name: row[name] for name in names}
    reading = _reading(measured, float(ZONES.index(row["zone"])), **told)
    return Reading(reading.value, midnight(row["day"]), reading.position, reading.evidence)


def _age(rule: StaleRule | ExpiredRule, landed: Landed, now: datetime) -> Reading:
    if isinstance(rule, StaleRule):
        value = max(0.0, (now - landed.as_of).total_seconds())
    else:
        ttl = (landed.expires_at - landed.received_at).total_seconds()
        value = max(0.0, (now - landed.received_at).total_seconds() / ttl)
    snapshot = _of_snapshot(landed.version, landed.as_of, landed.digest, landed.position)
    instants = {
        name: format_instant(getattr(landed, name)) for name in ("received_at", "expires_at")
    }
    return Reading(value, landed.as_of, landed.position, snapshot | instants)


def midnight(day: date) -> datetime:
    """The instant at which a UTC day begins."""
    return datetime.combine(day, time(), tzinfo=UTC)
