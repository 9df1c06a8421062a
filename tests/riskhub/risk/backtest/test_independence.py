from fractions import Fraction
from itertools import pairwise, product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import WrongShape
from riskhub.risk.backtest import NotHits, TooFewObservations, christoffersen, kupiec

series = st.lists(st.booleans(), min_size=2, max_size=200)


def with_transitions(n00, n01, n10, n11):
    """A series that starts calm and has these transitions; n01 is n10 or one more."""
    hits = [0] * (n00 + 1)
    for run in range(n01):
        hits += [1] * (1 + (n11 if run == 0 else 0))
        hits += [0] if run < n10 else []
    return hits


def likelihood_ratio(n00, n01, n10, n11):
    """The formula as printed, with logs of zero left out."""

    def bernoulli(p, no, yes):
        return (no * log(1 - p) if no else 0.0) + (yes * log(p) if yes else 0.0)

    p = (n01 + n11) / (n00 + n01 + n10 + n11)
    p01 = n01 / (n00 + n01) if n00 + n01 else 0.0
    p11 = n11 / (n10 + n11) if n10 + n11 else 0.0
    return -2 * (
        bernoulli(p, n00 + n10, n01 + n11) - bernoulli(p01, n00, n01) - bernoulli(p11, n10, n11)
    )


class TestIndependence:
    def test_by_hand(self):
        # 8 exceedances in 251 days, 3 of them the day after another.
        result = christoffersen(with_transitions(237, 5, 5, 3))
        assert (result.n00, result.n01, result.n10, result.n11) == (237, 5, 5, 3)
        assert (result.observations, result.exceedances) == (251, 8)
        assert result.after_calm == pytest.approx(5 / 242)
        assert result.after_exceedance == pytest.approx(3 / 8)
        null = 242 * log(242 / 250) + 8 * log(8 / 250)
        chain = 237 * log(237 / 242) + 5 * log(5 / 242) + 5 * log(5 / 8) + 3 * log(3 / 8)
        assert result.statistic == pytest.approx(2 * (chain - null), rel=1e-12)
        assert result.p_value == pytest.approx(stats.chi2.sf(result.statistic, 1), rel=1e-10)
        assert result.reject
        assert result.conditional_coverage is None

    def test_without_two_in_a_row(self):
        # n11 = 0: L(p01, 0) = (1 - p01)^n00 p01^n01, the rest is 1^n10 0^0 = 1.
        result = christoffersen(with_transitions(240, 4, 4, 0))
        chain = 240 * log(240 / 244) + 4 * log(4 / 244)
        null = 244 * log(244 / 248) + 4 * log(4 / 248)
        assert result.statistic == pytest.approx(2 * (chain - null), rel=1e-10)
        assert result.after_exceedance == 0.0
        assert result.undefined is None

    @given(series)
    def test_is_the_formula(self, hits):
        result = christoffersen(hits)
        pairs = list(pairwise(hits))
        cells = [pairs.count((a, b)) for a, b in product((False, True), repeat=2)]
        assert [result.n00, result.n01, result.n10, result.n11] == cells
        assert result.statistic == pytest.approx(likelihood_ratio(*cells), rel=1e-9, abs=1e-9)

    @given(series)
    def test_is_twice_the_entropy_that_yesterday_explains(self, hits):
        table = np.zeros((2, 2))
        np.add.at(table, (np.array(hits[:-1], int), np.array(hits[1:], int)), 1)
        kept = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
        expected = 0.0
        if kept.shape == (2, 2):
            expected = stats.chi2_contingency(kept, correction=False, lambda_="log-likelihood")[0]
        assert christoffersen(hits).statistic == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize(
        ("hits", "reason"),
        [
            ([0] * 250, "no day follows an exceedance"),
            ([0] * 249 + [1], "no day follows an exceedance"),
            ([1] * 5, "no day follows one without"),
            ([1, 1, 0], "no day follows one without"),
        ],
    )
    def test_names_what_says_nothing(self, hits, reason):
        result = christoffersen(hits, 0.01)
        assert reason in result.undefined
        assert (str(result.statistic), result.p_value, result.p_value_exact) == ("0.0", 1.0, 1.0)
        assert not result.reject
        assert None in (result.after_calm, result.after_exceedance)
        unconditional = kupiec(len(hits), sum(hits), 0.01).statistic
        assert result.conditional_coverage.statistic == unconditional

    @settings(max_examples=30)
    @given(st.lists(st.booleans(), min_size=2, max_size=11))
    def test_exact_is_by_trying_every_placement(self, hits):
        result = christoffersen(hits)
        alike = [s for s in product((0, 1), repeat=len(hits)) if sum(s) == sum(hits)]
        reached = [christoffersen(s).statistic >= result.statistic - 1e-9 for s in alike]
        assert result.p_value_exact == pytest.approx(sum(reached) / len(alike), rel=1e-10)

    def test_exact_agrees_with_shuffling(self):
        hits = np.array(with_transitions(460, 17, 17, 3), dtype=bool)
        result = christoffersen(hits)
        generator = np.random.default_rng(5)
        shuffled = [christoffersen(generator.permutation(hits)).statistic for _ in range(2000)]
        share = np.mean(np.array(shuffled) >= result.statistic - 1e-9)
        error = np.sqrt(result.p_value_exact * (1 - result.p_value_exact) / 2000)
        assert share == pytest.approx(result.p_value_exact, abs=4 * error)

    def test_in_reverse_swaps_coming_and_going(self):
        hits = with_transitions(50, 4, 3, 2)
        there, back = christoffersen(hits), christoffersen(hits[::-1])
        assert (there.n01, there.n10) == (back.n10, back.n01)
        assert (there.n00, there.n11) == (back.n00, back.n11)

    @given(series)
    def test_exceeding_and_not_may_swap_names(self, hits):
        one, other = christoffersen(hits), christoffersen([not hit for hit in hits])
        assert one.statistic == pytest.approx(other.statistic, rel=1e-9, abs=1e-9)
        assert one.p_value_exact == pytest.approx(other.p_value_exact, rel=1e-9)


class TestConditionalCoverage:
    @given(series, st.fractions(Fraction(1, 200), Fraction(1, 2), max_denominator=200))
    def test_is_the_sum(self, hits, alpha):
        result = christoffersen(hits, alpha)
        both = result.conditional_coverage
        assert both.unconditional == kupiec(len(hits), sum(hits), alpha).statistic
        assert both.independence == result.statistic
        assert both.statistic == both.unconditional + both.independence
        assert both.p_value == pytest.approx(stats.chi2.sf(both.statistic, 2), rel=1e-9)
        for p in (result.p_value, result.p_value_exact, both.p_value, both.p_value_exact):
            assert 0 <= p <= 1
        assert both.reject == (both.p_value <= 0.05)
        assert both.reject_exact == (both.p_value_exact <= 0.05)

    @settings(max_examples=15)
    @given(
        st.lists(st.booleans(), min_size=2, max_size=9),
        st.sampled_from([Fraction(1, 100), Fraction(1, 4), Fraction(1, 2)]),
    )
    def test_exact_is_by_trying_every_series(self, hits, alpha):
        both = christoffersen(hits, alpha).conditional_coverage
        total = 0.0
        for other in product((0, 1), repeat=len(hits)):
            reached = christoffersen(other, alpha).conditional_coverage.statistic
            if reached >= both.statistic - 1e-9:
                total += float(alpha ** sum(other) * (1 - alpha) ** (len(other) - sum(other)))
        assert both.p_value_exact == pytest.approx(total, rel=1e-9)

    def test_clusters_fail_it_though_their_number_is_right(self):
        result = christoffersen([0] * 490 + [1] * 5 + [0] * 5, 0.01)
        assert result.conditional_coverage.unconditional == 0.0
        assert result.conditional_coverage.reject
        assert result.conditional_coverage.reject_exact

    def test_of_tens_of_thousands_of_days(self):
        hits = np.random.default_rng(3).random(20_000) < 0.01
        both = christoffersen(hits, 0.01).conditional_coverage
        assert both.p_value_exact == pytest.approx(both.p_value, abs=0.05)


class TestRefusals:
    @pytest.mark.parametrize("hits", [[], [True]])
    def test_too_few(self, hits):
        with pytest.raises(TooFewObservations):
            christoffersen(hits)

    @pytest.mark.parametrize("hits", [[0, 2], [0.5, 1.0], [np.nan, 0.0], ["a", "b"], [None, 1]])
    def test_no_hits(self, hits):
        with pytest.raises(NotHits):
            christoffersen(hits)

    def test_a_matrix(self):
        with pytest.raises(WrongShape):
            christoffersen([[0, 1], [1, 0]])
