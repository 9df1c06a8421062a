from fractions import Fraction

import numpy as np
import pytest

from riskhub.risk import RiskInputError
from riskhub.risk.backtest import (
    BadAlpha,
    BadCount,
    BadSignificance,
    TooFewObservations,
    exact_alpha,
    kupiec,
)


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (Fraction(1, 100), Fraction(1, 100)),
        (0.01, Fraction(1, 100)),
        (np.float64(0.025), Fraction(1, 40)),
        (1e-05, Fraction(1, 100_000)),
        (0.5, Fraction(1, 2)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_a_float_is_the_decimal_it_prints_as(given, exact):
    assert exact_alpha(given) == exact


@pytest.mark.parametrize(
    "bad",
    [
        *(1 - 0.99, 1 / 3, 0.1 + 0.2, 0.0, -0.01, 0.99, 0.51, 1.0, 1e-13),
        *(np.nan, np.inf, 0, 1, "0.01", None, Fraction(99, 100), Fraction(0)),
    ],
)
def test_other_things_are_no_alpha(bad):
    with pytest.raises(BadAlpha):
        kupiec(250, 3, bad)


@pytest.mark.parametrize("bad", [0, 1, -0.1, 5, np.nan])
def test_other_things_are_no_significance(bad):
    with pytest.raises(BadSignificance):
        kupiec(250, 3, 0.01, significance=bad)


@pytest.mark.parametrize(("n", "x"), [(250, -1), (250, 251), (250, 2.0), (250.0, 2), (-1, 0)])
def test_other_things_are_no_counts(n, x):
    with pytest.raises(BadCount):
        kupiec(n, x, 0.01)


def test_no_day_is_too_few():
    with pytest.raises(TooFewObservations, match="0 observations given, at least 1 needed"):
        kupiec(0, 0, 0.01)


def test_every_refusal_is_a_risk_input_error():
    for error in (BadAlpha, BadCount, BadSignificance, TooFewObservations):
        assert issubclass(error, RiskInputError)
