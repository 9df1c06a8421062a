"""What the benchmarks of runs share: a Dagster of their own, and when a run did what."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

import dagster as dg
from dagster._core.events import DagsterEventType
from rich.console import Console

from riskhub import cast, embedded
from riskhub.settings import Settings, load_settings
from riskhub.store import create_engine, migrate
from riskhub.supervisor import Child, ChildFailed, Supervisor
from tests.service_resolution import free_port

PORTS = ("API", "DAGSTER", "CODE_SERVER", "EMBEDDED_REDIS")
_EVENTS = {
    DagsterEventType.PIPELINE_ENQUEUED,
    DagsterEventType.PIPELINE_STARTING,
    DagsterEventType.PIPELINE_START,
    DagsterEventType.PIPELINE_SUCCESS,
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.STEP_SUCCESS,
}


def environment_in(home: str | Path) -> dict[str, str]:
    """Settings of a hub in a directory of its own, on free ports, as its processes find them."""
    ports = {f"RISKHUB_{name}_PORT": str(free_port()) for name in PORTS}
    # Set by some images; every run would then compile our modules again, and no others.
    bytecode = {"PYTHONDONTWRITEBYTECODE": ""}
    return dict(os.environ) | {"RISKHUB_HOME": str(home)} | ports | bytecode


@contextmanager
def a_hub() -> Iterator[Settings]:
    """An empty hub in a temporary directory, and its Dagster home; nothing runs yet."""
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, environment_in(home)):
        settings = load_settings()
        embedded.prepare_dagster_home(settings)
        migrate(create_engine(settings.effective_database_url))
        with instance_of(settings):  # lays out its tables, which two processes can't do at once
            pass
        yield settings


@contextmanager
def running(
    settings: Settings, *groups: Sequence[Child], **environment: str
) -> Iterator[Supervisor]:
    """Processes of a hub, each group when the one before is ready; ended at the end."""
    said = StringIO()
    supervisor = Supervisor(
        Console(file=said), settings.home / "logs", embedded.environment(settings) | environment
    )
    try:
        for group in groups:
            supervisor.start(group)
        yield supervisor
    except ChildFailed:
        print(said.getvalue())  # the log that it names is gone in a moment
        raise
    finally:
        supervisor.stop()


def code_server(settings: Settings, module: str, location: str, port: int) -> Child:
    """A code server like ours, of another module."""
    other = settings.model_copy(update={"code_server_port": port})
    ours = {"riskhub_dagster.definitions": module, "riskhub": location}
    command = [ours.get(part, part) for part in cast.command_code_server(other)]
    [like] = [child for child in cast.foundations(other) if child.name == "code"]
    return Child(f"code-{location}", command, like.is_ready)


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """A hub's Dagster instance, whether or not its processes run."""
    ours = embedded.environment(settings)
    names = ("DAGSTER_HOME", "RISKHUB_DAGSTER_EVENTS")
    with (
        mock.patch.dict(os.environ, {name: ours[name] for name in names}),
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
    ):
        yield instance


@dataclass(frozen=True)
class Step:
    """When a step began, gave its first output (a check's or an asset's), and ended."""

    began: float
    computed: float
    ended: float


@dataclass(frozen=True)
class Timeline:
    """When a run that succeeded did what, in unix seconds. `steps`: in their order."""

    requested: float
    enqueued: float
    starting: float
    started: float
    steps: dict[str, Step]
    ended: float

    @classmethod
    def of(cls, instance: dg.DagsterInstance, run_id: str) -> "Timeline":
        """As the instance's event log has it."""
        record = instance.get_run_record_by_id(run_id)
        assert record is not None, run_id
        at: dict[DagsterEventType, float] = {}
        of_steps: dict[str, dict[DagsterEventType, float]] = {}
        for entry in instance.all_logs(run_id, of_type=_EVENTS):
            kind = DagsterEventType(entry.dagster_event_type)
            if entry.step_key is None:
                at[kind] = entry.timestamp
            else:
                of_steps.setdefault(entry.step_key, {}).setdefault(kind, entry.timestamp)
        return cls(
            requested=record.create_timestamp.timestamp(),  # whole seconds
            enqueued=at[DagsterEventType.PIPELINE_ENQUEUED],
            starting=at[DagsterEventType.PIPELINE_STARTING],
            started=at[DagsterEventType.PIPELINE_START],
            steps={
                key: Step(
                    of_step[DagsterEventType.STEP_START],
                    of_step[DagsterEventType.STEP_OUTPUT],
                    of_step[DagsterEventType.STEP_SUCCESS],
                )
                for key, of_step in of_steps.items()
            },
            ended=at[DagsterEventType.PIPELINE_SUCCESS],
        )
