"""What the backtests accept beside arrays, and the names of their refusals."""

from decimal import Decimal
from fractions import Fraction
from operator import index
from typing import SupportsIndex

from riskhub.risk.inputs import RiskInputError

Alpha = Fraction | float

SIGNIFICANCE = 0.05

_SMALLEST = Fraction(1, 10**12)
_WRITTEN_DIGITS = 12


class BadAlpha(RiskInputError):
    """Not in [1e-12, 1/2], where tails lie, or a float that nobody wrote."""


class BadSignificance(RiskInputError):
    """Not in (0, 1)."""


class BadCount(RiskInputError):
    """A count that is not whole, is negative, or is of more than there are."""


class TooFewObservations(RiskInputError):
    """Fewer days than the test needs to be defined."""

    def __init__(self, n: int, needed: int) -> None:
        super().__init__(f"{n} observations given, at least {needed} needed")
        self.n = n
        self.needed = needed


def exact_alpha(alpha: Alpha) -> Fraction:
    """The tail probability alpha = 1 - c as an exact rational in [1e-12, 1/2].

    A Fraction is taken as it is. A float is taken as the shortest decimal that reads as it: 0.01
    is 1/100 and not 0.01000000000000000020816... One of more than 12 digits, as 1 - 0.99 =
    0.010000000000000009, was computed and not written, and is refused. Raises `BadAlpha`, also
    above 1/2, which is most often a level.
    """
    if isinstance(alpha, float):
        written = Decimal(repr(float(alpha)))
        if not written.is_finite() or len(written.as_tuple().digits) > _WRITTEN_DIGITS:
            raise BadAlpha(f"{alpha!r} names no exact alpha; give a Fraction, such as 1/100")
        alpha = Fraction(written)
    if not isinstance(alpha, Fraction):
        raise BadAlpha(f"alpha {alpha!r} must be a Fraction or a float")
    if not _SMALLEST <= alpha <= Fraction(1, 2):
        raise BadAlpha(f"alpha {alpha} is not in [1e-12, 1/2]")
    return alpha


def checked_significance(significance: float) -> float:
    """The probability of rejecting a true null, in (0, 1). Raises `BadSignificance`."""
    if not 0 < significance < 1:
        raise BadSignificance(f"significance {significance} is not in (0, 1)")
    return float(significance)


def whole(value: SupportsIndex, name: str, at_least: int = 0) -> int:
    """`value` as a plain int; numpy's are welcome. Raises `BadCount`."""
    try:
        count = index(value)
    except TypeError as error:
        raise BadCount(f"{name} must be a whole number, not {value!r}") from error
    if count < at_least:
        raise BadCount(f"{name} must be at least {at_least}, not {count}")
    return count


def counted(observations: SupportsIndex, exceedances: SupportsIndex) -> tuple[int, int]:
    """Both counts, 0 <= exceedances <= observations, 1 <= observations.

    Raises `BadCount`, `TooFewObservations`.
    """
    days = whole(observations, "observations")
    hits = whole(exceedances, "exceedances")
    if days < 1:
        raise TooFewObservations(days, 1)
    if hits > days:
        raise BadCount(f"{hits} exceedances in {days} observations")
    return days, hits
