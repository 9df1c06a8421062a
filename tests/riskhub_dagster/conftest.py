"""The hub on a database of the test's own, and the assets run against it in this process."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from builders import Clock, raw_document
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from databases import migrate
from waiting import Waits, waits_without_waiting

from riskhub.blobs import open_blobs
from riskhub.hub import Hub
from riskhub.settings import Settings, load_settings
from riskhub.snapshot import Snapshot
from riskhub.store import Store, create_engine, open_store
from riskhub.store.tables import metadata
from riskhub_dagster.assets.daily import ONLY_NEW_TAG
from riskhub_dagster.assets.risk import risk_metrics
from riskhub_dagster.assets.snapshots import landed_snapshots, snapshot_weights, validated_snapshots
from riskhub_dagster.assets.stress import stress_results
from riskhub_dagster.definitions import defs
from riskhub_dagster.resources import RiskHub
from riskhub_dagster.sensors import RANGE_END_TAG, RANGE_START_TAG

DAILY = [landed_snapshots, validated_snapshots, snapshot_weights, risk_metrics, stress_results]
DERIVED = (
    *("validated_snapshots", "snapshot_weights", "risk_metrics", "risk_tails"),
    *("risk_contributions", "candidate_risk", "snapshot_stress", "stress_results"),
)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Where the hub keeps what it keeps; a module that wants both databases overrides it."""
    return f"sqlite:///{tmp_path / 'hub.db'}"


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that an asset finds when it runs; the database is migrated."""
    monkeypatch.setenv("RISKHUB_HOME", str(tmp_path))
    monkeypatch.setenv("RISKHUB_DATABASE_URL", database_url)
    engine = create_engine(database_url)
    migrate(engine)
    engine.dispose()
    return load_settings()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """The hub's database, beside the connections that the assets open."""
    opened = open_store(settings.effective_database_url)
    yield opened
    opened.close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's own records, in memory."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Dagster's waiting between retries, without the wait."""
    return waits_without_waiting(monkeypatch)


@dataclass
class Landing:
    """A producer of snapshots, each a new version, received when the test's clock says."""

    store: Store
    settings: Settings
    # An hour behind, so that a test may move on without passing Dagster's midnight.
    clock: Clock = field(default_factory=lambda: Clock(datetime.now(UTC) - timedelta(hours=1)))
    landed: int = 0

    def __call__(self, as_of: date | datetime, **overrides: Any) -> int:
        """Land one snapshot; gives its position."""
        self.store.land([self.snapshot(as_of, **overrides)])
        return self.store.head()

    def snapshot(
        self,
        as_of: date | datetime,
        *,
        world_id: str = "equities",
        stage: str = "backtest",
        **overrides: Any,
    ) -> Snapshot:
        """What the hub makes of the next version, of an instant or of 21:00 UTC of a day."""
        if not isinstance(as_of, datetime):
            as_of = datetime(as_of.year, as_of.month, as_of.day, 21, tzinfo=UTC)
        self.landed += 1
        document = raw_document(version=f"v{self.landed}", as_of=as_of.isoformat(), **overrides)
        hub = Hub(self.store, self.settings, self.clock, blobs=open_blobs(self.settings))
        return hub.accept(document, world_id=world_id, actor="optimizer", stage=stage)


@pytest.fixture
def land(store: Store, settings: Settings) -> Landing:
    """Lands snapshots through the hub."""
    return Landing(store, settings)


Compute = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def compute(settings: Settings, instance: dg.DagsterInstance) -> Compute:
    """Materializes the daily assets of a day, or of a range of days in one run.

    Other options are those of `dg.materialize`.
    """

    def run(
        first: date,
        last: date | None = None,
        *,
        only_new: bool = False,
        on: dg.DagsterInstance = instance,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        tags = {ONLY_NEW_TAG: "true"} if only_new else {}
        if last is not None:
            tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        return dg.materialize(
            DAILY,
            partition_key=None if last else first.isoformat(),
            tags=tags,
            instance=on,
            resources={"hub": RiskHub()},
            **options,
        )

    return run


Tables = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def tables(store: Store) -> Tables:
    """Reads every derived table whole, in the order of its key."""

    def read() -> dict[str, list[dict[str, Any]]]:
        with store.engine.connect() as connection:
            return {
                name: [
                    dict(row._mapping)
                    for row in connection.execute(
                        sa.select(metadata.tables[name]).order_by(
                            *metadata.tables[name].primary_key.columns
                        )
                    )
                ]
                for name in DERIVED
            }

    return read


@pytest.fixture
def empty_derived(store: Store) -> Callable[[], None]:
    """Forgets everything that was computed."""

    def empty() -> None:
        with store.engine.begin() as connection:
            for name in DERIVED:
                connection.execute(sa.delete(metadata.tables[name]))

    return empty


Checks = Callable[[dg.ExecuteInProcessResult], dict[str, dg.AssetCheckEvaluation]]


@pytest.fixture
def checks() -> Checks:
    """The checks that a run evaluated, by name."""
    return lambda result: {
        evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()
    }


Materialized = Callable[[dg.ExecuteInProcessResult], dict[str, list[str]]]


@pytest.fixture
def materialized() -> Materialized:
    """The partitions that a run materialized, by asset."""

    def read(result: dg.ExecuteInProcessResult) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in result.get_asset_materialization_events():
            assert event.asset_key is not None
            found.setdefault(event.asset_key.to_user_string(), []).append(str(event.partition))
        return found

    return read


def is_plain(value: Any) -> bool:
    """Whether JSON can carry a value as it is; NaN and infinity it can't."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


@pytest.fixture
def records() -> Callable[[dg.TableMetadataValue], Sequence[dict[str, Any]]]:
    """The rows of a table in metadata, after a look that each value is plain."""

    def read(value: dg.TableMetadataValue) -> Sequence[dict[str, Any]]:
        rows = [dict(record.data) for record in value.records]
        assert all(is_plain(cell) for row in rows for cell in row.values()), rows
        return rows

    return read


RecordRun = Callable[..., dg.DagsterRun]


@pytest.fixture
def record_run(instance: dg.DagsterInstance) -> RecordRun:
    """Puts a run of the landing job on record, in any status; nothing is executed."""
    job = defs.resolve_job_def("compute_landed")
    loadable = LoadableTargetOrigin(module_name="riskhub_dagster.definitions")
    location = InProcessCodeLocationOrigin(loadable, location_name="riskhub")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job.name)

    def record(status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
        return instance.create_run_for_job(job, status=status, tags=tags, remote_job_origin=origin)

    return record


RecordBackfill = Callable[..., PartitionBackfill]


@pytest.fixture
def record_backfill(instance: dg.DagsterInstance) -> RecordBackfill:
    """Puts a backfill on record as the UI requests it; nothing is executed."""

    def record(
        asset: str, days: Sequence[date], status: BulkActionStatus = BulkActionStatus.REQUESTED
    ) -> PartitionBackfill:
        with warnings.catch_warnings():
            # Dagster calls a method of its own that it deprecates.
            warnings.filterwarnings("ignore", r"Function `AssetSelection\.sources`")
            backfill = PartitionBackfill.from_asset_partitions(
                backfill_id=f"{asset}-{status.value}",
                asset_graph=defs.get_repository_def().asset_graph,
                partition_names=[day.isoformat() for day in days],
                asset_selection=[dg.AssetKey(asset)],
                backfill_timestamp=datetime.now(UTC).timestamp(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            ).with_status(status)
        instance.add_backfill(backfill)
        return backfill

    return record
