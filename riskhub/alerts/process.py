"""The loop of alerts as a process: `riskhub alerts`, and lean, `python -m riskhub.alerts`."""

import os
import signal
import socket
from contextlib import closing

import httpx

from riskhub.alerts.deliver import Deliverer, receivers_of
from riskhub.alerts.loop import Watch, run
from riskhub.alerts.sources import Sources
from riskhub.governor import published
from riskhub.governor.loop import Tell
from riskhub.heartbeat import Stop
from riskhub.hub import utc_now
from riskhub.settings import Settings
from riskhub.store import Store, create_engine


def watch(settings: Settings, tell: Tell) -> None:
    """Watch while no other process does, until SIGTERM or Ctrl-C.

    The database may be away or not migrated: then that is what there is to tell.
    """
    stop = Stop(settings.heartbeat_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        closing(
            Store(
                create_engine(
                    settings.effective_database_url, most_connections=settings.database_connections
                )
            )
        ) as store,
        published.client_of(settings.effective_redis_url) as client,
        httpx.Client(timeout=settings.alerts.timeout_sec) as http,
    ):
        sources = Sources(settings, store, client, http, clock=utc_now)
        run(
            Watch(
                store,
                settings,
                sources.gather,
                Deliverer(receivers_of(settings.alerts, http, tell), tell=tell),
                writer=f"alerts on {socket.gethostname()}, process {os.getpid()}",
                clock=utc_now,
                tell=tell,
            ),
            store.reading_alone,
            interval_sec=settings.alerts.interval_sec,
            wait=stop.wait,
            tell=tell,
        )
