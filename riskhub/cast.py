"""The cast: which processes there are, each with its command and how to tell that it is ready.

Said once, for `riskhub up` in both profiles and for the commands that become one of them. What they
need on a machine (a directory, ports) is in `riskhub.embedded`, how they are kept alive in
`riskhub.supervisor`.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from riskhub import probes
from riskhub.embedded import workspace_file
from riskhub.settings import Settings
from riskhub.supervisor import FOR_EVER, ON_A_LAPTOP, Child, Manner

# Of all of production: so many that start at once, on a machine that may be busy with other things.
_READY_WITHIN_SEC = 180.0
RUN_WORKER = "runs"
"""The name that the run worker of a machine goes by, before its host's."""


def manner(settings: Settings) -> Manner:
    """How the cast is kept: production never gives up, and lets requests in flight be answered."""
    return FOR_EVER if settings.profile == "prod" else ON_A_LAPTOP


def groups(settings: Settings) -> Sequence[Sequence[Child]]:
    """The whole cast, each group to be started when the one before is ready."""
    if settings.profile != "prod":
        return [foundations(settings), orchestration(settings)]
    return [
        [replace(child, ready_timeout_sec=_READY_WITHIN_SEC) for child in group]
        for group in (foundations(settings), bus(settings), orchestration(settings))
    ]


def foundations(settings: Settings) -> list[Child]:
    """What everything else needs: the stand-in for Redis, the API, the code server."""
    children = [
        Child(
            "api",
            command_api(),
            lambda: probes.answers(f"{settings.api_url}/readyz"),
            about=settings.api_url,
        ),
        Child(
            "code",
            command_code_server(settings),
            lambda: probes.listens(*settings.code_server),
            about="the Dagster definitions, and the runs",
            # Runs are its children and end with it; Dagster has no other way to hear of it.
            after_revival=[*command_recover(), "--runs-to-retry"],
        ),
    ]
    if settings.redis_url is None:
        redis_child = Child(
            "redis",
            command_redis(settings),
            lambda: probes.pings(settings),
            about=f"{settings.effective_redis_url} (a stand-in, in memory)",
        )
        children.insert(0, redis_child)
    return children


def bus(settings: Settings) -> list[Child]:
    """What takes landings further in production: relay, worker; and the source of equity."""
    children = [
        Child(
            "relay",
            _command("relay"),
            lambda: probes.has_relay(settings),
            about=f"events to {settings.controlbus_topic}",
        ),
        Child(
            "worker",
            _command("worker"),
            lambda: probes.has_worker(settings),
            about="verdicts, numbers and stress of what lands",
        ),
    ]
    if settings.run_broker_url:
        children.append(
            Child(
                "runs",
                [*command_run_worker(), "--name", RUN_WORKER],
                lambda: probes.has_run_worker(settings, RUN_WORKER),
                about=f"Dagster's runs, {settings.run_worker.concurrency} at once",
            )
        )
    if settings.governor.state_equity_key:
        children.append(
            Child(
                "equity",
                _command("portfolio-state"),
                # It publishes when its inputs are there, and these are not ours to wait for.
                lambda: True,
                about=f"the portfolio state, from {settings.governor.state_equity_key}",
            )
        )
    return children


def orchestration(settings: Settings) -> list[Child]:
    """What decides: Dagster's webserver and daemon, the governor, the exit engine, the alerts."""
    return [
        Child(
            "governor",
            _command("governor"),
            lambda: probes.is_governed(settings),
            about=f"budgets every {settings.governor.interval_sec:g} s",
        ),
        Child(
            "exits",
            _command("exit-engine"),
            lambda: probes.has_exit_engine(settings),
            about="signals by the rules of exit_rules_path",
        ),
        Child(
            "dagster",
            command_webserver(settings),
            lambda: probes.answers(f"{settings.dagster_url}/server_info"),
            about=settings.dagster_url,
            chatter=" - INFO - ",
        ),
        Child(
            "daemon",
            command_daemon(settings),
            probes.daemon_is_healthy(settings),
            about="sensors, schedules and backfills",
            chatter="No cursor for event type",
        ),
        Child(
            "alerts",
            command_alerts(),
            lambda: probes.is_watched(settings),
            about="what is wrong, told once and resolved once",
        ),
    ]


def live_producer(settings: Settings) -> Child:
    """The demo's live producer."""
    return Child(
        "live",
        _command("demo", "live"),
        lambda: probes.answers(f"{settings.api_url}/healthz"),
        about="posts six paper worlds every 30 s",
    )


def command_recover() -> list[str]:
    """Puts right what killed processes left in Dagster's storage."""
    return [sys.executable, "-m", "riskhub_dagster.recover"]


def command_run_worker() -> list[str]:
    """Executes the runs that the daemon gives out."""
    return [sys.executable, "-m", "riskhub_dagster.run_worker"]


def command_lay_out() -> list[str]:
    """Makes or upgrades the tables of Dagster's own records, which two can't do at once."""
    return [sys.executable, "-m", "dagster", "instance", "migrate"]


def command_redis(settings: Settings) -> list[str]:
    """The stand-in for Redis."""
    return _command("redis", "--port", str(settings.embedded_redis_port))


def command_api() -> list[str]:
    """The API, which reads address and workers from the settings that it finds itself."""
    return [sys.executable, "-m", "api.server"]


def command_code_server(settings: Settings) -> list[str]:
    """The gRPC server that holds our Dagster definitions, and launches runs."""
    return [
        sys.executable, "-m", "dagster", "api", "grpc",
        "--module-name", "riskhub_dagster.definitions", "--location-name", "riskhub",
        "--host", settings.code_server_host, "--port", str(settings.code_server_port),
        "--log-level", "warning", "--inject-env-vars-from-instance",
    ]  # fmt: skip


def command_alerts() -> list[str]:
    """The loop of alerts, without the other commands' memory."""
    return [sys.executable, "-m", "riskhub.alerts"]


def command_webserver(settings: Settings) -> list[str]:
    """Dagster's webserver."""
    return [
        sys.executable, "-m", "dagster_webserver",
        "--host", settings.dagster_host, "--port", str(settings.dagster_port),
        "--workspace", str(workspace_file(settings)),
        "--log-level", "warning", "--code-server-log-level", "warning",
    ]  # fmt: skip


def command_daemon(settings: Settings) -> list[str]:
    """Dagster's daemon: sensors, schedules, the run queue and backfills."""
    return [
        sys.executable, "-m", "dagster._daemon", "run",
        "--workspace", str(workspace_file(settings)),
        "--log-level", "warning", "--code-server-log-level", "warning",
    ]  # fmt: skip


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "riskhub", *words]
