"""`riskhub up`: the whole embedded profile in one terminal, and the demo that feeds it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from riskhub import bootstrap, embedded
from riskhub.demo import history, live
from riskhub.demo.history import DemoFailed, Period
from riskhub.demo.report import as_table, report
from riskhub.errors import RiskHubError
from riskhub.settings import Settings
from riskhub.store import create_engine, migrate
from riskhub.supervisor import Supervisor

_POLL_SEC = 0.5
_LIVE_PASS_TIMEOUT_SEC = 150.0

Alive = Callable[[], None]


def up(
    settings: Settings,
    console: Console,
    *,
    demo: bool,
    periods: tuple[Period, ...],
    exit_when_ready: bool,
) -> None:
    """Start everything, feed it when `demo`, then serve until Ctrl-C or SIGTERM.

    Args:
        exit_when_ready: end after the first complete pass instead of serving on.

    Raises:
        RiskHubError: what went wrong, in a sentence. Every child is ended before.
    """
    # Both, and explicitly: a shell that starts us in the background has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    bootstrap.price_panel(settings.prices_path)  # a corrupt file is told before anything starts
    with embedded.exclusive_home(settings):
        embedded.check_ports(settings)
        embedded.prepare_dagster_home(settings)
        environment = embedded.environment(settings)
        migrate(create_engine(settings.effective_database_url))
        _recover(environment)
        supervisor = Supervisor(console, settings.home / "logs", environment)
        try:
            with console.status("starting the hub and Dagster…"):
                supervisor.start(embedded.foundations(settings))
                supervisor.start(embedded.orchestration(settings))
            supervisor.watch()
            _say_where(settings, console)
            if demo:
                supervisor.start([embedded.live_producer(settings)])
                feed(settings, console, periods, supervisor.raise_failure)
                _say_where(settings, console)
            if exit_when_ready:
                if demo:
                    await_live_pass(settings, console, supervisor.raise_failure)
                return
            console.print("serving; Ctrl-C ends it")
            while True:
                supervisor.raise_failure()
                time.sleep(_POLL_SEC)
        except httpx.TransportError as error:
            supervisor.raise_failure()
            raise DemoFailed(f"no answer from {error.request.url}: {error}") from error
        finally:
            with console.status("stopping…"):
                supervisor.stop()


def feed(settings: Settings, console: Console, periods: tuple[Period, ...], alive: Alive) -> None:
    """Post the history, have it computed by one backfill, and print what came of it.

    Goes on where an earlier one stopped: what is stored is not stored again, and only days that
    miss numbers are computed.

    Args:
        alive: raises when the processes that do the work are gone.
    """
    panel = bootstrap.price_panel(settings.prices_path)
    store = bootstrap.store(settings)
    snapshots = history.documents(panel, periods)
    try:
        with _progress(console) as progress, httpx.Client(timeout=120.0) as client:
            posting = progress.add_task("landing history", total=len(snapshots))
            statuses = history.post(
                client, settings, snapshots, lambda n: progress.advance(posting, n)
            )
            pending = store.pending_days(stage=history.STAGE).days
            computing = progress.add_task(
                "computing days", total=len(pending), completed=0, visible=bool(pending)
            )
            if pending:
                days = [day.day for day in pending]
                backfill = history.launch_backfill(client, settings, days)
                for _ in history.follow_backfill(client, settings, backfill):
                    alive()
                    left = len(store.pending_days(stage=history.STAGE).days)
                    progress.update(computing, completed=len(pending) - left)
                    time.sleep(_POLL_SEC)
                progress.update(computing, completed=len(pending))
        left_over = [day.day for day in store.pending_days(stage=history.STAGE).days]
        if left_over:
            raise DemoFailed(f"the backfill ended, but {_some(left_over)} have no numbers")
        console.print(
            f"{statuses.get(201, 0)} snapshots landed, {statuses.get(200, 0)} were there already"
        )
        console.print(as_table(report(store, panel)))
    finally:
        store.close()


def await_live_pass(settings: Settings, console: Console, alive: Alive) -> None:
    """Wait until a paper snapshot that was posted live has numbers, and symbols have budgets."""
    store = bootstrap.store(settings)
    today_has_numbers = today_has_budgets = False
    deadline = time.monotonic() + _LIVE_PASS_TIMEOUT_SEC
    try:
        with console.status("waiting for the live worlds' numbers and the minute's budgets…"):
            while not (today_has_numbers and today_has_budgets):
                alive()
                if time.monotonic() > deadline:
                    missing = "budgets" if today_has_numbers else "risk numbers of the live worlds"
                    raise DemoFailed(f"no {missing} after {_LIVE_PASS_TIMEOUT_SEC:.0f} s")
                time.sleep(_POLL_SEC)
                newest = {
                    as_of.date()
                    for _, stage, as_of in store.newest_per_world()
                    if stage == live.STAGE
                }
                today_has_numbers = any(
                    row["stage"] == live.STAGE and row["unavailable"] is None
                    for day in newest
                    for row in store.metrics_on(day, day)
                )
                with bootstrap.redis_client(settings) as client:
                    keys = client.scan_iter("quantum:portfolio:budget:*", count=1000)
                    today_has_budgets = next(iter(keys), None) is not None
        console.print("the live worlds have risk numbers, and their symbols have budgets")
    finally:
        store.close()


def _recover(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riskhub_dagster.recover"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RiskHubError(
            f"Dagster's storage in {environment['DAGSTER_HOME']} is unusable: {last}"
        )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _say_where(settings: Settings, console: Console) -> None:
    console.print(f"  Dagster UI  [link]{settings.dagster_url}[/link]")
    console.print(f"  hub API     [link]{settings.api_url}/docs[/link]")


def _some(days: list[date]) -> str:
    return f"{len(days)} days ({days[0]} …)" if len(days) > 1 else str(days[0])


def _interrupt(_number: int, _frame: Any) -> None:
    # A second signal must not cut the orderly end short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
