import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from riskhub.risk import (
    NotFinite,
    NothingHeld,
    WrongShape,
    effective_names,
    gross,
    herfindahl,
    largest,
    net,
)

weights = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=1, max_size=50)


def test_by_hand_with_a_short():
    # shares of gross 2.0: 0.5, 0.25, 0.25
    book = [1.0, -0.5, 0.5]
    assert gross(book) == 2.0
    assert net(book) == 1.0
    assert largest(book) == 1.0
    assert herfindahl(book) == 0.375
    assert effective_names(book) == pytest.approx(8 / 3, rel=1e-15)


def test_the_largest_may_be_a_short():
    assert largest([0.8, -0.9, 1.1 - 0.5]) == 0.9


@pytest.mark.parametrize("n", [1, 2, 20, 500])
def test_equal_sizes_count_in_full(n):
    assert effective_names(np.full(n, 1 / n)) == pytest.approx(n, rel=1e-12)
    assert effective_names(np.full(n, 1e-200)) == pytest.approx(n, rel=1e-12)


@given(weights, st.floats(1e-3, 1e3))
def test_lies_between_one_name_and_all_and_ignores_size_and_side(book, scale):
    assume(any(abs(w) > 1e-9 for w in book))
    index = herfindahl(book)
    assert 1 / len(book) - 1e-12 <= index <= 1 + 1e-12
    assert herfindahl([-w * scale for w in book]) == pytest.approx(index, rel=1e-9)
    assert herfindahl([*book, 0.0]) == pytest.approx(index, rel=1e-12)


@given(weights)
def test_net_lies_within_gross(book):
    assert abs(net(book)) <= gross(book) + 1e-12
    assert largest(book) <= gross(book) + 1e-12


@pytest.mark.parametrize("book", [[], [0.0, 0.0]])
def test_an_empty_book_has_no_concentration(book):
    assert gross(book) == net(book) == largest(book) == 0.0
    for number in (herfindahl, effective_names):
        with pytest.raises(NothingHeld):
            number(book)


@pytest.mark.parametrize("number", [gross, net, largest, herfindahl, effective_names])
def test_refuses_what_is_no_book(number):
    with pytest.raises(NotFinite):
        number([0.5, np.nan])
    with pytest.raises(WrongShape):
        number([[0.5, 0.5]])
