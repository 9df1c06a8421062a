"""The updater of the portfolio state, and its high-water mark."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import redis
import typer
from rich.markup import escape

from riskhub import bootstrap
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.governor.lease import owner
from riskhub.heartbeat import Stop
from riskhub.logs import configure, tell
from riskhub.portfolio_state import (
    EquityHash,
    EquitySource,
    HighWater,
    NoPortfolioState,
    PortfolioUpdate,
    SnapshotEquity,
    Updater,
    fields_of,
    kept_high_water,
    reset_high_water,
    run,
)
from riskhub.settings import Settings, load_settings

app = typer.Typer()


@app.command("portfolio-state")
def portfolio_state_command(
    once: Annotated[bool, typer.Option("--once", help="Publish once, and end.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds between two states.", show_default="by settings"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be published; write nothing.")
    ] = False,
    equity_key: Annotated[
        str | None,
        typer.Option(help="Redis hash with the equity.", show_default="by settings"),
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="Take the equity from this world's latest snapshot.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="With --world: only snapshots of this stage.")
    ] = None,
    reset: Annotated[
        bool,
        typer.Option("--reset-high-water", help="Forget the high-water mark, and end."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Reset without asking.")] = False,
) -> None:
    """Publish equity, drawdown and notional of the portfolio for the governor, until Ctrl-C."""
    settings = load_settings()
    configure(settings)
    with bootstrap.redis_client(settings) as client, _redis_failures():
        if reset:
            _reset(client, yes=yes)
            return
        interval = interval or settings.governor.state_interval_sec
        with _source(settings, equity_key, world, stage) as source:
            updater = Updater(
                client,
                source,
                owner=owner("portfolio-state"),
                stale_sec=settings.governor.stale_sec,
                interval_sec=interval,
            )
            stop = Stop(settings.heartbeat_file)
            _publish(updater, stop, interval=interval, once=once, dry_run=dry_run)


def _publish(updater: Updater, stop: Stop, *, interval: float, once: bool, dry_run: bool) -> None:
    def preview(now: float) -> PortfolioUpdate:
        update = updater.preview(now)
        typer.echo(json.dumps(fields_of(update, now)))
        return update

    beat = preview if dry_run else updater.publish
    if once:
        beat(time.time())
        if not dry_run:
            updater.release()
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(beat, interval_sec=interval, stop=stop, tell=tell)
    if not dry_run:
        with suppress(redis.RedisError):  # then the lease runs out by itself
            updater.release()


@contextmanager
def _source(
    settings: Settings, equity_key: str | None, world: str | None, stage: str | None
) -> Iterator[EquitySource]:
    if world is not None:
        if equity_key is not None:
            raise typer.BadParameter("only one of --equity-key and --world")
        store = bootstrap.store(settings)
        try:
            yield SnapshotEquity(store, world, stage)
        finally:
            store.close()
        return
    if stage is not None:
        raise typer.BadParameter("--stage goes with --world")
    key = equity_key or settings.governor.state_equity_key
    if key is None:
        raise RiskHubError(
            "nobody says where the equity is: set governor.state_equity_key "
            "(RISKHUB_GOVERNOR__STATE_EQUITY_KEY), or give --equity-key or --world"
        )
    try:
        source = EquityHash(key)
    except ValueError as error:
        raise RiskHubError(str(error)) from error
    yield source


def _reset(client: redis.Redis, *, yes: bool) -> None:
    try:
        mark = kept_high_water(client)
    except NoPortfolioState:
        told = "The high-water mark can't be read."
    else:
        if mark is None:
            _tell("no high-water mark is kept")
            return
        told = _told(mark)
    if not yes:
        typer.confirm(f"{told} Forget it, so that drawdown begins at 0?", abort=True)
    reset_high_water(client)
    _tell("forgotten: the high-water mark begins at the next equity that is published")


def _told(mark: HighWater) -> str:
    reached = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(mark.reached_at))
    return f"The high-water mark is {mark.equity_usd:,.2f} USD, of {reached}."


@contextmanager
def _redis_failures() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise RiskHubError(f"Redis: {error}") from error


def _tell(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)
