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

Ages never shrink. When the clock steps back, all that is remembered steps back with it.

Pure: what is remembered goes in, what has changed comes out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from riskhub.governor.inputs import (
    WORST,
    GovernorInputs,
    Input,
    PortfolioState,
    Shares,
)
from riskhub.governor.settings import GovernorSettings

PORTFOLIO, DRAWDOWN, HEAT, SHARES, CLOCK = "portfolio", "drawdown", "heat", "shares", "clock"
CLUSTER, REGIME = "cluster:", "regime:"

FORGET_SEC = 7 * 86_400.0
"""A symbol or cluster that nobody has asked for so long is forgotten."""

_BROKEN = frozenset({"malformed", "out_of_range"})


@dataclass(frozen=True, slots=True)
class Known:
    """The last value of one input.

    Attributes:
        value: of the portfolio its equity, USD; of `shares` how many; of all others 0 to 1.
        fresh_at: when it was last fresh, unix seconds by the clock of the governor.
        second_choice: as of `Input`.
        extra: of the portfolio its `timestamp` and, if there was one, `drawdown`; of `shares` the
            shares by symbol.
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
            ``cluster:{id}``, ``regime:{symbol}``.
        now: unix seconds.
        settings: of them `lkg_max_sec`.
    """
    memory = _Memory(known, now, settings.lkg_max_sec)
    inputs = replace(
        judged,
        portfolio=memory.portfolio(judged.portfolio),
        heat=memory.stress(HEAT, judged.heat),
        clusters={
            cluster: memory.stress(CLUSTER + cluster, stress)
            for cluster, stress in judged.clusters.items()
        },
        regimes={
            symbol: memory.stress(REGIME + symbol, regime)
            for symbol, regime in judged.regimes.items()
        },
        drawdown=memory.stress(DRAWDOWN, judged.drawdown),
        shares=memory.shares(judged.shares),
    )
    memory.forget(keep=judged)
    return inputs, memory.changes


class _Memory:
    """What is known in one cycle, and what changes of it."""

    def __init__(self, known: Mapping[str, Known], now: float, lkg_max_sec: float) -> None:
        self.changes: Changes = {}
        self._known = known
        self._now = now
        self._lkg_max_sec = lkg_max_sec
        clock = known.get(CLOCK)
        if clock is not None and clock.fresh_at > now:
            back = clock.fresh_at - now
            self._known = {
                name: replace(last, fresh_at=last.fresh_at - back) for name, last in known.items()
            }
            self.changes.update(self._known)
        self.changes[CLOCK] = Known(now, now)

    def portfolio(self, judged: Input[PortfolioState | None]) -> Input[PortfolioState | None]:
        """Fresh, else the last that was, else as it was judged."""
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


# -- as it is kept --------------------------------------------------------------------------------


def remembered(fields: Mapping[bytes | str, bytes | str]) -> dict[str, Known]:
    """The memory from its hash.

    A field that can't be read is no reason to be less careful: it counts as the worst, long ago.
    A portfolio, shares or clock that can't be read are not remembered.
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
        elif name in {SHARES, CLOCK}:
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
