"""When a market is open, by the package exchange-calendars.

It takes a second to import and some calendars take seconds to make, so both wait until an age is
asked for by a calendar, and are done once in a process.
"""

import threading
import warnings
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

_loaded: dict[str, "OpenHours | str"] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class OpenHours:
    """The stretches of time in which a market is open, unix seconds, in order and apart."""

    name: str
    opens: tuple[float, ...]
    closes: tuple[float, ...]
    _before: tuple[float, ...]

    @classmethod
    def of(cls, name: str, stretches: Iterable[tuple[float, float]]) -> "OpenHours":
        """From pairs of opening and closing, of which there must be one."""
        opens, closes = zip(*stretches, strict=True)
        lengths = (close - opened for opened, close in zip(opens, closes, strict=True))
        return cls(name, opens, closes, tuple(accumulate(lengths, initial=0.0)))

    def knows(self, instant: datetime) -> bool:
        """Whether it lies between the first opening and the last closing."""
        return self.opens[0] <= instant.timestamp() <= self.closes[-1]

    @property
    def span(self) -> str:
        """Which instants it knows, in words."""
        first, last = (datetime.fromtimestamp(at, UTC) for at in (self.opens[0], self.closes[-1]))
        return f"{self.name} is known from {first:%Y-%m-%d} to {last:%Y-%m-%d}"

    def open_seconds(self, since: datetime, until: datetime) -> float:
        """How long it was open between two instants that it knows, the earlier one first."""
        return self._open_before(until.timestamp()) - self._open_before(since.timestamp())

    def _open_before(self, at: float) -> float:
        place = bisect_right(self.opens, at) - 1
        return self._before[place] + min(at, self.closes[place]) - self.opens[place]


def open_hours(name: str) -> OpenHours | str:
    """The open hours of a calendar such as ``XNYS``, from 20 years ago to next year.

    A pause at noon is no open time. In place of a calendar that can't be had it is said why; what
    is counted then is for the caller to decide.
    """
    if (known := _loaded.get(name)) is None:
        with _lock:
            if (known := _loaded.get(name)) is None:
                known = _loaded[name] = _load(name)
    return known


def _load(name: str) -> OpenHours | str:
    with warnings.catch_warnings():
        # Of pandas to the package, which is pandas-2 code: nothing that we could do about it.
        warnings.simplefilter("ignore", DeprecationWarning)
        import exchange_calendars  # noqa: PLC0415 - see the module
        from exchange_calendars.errors import CalendarError  # noqa: PLC0415

        try:
            calendar = exchange_calendars.get_calendar(name)
        except CalendarError:
            return f"exchange-calendars has no calendar {name}; closed hours count, too"
        except (ValueError, NotImplementedError) as error:  # of a calendar that is broken
            return f"the calendar {name} can't be made ({type(error).__name__}); closed hours count"
        days = zip(
            calendar.opens_nanos.tolist(),
            calendar.break_starts_nanos.tolist(),
            calendar.break_ends_nanos.tolist(),
            calendar.closes_nanos.tolist(),
            strict=True,
        )
        stretches = [
            stretch
            for opened, pause, resumed, closed in days
            # A day without a pause has the least integer there, which is pandas' "no time".
            for stretch in (
                ((opened, pause), (resumed, closed)) if pause > opened else ((opened, closed),)
            )
        ]
    return OpenHours.of(name, ((first / 1e9, last / 1e9) for first, last in stretches))
