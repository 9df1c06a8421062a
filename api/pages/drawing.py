"""Where the lines and bars of small charts go. Pure; templates make SVG of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from riskhub.store.overview import Tail

# Twice as large as it is shown, so that whole numbers are fine enough.
WIDTH, HEIGHT = 240, 60
_PAD = 5


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The points of VaR's line and of the band up to ES, as SVG has them; where the line ends."""

    var: str
    band: str
    x: int
    y: int


@lru_cache(maxsize=1_000)
def sparkline(tails: tuple[Tail, ...]) -> Sparkline | None:
    """VaR and ES of some days, evenly apart; None of fewer than two.

    The height is what they range over, and a quarter of ES at least: what hardly moves is flat.
    """
    if len(tails) < 2:
        return None
    lowest, highest = min(each.var for each in tails), max(each.es for each in tails)
    spare = max(0.25 * abs(highest) - (highest - lowest), 0.0) / 2
    lowest, highest = lowest - spare, highest + spare
    across = (WIDTH - 2 * _PAD) / (len(tails) - 1)
    up = (HEIGHT - 2 * _PAD) / (highest - lowest) if highest > lowest else 0.0

    def points(values: Sequence[float]) -> list[tuple[int, int]]:
        return [
            (round(_PAD + number * across), round(HEIGHT - _PAD - (value - lowest) * up))
            for number, value in enumerate(values)
        ]

    var, es = points([each.var for each in tails]), points([each.es for each in tails])
    return Sparkline(_written(var), _written([*var, *es[::-1]]), *var[-1])


def _written(points: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in percent of the width: where it begins, how long it is, where zero is."""

    start: float
    length: float
    zero: float


def bars(values: Sequence[float | None]) -> list[Bar | None]:
    """Bars beside each other's zero, on one scale that holds zero and all of them."""
    known = [value for value in values if value is not None]
    lowest, highest = min([0.0, *known]), max([0.0, *known])
    width = highest - lowest
    if width <= 0:
        return [None] * len(values)
    zero = -100 * lowest / width

    def bar(value: float) -> Bar:
        length = 100 * abs(value) / width
        start = zero if value >= 0 else zero - length
        return Bar(round(start, 2), round(length, 2), round(zero, 2))

    return [None if value is None else bar(value) for value in values]
