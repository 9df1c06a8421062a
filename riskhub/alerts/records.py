"""Alerts as rows of the store, and back. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from riskhub.alerts.reconcile import Alert, Condition, Severity, Silence, State, Told, What

Row = dict[str, Any]


def alert_row(alert: Alert, *, over: bool) -> Row:
    """A row of `alerts`, of what is open or was."""
    condition = alert.condition
    return {
        "id": alert.id,
        "key": condition.key,
        "source": condition.source,
        "name": condition.name,
        "cause": list(condition.explained_by),
        "severity": condition.severity.value,
        "state": alert.state.value,
        "summary": condition.summary,
        "detail": condition.detail,
        "labels": dict(condition.labels),
        "runbook": condition.runbook,
        "first_seen": alert.first_seen,
        "last_seen": alert.last_seen,
        "opened_at": alert.opened_at,
        "gone_since": alert.gone_since,
        "resolved_at": alert.resolved_at,
        "count": alert.count,
        "acknowledged_by": alert.acknowledged_by,
        "acknowledged_at": alert.acknowledged_at,
        "notified": {
            receiver: {"at": told.at.isoformat(), "what": told.what, "severity": told.severity}
            for receiver, told in alert.told.items()
        },
        "over": over,
    }


def alert_of(row: Mapping[str, Any]) -> Alert:
    """The alert of a row."""
    return Alert(
        condition=Condition(
            key=row["key"],
            source=row["source"],
            name=row["name"],
            severity=Severity(row["severity"]),
            summary=row["summary"],
            detail=row["detail"],
            labels=row["labels"],
            runbook=row["runbook"],
            explained_by=tuple(row["cause"]),
        ),
        state=State(row["state"]),
        first_seen=row["first_seen"],
        held_since=row["first_seen"],
        last_seen=row["last_seen"],
        opened_at=row["opened_at"],
        gone_since=row["gone_since"],
        resolved_at=row["resolved_at"],
        count=row["count"],
        acknowledged_by=row["acknowledged_by"],
        acknowledged_at=row["acknowledged_at"],
        told={
            receiver: Told(
                datetime.fromisoformat(told["at"]), What(told["what"]), Severity(told["severity"])
            )
            for receiver, told in row["notified"].items()
        },
    )


def silence_of(row: Mapping[str, Any]) -> Silence:
    """The silence of a row."""
    return Silence(row["pattern"], row["since"], row["until"])
