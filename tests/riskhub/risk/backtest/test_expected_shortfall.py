from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import NotFinite, RiskInputError, WrongShape
from riskhub.risk.backtest import (
    BadAlpha,
    BadCount,
    BadShortfall,
    TooFewObservations,
    acerbi_szekely,
)

ALPHA = Fraction(25, 1000)


def law(degrees):
    return stats.norm() if degrees is None else stats.t(degrees)


def forecasts(degrees, n, alpha=0.025):
    """VaR and ES of the law itself, by scipy, n times."""
    q = law(degrees).isf(alpha)
    return np.full(n, q), np.full(n, law(degrees).expect(lb=q, conditional=True))


class TestStatistics:
    def test_by_hand(self):
        # 4 days at 25 %: losses 0.03 and 0.06 exceed 0.02; as multiples of ES 0.03: 1 and 2.
        result = acerbi_szekely([0.02] * 4, [0.03] * 4, [0.03, 0.06, 0.02, -0.05], 0.25)
        assert result.exceedances == 2
        assert result.z1.statistic == pytest.approx(1 - 3 / 2)
        assert result.z2.statistic == pytest.approx(1 - 3 / (4 * 0.25))
        assert (result.statistic, result.p_value) == (result.z2.statistic, result.z2.p_value)
        assert result.reject == result.z2.reject

    def test_as_the_paper_writes_them(self):
        # X = -L is the profit: Z1 = sum(X I / ES) / N + 1, Z2 = sum(X I / (T alpha ES)) + 1.
        generator = np.random.default_rng(2)
        var, es = generator.uniform(0.01, 0.03, 250), generator.uniform(0.03, 0.05, 250)
        profit = generator.standard_t(4, 250) * 0.015
        below = profit + var < 0
        result = acerbi_szekely(var, es, -profit, ALPHA)
        ratio = (profit / es)[below]
        assert result.z1.statistic == pytest.approx(ratio.sum() / below.sum() + 1, rel=1e-12)
        assert result.z2.statistic == pytest.approx(ratio.sum() / (250 * 0.025) + 1, rel=1e-12)

    def test_without_an_exceedance_only_z2_is_defined(self):
        result = acerbi_szekely([0.02] * 250, [0.03] * 250, [0.01] * 250, ALPHA)
        assert result.z2.statistic == 1.0
        assert result.z2.p_value == 1.0
        assert (result.z1.statistic, result.z1.p_value, result.z1.reject) == (None, None, False)
        assert "no day exceeds" in result.undefined

    def test_understated_risk_is_rejected_and_overstated_is_not(self):
        var, es = forecasts(None, 1000)
        losses = law(None).rvs(1000, random_state=4)
        too_low = acerbi_szekely(var * 0.7, es * 0.7, losses, ALPHA)
        assert too_low.statistic < 0
        assert too_low.reject
        too_high = acerbi_szekely(var * 1.4, es * 1.4, losses, ALPHA)
        assert too_high.statistic > 0
        assert not too_high.reject

    def test_z1_sees_an_es_that_is_too_low_though_var_is_right(self):
        var, es = forecasts(3, 2000)
        losses = law(3).rvs(2000, random_state=4)
        result = acerbi_szekely(var, np.maximum(var, es * 0.8), losses, ALPHA)
        assert result.z1.reject


class TestCriticalValues:
    # Acerbi and Szekely (2014), section 4: Z2 over 250 days at 2.5 %, for Student's t and normal.
    @pytest.mark.parametrize(
        ("degrees", "published"), [(None, -0.70), (100, -0.70), (5, -0.74), (3, -0.82)]
    )
    def test_z2_at_five_per_cent(self, degrees, published):
        result = self.result(degrees, 250, significance=0.05, simulations=40_000)
        # 0.005 for their rounding, 0.012 for our simulation and theirs.
        assert result.z2.critical_value == pytest.approx(published, abs=0.017)

    def test_z2_at_one_in_ten_thousand(self):
        result = self.result(None, 250, significance=1e-4, simulations=200_000)
        assert result.z2.critical_value == pytest.approx(-1.8, abs=0.1)

    # MATLAB's esbacktest documents for Z2 = -0.38265 of 1,966 days at 2.5 %, significance 1 %:
    # normal: critical -0.34639, p 0.0054099; t(3): critical -0.42986, p 0.018566.
    @pytest.mark.parametrize(
        ("degrees", "critical", "p_value", "reject"),
        [(None, -0.34639, 0.0054, True), (3, -0.42986, 0.0186, False)],
    )
    def test_matlabs_example(self, degrees, critical, p_value, reject):
        var, es = forecasts(degrees, 1966)
        losses = np.zeros(1966)
        losses[:40] = 1.38265 * 1966 * 0.025 / 40 * es[:40]
        result = acerbi_szekely(
            *(var, es, losses, ALPHA),
            degrees_of_freedom=degrees,
            significance=0.01,
            simulations=40_000,
        )
        assert result.z2.statistic == pytest.approx(-0.38265, abs=1e-9)
        assert result.z2.critical_value == pytest.approx(critical, abs=0.012)
        assert result.z2.p_value == pytest.approx(p_value, abs=0.003)
        assert result.z2.reject == reject

    @pytest.mark.parametrize(("degrees", "alpha"), [(None, 0.05), (4, 0.01), (None, 0.3), (5, 0.5)])
    def test_of_days_that_differ_agree_with_drawing_every_loss(self, degrees, alpha):
        # Losses mu + sigma Y on each day, the forecasts their own: nothing of our method.
        generator = np.random.default_rng(9)
        n, runs = 100, 40_000
        q, mean = (part[0] for part in forecasts(degrees, 1, alpha))
        mu, sigma = generator.uniform(-0.2, 0.2, n), generator.uniform(0.5, 3.0, n)
        var, es = mu + sigma * q, mu + sigma * mean
        drawn = mu + sigma * law(degrees).rvs((runs, n), random_state=generator)
        hits = drawn > var
        total, count = np.where(hits, drawn / es, 0.0).sum(axis=1), hits.sum(axis=1)
        expected = np.quantile(1 - total / (n * alpha), 0.1)
        expected_1 = np.quantile(1 - (total / np.maximum(count, 1))[count > 0], 0.1)
        losses = np.where(np.arange(n) == 0, 2 * es, var)
        result = acerbi_szekely(
            *(var, es, losses, alpha),
            degrees_of_freedom=degrees,
            significance=0.1,
            simulations=runs,
        )
        assert result.exceedances == 1
        assert result.z2.critical_value == pytest.approx(expected, rel=0.05)
        assert result.z1.critical_value == pytest.approx(expected_1, rel=0.07)

    def test_a_right_model_is_rejected_as_often_as_it_says(self):
        var, es = forecasts(None, 250)
        generator = np.random.default_rng(12)
        rejected = sum(
            acerbi_szekely(
                var, es, generator.standard_normal(250), ALPHA, significance=0.1, simulations=999
            ).reject
            for _ in range(400)
        )
        low, high = stats.binom(400, 0.1).ppf([0.0005, 0.9995])
        assert low <= rejected <= high

    def test_p_value_and_critical_value_say_the_same(self):
        var, es = forecasts(None, 250)
        for state in range(40):
            losses = 1.2 * law(None).rvs(250, random_state=state)
            for z in (r := acerbi_szekely(var, es, losses, ALPHA, simulations=500)).z1, r.z2:
                assert z.reject == (z.statistic < z.critical_value) == (z.p_value <= 0.05)

    @pytest.mark.parametrize("significance", [0.01, 0.05, 0.07, 0.29, 0.57, 0.99])
    def test_the_critical_value_is_the_least_that_is_not_rejected(self, significance):
        var, es = forecasts(None, 250)
        losses = np.append(es[:1], np.zeros(249))
        options = {"significance": significance, "simulations": 99}
        critical = acerbi_szekely(var, es, losses, ALPHA, **options).z2.critical_value
        for step, reject in [(1e-9, True), (-1e-9, False)]:
            losses[0] = (1 - critical + step) * 250 * 0.025 * es[0]
            if losses[0] > var[0]:
                assert acerbi_szekely(var, es, losses, ALPHA, **options).z2.reject == reject

    def test_too_few_simulations_have_no_critical_value(self):
        z2 = self.result(None, 50, significance=0.01, simulations=50).z2
        assert z2.critical_value is None
        assert not z2.reject

    @staticmethod
    def result(degrees, n, **options):
        return acerbi_szekely(
            *forecasts(degrees, n), np.zeros(n), ALPHA, degrees_of_freedom=degrees, **options
        )


class TestProperties:
    @settings(max_examples=60)
    @given(st.data())
    def test_nothing_nan_leaves(self, data):
        n = data.draw(st.integers(1, 60))
        number = st.floats(-1, 1)
        var = np.array(data.draw(st.lists(number, min_size=n, max_size=n)))
        more = np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
        losses = data.draw(st.lists(number, min_size=n, max_size=n))
        es = np.maximum(var + more, 1e-3)
        result = acerbi_szekely(
            *(var, es, losses, data.draw(st.sampled_from([0.01, 0.2, 0.21, 0.5]))),
            degrees_of_freedom=data.draw(st.sampled_from([None, 1.5, 4])),
            simulations=50,
        )
        for z in (result.z1, result.z2):
            if z.statistic is None:
                assert result.exceedances == 0
                continue
            assert np.isfinite(z.statistic)
            assert 0 < z.p_value <= 1

    def test_the_seed_decides_and_the_order_of_days_does_not(self):
        generator = np.random.default_rng(1)
        var = generator.uniform(0.01, 0.02, 200)
        es, losses = var * generator.uniform(1, 2, 200), generator.normal(0, 0.012, 200)
        order = generator.permutation(200)
        first = acerbi_szekely(var, es, losses, ALPHA, simulations=500, seed=7)
        assert acerbi_szekely(var, es, losses, ALPHA, simulations=500, seed=7) == first
        assert first == acerbi_szekely(
            var[order], es[order], losses[order], ALPHA, simulations=500, seed=7
        )
        other = acerbi_szekely(var, es, losses, ALPHA, simulations=500, seed=8)
        assert other.z2.critical_value != first.z2.critical_value

    def test_the_unit_does_not_matter(self):
        var, es = forecasts(None, 300)
        losses = law(None).rvs(300, random_state=1)
        one = acerbi_szekely(var, es, losses, ALPHA)
        other = acerbi_szekely(var * 1024, es * 1024, losses * 1024, ALPHA)
        assert one == other

    def test_an_es_that_is_its_var_still_counts(self):
        result = acerbi_szekely([0.02] * 250, [0.02] * 250, [0.021] * 20 + [0.0] * 230, ALPHA)
        assert result.reject
        assert stats.binom.sf(19, 250, 0.025) < result.p_value < 0.001


class TestRefusals:
    def test_an_es_that_is_none(self):
        with pytest.raises(BadShortfall, match="less than the value at risk on 1 day"):
            acerbi_szekely([0.02, 0.02], [0.03, 0.019], [0.0, 0.0], ALPHA)
        with pytest.raises(BadShortfall, match="not positive on 2 day"):
            acerbi_szekely([-0.02, -0.02], [0.0, -0.01], [0.0, 0.0], ALPHA)

    def test_what_does_not_pair(self):
        with pytest.raises(WrongShape, match="1 expected shortfalls for 2 values at risk"):
            acerbi_szekely([0.02, 0.02], [0.03], [0.0, 0.0], ALPHA)
        with pytest.raises(WrongShape):
            acerbi_szekely([0.02], [0.03], [0.0, 0.0], ALPHA)
        with pytest.raises(TooFewObservations):
            acerbi_szekely([], [], [], ALPHA)

    def test_what_is_not_finite(self):
        with pytest.raises(NotFinite, match="expected shortfalls"):
            acerbi_szekely([0.02], [np.nan], [0.0], ALPHA)
        with pytest.raises(NotFinite):
            acerbi_szekely([1e-300], [1e-300], [1e300], ALPHA)
        with pytest.raises(NotFinite):
            acerbi_szekely([-1e300], [1e-300], [0.0], ALPHA)
        with pytest.raises(NotFinite):
            acerbi_szekely([1.0] * 2, [1.0] * 2, [1.7e308] * 2, ALPHA)

    @pytest.mark.parametrize("degrees", [1, 0, -3, np.nan, np.inf, 1e9])
    def test_a_law_without_es(self, degrees):
        with pytest.raises(RiskInputError, match="degrees of freedom"):
            acerbi_szekely([0.02], [0.03], [0.0], ALPHA, degrees_of_freedom=degrees)

    def test_the_rest(self):
        with pytest.raises(BadAlpha):
            acerbi_szekely([0.02], [0.03], [0.0], 0.975)
        with pytest.raises(BadCount):
            acerbi_szekely([0.02], [0.03], [0.0], ALPHA, simulations=0)
        with pytest.raises(BadCount):
            acerbi_szekely([0.02], [0.03], [0.0], ALPHA, seed=-1)
