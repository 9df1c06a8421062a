"""Starting the hub's processes, and the demo that feeds them."""

import os
import signal
from typing import Annotated

import typer

from riskhub import bootstrap, cast, embedded, probes
from riskhub.auth import TokenBook
from riskhub.cli.frame import console
from riskhub.demo import live
from riskhub.demo.history import DemoFailed, Period, parse_periods
from riskhub.demo.report import as_table, report
from riskhub.embedded_redis import serve
from riskhub.errors import RiskHubError
from riskhub.settings import Settings, load_settings
from riskhub.store import NEWEST, create_engine, grant, migrate
from riskhub.up import feed, up

HISTORY = "1990-2022"

app = typer.Typer()
dagster = typer.Typer(help="Dagster's processes, one by one.", no_args_is_help=True)
demo = typer.Typer(help="Six worlds on real prices, fed into a running hub.", no_args_is_help=True)
app.add_typer(dagster, name="dagster")
app.add_typer(demo, name="demo")

HistoryOption = Annotated[
    str,
    typer.Option("--history", metavar="YEARS", help="Years of history, such as 2007-2009,2020."),
]


@app.command("up")
def up_command(
    with_demo: Annotated[bool, typer.Option("--demo", help="Feed it with six worlds.")] = False,
    years: HistoryOption = HISTORY,
) -> None:
    """Start the whole hub in this terminal: API, Dagster, Redis. Ctrl-C ends it."""
    periods = _periods(years)
    up(
        load_settings(),
        console,
        demo=with_demo,
        periods=periods,
        exit_when_ready=os.environ.get("RISKHUB_EXIT_WHEN_READY") == "1",
    )


@app.command("migrate")
def migrate_command(
    to: Annotated[
        str, typer.Option(help="A revision such as 0010: back to it, or forward.")
    ] = NEWEST,
) -> None:
    """Bring the hub's database to the schema of this version, and give its roles their rights.

    Others go on using it meanwhile.
    """
    settings = load_settings()
    engine = create_engine(settings.effective_database_url)
    migrate(engine, to)
    if to != NEWEST:
        console.print(f"the database is at revision {to}")
        return
    console.print("the database is up to date")
    if roles := grant(engine):
        console.print(f"rights as this version has them: {', '.join(roles)}")


@app.command("api")
def api_command() -> None:
    """Serve the HTTP API."""
    settings = load_settings()
    # What can't be used is told in a sentence, before uvicorn would tell it in a traceback.
    bootstrap.store(settings).close()
    TokenBook.of(settings)
    _exec(cast.command_api(), settings)


@app.command("redis")
def redis_command(
    port: Annotated[int, typer.Option(help="TCP port on the loopback.", min=1, max=65535)] = 6399,
) -> None:
    """Serve the stand-in for Redis: in memory, for one machine, without persistence."""
    try:
        serve("127.0.0.1", port)
    except OSError as error:
        raise RiskHubError(f"can't listen on port {port}: {error.strerror}") from error


@dagster.command("code")
def dagster_code() -> None:
    """Serve the Dagster definitions to webserver and daemon."""
    settings = _with_dagster_home()
    _exec(cast.command_code_server(settings), settings)


@dagster.command("web")
def dagster_web() -> None:
    """Serve the Dagster UI; needs the code server."""
    settings = _with_dagster_home()
    _exec(cast.command_webserver(settings), settings)


@dagster.command("daemon")
def dagster_daemon() -> None:
    """Run sensors, schedules, the run queue and backfills; needs the code server."""
    settings = _with_dagster_home()
    _exec(cast.command_daemon(settings), settings)


@dagster.command("run-worker")
def dagster_run_worker() -> None:
    """Execute the runs that the daemon gives out; as many of these as you like."""
    settings = _with_dagster_home()
    _exec(cast.command_run_worker(), settings)


@demo.command("history")
def demo_history(years: HistoryOption = HISTORY) -> None:
    """Post history through the bulk door, have one backfill compute it, print the table."""
    settings, periods = load_settings(), _periods(years)
    for url in (f"{settings.api_url}/readyz", f"{settings.dagster_url}/server_info"):
        if not probes.answers(url):
            raise DemoFailed(f"nothing answers at {url}; start the hub with `riskhub up`")
    feed(settings, console, periods, lambda: None)


@demo.command("live")
def demo_live() -> None:
    """Go on posting paper snapshots as of now, and the governor's inputs, until Ctrl-C."""
    live.run(load_settings(), console)


@demo.command("report")
def demo_report() -> None:
    """Print the table of the history that is there."""
    settings = load_settings()
    store = bootstrap.store(settings)
    try:
        reports = report(store, bootstrap.price_panel(settings))
    finally:
        store.close()
    if not reports:
        raise DemoFailed("no history has risk numbers yet; `riskhub demo history` makes one")
    console.print(as_table(reports))


def _periods(years: str) -> tuple[Period, ...]:
    try:
        return parse_periods(years)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--history") from error


def _with_dagster_home() -> Settings:
    settings = load_settings()
    embedded.prepare_dagster_home(settings)
    return settings


def _exec(command: list[str], settings: Settings) -> None:
    """Become the command, so that signals and exit code are its own."""
    # A shell ignores SIGINT for what it starts in the background, and Dagster does with SIGTERM
    # what is done with SIGINT: it would not end when it is asked to.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(command[0], command, embedded.environment(settings))
