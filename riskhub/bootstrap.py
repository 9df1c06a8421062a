"""The real dependencies of a process, chosen by settings: API, Dagster and workers all ask here."""

import functools
from pathlib import Path

import redis

from riskhub.blobs import open_blobs
from riskhub.cache import Shared
from riskhub.exits.book import RuleBook, load_rules
from riskhub.hub import Hub
from riskhub.prices import PricePanel, PriceSource, open_prices
from riskhub.settings import Settings
from riskhub.store import Store, create_engine, open_store
from riskhub.telemetry import Telemetry

_REDIS_TIMEOUT_SEC = 5.0
# Longer than this, and the database has the answer sooner.
_CACHE_TIMEOUT_SEC = 0.1


def hub(settings: Settings) -> Hub:
    """The hub on its database. Raises `StoreUnavailable`, `StoreNotMigrated`."""
    telemetry = Telemetry(max_worlds=settings.metrics_max_worlds)
    return Hub(
        store(settings),
        settings,
        shared_cache=shared_cache(settings, telemetry),
        blobs=open_blobs(settings),
        telemetry=telemetry,
    )


def shared_cache(settings: Settings, telemetry: Telemetry) -> Shared | None:
    """What API processes share on Redis; None without one: the stand-in's memory is no closer."""
    if settings.redis_url is None:
        return None
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=_CACHE_TIMEOUT_SEC,
        socket_connect_timeout=_CACHE_TIMEOUT_SEC,
        retry=None,
    )
    return Shared(client, telemetry)


def store(settings: Settings) -> Store:
    """The hub's database. Raises `StoreUnavailable`, `StoreNotMigrated`."""
    return open_store(
        settings.effective_database_url, most_connections=settings.database_connections
    )


def unchecked_store(settings: Settings) -> Store:
    """The hub's database, which may be away or not migrated: then its calls say so."""
    return Store(
        create_engine(
            settings.effective_database_url, most_connections=settings.database_connections
        )
    )


def redis_client(settings: Settings) -> redis.Redis:
    """A client of the configured Redis; connects at its first command."""
    return redis.Redis.from_url(
        settings.effective_redis_url,
        socket_timeout=_REDIS_TIMEOUT_SEC,
        socket_connect_timeout=_REDIS_TIMEOUT_SEC,
        decode_responses=True,
    )


def exit_rules(settings: Settings, path: Path | None = None) -> RuleBook:
    """The exit engine's rules, of the settings' file or another. Raises `RuleFileInvalid`."""
    return load_rules(
        path or settings.exit_rules_path,
        stale_after_sec=settings.stale_after_sec,
        critical_after_sec=settings.critical_after_sec,
    )


def price_panel(settings: Settings) -> PricePanel:
    """The price panel as its source has it now; read again only when that has changed.

    Raises `PriceFileError`.
    """
    source = open_prices(settings)
    # Looked at before it is read: what changes meanwhile is read once more, never overlooked.
    return _loaded(source, source.fingerprint())


@functools.lru_cache(maxsize=2)
def _loaded(source: PriceSource, _fingerprint: str) -> PricePanel:
    return source.load()
