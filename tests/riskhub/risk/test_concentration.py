import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from riskhub.risk import (
    AmbiguousBets,
    NoRisk,
    NotFinite,
    NothingHeld,
    NotPsd,
    WrongShape,
    diversification_ratio,
    effective_bets,
    effective_names,
    gross,
    herfindahl,
    largest,
    net,
    sample_covariance,
)

weights = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=1, max_size=50)
seeds = st.integers(0, 2**32 - 1)


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


class TestDiversificationRatio:
    def test_by_hand(self):
        # Choueifaty and Coignard: n uncorrelated positions of one volatility give sqrt(n).
        assert diversification_ratio([0.25] * 4, np.eye(4)) == pytest.approx(2.0, rel=1e-12)
        # sigma 0.1 and 0.3, uncorrelated: 0.2 / sqrt(0.0025 + 0.0225).
        ratio = diversification_ratio([0.5, 0.5], np.diag([0.01, 0.09]))
        assert ratio == pytest.approx(0.2 / 0.025**0.5, rel=1e-12)

    def test_of_one_name_or_of_names_that_move_as_one_is_one(self):
        assert diversification_ratio([-0.7], [[0.04]]) == pytest.approx(1.0, rel=1e-12)
        together = np.outer([0.1, 0.2], [0.1, 0.2])
        assert diversification_ratio([0.5, 0.5], together) == pytest.approx(1.0, rel=1e-12)

    def test_a_net_of_zero_does_not_divide(self):
        ratio = diversification_ratio([0.5, -0.5], [[1.0, 0.5], [0.5, 1.0]])
        assert ratio == pytest.approx(1 / 0.25**0.5, rel=1e-12)

    @given(seeds, st.permutations(range(5)), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3))
    def test_is_at_least_one_and_ignores_size_side_and_order(self, seed, order, scale):
        book, covariance = drawn(seed)
        ratio = diversification_ratio(book, covariance)
        assert ratio >= 1 - 1e-12
        other = diversification_ratio(scale * book[order], covariance[np.ix_(order, order)])
        assert other == pytest.approx(ratio, rel=1e-9)


class TestEffectiveBets:
    @pytest.mark.parametrize("n", [1, 2, 7])
    def test_uncorrelated_positions_of_equal_risk_count_in_full(self, n):
        sigma = np.arange(1.0, n + 1)
        assert effective_bets(1 / sigma, np.diag(sigma**2)) == pytest.approx(n, rel=1e-12)

    def test_by_hand_with_a_short(self):
        # Components (1, 1) and (1, -1) over sqrt(2), of variance 1.5 and 0.5. For w = (3, -1):
        # exposures squared 2 and 8, so the shares are 3 / 7 and 4 / 7.
        entropy = -(3 / 7 * np.log(3 / 7) + 4 / 7 * np.log(4 / 7))
        bets = effective_bets([3.0, -1.0], [[1.0, 0.5], [0.5, 1.0]])
        assert bets == pytest.approx(np.exp(entropy), rel=1e-12)

    def test_a_book_along_one_component_is_one_bet(self):
        covariance = [[1.0, 0.5], [0.5, 1.0]]
        assert effective_bets([0.5, 0.5], covariance) == pytest.approx(1.0, abs=1e-9)
        assert effective_bets([0.5, -0.5], covariance) == pytest.approx(1.0, abs=1e-9)

    @given(seeds, st.permutations(range(5)), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3))
    def test_lies_between_one_and_all_and_ignores_size_side_and_order(self, seed, order, scale):
        book, covariance = drawn(seed)
        bets = effective_bets(book, covariance)
        assert 1 - 1e-12 <= bets <= 5 + 1e-12
        other = effective_bets(scale * book[order], covariance[np.ix_(order, order)])
        assert other == pytest.approx(bets, rel=1e-6)

    def test_components_that_are_not_unique_are_refused_where_they_matter(self):
        with pytest.raises(AmbiguousBets):
            effective_bets([0.5, 0.5], np.eye(2))
        equal = 0.5 * np.eye(4) + 0.5  # one component (1, 1, 1, 1), three of one eigenvalue
        assert effective_bets(np.full(4, 0.25), equal) == pytest.approx(1.0, abs=1e-9)
        with pytest.raises(AmbiguousBets):
            effective_bets([0.4, 0.3, 0.2, 0.1], equal)

    def test_components_without_variance_carry_no_bet(self):
        # Rank one: two eigenvalues of zero, which are equal and do not matter.
        sigma = np.array([0.1, 0.2, 0.3])
        assert effective_bets([0.3, 0.3, 0.4], np.outer(sigma, sigma)) == pytest.approx(1.0)


@pytest.mark.parametrize("number", [diversification_ratio, effective_bets])
def test_without_variance_there_is_nothing_to_diversify(number):
    for book, covariance in [([0.0, 0.0], np.eye(2)), ([0.5, -0.5], np.ones((2, 2)))]:
        with pytest.raises(NoRisk):
            number(book, covariance)
    with pytest.raises(NotPsd):
        number([1.0, -1.0], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(WrongShape):
        number([1.0], np.eye(2))


def drawn(seed):
    """A long-short book of 5 and a covariance with distinct eigenvalues."""
    generator = np.random.default_rng(seed)
    returns = generator.normal(0, 0.01, (40, 5)) * [1.0, 1.5, 2.0, 3.0, 4.0]
    return generator.normal(0, 0.5, 5), sample_covariance(returns)
