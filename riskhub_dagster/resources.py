"""What assets, checks and sensors reach the outside world by."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import redis
from pydantic import PrivateAttr

from riskhub import bootstrap
from riskhub.blobs import BlobStore, open_blobs
from riskhub.prices import PricePanel
from riskhub.settings import Settings, load_settings
from riskhub.store import Store


class RiskHub(dg.ConfigurableResource["RiskHub"]):
    """The hub's store, blobs, Redis and prices, as the environment's settings choose them."""

    _settings: Settings = PrivateAttr()
    _store: Store = PrivateAttr()
    _blobs: BlobStore | None = PrivateAttr()
    _panel: PricePanel | None = PrivateAttr()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RiskHub"]:  # noqa: ARG002 - Dagster's
        """Open the store for one run or tick, and give its connections back after it."""
        self._settings = load_settings()
        self._store = bootstrap.store(self._settings)
        self._blobs = open_blobs(self._settings)  # connects when it is used
        self._panel = None
        try:
            yield self
        finally:
            self._store.close()

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self._settings

    @property
    def store(self) -> Store:
        """The hub's database."""
        return self._store

    @property
    def blobs(self) -> BlobStore | None:
        """Where large fields of snapshots are; None when they stay inline."""
        return self._blobs

    @property
    def panel(self) -> PricePanel:
        """The price panel; read when it is first needed, and the same to the end of the run."""
        if self._panel is None:
            self._panel = bootstrap.price_panel(self._settings)
        return self._panel

    def redis(self) -> redis.Redis:
        """A Redis client; close it after use."""
        return bootstrap.redis_client(self._settings)
