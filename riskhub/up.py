"""`riskhub up`: the whole embedded profile in one terminal, and the demo that feeds it."""

import contextlib
import shutil
import signal
import subprocess
import time
from datetime import date
from typing import Any, NoReturn

import httpx
import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from riskhub import bootstrap, cast, embedded, probes
from riskhub.demo import history, live
from riskhub.demo.history import Alive, BackfillFailed, DemoFailed, Period
from riskhub.demo.report import as_table, report
from riskhub.errors import RiskHubError
from riskhub.settings import Settings
from riskhub.store import Store, create_engine, migrate
from riskhub.supervisor import Supervisor

_POLL_SEC = 0.5
# What is pending is asked of tens of thousands of snapshots, beside those who compute them.
_LOOK_SEC = 2.0
_LIVE_PASS_TIMEOUT_SEC = 150.0
# That the code server is back: it asks every second, and then loads.
_DAEMON_NOTICES_WITHIN_SEC = 5.0
BACKFILL_ATTEMPTS = 3
_FULL_BYTES = 2**20


class DiskFull(RiskHubError):
    """Something failed while the disk had no room; the text says what."""


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
    _on_end_signals(_interrupt)
    panel = bootstrap.price_panel(settings)  # a corrupt file is told before the start
    if demo:
        history.check_periods(panel, periods)
    with embedded.exclusive_home(settings) as was_killed:
        embedded.check_ports(settings, orphans=was_killed)
        embedded.check_redis(settings)
        embedded.prepare_dagster_home(settings)
        console.print(f"starting riskhub in {settings.home.resolve()}", soft_wrap=True)
        environment = embedded.environment(settings)
        migrate(create_engine(settings.effective_database_url))
        supervisor = Supervisor(console, settings.home / "logs", environment, cast.manner(settings))
        try:
            with console.status("starting…"):
                _ready_dagster(settings, environment)
                for group in cast.groups(settings):
                    supervisor.start(group)
                if demo:
                    supervisor.start([cast.live_producer(settings)])
            supervisor.watch()
            if demo:
                feed(settings, console, periods, supervisor.raise_failure)
            if exit_when_ready:
                if demo:
                    await_live_pass(settings, console, supervisor.raise_failure)
                return
            _say_what_next(settings, console, demo=demo)
            while True:
                supervisor.raise_failure()
                time.sleep(_POLL_SEC)
        except RiskHubError as error:
            if shutil.disk_usage(settings.home).free < _FULL_BYTES:
                raise DiskFull(f"the disk of {settings.home.resolve()} is full: {error}") from error
            raise
        finally:
            # A second Ctrl-C must not cut the orderly end short.
            _on_end_signals(signal.SIG_IGN)
            with console.status("stopping…"):
                supervisor.stop()


def feed(settings: Settings, console: Console, periods: tuple[Period, ...], alive: Alive) -> None:
    """Post the history, have it computed by one backfill, and print what came of it.

    Goes on where an earlier one stopped: what is stored is not stored again, and only days that
    miss numbers are computed.

    Args:
        alive: raises when the processes that do the work are gone.
    """
    panel = bootstrap.price_panel(settings)
    history.check_periods(panel, periods)
    store = bootstrap.store(settings)
    snapshots = history.documents(panel, periods)
    try:
        with _progress(console) as progress, httpx.Client(timeout=120.0) as client:
            posting = progress.add_task("landing history", total=len(snapshots))
            statuses = history.post(
                client, settings, snapshots, lambda n: progress.advance(posting, n), alive
            )
            for attempt in range(1, BACKFILL_ATTEMPTS + 1):
                try:
                    _backfill(settings, client, store, progress, alive)
                    break
                except BackfillFailed as error:
                    if attempt == BACKFILL_ATTEMPTS:
                        raise
                    progress.console.print(f"[yellow]{error}; asking for what it left[/]")
                    _await_definitions(settings, alive)
        left_over = _pending_history(store)
        if left_over:
            raise DemoFailed(f"the backfill ended, but {_some(left_over)} have no numbers")
        console.print(
            f"{statuses.get(201, 0)} snapshots landed, {statuses.get(200, 0)} were there already\n"
        )
        console.print(as_table(report(store, panel)))
    finally:
        store.close()


def _backfill(
    settings: Settings, client: httpx.Client, store: Store, progress: Progress, alive: Alive
) -> None:
    """Have the days of history that miss numbers computed, and show how far it is."""
    pending = _pending_history(store)
    if not pending:
        return
    backfill = history.launch_backfill(client, settings, pending, alive)
    progress.console.print(
        f"{len(pending)} days to compute, in one backfill; Dagster looks for one every 30 s:\n"
        f"  {settings.dagster_url}/runs/b/{backfill}"
    )
    # Without a total the bar is seen to wait.
    computing = progress.add_task("computing days", total=None)
    for _ in history.follow_backfill(client, settings, backfill, alive):
        if done := len(pending) - len(_pending_history(store)):
            progress.update(computing, total=len(pending), completed=done)
        time.sleep(_LOOK_SEC)
    progress.update(computing, total=len(pending), completed=len(pending))


def _await_definitions(settings: Settings, alive: Alive) -> None:
    """Return when Dagster has our definitions again, if the code server has just been killed.

    The daemon fails any backfill that it looks at meanwhile, each within a second.
    """
    deadline = time.monotonic() + history.PATIENCE_SEC
    while not probes.listens(*settings.code_server) and time.monotonic() < deadline:
        alive()
        time.sleep(_POLL_SEC)
    time.sleep(_DAEMON_NOTICES_WITHIN_SEC)


def _pending_history(store: Store) -> list[date]:
    return [day.day for day in store.pending_days(stage=history.STAGE).days]


def await_live_pass(settings: Settings, console: Console, alive: Alive) -> None:
    """Wait until a paper snapshot that was posted live has numbers, and symbols have budgets."""
    store = bootstrap.store(settings)
    client = bootstrap.redis_client(settings)
    today_has_numbers = today_has_budgets = False
    deadline = time.monotonic() + _LIVE_PASS_TIMEOUT_SEC
    try:
        with console.status("waiting for the live worlds' numbers and budgets…"):
            while not (today_has_numbers and today_has_budgets):
                alive()
                if time.monotonic() > deadline:
                    missing = "budgets" if today_has_numbers else "risk numbers of the live worlds"
                    raise DemoFailed(f"no {missing} after {_LIVE_PASS_TIMEOUT_SEC:.0f} s")
                time.sleep(_POLL_SEC)
                newest = {
                    world.newest_as_of.date()
                    for world in store.newest_per_world(stage=live.STAGE)
                    if world.newest_as_of is not None
                }
                today_has_numbers = any(
                    row["stage"] == live.STAGE and row["unavailable"] is None
                    for day in newest
                    for row in store.metrics_on(day, day)
                )
                # Without an answer it is being started again.
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                    keys = client.scan_iter("quantum:portfolio:budget:*", count=1000)
                    today_has_budgets = next(iter(keys), None) is not None
        console.print("the live worlds have risk numbers, and their symbols have budgets")
    finally:
        client.close()
        store.close()


def _ready_dagster(settings: Settings, environment: dict[str, str]) -> None:
    """Lay out Dagster's records; and end what a killed `up` left behind, where runs end with it."""
    # Runs of run workers go on while we are away, also on other machines.
    command = cast.command_lay_out() if settings.run_broker_url else cast.command_recover()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line[:1].isalpha()]
        last = said[-1] if said else "no message"
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


def _say_what_next(settings: Settings, console: Console, *, demo: bool) -> None:
    graph, docs = f"{settings.dagster_url}/asset-groups", f"{settings.api_url}/docs"
    latest = f"{settings.api_url}/risk-hub/worlds/ew20/snapshots/latest"
    lines = [
        f"  [bold]what stands now[/]           [link={settings.api_url}]{settings.api_url}[/link]",
        f"  [bold]where a number came from[/]  [link={graph}]{graph}[/link]",
        f"  [bold]the hub's API[/]             [link={docs}]{docs}[/link]",
        f"  [bold]logs[/]                      {settings.home.resolve() / 'logs'}",
    ]
    if demo:
        lines.append(f"  [bold]the newest live snapshot[/]\n    curl {latest}")
    else:
        lines.append("  [bold]six worlds to look at[/]     riskhub demo history")
    console.print("\n".join(["", *lines, "", "serving; Ctrl-C ends it"]), soft_wrap=True)


def _some(days: list[date]) -> str:
    return f"{len(days)} days ({days[0]} …)" if len(days) > 1 else str(days[0])


def _on_end_signals(action: Any) -> None:
    # Explicitly: a shell that starts us in the background has SIGINT ignored. A terminal that was
    # closed ends us too, unless `nohup` was told to prevent that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, action)


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt
