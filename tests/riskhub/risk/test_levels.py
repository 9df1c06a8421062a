from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.risk import LEVELS, BadLevel, TooFewReturns, format_level, parse_level, rank
from riskhub.risk.levels import tail_mass

levels = st.fractions(min_value=Fraction(1, 2), max_value=Fraction(99999, 100000))


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (500, "0.99", 5),  # 500 * (1 - 0.99) is 5.000000000000004 in floating point
        (501, "0.99", 6),
        (1000, "0.999", 1),
        (1001, "0.999", 2),
        (250, "0.975", 7),
        (100, "0.95", 5),
        (10, "0.9", 1),  # 10 * (1 - 0.9) is 0.9999999999999998
        (1, "0.99", 1),
        (200_000, "0.99", 2000),
    ],
)
def test_rank_by_hand(n, text, expected):
    assert rank(n, parse_level(text)) == expected


@given(st.integers(1, 200_000), levels)
def test_rank_is_the_smallest_count_that_reaches_the_tail(n, level):
    k = rank(n, level)
    assert 1 <= k <= n
    assert Fraction(k, n) >= 1 - level
    assert Fraction(k - 1, n) < 1 - level


@given(st.integers(1, 200_000), levels)
def test_tail_mass_is_correctly_rounded(n, level):
    assert tail_mass(n, level) == float(n * (1 - level))


def test_the_levels_are_exact():
    assert [format_level(level) for level in LEVELS] == ["0.95", "0.975", "0.99"]
    assert tuple(map(parse_level, ["0.95", "0.975", "0.99"])) == LEVELS


@given(st.integers(1, 15), st.data())
def test_text_and_level_are_each_others_inverse(digits, data):
    numerator = data.draw(st.integers(10**digits // 2, 10**digits - 1))
    level = Fraction(numerator, 10**digits)
    text = format_level(level)
    assert parse_level(text) == level
    assert text.startswith("0.")
    assert not text.endswith("0")


def test_trailing_zeros_do_not_make_another_level():
    assert format_level(parse_level("0.9900")) == "0.99"


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "1", "1.0", "0.", ".99", "0.05", "0.49999", "99", "99%", "-0.99", "+0.99"),
        *("0.9_9", "nan", "inf", "99/100", "9.9e-1", " 0.99", "0.99\n", "0.٩٩", "0,99", "0.9.9"),
    ],
)
def test_other_texts_are_no_level(text):
    with pytest.raises(BadLevel):
        parse_level(text)


@pytest.mark.parametrize("level", [Fraction(0), Fraction(1), Fraction(1, 20), Fraction(99), 1])
def test_other_numbers_are_no_level(level):
    with pytest.raises(BadLevel):
        rank(500, level)
    with pytest.raises(BadLevel):
        tail_mass(500, level)
    with pytest.raises(BadLevel):
        format_level(level)


def test_a_level_without_an_exact_decimal_has_no_text():
    assert rank(3, Fraction(2, 3)) == 1
    with pytest.raises(BadLevel, match="no exact decimal"):
        format_level(Fraction(2, 3))


@pytest.mark.parametrize("n", [0, -1])
def test_nothing_has_no_rank(n):
    with pytest.raises(TooFewReturns):
        rank(n, Fraction(99, 100))
