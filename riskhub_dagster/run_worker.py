"""Runs of Dagster on any number of machines: ``python -m riskhub_dagster.run_worker``.

A Celery worker with dagster-celery's tasks. It takes runs from the broker's Redis and executes each
in a process that has our definitions already. Needs ``$DAGSTER_HOME`` with a ``dagster.yaml`` like
``deploy/dagster/dagster.yaml``, and the settings of every other process.

**A run is given out once.** A worker acknowledges a run when one of its processes begins it
(`task_acks_late` is off), so the broker has nothing left to give to another, however long the run
takes: Redis' visibility timeout knows only what was fetched and not begun. That is next to nothing,
because a worker fetches a run only when a process is free (`worker_disable_prefetch`): what waits
does so in the broker, where any worker finds it, and not behind a long run of one worker.

**A run that is lost is noticed by Dagster**, not by the broker: its heartbeat stops, run monitoring
fails it (`run_heartbeat`, `run_launcher`), run_retries has it tried again. So there is one
mechanism that repeats a run, and it leaves a trace in the UI. The seconds between fetching a run
and Dagster calling it started are covered by start_timeout_seconds.

What belongs here: the Celery app, its settings, the process. How a run is executed is Dagster's.
"""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import celery
from celery.signals import setup_logging
from dagster import DagsterInstance
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import unpack_value
from dagster_celery.make_app import make_app as make_dagster_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from riskhub.errors import RiskHubError
from riskhub.logs import configure, tell
from riskhub.settings import Settings, load_settings
from riskhub_dagster.run_heartbeat import Heartbeat, RunLost, connect

WORKER_TAG = "riskhub/run_worker"
# A verdict or a result is looked up while its run is looked at, and longer by people.
_RESULTS_KEPT_SEC = 7 * 86_400
# A busy machine may need a while for a new process; one that is slow is not one that hangs.
_PROCESS_STARTS_WITHIN_SEC = 60.0
# Loggers that show each run with all that it is given; we say which runs begin and end.
_TELLS_ARGUMENTS = ("celery.worker.strategy", "celery.app.trace")


class NoBroker(RiskHubError):
    """Nothing says where runs come from."""


def make_app(settings: Settings) -> celery.Celery:
    """The Celery app of a run worker; opens no connection.

    Raises:
        NoBroker: `run_broker_url` is not set.
    """
    url = settings.run_broker_url
    if not url:
        raise NoBroker("a run worker needs RISKHUB_RUN_BROKER_URL (risk_hub.run_broker_url)")
    app: celery.Celery = make_dagster_app({"broker": url, "backend": url})  # type: ignore[no-untyped-call]
    app.conf.update(_configuration(settings))
    task = _task_with_heartbeat(settings, url)
    options: dict[str, Any] = {"base": task}
    create_execute_job_task(app, **options)
    create_resume_job_task(app, **options)
    return app


def _configuration(settings: Settings) -> Mapping[str, Any]:
    worker = settings.run_worker
    return {
        "task_default_queue": "dagster",
        # A run is given out once; see above.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "broker_transport_options": {
            "visibility_timeout": worker.visibility_timeout_sec,
            "socket_keepalive": True,
        },
        # A broker that is away for an hour is no reason to end.
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "worker_cancel_long_running_tasks_on_connection_loss": True,  # of late ones: we have none
        "result_extended": True,  # with the worker's name
        "result_expires": _RESULTS_KEPT_SEC,
        "worker_max_tasks_per_child": worker.runs_per_process,
        "worker_max_memory_per_child": worker.process_mb * 1024,  # KiB
        "worker_proc_alive_timeout": _PROCESS_STARTS_WITHIN_SEC,
        "worker_redirect_stdouts": False,
    }


def _task_with_heartbeat(settings: Settings, url: str) -> type[celery.Task]:
    worker = settings.run_worker
    timeout_sec = worker.heartbeat_sec / 2

    class RunTask(celery.Task):  # type: ignore[misc]
        """Executes one run, and says so meanwhile."""

        def __call__(self, **packed: Any) -> Any:
            """Take what dagster-celery's launcher packed."""
            (args,) = (unpack_value(each) for each in packed.values())
            if not isinstance(args, ExecuteRunArgs | ResumeRunArgs):
                raise TypeError(f"this is no run: {type(args).__name__}")
            name = str(self.request.hostname)
            client = connect(url, timeout_sec=timeout_sec)
            beats = Heartbeat(
                client,
                args.run_id,
                f"{name} {os.getpid()}",
                every_sec=worker.heartbeat_sec,
                lost_after_sec=worker.lost_after_sec,
                timeout_sec=timeout_sec,
            )
            # While a run is executed Dagster has the signals, and it leaves them ignored.
            terminated = signal.getsignal(signal.SIGTERM)
            tell("run_begins", run_id=args.run_id)
            try:
                with client, beats:
                    with DagsterInstance.get() as instance:
                        instance.add_run_tags(args.run_id, {WORKER_TAG: name})
                    return super().__call__(**packed)
            except RunLost as lost:
                tell("run_not_begun", why=str(lost))
                return None
            finally:
                signal.signal(signal.SIGTERM, terminated)
                tell("run_ends", run_id=args.run_id)

    return RunTask


def warm_up() -> None:
    """Import the definitions, for the processes to be forked with them. Opens no connection."""
    from riskhub_dagster.definitions import defs  # noqa: PLC0415 - what the environment says first

    defs.get_repository_def().get_all_jobs()
    gc.freeze()  # what is there stays shared: no collection writes to its pages


def serve(app: celery.Celery, *, name: str, concurrency: int) -> int:
    """Work until SIGTERM, and then until what is under way has ended; gives the exit code."""
    worker = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool="prefork",
        concurrency=concurrency,
        optimization="fair",
        # They tell workers of each other; ours need to know only of runs.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _complete_environment(settings: Settings) -> None:
    """What Dagster reads from the environment, also where a file has it; and what is best for it.

    Raises:
        NoBroker: ``$DAGSTER_HOME`` is not set.
    """
    if "DAGSTER_HOME" not in os.environ:
        raise NoBroker("a run worker needs DAGSTER_HOME: the directory of its dagster.yaml")
    given = {
        "RISKHUB_RUN_BROKER_URL": settings.run_broker_url,
        "RISKHUB_DAGSTER_DATABASE_URL": settings.dagster_database_url,
    }
    os.environ.update({name: value for name, value in given.items() if value})
    # Events of a range run are stored as batches of this size.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    # One numerical thread: the processes share the machine, and the matrices are small.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m riskhub_dagster.run_worker")
    parser.add_argument("--concurrency", type=int, help="runs at once; run_worker.concurrency")
    parser.add_argument("--name", default=f"runs-{os.getpid()}", help="before the @ of its name")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        configure(settings)
        setup_logging.connect(lambda **_: None, weak=False)  # Celery leaves our form of lines
        for name in _TELLS_ARGUMENTS:
            logging.getLogger(name).setLevel(logging.WARNING)
        _complete_environment(settings)
        app = make_app(settings)
        warm_up()
        return serve(
            app,
            name=chosen.name,
            concurrency=chosen.concurrency or settings.run_worker.concurrency,
        )
    except RiskHubError as error:
        print(f"riskhub: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
