"""What was known of each input, and what is made of an input that was known and is not there now.

The governor keeps outside its process, in the Redis hash `riskhub:governor:known`, the last value
of each input and when that was fresh. Losing an input must not raise a budget, so where a value was
known, no fallback takes its place:

- portfolio state: the last one that was fresh, as `last_known_good`, for `lkg_max_sec` after it was
  last fresh; beyond that none, `too_old`;
- heat, cluster stress, volatility regime, drawdown: the last value, `held`, for the same time;
  beyond that `held_careful`, the larger of it and the fallback;
- shares of the expected shortfall: the last ones, `held` and `held_careful` alike.

What was broken was taken as the worst, and is remembered so: broken and then missing is no better
than broken. What comes from a second choice (sigma, where the regime had a name) counts no less
than what the first choice last said.

Ages never shrink. When the clock steps back, all that is remembered steps back with it. So does
what is still there from before: a portfolio state that is no newer, by its timestamp, than the one
seen last is as much older, and once it is not fresh it does not become so again; a snapshot of the
hub that was seen expired stays so. A producer that lives is believed again at its second state
after the step, at the latest.

Pure: what is remembered goes in, what has changed comes out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, TypeVar

from riskhub.governor.inputs import (
    NO_DRAWDOWN,
    WORST,
    GovernorInputs,
    Input,
    PortfolioState,
    Shares,
)
from riskhub.governor.settings import GovernorSettings

PORTFOLIO, DRAWDOWN, HEAT, SHARES = "portfolio", "drawdown", "heat", "shares"
CLUSTER, REGIME = "cluster:", "regime:"
CLOCK, SEEN, EXPIRED = "clock", "seen", "expired:"
"""What the clock showed; the portfolio state that was seen last, fresh or not; and of heat and
shares the newest snapshot that was seen expired."""

FORGET_SEC = 7 * 86_400.0
"""A symbol or cluster that nobody has asked for so long is forgotten."""

_BROKEN = frozenset({"malformed", "out_of_range"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Known:
    """The last value of one input.

    Attributes:
        value: of the portfolio its equity, USD; of `shares` how many; of the clock, of what was
            seen and what had expired its time, as it stands there; of all others 0 to 1.
        fresh_at: when it was last fresh, of what was seen when it was written; unix seconds by the
            clock of the governor, as it goes now.
        second_choice: as of `Input`.
        extra: of the portfolio its `timestamp`, by the same clock, and, if there was one,
            `drawdown`; of `shares` the shares by symbol.
    """

    value: float
    fresh_at: float
    second_choice: bool = False
    extra: Mapping[str, float] = field(default_factory=dict)


Changes = dict[str, Known | None]
"""What is to be written, by name; None is to be forgotten."""


def recall(
    judged: GovernorInputs, known: Mapping[str, Known], now: float, settings: GovernorSettings
) -> tuple[GovernorInputs, Changes]:
    """The inputs as they are to be used, and what to remember of them.

    Args:
        judged: of this cycle, each by itself.
        known: `remembered`, by name: ``portfolio``, ``drawdown``, ``heat``, ``shares``, ``clock``,
            ``seen``, ``cluster:{id}``, ``regime:{symbol}``, ``expired:heat``, ``expired:shares``.
        now: unix seconds.
        settings: of them `stale_sec` and `lkg_max_sec`.
    """
    memory = _Memory(known, now, settings)
    portfolio = memory.portfolio(judged.portfolio)
    # The drawdown is part of the state, and no fresher than that.
    drawdown = judged.drawdown if portfolio.policy == "fresh" else NO_DRAWDOWN
    heat = memory.unless_expired(HEAT, judged.heat, WORST)
    inputs = replace(
        judged,
        portfolio=portfolio,
        heat=memory.stress(HEAT, heat),
        clusters={
            cluster: memory.stress(CLUSTER + cluster, stress)
            for cluster, stress in judged.clusters.items()
        },
        regimes={
            symbol: memory.stress(REGIME + symbol, regime)
            for symbol, regime in judged.regimes.items()
        },
        drawdown=memory.stress(DRAWDOWN, drawdown),
        shares=memory.shares(memory.unless_expired(SHARES, judged.shares, {})),
    )
    memory.forget(keep=judged)
    return inputs, memory.changes


class _Memory:
    """What is known in one cycle, and what changes of it."""

    def __init__(self, known: Mapping[str, Known], now: float, settings: GovernorSettings) -> None:
        self.changes: Changes = {}
        self._known = known
        self._now = now
        self._stale_sec = settings.stale_sec
        self._lkg_max_sec = settings.lkg_max_sec
        clock = known.get(CLOCK)
        if clock is not None and clock.fresh_at > now:
            back = clock.fresh_at - now
            self._known = {name: _stepped_back(name, last, back) for name, last in known.items()}
            self.changes.update(self._known)
        self.changes[CLOCK] = Known(now, now)

    def portfolio(self, judged: Input[PortfolioState | None]) -> Input[PortfolioState | None]:
        """Fresh, else the last that was, else as it was judged."""
        judged = self._as_old_as_it_is(judged)
        state = judged.value
        if judged.policy == "fresh" and state is not None:
            extra = {"timestamp": state.timestamp}
            if state.drawdown is not None:
                extra["drawdown"] = state.drawdown
            self.changes[PORTFOLIO] = Known(state.equity_usd, self._now, extra=extra)
            return judged
        if (last := self._known.get(PORTFOLIO)) is None:
            return judged
        timestamp = last.extra["timestamp"]
        age, unfresh = self._since(timestamp), self._since(last.fresh_at)
        if unfresh > self._lkg_max_sec:
            return Input(None, "too_old", age, unfresh)
        state = PortfolioState(last.value, last.extra.get("drawdown"), timestamp)
        return Input(state, "last_known_good", age, unfresh)

    def _as_old_as_it_is(
        self, judged: Input[PortfolioState | None]
    ) -> Input[PortfolioState | None]:
        """With its time by the clock as it goes now, if it was written before that stepped back."""
        state, seen = judged.value, self._known.get(SEEN)
        if state is None:
            return judged
        timestamp = state.timestamp
        if seen is None or timestamp > seen.value:
            self.changes[SEEN] = Known(timestamp, timestamp)
            return judged
        back = seen.value - seen.fresh_at
        self.changes[SEEN] = Known(timestamp, timestamp - back)
        if back <= 0:
            return judged
        state = replace(state, timestamp=timestamp - back)
        age = self._since(state.timestamp)
        fresh = judged.policy == "fresh" and age < self._stale_sec and self._was_fresh()
        return Input(state, "fresh" if fresh else "stale", age)

    def _was_fresh(self) -> bool:
        """Whether the portfolio state was fresh in the cycle before."""
        last, clock = self._known.get(PORTFOLIO), self._known.get(CLOCK)
        return last is not None and clock is not None and last.fresh_at >= clock.fresh_at

    def unless_expired(self, name: str, judged: Input[_T], fallback: _T) -> Input[_T]:
        """Missing, if its snapshot was seen expired: no clock that steps back makes it alive."""
        if judged.as_of is None:
            return judged
        last = self._known.get(EXPIRED + name)
        if judged.policy == "fresh":
            alive = last is None or judged.as_of > last.value
            return judged if alive else Input(fallback, "missing", as_of=judged.as_of)
        if last is None or judged.as_of > last.value:
            self.changes[EXPIRED + name] = Known(judged.as_of, self._now)
        return judged

    def stress(self, name: str, judged: Input[float]) -> Input[float]:
        """Heat, or any other value from 0 (calm) to 1, where more is less budget."""
        if judged.policy == "not_configured":
            return judged
        if judged.policy in _BROKEN:
            self.changes[name] = Known(WORST, self._now, judged.second_choice)
            return judged
        last = self._known.get(name)
        there = judged.policy == "fresh"
        if last is None or (there and self._is_enough(judged, last)):
            if there:
                self.changes[name] = Known(judged.value, self._now, judged.second_choice)
            return judged
        unfresh = self._since(last.fresh_at)
        held = unfresh <= self._lkg_max_sec
        value = last.value if held else max(last.value, judged.value)
        return Input(value, "held" if held else "held_careful", unfresh, unfresh)

    def shares(self, judged: Input[Shares]) -> Input[Shares]:
        """Fresh, else the last that were: without any, no budget would be cut."""
        if judged.policy == "fresh":
            count = float(len(judged.value))
            self.changes[SHARES] = Known(count, self._now, extra=judged.value)
            return judged
        last = self._known.get(SHARES)
        if last is None or judged.policy == "not_configured":
            return judged
        unfresh = self._since(last.fresh_at)
        held = unfresh <= self._lkg_max_sec
        return Input(last.extra, "held" if held else "held_careful", unfresh, unfresh)

    def forget(self, keep: GovernorInputs) -> None:
        """Drop the symbols and clusters that have long been of no interest."""
        for name in self._known.keys() - self.changes.keys():
            wanted = (
                name.removeprefix(CLUSTER) in keep.clusters
                if name.startswith(CLUSTER)
                else name.removeprefix(REGIME) in keep.regimes
                if name.startswith(REGIME)
                else True
            )
            if not wanted and self._since(self._known[name].fresh_at) > FORGET_SEC:
                self.changes[name] = None

    @staticmethod
    def _is_enough(judged: Input[float], last: Known) -> bool:
        """Whether a value may be taken as it is, with what is known."""
        return not judged.second_choice or last.second_choice or judged.value >= last.value

    def _since(self, then: float) -> float:
        return max(self._now - then, 0.0)


def _stepped_back(name: str, last: Known, back: float) -> Known:
    extra = last.extra
    if name == PORTFOLIO:
        extra = {**extra, "timestamp": extra["timestamp"] - back}
    return replace(last, fresh_at=last.fresh_at - back, extra=extra)


# -- as it is kept --------------------------------------------------------------------------------


def remembered(fields: Mapping[bytes | str, bytes | str]) -> dict[str, Known]:
    """The memory from its hash.

    A field that can't be read is no reason to be less careful: it counts as the worst, long ago.
    A portfolio, shares or times (of the clock, of what was seen, of what had expired) that can't be
    read are not remembered.
    """
    return dict(_entries(fields))


def written(known: Known) -> str:
    """One field of the hash, as JSON; `remembered` reads it."""
    text = f'{{"value": {known.value!r}, "fresh_at": {known.fresh_at!r}'
    if known.second_choice:
        text += ', "second_choice": true'
    if known.extra:
        text += f', "extra": {json.dumps(dict(known.extra))}'
    return text + "}"


def _entries(fields: Mapping[bytes | str, bytes | str]) -> Iterator[tuple[str, Known]]:
    for raw_name, raw in fields.items():
        name = raw_name.decode(errors="replace") if isinstance(raw_name, bytes) else raw_name
        known = _known(raw)
        if name == PORTFOLIO:
            if known is not None and known.value > 0 and "timestamp" in known.extra:
                yield name, known
        elif name in {SHARES, CLOCK, SEEN} or name.startswith(EXPIRED):
            if known is not None:
                yield name, known
        elif known is None or not 0.0 <= known.value <= 1.0:
            yield name, Known(WORST, 0.0)
        else:
            yield name, known


def _known(raw: bytes | str) -> Known | None:
    try:
        fields = json.loads(raw)
        known = Known(
            _number(fields["value"]),
            _number(fields["fresh_at"]),
            fields.get("second_choice") is True,
            {name: _number(value) for name, value in fields.get("extra", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return known


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("no number")
    return float(value)
