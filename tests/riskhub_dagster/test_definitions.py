"""What the code location defines: it loads without a warning, and a change of it is seen here."""

import re
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.partitions.context import partition_loading_context

from riskhub.store.tables import metadata
from riskhub_dagster import signposts
from riskhub_dagster.definitions import defs
from riskhub_dagster.partitions import daily_partitions

# The one warning that is Dagster's own; why it stands is said in pyproject.toml.
LOAD = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "The `__fields__` attribute is deprecated", DeprecationWarning)
import riskhub_dagster.definitions
"""

DOCS = Path(__file__).resolve().parents[2] / "docs"
OWNERS = ["team:risk-platform"]
ASSETS = {
    "landed_snapshots": {
        "group": "1_landing",
        "kinds": ["fastapi", "table"],
        "deps": [],
        "checks": ["worlds_are_fresh"],
        "partitioned": False,
    },
    "validated_snapshots": {
        "group": "2_snapshots",
        "kinds": ["pandera", "table"],
        "deps": ["landed_snapshots"],
        "checks": ["nothing_flagged", "nothing_quarantined"],
        "partitioned": True,
    },
    "snapshot_weights": {
        "group": "2_snapshots",
        "kinds": ["table"],
        "deps": ["validated_snapshots"],
        "checks": [],
        "partitioned": True,
    },
    "risk_metrics": {
        "group": "4_risk",
        "kinds": ["numpy", "table"],
        "deps": ["prices", "snapshot_weights"],
        "checks": ["es_covers_var", "nothing_guessed", "numbers_available"],
        "partitioned": True,
    },
    "risk_contributions": {
        "group": "4_risk",
        "kinds": ["numpy", "table"],
        "deps": ["prices", "snapshot_weights"],
        "checks": ["components_add_up"],
        "partitioned": True,
    },
    "stress_results": {
        "group": "4_risk",
        "kinds": ["numpy", "table"],
        "deps": ["prices", "snapshot_weights"],
        "checks": ["scenarios_available"],
        "partitioned": True,
    },
    "var_outcomes": {
        "group": "5_backtests",
        "kinds": ["numpy", "table"],
        "deps": ["prices", "risk_metrics"],
        "checks": ["outcomes_known"],
        "partitioned": True,
    },
    "var_backtests": {
        "group": "5_backtests",
        "kinds": ["numpy", "table"],
        "deps": ["risk_metrics", "var_outcomes"],
        "checks": [
            "light_cornish_fisher",
            "light_ewma",
            "light_filtered_historical",
            "light_historical",
            "light_monte_carlo",
            "light_normal",
            "light_student_t",
        ],
        "partitioned": True,
    },
    "prices": {
        "group": "3_prices",
        "kinds": ["file"],
        "deps": [],
        "checks": [],
        "partitioned": False,
    },
    "asset_returns": {
        "group": "3_prices",
        "kinds": ["numpy", "pandera", "table"],
        "deps": ["prices"],
        "checks": ["returns_complete"],
        "partitioned": True,
    },
    "symbol_budgets": {
        "group": "6_decisions",
        "kinds": ["redis", "table"],
        "deps": ["risk_metrics"],
        "checks": ["budgets_computed"],
        "partitioned": False,
    },
    "exit_signals": {
        "group": "6_decisions",
        "kinds": ["redis", "table"],
        "deps": ["risk_metrics", "stress_results", "var_backtests"],
        "checks": ["exits_acknowledged"],
        "partitioned": False,
    },
    "retention": {
        "group": "7_operations",
        "kinds": ["sql"],
        "deps": ["landed_snapshots"],
        "checks": [],
        "partitioned": False,
    },
    "maintenance": {
        "group": "7_operations",
        "kinds": ["sql"],
        "deps": [],
        "checks": [],
        "partitioned": False,
    },
    "daily_digest": {
        "group": "7_operations",
        "kinds": ["markdown"],
        "deps": ["exit_signals", "risk_metrics", "symbol_budgets", "var_backtests"],
        "checks": [],
        "partitioned": False,
    },
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return defs.get_repository_def()


@pytest.fixture(scope="module")
def graph(repository: dg.RepositoryDefinition) -> AssetGraph:
    return repository.asset_graph


def test_the_code_location_loads_without_a_warning() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, check=False
    )

    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_the_definitions_can_be_loaded_whole() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dg.Definitions.validate_loadable(defs)


def test_the_asset_graph_is_the_one_written_down_here(graph: AssetGraph) -> None:
    checks = {
        key.to_user_string(): sorted(
            check.name for check in graph.asset_check_keys if check.asset_key == key
        )
        for key in graph.get_all_asset_keys()
    }

    assert {
        node.key.to_user_string(): {
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "deps": sorted(key.to_user_string() for key in node.parent_keys),
            "checks": checks[node.key.to_user_string()],
            "partitioned": node.partitions_def is not None,
        }
        for node in graph.asset_nodes
    } == ASSETS


def test_every_asset_and_check_says_what_it_is_and_who_answers_for_it(graph: AssetGraph) -> None:
    for node in graph.asset_nodes:
        assert node.description, node.key
        assert list(node.owners) == OWNERS, node.key
    for key in graph.asset_check_keys:
        assert graph.get_check_spec(key).description, key


def test_no_check_blocks_for_a_failed_one_would_materialize_all_the_same(graph: AssetGraph) -> None:
    assert [key for key in graph.asset_check_keys if graph.get_check_spec(key).blocking] == []


def test_jobs_sensors_and_schedules_are_those_written_down_here(
    repository: dg.RepositoryDefinition,
) -> None:
    jobs = {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
        for job in repository.get_all_jobs()
        if not job.name.startswith("__")
    }
    sensors = {
        sensor.name: (
            [target.job_name for target in sensor.targets],
            sensor.minimum_interval_seconds,
            sensor.default_status,
        )
        for sensor in repository.sensor_defs
    }
    schedules = {
        schedule.name: (
            schedule.job_name,
            schedule.cron_schedule,
            schedule.execution_timezone,
            schedule.default_status,
        )
        for schedule in repository.schedule_defs
    }

    assert jobs == {
        "compute_landed": [
            "risk_contributions",
            "risk_metrics",
            "snapshot_weights",
            "stress_results",
            "validated_snapshots",
        ],
        "compute_days": [
            "risk_contributions",
            "risk_metrics",
            "snapshot_weights",
            "stress_results",
            "validated_snapshots",
            "var_backtests",
            "var_outcomes",
        ],
        "compute_backtests": ["var_backtests", "var_outcomes"],
        "compute_returns": ["asset_returns"],
        "compute_budgets": ["symbol_budgets"],
        "replay_exits": ["exit_signals"],
        "apply_retention": ["retention"],
        "maintain": ["maintenance"],
        "write_digest": ["daily_digest"],
    }
    assert sensors == {
        "landing_sensor": (["compute_landed"], 9, dg.DefaultSensorStatus.RUNNING),
        "outcome_sensor": (["compute_backtests"], 30, dg.DefaultSensorStatus.RUNNING),
        "freshness_sensor": ([], 30, dg.DefaultSensorStatus.RUNNING),
    }
    assert schedules == {
        "budgets_every_minute": (
            "compute_budgets", "* * * * *", "UTC", dg.DefaultScheduleStatus.RUNNING,
        ),
        "exits_every_night": (
            "replay_exits", "0 4 * * *", "UTC", dg.DefaultScheduleStatus.RUNNING,
        ),
        "returns_every_evening": (
            "compute_returns", "30 22 * * 1-5", "UTC", dg.DefaultScheduleStatus.RUNNING,
        ),
        "retention_every_night": (
            "apply_retention", "30 3 * * *", "UTC", dg.DefaultScheduleStatus.STOPPED,
        ),
        "maintenance_every_night": (
            "maintain", "30 4 * * *", "UTC", dg.DefaultScheduleStatus.RUNNING,
        ),
        "digest_every_morning": (
            "write_digest", "0 6 * * *", "UTC", dg.DefaultScheduleStatus.RUNNING,
        ),
    }  # fmt: skip


def test_jobs_sensors_and_schedules_say_what_they_do(repository: dg.RepositoryDefinition) -> None:
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for automation in [*jobs, *repository.sensor_defs, *repository.schedule_defs]:
        assert automation.description, automation.name


def test_groups_are_numbered_so_that_a_list_of_them_reads_as_the_flow(graph: AssetGraph) -> None:
    groups = {node.group_name for node in graph.asset_nodes}

    assert tuple(sorted(groups)) == signposts.GROUPS
    for node in graph.asset_nodes:
        for parent in node.parent_keys:
            upstream = graph.get(parent).group_name
            assert upstream <= node.group_name or upstream == signposts.PRICES, node.key


def test_every_asset_names_its_cadence_and_where_to_read_on(graph: AssetGraph) -> None:
    for node in graph.asset_nodes:
        assert signposts.CADENCE in node.tags, node.key
        (doc,) = re.findall(r"`docs/([a-z-]+\.md)`", node.description)
        assert (DOCS / doc).is_file(), node.key


def test_every_asset_that_is_a_table_shows_the_columns_of_that_table(graph: AssetGraph) -> None:
    shown = {
        node.key.to_user_string(): node.metadata
        for node in graph.asset_nodes
        if "table" in node.kinds
    }

    assert len(shown) == 11
    for asset, told in shown.items():
        table = metadata.tables[told["dagster/table_name"]]
        schema = told["dagster/column_schema"]
        assert [(column.name, column.constraints.nullable) for column in schema.columns] == [
            (column.name, column.nullable) for column in table.columns
        ], asset


def test_lineage_of_columns_names_columns_that_there_are(graph: AssetGraph) -> None:
    columns = {
        node.key: {column.name for column in node.metadata["dagster/column_schema"].columns}
        for node in graph.asset_nodes
        if "dagster/column_schema" in node.metadata
    }
    told = [node for node in graph.asset_nodes if "dagster/column_lineage" in node.metadata]

    assert len(told) == 7
    for node in told:
        for column, sources in node.metadata["dagster/column_lineage"].deps_by_column.items():
            assert column in columns[node.key], (node.key, column)
            for source in sources:
                assert source.column_name in columns[source.asset_key], (node.key, source)


def test_a_range_of_days_is_one_run_not_a_run_a_day(graph: AssetGraph) -> None:
    policies = {
        node.key.to_user_string(): node.backfill_policy
        for node in graph.asset_nodes
        if node.partitions_def
    }

    assert set(policies.values()) == {dg.BackfillPolicy.single_run()}


def test_partitions_are_utc_days_from_1990_and_include_today() -> None:
    partitions = daily_partitions()
    tonight = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)

    assert partitions.get_first_partition_key() == "1990-01-01"
    with partition_loading_context(effective_dt=tonight):
        assert partitions.get_last_partition_key() == "2026-01-31"
    assert partitions.timezone == "UTC"


def test_the_first_partition_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_PARTITIONS_START", "2015-06-01")

    assert daily_partitions().get_first_partition_key() == "2015-06-01"


def test_runs_start_no_process_per_step(repository: dg.RepositoryDefinition) -> None:
    assert {job.executor_def.name for job in repository.get_all_jobs()} == {"in_process"}
