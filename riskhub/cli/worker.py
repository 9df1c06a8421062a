"""The worker as a process: it lives on the hub's events."""

import asyncio
import gc
import signal
import time
from typing import Annotated

import typer
from prometheus_client import start_http_server

from riskhub import bootstrap, traces
from riskhub.controlbus.bus import open_bus
from riskhub.controlbus.handlers import Context, Handler, load_handlers
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.settling import is_outage
from riskhub.controlbus.worker import Hurry, Worker
from riskhub.errors import RiskHubError
from riskhub.hub import utc_now
from riskhub.logs import configure, tell
from riskhub.settings import Settings, load_settings
from riskhub.store import Store

app = typer.Typer()


@app.command("worker")
def worker_command(
    once: Annotated[
        bool, typer.Option("--once", help="Handle what is there now, and end.")
    ] = False,
    outbox: Annotated[
        bool, typer.Option("--outbox", help="Take events from the database: while Kafka is away.")
    ] = False,
) -> None:
    """Handle each event of the hub: judge new snapshots, compute their numbers and stress.

    Events come from the Kafka topic of the settings, whose partitions the workers of a group share;
    without brokers from the outbox, which one worker reads while others stand by. What to run,
    how often to try and where to count is under `worker` in the settings; `riskhub dlq` shows what
    was given up on. Ctrl-C or SIGTERM: the batch in hand is finished first.
    """
    settings = load_settings()
    configure(settings)
    traces.configure("worker")
    if outbox:
        settings = settings.model_copy(update={"controlbus_brokers": None})
    store = bootstrap.store(settings)
    try:
        metrics = WorkerMetrics()
        context = Context(settings, store, tell=tell, passed_over=metrics.passed_over)
        handlers = load_handlers(context)
        _serve_metrics(settings, metrics)
        gc.freeze()  # what is loaded by now stays; to look through it would hold up an event
        asyncio.run(_work(settings, store, handlers, metrics, once=once))
    finally:
        store.close()


def _serve_metrics(settings: Settings, metrics: WorkerMetrics) -> None:
    worker = settings.worker
    if worker.metrics_port is None:
        return
    try:
        start_http_server(worker.metrics_port, worker.metrics_host, registry=metrics.registry)
    except OSError as error:
        raise RiskHubError(
            f"can't listen on {worker.metrics_host}:{worker.metrics_port}: {error.strerror}"
        ) from error


async def _work(
    settings: Settings,
    store: Store,
    handlers: list[Handler],
    metrics: WorkerMetrics,
    *,
    once: bool,
) -> None:
    hurry = Hurry()
    worker = Worker(
        open_bus(settings, store, clock=utc_now, hurry=hurry.up, tell=tell),
        handlers,
        store,
        settings.worker,
        hurry=hurry,
        metrics=metrics,
        clock=utc_now,
        monotonic=time.monotonic,
        tell=tell,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    tell(
        "worker",
        group=settings.worker.group,
        handlers=" ".join(handler.name for handler in handlers),
        bus=settings.controlbus_topic if settings.controlbus_brokers else "outbox",
    )
    try:
        if not await worker.run(once=once):
            tell("ended", why="another worker of the group has all there is")
    except Exception as error:
        if is_outage(error) and not isinstance(error, RiskHubError):
            raise RiskHubError(f"Kafka: {error}") from error
        raise
