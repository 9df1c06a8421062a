"""The real dependencies of a process, chosen by settings: API, Dagster and workers all ask here."""

import functools
from pathlib import Path

import redis

from riskhub.hub import Hub
from riskhub.prices import PricePanel, load_panel
from riskhub.settings import Settings
from riskhub.store import Store, open_store

_REDIS_TIMEOUT_SEC = 5.0


def hub(settings: Settings) -> Hub:
    """The hub on its database. Raises `StoreUnavailable`, `StoreNotMigrated`."""
    return Hub(store(settings), settings)


def store(settings: Settings) -> Store:
    """The hub's database. Raises `StoreUnavailable`, `StoreNotMigrated`."""
    return open_store(settings.effective_database_url)


def redis_client(settings: Settings) -> redis.Redis:
    """A client of the configured Redis; connects at its first command."""
    return redis.Redis.from_url(
        settings.effective_redis_url,
        socket_timeout=_REDIS_TIMEOUT_SEC,
        socket_connect_timeout=_REDIS_TIMEOUT_SEC,
        decode_responses=True,
    )


@functools.lru_cache(maxsize=2)
def price_panel(path: Path) -> PricePanel:
    """The price panel, read once per process. Raises `PriceFileError`."""
    return load_panel(path)
