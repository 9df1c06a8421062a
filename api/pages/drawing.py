"""Where the lines and bars of small charts go. Pure; templates make SVG of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from riskhub.status import Tail

WIDTH, HEIGHT = 120.0, 30.0
_PAD = 2.5


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The points of two lines and of the band between them, as SVG has them; the first's end."""

    var: str
    es: str
    band: str
    x: float
    y: float


def sparkline(tails: Sequence[Tail]) -> Sparkline | None:
    """VaR and ES of some days, evenly apart; None of fewer than two.

    The height is what they range over, and a quarter of ES at least: what hardly moves is flat.
    """
    if len(tails) < 2:
        return None
    lowest, highest = min(each.var for each in tails), max(each.es for each in tails)
    spare = max(0.25 * abs(highest) - (highest - lowest), 0.0) / 2
    lowest, highest = lowest - spare, highest + spare
    step = (WIDTH - 2 * _PAD) / (len(tails) - 1)

    def point(number: int, value: float) -> tuple[float, float]:
        height = (value - lowest) / (highest - lowest) if highest > lowest else 0.5
        return _PAD + number * step, HEIGHT - _PAD - height * (HEIGHT - 2 * _PAD)

    def line(values: Sequence[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*point(*each)) for each in enumerate(values))

    var, es = line([each.var for each in tails]), line([each.es for each in tails])
    x, y = point(len(tails) - 1, tails[-1].var)
    return Sparkline(var, es, f"{var} {' '.join(es.split()[::-1])}", round(x, 1), round(y, 1))


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
