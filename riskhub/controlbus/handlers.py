"""What a worker does with events: handlers, found by the entry points of installed packages.

A package adds one as ``[project.entry-points."riskhub.handlers"]``: a name, and a factory that
takes a `Context` and gives a `Handler`.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from importlib.metadata import entry_points
from typing import Protocol

from riskhub import bootstrap
from riskhub.blobs import BlobStore, open_blobs
from riskhub.controlbus.events import Event
from riskhub.errors import RiskHubError
from riskhub.portfolio import Sources
from riskhub.prices import PriceFileError, PricePanel
from riskhub.settings import Settings
from riskhub.store import Store

GROUP = "riskhub.handlers"

# How often the source of prices is asked whether it has changed.
_LOOK_SEC = 1.0

Tell = Callable[..., None]
"""Takes a line for the log: what happened, and its figures by name."""
PassedOver = Callable[[str, int], None]
"""Is told why events need nothing to be done, in a word or two, and how many they are."""


class Handler(Protocol):
    """Does something for each event. Used by one thread.

    An event may come again: after a crash, from a worker that lost its partitions, when somebody
    sends it again. So what is done for it must be the same when it is done twice.
    """

    @property
    def name(self) -> str:
        """What its dead letters and its record of what it is done with are called; keep it."""
        ...

    @property
    def types(self) -> Collection[str]:
        """The types of events that it wants."""
        ...

    @property
    def after(self) -> Collection[str]:
        """Names of handlers that have to be done with an event before it comes here."""
        ...

    def handle(self, events: Sequence[Event]) -> None:
        """Do it for a batch of events, at least one; those of a world in order.

        Whatever it raises, the events come again one by one, a few times each, and the one that
        still fails becomes a dead letter; but after `Outage` and its like all come again, for as
        long as it lasts.
        """
        ...


class Outage(RiskHubError):
    """Something that a handler needs is away; it is not the fault of an event."""


class HandlersInvalid(RiskHubError):
    """The handlers that are asked for can't be had."""


class Context:
    """What a handler may use; each thing is opened when it is asked for first."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        tell: Tell = lambda *_, **__: None,
        passed_over: PassedOver = lambda *_: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet."""
        self.settings = settings
        self.store = store
        self.tell = tell
        self.passed_over = passed_over
        self._monotonic = monotonic
        self._panel: PricePanel | None = None
        self._sources: Sources | None = None
        self._look_at = 0.0
        self._panel_failed: str | None = None

    @cached_property
    def blobs(self) -> BlobStore | None:
        """Where large fields of snapshots are; None when they stay inline."""
        return open_blobs(self.settings)

    def panel(self) -> PricePanel:
        """The price panel as its source had it a second ago, or when it could last be read.

        Raises:
            PriceFileError: it could never be read.
        """
        now = self._monotonic()
        if self._panel is None or now >= self._look_at:
            self._look_at = now + _LOOK_SEC
            try:
                self._panel = bootstrap.price_panel(self.settings)
                self._tell_prices(None)
            except PriceFileError as error:
                self._tell_prices(str(error))
                if self._panel is None:
                    raise
        return self._panel

    def sources(self) -> Sources:
        """What snapshots are measured on; the same object while the panel is the same.

        Raises:
            Outage: there are no prices, and never were; nothing is measured without.
        """
        try:
            panel = self.panel()
        except PriceFileError as error:
            raise Outage(str(error)) from error
        if self._sources is None or self._sources.panel is not panel:
            self._sources = Sources.of(self.settings, panel, self.blobs)
        return self._sources

    def _tell_prices(self, failure: str | None) -> None:
        if failure != self._panel_failed:
            self._panel_failed = failure
            self.tell("prices are back" if failure is None else "prices can't be read", why=failure)


Factory = Callable[[Context], Handler]


def installed() -> Mapping[str, Callable[[], Factory]]:
    """What imports the factory of each handler that is installed, by name."""
    return {point.name: point.load for point in entry_points(group=GROUP)}


def load_handlers(
    context: Context, there: Mapping[str, Callable[[], Factory]] | None = None
) -> list[Handler]:
    """The handlers that the settings ask for, in an order in which each is after its own.

    Args:
        context: is given to each.
        there: those to choose from; None is all that are installed.

    Raises:
        HandlersInvalid: one is not there, or one that it has to be after; or no order will do.
    """
    there = installed() if there is None else there
    wanted = context.settings.worker.handlers
    names = sorted(there) if wanted is None else list(dict.fromkeys(wanted))
    if unknown := sorted(set(names) - there.keys()):
        raise HandlersInvalid(
            f"there is no handler {', '.join(unknown)}; installed are "
            f"{', '.join(sorted(there)) or 'none'}"
        )
    if not names:
        raise HandlersInvalid("there are no handlers to run")
    return in_order([there[name]()(context) for name in names])


def in_order(handlers: Sequence[Handler]) -> list[Handler]:
    """Handlers in an order in which each comes after those that it has to; see `load_handlers`."""
    names = {handler.name for handler in handlers}
    if len(names) < len(handlers):
        raise HandlersInvalid("two handlers have one name")
    for handler in handlers:
        if missing := sorted(set(handler.after) - names):
            raise HandlersInvalid(
                f"handler {handler.name} needs {', '.join(missing)} to run before it in the same "
                "worker: add it to worker.handlers"
            )
    ordered: list[Handler] = []
    waiting = list(handlers)
    while waiting:
        placed = {handler.name for handler in ordered}
        ready = [handler for handler in waiting if placed.issuperset(handler.after)]
        if not ready:
            raise HandlersInvalid(
                f"handlers wait for each other: {', '.join(each.name for each in waiting)}"
            )
        ordered += ready
        waiting = [handler for handler in waiting if handler not in ready]
    return ordered
