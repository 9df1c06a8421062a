from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from riskhub.risk import WrongShape
from riskhub.risk.backtest import BadCount, NotHits, rolling_traffic_light, traffic_light

# Basel Committee (1996), table 2: exceptions, zone, multiplier, cumulative probability in %.
PUBLISHED = [
    (0, "green", 3.00, 8.11),
    (1, "green", 3.00, 28.58),
    (2, "green", 3.00, 54.32),
    (3, "green", 3.00, 75.81),
    (4, "green", 3.00, 89.22),
    (5, "yellow", 3.40, 95.88),
    (6, "yellow", 3.50, 98.63),
    (7, "yellow", 3.65, 99.60),
    (8, "yellow", 3.75, 99.89),
    (9, "yellow", 3.85, 99.97),
    (10, "red", 4.00, 99.99),
]
# The same, table 1: P(this many or more) in %, at 99 % coverage.
AT_LEAST = {0: 100.0, 1: 91.9, 2: 71.4, 3: 45.7, 4: 24.2, 5: 10.8, 6: 4.1, 7: 1.4, 8: 0.4, 9: 0.1}


@pytest.mark.parametrize(("exceptions", "zone", "multiplier", "cumulative"), PUBLISHED)
def test_basels_table(exceptions, zone, multiplier, cumulative):
    light = traffic_light(250, exceptions, 0.01)
    assert (light.zone, light.multiplier) == (zone, multiplier)
    assert 100 * light.cumulative_probability == pytest.approx(cumulative, abs=0.0051)
    assert (light.yellow_from, light.red_from) == (5, 10)
    assert light.reject == (zone == "red")
    assert light.statistic == exceptions


@pytest.mark.parametrize(("exceptions", "published"), AT_LEAST.items())
def test_basels_probabilities_of_this_many_or_more(exceptions, published):
    assert 100 * traffic_light(250, exceptions, 0.01).p_value == pytest.approx(published, abs=0.051)


@pytest.mark.parametrize("exceptions", [10, 11, 50, 250])
def test_ten_and_more_are_red(exceptions):
    light = traffic_light(250, exceptions, Fraction(1, 100))
    assert (light.zone, light.multiplier) == ("red", 4.0)


@pytest.mark.parametrize(("n", "alpha"), [(249, 0.01), (251, 0.01), (500, 0.01), (250, 0.05)])
def test_elsewhere_basel_defines_no_multiplier(n, alpha):
    assert traffic_light(n, 0, alpha).multiplier is None


@given(st.integers(1, 1500), st.sampled_from([0.05, 0.025, 0.01, 0.005, 0.5]))
def test_zones_begin_where_the_probability_arrives(n, alpha):
    light = traffic_light(n, 0, alpha)
    law = stats.binom(n, alpha)
    assert light.yellow_from == max(1, law.ppf(0.95))
    assert light.red_from == max(1, law.ppf(0.9999))


def test_none_is_green_and_all_is_not_however_few_the_days():
    for n in range(1, 20):
        assert traffic_light(n, 0, 0.01).zone == "green"
        assert traffic_light(n, n, 0.01).zone == "red"


class TestRolling:
    @given(st.lists(st.booleans(), max_size=120), st.integers(1, 60))
    def test_is_the_light_of_each_window(self, hits, window):
        rolling = rolling_traffic_light(hits, 0.05, window)
        starts = range(max(0, len(hits) - window + 1))
        each = [traffic_light(window, sum(hits[i : i + window]), 0.05) for i in starts]
        assert rolling.counts.tolist() == [light.exceedances for light in each]
        assert rolling.zones.tolist() == [light.zone for light in each]

    def test_of_too_few_days_is_empty(self):
        rolling = rolling_traffic_light([True] * 249, 0.01)
        assert (rolling.window, len(rolling.counts), len(rolling.zones)) == (250, 0, 0)
        assert rolling_traffic_light([], 0.01).counts.tolist() == []

    def test_cannot_be_written_to(self):
        rolling = rolling_traffic_light(np.zeros(300, dtype=bool), 0.01)
        with pytest.raises(ValueError, match="read-only"):
            rolling.counts[0] = 1

    def test_refuses(self):
        with pytest.raises(BadCount, match="window"):
            rolling_traffic_light([0, 1], 0.01, 0)
        with pytest.raises(NotHits):
            rolling_traffic_light([0, 2], 0.01)
        with pytest.raises(WrongShape):
            rolling_traffic_light([[0, 1]], 0.01)
