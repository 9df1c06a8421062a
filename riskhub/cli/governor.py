"""The governor as a process of its own."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import httpx
import redis
import typer
from redis.backoff import NoBackoff
from redis.retry import Retry

from riskhub import bootstrap
from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.governor import BudgetCycle, GovernorSettings, run_cycle
from riskhub.governor.history import History
from riskhub.governor.lease import Lease, owner
from riskhub.governor.loop import Governor, once, run
from riskhub.heartbeat import Stop
from riskhub.logs import configure, tell
from riskhub.settings import Settings, load_settings
from riskhub.store import Store

app = typer.Typer()

Cycle = Callable[[float], BudgetCycle]


@dataclass(frozen=True)
class _Hub:
    """What a cycle may ask of the hub."""

    store: Store


@app.command("governor")
def governor_command(
    only_once: Annotated[bool, typer.Option("--once", help="One cycle, and end.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds between two cycles.", show_default="by settings"),
    ] = None,
) -> None:
    """Write a budget for each symbol while no other process does, until Ctrl-C."""
    settings = load_settings()
    configure(settings)
    governed = settings.governor
    interval = interval or governed.interval_sec
    with (
        bootstrap.redis_client(settings) as client,
        httpx.Client() as http,
        closing(_store(settings)) as store,
    ):
        client.set_retry(Retry(NoBackoff(), 0))  # the next beat is the retry
        # Longer than from one beat to the next, or between them it would be anybody's.
        lease = Lease(client, owner("governor"), sec=max(governed.lease_sec, 1.2 * interval))
        hub = _Hub(store)
        cycle = partial(run_cycle, client, governed, http=http, hub=hub, lease=lease)
        if only_once:
            _once(lease, cycle, store, governed)
        else:
            _run(lease, cycle, store, governed, interval, Stop(settings.heartbeat_file))


def _once(lease: Lease, cycle: Cycle, store: Store, settings: GovernorSettings) -> None:
    try:
        computed = once(lease, cycle, store.add_cycle, mode=settings.mode, now=time.time())
        holder = lease.holder() if computed is None else None
    except redis.RedisError as error:
        raise RiskHubError(f"Redis: {error}") from error
    if computed is None:
        tell("stands by", writer=holder)
    elif computed.no_budget_reason is not None:
        raise RiskHubError(f"no budgets: {computed.no_budget_reason}")
    else:
        tell("budgets", symbols=len(computed.budgets))


def _run(
    lease: Lease,
    cycle: Cycle,
    store: Store,
    settings: GovernorSettings,
    interval_sec: float,
    stop: Stop,
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ThreadPoolExecutor(1, thread_name_prefix="history") as aside:
        history = History(
            store.add_cycle,
            mode=settings.mode,
            every_sec=settings.history_sec,
            aside=aside,
            monotonic=time.monotonic,
            failed=lambda error: tell("history lost", error=type(error).__name__, why=error),
            back=lambda lost: tell("history back", lost=lost),
        )
        governor = Governor(lease, cycle, history, clock=time.time, tell=tell)
        try:
            run(governor.beat, interval_sec=interval_sec, monotonic=time.monotonic, wait=stop.wait)
        finally:
            governor.leave()
            history.close()


def _store(settings: Settings) -> Store:
    """The database, which may be away or not migrated: budgets matter more than their history."""
    try:
        return bootstrap.store(settings)
    except (StoreUnavailable, StoreNotMigrated) as error:
        tell("without database", why=error)
        return bootstrap.unchecked_store(settings)
