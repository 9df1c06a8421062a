"""Forecasts held against what happened: is this VaR, is this ES, as good as it says?

What belongs here: tests of a null hypothesis about forecasts that were made before the outcome.
What does not: making forecasts, and reading or storing either. The pairing is the caller's.

Conventions, everywhere in this package:
- A test takes alpha = 1 - c, exact: a Fraction, or a float that is read as the decimal it prints
  as, so 0.01 is 1/100; see `exact_alpha`. Only `backtest`, which takes what the forecasts are
  stamped with, takes their level c.
- An exceedance is L > VaR, strictly. Losses, VaR and ES are positive when money is lost.
- Every result has `statistic`, `p_value` and `reject`. A test rejects when its p-value is at most
  the significance (default 0.05). What cannot be computed from the data at hand is None or the
  value of no evidence, and is named; a NaN never leaves.
- `p_value` is the textbook's, by its limiting law. Beside it stands `p_value_exact` where the
  small-sample law can be counted, or `p_value_simulated` where it is drawn, with a seed.

The tests of Kupiec, Christoffersen and others are functions of their authors' names; the modules
have other names, so that `riskhub.risk.backtest.kupiec` is the function and nothing else.
"""

from riskhub.risk.backtest.basel import (
    RollingTrafficLight,
    TrafficLight,
    Zone,
    rolling_traffic_light,
    traffic_light,
)
from riskhub.risk.backtest.coverage import Kupiec, kupiec
from riskhub.risk.backtest.expected_shortfall import (
    AcerbiSzekely,
    BadShortfall,
    ShortfallStatistic,
    acerbi_szekely,
)
from riskhub.risk.backtest.hits import NotHits, exceedances
from riskhub.risk.backtest.independence import Christoffersen, ConditionalCoverage, christoffersen
from riskhub.risk.backtest.inputs import (
    SIGNIFICANCE,
    Alpha,
    BadAlpha,
    BadCount,
    BadSignificance,
    TooFewObservations,
    exact_alpha,
)
from riskhub.risk.backtest.several_levels import (
    CrossedLevels,
    Multinomial,
    MultinomialStatistic,
    multinomial,
    multinomial_alphas,
    multinomial_from_counts,
)
from riskhub.risk.backtest.together import Backtest, backtest

__all__ = [
    "SIGNIFICANCE",
    "AcerbiSzekely",
    "Alpha",
    "Backtest",
    "BadAlpha",
    "BadCount",
    "BadShortfall",
    "BadSignificance",
    "Christoffersen",
    "ConditionalCoverage",
    "CrossedLevels",
    "Kupiec",
    "Multinomial",
    "MultinomialStatistic",
    "NotHits",
    "RollingTrafficLight",
    "ShortfallStatistic",
    "TooFewObservations",
    "TrafficLight",
    "Zone",
    "acerbi_szekely",
    "backtest",
    "christoffersen",
    "exact_alpha",
    "exceedances",
    "kupiec",
    "multinomial",
    "multinomial_alphas",
    "multinomial_from_counts",
    "rolling_traffic_light",
    "traffic_light",
]
