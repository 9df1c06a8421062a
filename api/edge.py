"""What the requests of one app share: the hub, who may do what, and the work done together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import redis
from starlette.requests import Request

from api.feed import Feed
from riskhub.auth import TokenBook
from riskhub.cache import Question
from riskhub.governor import gatekeeper, published
from riskhub.governor.gate import Violation
from riskhub.governor.gatekeeper import Gatekeeper
from riskhub.hub import Hub, Served
from riskhub.last_days import LastDays
from riskhub.settings import Settings
from riskhub.snapshot import Snapshot
from riskhub.standing import DagsterFigures, figures_of
from riskhub.status import remembered_days
from riskhub.store import Landing
from riskhub.store.reading import Lookup
from riskhub.together import Together

DRAIN = "drain"
"""In the state of the app's lifespan: what the server calls when it takes no more requests.

The lifespan itself ends only after the last answer, which may be one without an end.
"""


@dataclass
class Edge:
    """One app's hub, and the groups that its requests are served in."""

    hub: Hub
    settings: Settings
    tokens: TokenBook
    landings: Together[Snapshot, Landing] = field(init=False)
    latest: Together[Question, Served | None] = field(init=False)
    lookups: Together[Lookup, Served | None] = field(init=False)
    # A backtest takes a processor for seconds: one at a time leaves the others to everybody else.
    backtests: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(1))
    feed: Feed = field(init=False)
    gatekeeper: Gatekeeper = field(init=False)
    days: LastDays = field(init=False)
    # For threads: what reads all budgets would hold up the loop, and every check with it.
    budgets: redis.Redis = field(init=False)
    dagster: DagsterFigures | None = field(init=False)

    def __post_init__(self) -> None:
        self.landings = Together(self.hub.land, "landing", lambda snapshot: len(snapshot.body))
        self.latest = Together(self.hub.latest_of_many, "latest")
        self.lookups = Together(self.hub.look_up_many, "lookup")
        self.feed = Feed(self.hub.store)
        self.gatekeeper = Gatekeeper(
            gatekeeper.client_of(self.settings.effective_redis_url),
            stale_sec=self.settings.governor.gate_stale_sec,
            clock=self.now,
            record=self._record,
        )
        self.days = remembered_days(self.hub.store)
        self.budgets = published.client_of(self.settings.effective_redis_url)
        self.dagster = figures_of(self.settings, self.hub.clock)

    def now(self) -> float:
        """The hub's clock, unix seconds."""
        return self.hub.clock().timestamp()

    def _record(self, violations: Sequence[Violation]) -> None:
        self.hub.store.add_violations([violation.row() for violation in violations])

    async def close(self) -> None:
        """Finish what has been given, and give the store's connections back."""
        await self.feed.close()
        for together in (self.landings, self.latest, self.lookups):
            await together.close()
        await self.gatekeeper.close()
        self.budgets.close()
        self.hub.store.close()


def edge_of(request: Request) -> Edge:
    """The edge that this app was made with."""
    return cast(Edge, request.app.state.edge)
