"""What holds for every method of the public names, and what was published about them."""

from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.prices import load_panel
from riskhub.risk import (
    LEVELS,
    NotFinite,
    Tail,
    cornish_fisher,
    cornish_fisher_var,
    ewma,
    ewma_var,
    filtered_historical,
    filtered_historical_var,
    historical,
    historical_es,
    historical_var,
    normal,
    normal_var,
    portfolio_returns,
    student_t,
    student_t_var,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sp500_prices.csv.gz"
C99 = Fraction(99, 100)
SAMPLE = np.random.default_rng(12).standard_t(9, 500) * 0.01

METHODS = [historical, normal, cornish_fisher, student_t, ewma, filtered_historical]
NAMED = [
    (historical_var, historical),
    (normal_var, normal),
    (cornish_fisher_var, cornish_fisher),
    (student_t_var, student_t),
    (ewma_var, ewma),
    (filtered_historical_var, filtered_historical),
]
methods = pytest.mark.parametrize("method", METHODS)


def test_hulls_four_index_portfolio():
    # Hull, "Risk Management and Financial Institutions": 500 scenarios of a portfolio of $10
    # million on 25 September 2008; the worst losses in dollars of the published ranking. The
    # one-day 99 % VaR is 253,385, the fifth worst, and the ES 327,181.
    worst = [477_841, 345_435, 282_204, 277_041, 253_385, 217_974]
    scenarios = [-loss / 10e6 for loss in worst] + [0.0] * 494
    assert historical_var(scenarios, C99) * 10e6 == pytest.approx(253_385, abs=1e-6)
    assert historical_es(scenarios, C99) * 10e6 == pytest.approx(327_181, abs=0.5)
    assert historical(scenarios, C99).var_next * 10e6 == pytest.approx(217_974, abs=1e-6)


@pytest.mark.parametrize(("named", "method"), NAMED)
@pytest.mark.parametrize("level", LEVELS)
def test_the_named_number_is_that_of_the_tail(named, method, level):
    assert type(named(SAMPLE, level)) is float
    assert named(SAMPLE, level) == method(SAMPLE, level).var


def test_the_named_es_is_not_the_var():
    assert historical_es(SAMPLE, C99) == historical(SAMPLE, C99).es
    assert historical_es(SAMPLE, C99) > historical_var(SAMPLE, C99)


@methods
def test_names_itself(method):
    assert method(SAMPLE, C99).method == method.__name__


@methods
@given(st.permutations(LEVELS))
def test_levels_do_not_depend_on_the_order_asked(method, levels):
    by_level = {level: method(SAMPLE, level) for level in levels}
    ordered = [by_level[level] for level in LEVELS]
    assert [tail.var for tail in ordered] == sorted(tail.var for tail in ordered)
    assert [tail.es for tail in ordered] == sorted(tail.es for tail in ordered)
    assert all(tail.es > tail.var for tail in ordered)


@methods
def test_gives_the_same_bits_again(method):
    assert method(SAMPLE, C99) == method(SAMPLE.copy(), C99) == method(SAMPLE.tolist(), C99)


@pytest.mark.parametrize("method", [historical, normal, cornish_fisher, student_t, ewma])
def test_overflow_is_refused(method):
    huge = [1.7e308, -1.7e308, -1.7e308, 1.7e308, 1.6e308]
    with pytest.raises(NotFinite):
        method(huge, Fraction(1, 2))


def test_no_tail_holds_a_nan():
    for var, es in [(np.nan, 1.0), (0.0, np.nan), (0.0, np.inf)]:
        with pytest.raises(NotFinite):
            Tail("historical", C99, var, es, 1, None)


@pytest.mark.parametrize("method", [historical, normal, student_t, ewma, filtered_historical])
def test_after_lehman_the_panels_equal_weight_book_is_riskier_by_every_method(method):
    panel = load_panel(SHIPPED)
    before, after = (
        method(portfolio_returns(panel.window(panel.symbols, end, 500), np.full(20, 0.05)), C99)
        for end in (date(2008, 8, 29), date(2008, 10, 31))
    )
    assert after.var > before.var
    assert after.es > before.es
