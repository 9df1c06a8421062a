"""The walk through what was told without a landing: violations and exit signals, both ways.

From an event to its row while the outbox is walked through, then from each row to its event.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from riskhub.audit import told
from riskhub.audit.findings import Ledger
from riskhub.controlbus.events import BUDGET_VIOLATION, EXIT_SIGNAL, OutboxEvent
from riskhub.store import Store
from riskhub.store.scratch import SeenEvents

Progress = Callable[[str, int, int | None], None]
Told = tuple[OutboxEvent, Mapping[str, Any]]


class Telling:
    """One such walk."""

    def __init__(
        self, store: Store, ledger: Ledger, since: datetime | None, altered: SeenEvents
    ) -> None:
        """Look at nothing yet.

        Args:
            since: only what happened since then.
            altered: an empty one, for rows that are told otherwise than they stand: their event has
                another id than follows from them, and is not missing.
        """
        self._store = store
        self._ledger = ledger
        self._since = since
        self._altered = altered

    def events(self, page: Sequence[OutboxEvent]) -> None:
        """Whether the tables have what these events tell of.

        Args:
            page: of the outbox, in order; only those that are what they say.
        """
        of_type: dict[str, list[Told]] = {BUDGET_VIOLATION: [], EXIT_SIGNAL: []}
        for event in page:
            if event.type in of_type and not (self._since and event.occurred_at < self._since):
                of_type[event.type].append((event, json.loads(event.data)))
        self._violations(of_type[BUDGET_VIOLATION])
        self._signals(of_type[EXIT_SIGNAL])

    def rows(self, progress: Progress) -> None:
        """Whether each row was told, and episodes are as their signals told them."""
        for page in self._store.audited_violations(self._since):
            ids = [told.event_id_of_violation(row) for row in page]
            there = self._store.events_there(ids)
            altered = self._altered.digests([_of(row) for row in page])
            for row, event_id in zip(page, ids, strict=True):
                is_told = event_id in there or _of(row) in altered
                self._ledger.add(told.violation_findings(row, is_told=is_told))
            self._ledger.look("violations", len(page))
            progress("violations", len(page), None)
        for page in self._store.audited_signals(self._since):
            ids = [told.event_id_of_signal(row) for row in page]
            there = self._store.events_there(ids)
            for row, event_id in zip(page, ids, strict=True):
                self._ledger.add(told.signal_findings(row, is_told=event_id in there))
            self._ledger.look("exit signals", len(page))
            progress("exit signals", len(page), None)
        for episodes in self._store.audited_episodes(self._since):
            for episode in episodes:
                self._ledger.add(told.episode_findings(episode))
            self._ledger.look("exit episodes", len(episodes))
        self._ledger.add(told.unknown_episode_findings(self._store.episodes_unknown()))

    def _violations(self, events: Sequence[Told]) -> None:
        if not events:
            return
        rows_of = defaultdict(list)
        for row in self._store.violations_at([event.occurred_at for event, _ in events]):
            rows_of[row["symbol"], row["at"]].append(row)
        for event, data in events:
            rows = rows_of[data["symbol"], event.occurred_at]
            self._ledger.add(told.told_violation_findings(data, rows))
            self._altered.add((_of(row), b"") for row in rows if not told.is_verbatim(row, data))

    def _signals(self, events: Sequence[Told]) -> None:
        rows = self._store.signals_named([data["signal_id"] for _, data in events])
        for _, data in events:
            self._ledger.add(told.told_signal_findings(data, rows.get(data["signal_id"])))


def _of(row: Mapping[str, Any]) -> str:
    return f"violation {row['id']}"
