"""The batched event log: what Dagster's own storage would answer, for far fewer transactions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.event_api import EventRecordsFilter
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from riskhub_dagster.event_log import BatchedSqliteEventLogStorage

FIRST, LAST = date(2020, 1, 15), date(2020, 3, 14)
PARTITIONS = 60
ASSETS = [dg.AssetKey(name) for name in ("validated_snapshots", "snapshot_weights", "risk_metrics")]
DAYS_SEEN = dg.AssetKey("days")


@contextmanager
def instance_with(storage: type[SqliteEventLogStorage], home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, its event log of this class."""
    home.mkdir()
    overrides = {
        "event_log_storage": {
            "module": storage.__module__,
            "class": storage.__name__,
            "config": {"base_dir": str(home / "events")},
        },
        "python_logs": {"python_log_level": "WARNING"},
    }
    with dg.instance_for_test(overrides=overrides, temp_dir=str(home)) as instance:
        assert type(instance.event_log_storage) is storage
        yield instance


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_with(SqliteEventLogStorage, tmp_path / "plain") as instance:
        yield instance


@pytest.fixture
def batched(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_with(BatchedSqliteEventLogStorage, tmp_path / "batched") as instance:
        yield instance


@pytest.fixture
def plain_storage(tmp_path: Path) -> SqliteEventLogStorage:
    return SqliteEventLogStorage(str(tmp_path / "plain"))


@pytest.fixture
def batched_storage(tmp_path: Path) -> BatchedSqliteEventLogStorage:
    return BatchedSqliteEventLogStorage(str(tmp_path / "batched"))


@dataclass
class Commits:
    """How many transactions were committed."""

    count: int = 0


@contextmanager
def counting_commits() -> Iterator[Commits]:
    commits = Commits()

    def count(_connection: sa.Connection) -> None:
        commits.count += 1

    sa.event.listen(sa.Engine, "commit", count)
    try:
        yield commits
    finally:
        sa.event.remove(sa.Engine, "commit", count)


# --- a range run ---------------------------------------------------------------------------------


def told_by(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """All that an instance can be asked about a range run, without its clock and its run id."""
    told: dict[str, Any] = {
        "logs": [
            (entry.dagster_event_type, entry.step_key, _told_of(entry, run_id))
            for entry in instance.all_logs(run_id)
            if entry.dagster_event_type
            in (
                DagsterEventType.ASSET_MATERIALIZATION,
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
                DagsterEventType.ASSET_CHECK_EVALUATION,
                DagsterEventType.STEP_SUCCESS,
                DagsterEventType.RUN_SUCCESS,
            )
        ],
        "keys": sorted(key.to_user_string() for key in instance.get_asset_keys()),
        "with status": [record.dagster_run.status for record in instance.get_run_records()],
    }
    for key in ASSETS:
        result = instance.fetch_materializations(key, limit=1000)
        records = instance.event_log_storage.get_event_records(
            EventRecordsFilter(DagsterEventType.ASSET_MATERIALIZATION, asset_key=key)
        )
        (asset,) = instance.get_asset_records([key])
        entry = asset.asset_entry
        latest = instance.get_latest_materialization_event(key)
        assert latest is not None
        assert entry.last_materialization_record is not None
        newest = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[LAST.isoformat()]), limit=1
        )
        storage_ids = [record.storage_id for record in records]
        partition_of = {record.storage_id: record.partition_key for record in records}
        by_partition = instance.get_latest_storage_id_by_partition(
            key, DagsterEventType.ASSET_MATERIALIZATION
        )
        told[key.to_user_string()] = {
            "materializations": [
                _told_of(record.event_log_entry, run_id) for record in result.records
            ],
            "event records": [_told_of(record.event_log_entry, run_id) for record in records],
            "ids fall": storage_ids == sorted(storage_ids, reverse=True),
            "runs": {record.run_id == run_id for record in records},
            "partitions": instance.get_materialized_partitions(key),
            "after": instance.get_materialized_partitions(
                key, after_cursor=sorted(storage_ids)[len(storage_ids) // 2]
            ),
            "tags": _sorted_tags(instance, key, run_id),
            "tags of a day": _sorted_tags(
                instance, key, run_id, {"dagster/partition": "2020-02-03"}
            ),
            "latest": _told_of(latest, run_id),
            "asset record": (
                _told_of(entry.last_materialization_record.event_log_entry, run_id),
                entry.last_run_id == run_id,
                partition_of[entry.last_materialization_record.storage_id],
                entry.last_materialization_storage_id == max(storage_ids),
            ),
            "of the last day": [
                _told_of(record.event_log_entry, run_id) for record in newest.records
            ],
            "by partition": {
                partition: partition_of[storage_id]
                for partition, storage_id in by_partition.items()
            },
        }
    return told


def _told_of(entry: EventLogEntry, run_id: str) -> Any:
    """An event as text, without what two runs can't share."""
    event = entry.dagster_event
    if event is None or event.event_type is not DagsterEventType.ASSET_MATERIALIZATION:
        return None  # the texts of others tell how long something took
    data = event.event_specific_data
    assert isinstance(data, StepMaterializationData)
    found = data.materialization
    return (
        found.asset_key.to_user_string(),
        found.partition,
        found.description,
        {name: repr(value) for name, value in found.metadata.items()},
        _shared(found.tags or {}, run_id),
        entry.run_id == run_id,
    )


def _shared(tags: Mapping[str, str], run_id: str) -> dict[str, str]:
    """Tags without those that hold the run's id or come fresh with each materialization."""
    fresh = ("dagster/data_version", "dagster/input_")
    return {
        name: "the run" if value == run_id else value
        for name, value in tags.items()
        if not name.startswith(fresh)
    }


def _sorted_tags(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    run_id: str,
    having: dict[str, str] | None = None,
) -> list[str]:
    found = instance.get_event_tags_for_asset(key, filter_tags=having)
    return sorted(json.dumps(_shared(tags, run_id)) for tags in found)


def test_a_range_run_is_remembered_as_dagsters_own_storage_would(
    land, compute, monkeypatch: pytest.MonkeyPatch, plain, batched
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    for day in (FIRST, date(2020, 2, 3), LAST):
        land(day)

    with counting_commits() as plain_commits:
        by_plain = compute(FIRST, LAST, on=plain)
    with counting_commits() as batched_commits:
        by_batch = compute(FIRST, LAST, on=batched)

    expected, told = told_by(plain, by_plain.run_id), told_by(batched, by_batch.run_id)
    assert len(expected["risk_metrics"]["partitions"]) == PARTITIONS
    assert len(expected["risk_metrics"]["materializations"]) == PARTITIONS
    assert expected["risk_metrics"]["ids fall"]
    assert told == expected
    # A plan and a materialization of each asset and day, two transactions each, against a batch.
    one_by_one = 2 * 2 * PARTITIONS * len(ASSETS)
    assert plain_commits.count - batched_commits.count > 0.95 * one_by_one


def test_a_range_longer_than_a_batch_is_stored_as_several(
    land, compute, monkeypatch: pytest.MonkeyPatch, batched
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "25")
    sizes: list[int] = []
    store = BatchedSqliteEventLogStorage.store_event_batch

    def spied(self: BatchedSqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
        sizes.append(len(events))
        store(self, events)

    monkeypatch.setattr(BatchedSqliteEventLogStorage, "store_event_batch", spied)

    compute(FIRST, LAST, on=batched)

    assert max(sizes) == 25
    for key in ASSETS:
        assert len(batched.get_materialized_partitions(key)) == PARTITIONS


def test_without_batches_in_the_environment_the_answers_are_the_same(
    compute, monkeypatch: pytest.MonkeyPatch, plain, batched
) -> None:
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)
    last = date(2020, 1, 17)

    by_plain, by_batch = compute(FIRST, last, on=plain), compute(FIRST, last, on=batched)

    for key in ASSETS:
        assert batched.get_materialized_partitions(key) == plain.get_materialized_partitions(key)
    assert [entry.dagster_event_type for entry in batched.all_logs(by_batch.run_id)] == [
        entry.dagster_event_type for entry in plain.all_logs(by_plain.run_id)
    ]


# --- batches, entry for entry --------------------------------------------------------------------


def entry(
    event: dg.DagsterEvent, run_id: str = "run-1", timestamp: float = 1000.0
) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level="debug",
        user_message=event.message or "",
        run_id=run_id,
        timestamp=timestamp,
        step_key=event.step_key,
        job_name="job",
        dagster_event=event,
    )


def materialization(number: int, asset: dg.AssetKey = DAYS_SEEN) -> dg.DagsterEvent:
    made = dg.AssetMaterialization(
        asset,
        partition=f"2020-01-{number:02d}",
        metadata={"rows": number},
        tags={"dagster/partition": f"2020-01-{number:02d}", "dagster/code_version": "1"},
    )
    return dg.DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        "job",
        step_key="days",
        event_specific_data=StepMaterializationData(made),
        message=f"materialized {number}",
    )


def observation(number: int) -> dg.DagsterEvent:
    seen = dg.AssetObservation(DAYS_SEEN, partition=f"2020-01-{number:02d}")
    return dg.DagsterEvent(
        DagsterEventType.ASSET_OBSERVATION.value,
        "job",
        step_key="days",
        event_specific_data=AssetObservationData(seen),
        message=f"observed {number}",
    )


def planned(number: int, asset: dg.AssetKey = DAYS_SEEN) -> dg.DagsterEvent:
    return dg.DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        "job",
        step_key="days",
        event_specific_data=AssetMaterializationPlannedData(asset, f"2020-01-{number:02d}"),
        message=f"planned {number}",
    )


def step_success() -> dg.DagsterEvent:
    return dg.DagsterEvent(
        DagsterEventType.STEP_SUCCESS.value,
        "job",
        step_key="days",
        event_specific_data=StepSuccessData(1.0),
        message="success",
    )


def run_success() -> dg.DagsterEvent:
    return dg.DagsterEvent(DagsterEventType.RUN_SUCCESS.value, "job", message="the run ended")


def check_evaluation() -> dg.DagsterEvent:
    return dg.DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION.value,
        "job",
        step_key="days",
        event_specific_data=dg.AssetCheckEvaluation(
            asset_key=DAYS_SEEN, check_name="good", passed=True, metadata={}
        ),
        message="checked",
    )


def remembered(storage: SqliteEventLogStorage) -> dict[str, Any]:
    """All that the storage holds, ids and times included."""
    keys = [DAYS_SEEN, dg.AssetKey("other")]
    return {
        "logs": {run_id: storage.get_logs_for_run(run_id) for run_id in ("run-1", "run-2")},
        "records": [
            list(storage.get_event_records(EventRecordsFilter(kind)))
            for kind in (
                DagsterEventType.ASSET_MATERIALIZATION,
                DagsterEventType.ASSET_OBSERVATION,
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
            )
        ],
        "assets": list(storage.get_asset_records(keys)),
        "has": [storage.has_asset_key(key) for key in keys],
        "partitions": [storage.get_materialized_partitions(key) for key in keys],
        "tags": [sorted(map(str, storage.get_event_tags_for_asset(key))) for key in keys],
        "checks": [
            (record.status, record.event)
            for record in storage.get_asset_check_execution_history(
                dg.AssetCheckKey(DAYS_SEEN, "good"), limit=10
            )
        ],
    }


def check_planned() -> dg.DagsterEvent:
    return dg.DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        "job",
        step_key="days",
        event_specific_data=AssetCheckEvaluationPlanned(asset_key=DAYS_SEEN, check_name="good"),
        message="check planned",
    )


OTHER = dg.AssetKey("other")
BATCHES = {
    "of one asset": [entry(materialization(n), timestamp=1000.0 + n) for n in range(1, 10)],
    "of two assets in turns": [
        entry(materialization(n, asset), timestamp=1000.0 + n)
        for n in range(1, 5)
        for asset in (DAYS_SEEN, OTHER)
    ],
    "of materializations, then an observation": [
        entry(materialization(1), timestamp=1001.0),
        entry(materialization(2), timestamp=1002.0),
        entry(observation(3), timestamp=1003.0),
    ],
    "of plans around a materialization": [
        entry(planned(1), timestamp=1001.0),
        entry(materialization(2), timestamp=1002.0),
        entry(planned(3), timestamp=1003.0),
    ],
    "that plans a run of two assets and a check": [
        *(entry(planned(n)) for n in range(1, 4)),
        entry(check_planned()),
        *(entry(planned(n, OTHER)) for n in range(1, 4)),
    ],
    "of two runs": [entry(materialization(1), "run-1"), entry(materialization(2), "run-2")],
    "with events of no asset": [
        entry(materialization(1)),
        entry(step_success()),
        entry(materialization(2)),
    ],
    "with the end of the run": [entry(materialization(1)), entry(run_success())],
    "with a check": [entry(materialization(1)), entry(check_evaluation())],
    "of one": [entry(materialization(1))],
    "of none": [],
}
# Transactions: two for each stretch of asset events of a run, and Dagster's own for the others.
TRANSACTIONS = {
    "of one asset": 2,
    "of two assets in turns": 2,
    "of materializations, then an observation": 2,
    "of plans around a materialization": 2,
    "that plans a run of two assets and a check": 2 + 3 + 2,
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_leaves_what_its_events_one_by_one_would(
    name: str, plain_storage, batched_storage
) -> None:
    events = BATCHES[name]
    for storage in (plain_storage, batched_storage):
        storage.store_event_batch([entry(materialization(11, OTHER), timestamp=900.0)])

    plain_storage.store_event_batch(events)
    batched_storage.store_event_batch(events)

    assert remembered(batched_storage) == remembered(plain_storage)


@pytest.mark.parametrize("name", BATCHES)
def test_asset_events_of_one_run_that_stand_together_are_two_transactions(
    name: str, plain_storage, batched_storage
) -> None:
    events = BATCHES[name]
    for storage in (plain_storage, batched_storage):
        for run_id in ("run-1", "run-2"):  # each opens its shard
            storage.store_event(entry(step_success(), run_id))

    with counting_commits() as one_by_one:
        plain_storage.store_event_batch(events)
    with counting_commits() as at_once:
        batched_storage.store_event_batch(events)

    assert at_once.count == TRANSACTIONS.get(name, one_by_one.count)


def test_a_batch_that_fails_is_stored_one_by_one_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, batched_storage
) -> None:
    events = BATCHES["of one asset"]

    def refuse(*_: Any) -> None:
        raise RuntimeError("the index is busy")

    with monkeypatch.context() as patch:
        patch.setattr(BatchedSqliteEventLogStorage, "_store_asset_event_tags", refuse)
        with pytest.raises(RuntimeError):
            batched_storage.store_event_batch(events)
    for event in events:  # what Dagster does then
        batched_storage.store_event(event)

    records = batched_storage.get_event_records(
        EventRecordsFilter(DagsterEventType.ASSET_MATERIALIZATION)
    )
    assert [record.storage_id for record in records] == list(range(9, 0, -1))
    assert len(batched_storage.get_logs_for_run("run-1")) == 9


# --- checks of a range ---------------------------------------------------------------------------


def test_the_plan_of_a_check_is_remembered_for_each_day_of_a_range(
    plain_storage, batched_storage
) -> None:
    days = dg.DailyPartitionsDefinition("2020-01-01", end_date="2020-03-01")
    keys = days.get_partition_keys()
    planned_range = dg.DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        "job",
        step_key="days",
        event_specific_data=AssetCheckEvaluationPlanned(
            asset_key=DAYS_SEEN,
            check_name="good",
            partitions_subset=days.subset_with_partition_keys(keys).to_serializable_subset(),
        ),
        message="check planned",
    )

    for storage in (plain_storage, batched_storage):
        storage.store_event(entry(planned_range))

    expected, told = (
        [
            (row.id, row.status, row.run_id, row.event, row.partition, row.create_timestamp > 0)
            for row in storage.get_asset_check_execution_history(
                dg.AssetCheckKey(DAYS_SEEN, "good"), limit=1000
            )
        ]
        for storage in (plain_storage, batched_storage)
    )
    assert sorted(row[4] for row in expected) == keys
    assert told == expected
