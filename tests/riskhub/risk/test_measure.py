import ast
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import riskhub.risk
from riskhub.risk import (
    LEVELS,
    NotFinite,
    TooFewReturns,
    annualised,
    current_drawdown,
    historical,
    max_drawdown,
    measure,
    normal,
    volatility,
)

SAMPLE = np.random.default_rng(5).standard_t(4, 500) * 0.01
returns = st.lists(st.floats(-0.9, 0.9, allow_subnormal=False), min_size=2, max_size=200)


@given(returns)
def test_gives_what_each_number_gives_alone(sample):
    numbers = measure(sample)
    assert numbers.n == len(sample)
    assert numbers.mean == pytest.approx(np.mean(sample), rel=1e-12, abs=1e-15)
    assert numbers.volatility == volatility(sample)
    assert numbers.annualised_volatility == annualised(volatility(sample))
    assert numbers.max_drawdown == max_drawdown(sample)
    assert numbers.current_drawdown == current_drawdown(sample)
    assert numbers.tails == (
        *(historical(sample, level) for level in LEVELS),
        *(normal(sample, level) for level in LEVELS),
    )


def test_drawdown_is_that_of_time_not_of_the_sorted_sample():
    # A rise and a fall that comes back: sorted, the falls would compound.
    numbers = measure([-0.1, 0.2, -0.1, 0.2])
    assert numbers.max_drawdown == pytest.approx(0.1, rel=1e-12)
    assert numbers.current_drawdown == 0.0


def test_other_levels_may_be_asked():
    level = Fraction(999, 1000)
    numbers = measure(SAMPLE, [level])
    assert numbers.tails == (historical(SAMPLE, level), normal(SAMPLE, level))


def test_a_tail_is_found_by_its_name():
    numbers = measure(SAMPLE)
    assert numbers.tail("normal", LEVELS[1]) == normal(SAMPLE, LEVELS[1])
    with pytest.raises(LookupError, match="no normal tail at 9/10"):
        numbers.tail("normal", Fraction(9, 10))


def test_leaves_its_input_alone():
    before = SAMPLE.copy()
    measure(SAMPLE)
    np.testing.assert_array_equal(SAMPLE, before)


def test_refuses_rather_than_guess():
    with pytest.raises(TooFewReturns):
        measure([0.01])
    with pytest.raises(NotFinite):
        measure([0.01, np.nan, 0.02])


def test_the_numbers_import_nothing_that_knows_the_time_or_the_world():
    pure = {"collections", "dataclasses", "decimal", "fractions", "math", "numpy", "statistics"}
    for module in Path(riskhub.risk.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                ours = name == "riskhub.errors" or name.startswith("riskhub.risk")
                assert ours or name.split(".")[0] in pure | {"typing"}, f"{module.name}: {name}"
