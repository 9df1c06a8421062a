"""Dagster's SQLite event log, writing a batch of events as a batch.

A backfill that materializes a range of daily partitions in one run records two events per asset
and day, and Dagster hands them over in batches (``DAGSTER_EVENT_BATCH_SIZE``). Its Postgres storage
writes a batch as one statement; its SQLite storage opens four connections and commits four times
*per event*, about 11 ms each, which is most of what a backfill on the embedded profile would cost.
This class writes the batch in two transactions: one in the run's shard, one in the index.

The plan of an asset check is a row per partition, each with the whole event, which Dagster writes
out anew for each and sends as one statement of so many values. Here the event is written out once.

Nothing else belongs here. Used by ``dagster.yaml``; production stores its events in Postgres.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData, serialize_value


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """`SqliteEventLogStorage` whose `store_event_batch` is one write, not one per event."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "BatchedSqliteEventLogStorage":
        """What Dagster calls on ``dagster.yaml``; the parent's names its own class."""
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events, in order.

        The events that plan a run are one batch, of its assets and of their checks: what stands
        between stretches of asset events is stored one by one.
        """
        for (is_plain, _), stretch in groupby(
            events, key=lambda event: (_is_plain_asset_event(event), event.run_id)
        ):
            together = list(stretch)
            if is_plain and len(together) > 1:
                self._store_asset_events(together)
            else:
                super().store_event_batch(together)

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        """Store asset events of one run in two transactions.

        Dagster answers an error here by storing the events one by one. The index is what runs
        contend for, so it comes first: when it refuses, nothing is stored, and nothing twice.
        """
        rows = [self._event_to_row(event) for event in events]
        insert = SqlEventLogStorageTable.insert()
        with self.index_transaction() as conn:
            conn.execute(insert, rows)
            # The transaction has been the only writer since the first row: ids have no gaps.
            last_id = conn.execute(
                sa.select(sa.func.max(SqlEventLogStorageTable.c.id))
            ).scalar_one()
            event_ids = range(last_id - len(rows) + 1, last_id + 1)
            self._store_asset_event_tags(conn, events, event_ids)
            # The asset's row holds its newest event of each type, so the last of each is enough.
            newest = {
                (event.get_dagster_event().asset_key, event.dagster_event_type): (event, event_id)
                for event, event_id in zip(events, event_ids, strict=True)
            }
            for event, event_id in newest.values():
                self._store_asset_event(conn, event, event_id)

        with self.run_connection(events[0].run_id) as conn:
            conn.execute(insert, rows)

    def _store_asset_check_evaluation_planned(
        self, event: EventLogEntry, event_id: int | None
    ) -> None:
        planned = event.get_dagster_event().asset_check_planned_data
        row = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": serialize_value(event),
            "evaluation_event_timestamp": self._event_insert_timestamp(event),  # type: ignore[no-untyped-call]
            "evaluation_event_storage_id": event_id,
        }
        subset = planned.partitions_subset
        partitions = subset.get_partition_keys() if subset else [None]
        with self.index_connection() as conn:
            conn.execute(
                AssetCheckExecutionsTable.insert(),
                [row | {"partition": partition} for partition in partitions],
            )


def _is_plain_asset_event(event: EventLogEntry) -> bool:
    return (
        event.is_dagster_event
        and event.dagster_event_type in ASSET_EVENTS
        and event.dagster_event_type not in ASSET_CHECK_EVENTS
        and event.dagster_event_type not in EVENT_TYPE_TO_PIPELINE_RUN_STATUS
    )
