"""The relay as a process of its own."""

import asyncio
import json
import signal
from contextlib import closing
from typing import Annotated

import typer

from riskhub import bootstrap, traces
from riskhub.cli.frame import console
from riskhub.controlbus.kafka import NoBrokers
from riskhub.controlbus.relay import Relay, reader_of
from riskhub.heartbeat import AsyncStop
from riskhub.hub import utc_now
from riskhub.logs import configure, tell
from riskhub.settings import Settings, load_settings
from riskhub.store import Store

app = typer.Typer()


@app.command("relay")
def relay_command(
    status: Annotated[
        bool, typer.Option("--status", help="Say how far the topic is behind, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The status for programs.")] = False,
) -> None:
    """Bring each event from the outbox to the Kafka topic, in order, until Ctrl-C.

    Run as many as you like: one relays, the others take over within a second or two of its end.
    """
    settings = load_settings()
    configure(settings)
    traces.configure("relay")
    if not settings.controlbus_brokers and not status:
        raise NoBrokers(
            "no brokers are configured (RISKHUB_CONTROLBUS_BROKERS): without Kafka the outbox is "
            "the bus, and nothing needs to be relayed"
        )
    with closing(bootstrap.store(settings)) as store:
        if status:
            _status(store, settings, as_json=as_json)
        else:
            asyncio.run(_relay(store, settings))


async def _relay(store: Store, settings: Settings) -> None:
    stop = AsyncStop(settings.heartbeat_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Relay(store, settings, clock=utc_now, tell=tell).run(stop)


def _status(store: Store, settings: Settings, *, as_json: bool) -> None:
    reader = reader_of(settings)
    head = store.events_head()
    done, moved_at = store.cursors().get(reader, (0, None))
    told = {
        "topic": settings.controlbus_topic,
        "newest_event": head,
        "relayed_up_to": done,
        "behind": head - done,
        "noted_at": moved_at.isoformat() if moved_at else None,
        "dead_letters": store.count_dead_letters(),
    }
    if as_json:
        console.print_json(json.dumps(told))
        return
    since = f"{moved_at:%Y-%m-%d %H:%M:%S} UTC" if moved_at else "never"
    console.print(
        f"{settings.controlbus_topic}: {head - done:,} events behind; relayed up to {done:,} of "
        f"{head:,}, noted {since}; {told['dead_letters']:,} dead letters",
        highlight=False,
    )
