"""Confidence levels, as exact rationals.

A level c is the probability that a loss stays within its value at risk; alpha = 1 - c is the tail.
500 * (1 - 0.99) is 5.000000000000004 in floating point, and its ceiling picks the wrong return.
A level is therefore a Fraction, and ranks are counted in integers.
"""

from decimal import Context, Decimal, Inexact
from fractions import Fraction

from riskhub.risk.inputs import RiskInputError, TooFewReturns

Level = Fraction

LEVELS: tuple[Level, ...] = (Fraction(95, 100), Fraction(975, 1000), Fraction(99, 100))


class BadLevel(RiskInputError):
    """Not in [1/2, 1), where confidence levels lie. Below that is most often an alpha."""


def parse_level(text: str) -> Level:
    """The level that a decimal such as "0.975" names, exactly. Raises `BadLevel`."""
    whole, point, decimals = text.partition(".")
    if not (whole == "0" and point and decimals.isascii() and decimals.isdigit()):
        raise BadLevel(f"{text!r} is not a confidence level such as '0.99'")
    level = Fraction(text)
    _tail(level)
    return level


def format_level(level: Level) -> str:
    """The shortest decimal that `parse_level` reads as this level: Fraction(39, 40) is "0.975".

    Raises `BadLevel`, also for a fraction such as 2/3, which no decimal gives exactly.
    """
    _tail(level)
    exact = Context(prec=40, traps=[Inexact])
    try:
        decimal = exact.divide(Decimal(level.numerator), Decimal(level.denominator))
    except Inexact as error:
        raise BadLevel(f"{level} has no exact decimal") from error
    return f"{decimal:f}"


def rank(n: int, level: Level) -> int:
    """k = ceil(n * (1 - c)): among n returns the k-th worst is the value at risk; 1 <= k <= n.

    Exact: n = 500 at 99 % gives 5. Raises `TooFewReturns` for n < 1, `BadLevel`.
    """
    if n < 1:
        raise TooFewReturns(n, 1)
    return -(-n * _tail(level) // level.denominator)


def tail_mass(n: int, level: Level) -> float:
    """n * (1 - c), how many of n returns the tail holds, to the nearest float. Raises `BadLevel`.

    With n = 1 it is alpha, the probability of the tail.
    """
    return n * _tail(level) / level.denominator


def _tail(level: Level) -> int:
    """1 - c in units of 1/denominator. In integers, for Fraction arithmetic is slow."""
    if not level.denominator <= 2 * level.numerator < 2 * level.denominator:
        raise BadLevel(f"{level} is not in [1/2, 1)")
    return level.denominator - level.numerator
