from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import (
    NotFinite,
    RiskInputError,
    WrongShape,
    add_candidate,
    euler_contributions,
    historical,
    incremental_historical,
    incremental_normal,
    sample_covariance,
)

C90, C99 = Fraction(90, 100), Fraction(99, 100)


class TestFunding:
    def test_pro_rata_scales_what_is_held(self):
        after = add_candidate([0.6, 0.4, 0.0], 2, 0.1, "pro rata")
        np.testing.assert_allclose(after, [0.54, 0.36, 0.1], rtol=1e-15)

    def test_from_cash_adds(self):
        assert add_candidate([0.6, 0.3, 0.0], 2, 0.1, "cash").tolist() == [0.6, 0.3, 0.1]

    def test_a_candidate_may_be_held_already(self):
        after = add_candidate([0.6, 0.4], 1, 0.5, "pro rata")
        np.testing.assert_allclose(after, [0.3, 0.7], rtol=1e-15)

    def test_all_of_the_book_may_go_into_the_candidate(self):
        assert add_candidate([1.5, -0.5, 0.0], 2, 1.0, "pro rata").tolist() == [0.0, 0.0, 1.0]

    @given(
        st.lists(st.floats(-2, 2), min_size=1, max_size=8),
        st.floats(0.01, 1.0),
        st.data(),
    )
    def test_net_exposure_after_the_purchase(self, weights, size, data):
        candidate = data.draw(st.integers(0, len(weights) - 1))
        net = sum(weights)
        pro_rata = add_candidate(weights, candidate, size, "pro rata").sum()
        assert pro_rata == pytest.approx((1 - size) * net + size, abs=1e-12)
        cash = add_candidate(weights, candidate, size, "cash").sum()
        assert cash == pytest.approx(net + size, abs=1e-12)

    def test_leaves_its_input_alone(self):
        weights = np.array([0.6, 0.4])
        add_candidate(weights, 0, 0.5, "cash")
        assert weights.tolist() == [0.6, 0.4]

    @pytest.mark.parametrize("size", [0.0, -0.1, 1.1, np.nan])
    def test_refuses_a_weight_that_the_contract_does(self, size):
        with pytest.raises(RiskInputError, match="not in"):
            add_candidate([1.0], 0, size, "cash")

    def test_refuses_by_name(self):
        with pytest.raises(RiskInputError, match="pro rata or cash, not credit"):
            add_candidate([1.0], 0, 0.1, "credit")
        for position in (1, -1):
            with pytest.raises(RiskInputError, match="no position"):
                add_candidate([1.0], position, 0.1, "cash")
        with pytest.raises(NotFinite):
            add_candidate([np.nan], 0, 0.1, "cash")
        with pytest.raises(WrongShape):
            add_candidate([[1.0]], 0, 0.1, "cash")


class TestNormal:
    def test_by_hand(self):
        # 1 in A of sigma 0.2; then 0.5 in each, uncorrelated: 0.2 / sqrt(2).
        result = incremental_normal([1.0, 0.0], 1, 0.5, np.eye(2) * 0.04, C99)
        z = stats.norm.ppf(0.99)
        assert result.funding == "pro rata"
        assert result.without.var == pytest.approx(0.2 * z, rel=1e-9)
        assert result.with_candidate.var == pytest.approx(0.2 * z / sqrt(2), rel=1e-9)
        assert result.var == pytest.approx(0.2 * z * (1 / sqrt(2) - 1), rel=1e-9)
        assert result.es == result.with_candidate.es - result.without.es
        cash = incremental_normal([1.0, 0.0], 1, 0.5, np.eye(2) * 0.04, C99, "cash")
        assert cash.with_candidate.var == pytest.approx(0.2 * z * sqrt(1.25), rel=1e-9)

    @given(st.integers(0, 2**32 - 1))
    def test_of_a_small_candidate_from_cash_is_its_marginal_var(self, seed):
        generator = np.random.default_rng(seed)
        covariance = sample_covariance(generator.normal(0, 0.01, (60, 4)))
        weights = generator.uniform(0.1, 1, 4)
        size = 1e-5
        added = incremental_normal(weights, 2, size, covariance, C99, "cash")
        marginal = euler_contributions(weights, covariance, C99)
        assert added.var / size == pytest.approx(marginal.marginal_var[2], abs=1e-5)
        assert added.es / size == pytest.approx(marginal.marginal_es[2], abs=1e-5)

    def test_a_book_without_risk_is_no_obstacle(self):
        result = incremental_normal([0.0, 0.0], 0, 1.0, np.eye(2), C99)
        assert (result.without.var, result.without.es) == (0.0, 0.0)
        assert result.var > 0


class TestHistorical:
    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
    def test_is_the_difference_of_two_books(self, seed, size):
        generator = np.random.default_rng(seed)
        scenarios = generator.standard_t(4, (50, 3)) * 0.01
        weights = np.array([0.8, 0.2, 0.0])
        result = incremental_historical(weights, 2, size, scenarios, C90)
        before = historical(scenarios @ weights, C90)
        after = historical((1 - size) * (scenarios @ weights) + size * scenarios[:, 2], C90)
        assert result.without.es == pytest.approx(before.es, rel=1e-12)
        assert result.with_candidate.var == pytest.approx(after.var, rel=1e-9, abs=1e-14)
        assert result.es == pytest.approx(after.es - before.es, abs=1e-12)

    def test_a_hedge_from_cash_takes_risk_away(self):
        scenarios = [[0.02, -0.02], [-0.04, 0.04], [0.01, -0.01]]
        result = incremental_historical([1.0, 0.0], 1, 0.5, scenarios, C90, "cash")
        assert result.var == result.es == pytest.approx(-0.02, rel=1e-12)
