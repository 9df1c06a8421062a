"""Rolling historical VaR of one series against pandas, and against a loop over skfolio.

The equal-weight portfolio of the shipped prices, 8,312 daily returns, VaR at 99 % of each 500. The
right number is the 5th worst, k = ceil(500 * 0.01), which each way is held against first. pandas
looks at 0.01 * 499 = 4.99, counted from 0: `lower` is the 5th, its default is near the 6th.
skfolio defines VaR as the lower quantile of the losses, here the 6th worst: our `var_next`, another
convention rather than a mistake. It is no dependency: where it is not installed, the loop is over
`numpy.quantile`, and says so. The claim: ours is right on every day, and ahead of both.
"""

import importlib
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.kernel import milliseconds
from riskhub.prices import load_panel
from riskhub.risk import portfolio_returns, rank, rolling_historical_var, windows_before
from riskhub.risk.inputs import Floats

PRICES = Path(__file__).parent.parent / "data" / "sp500_prices.csv.gz"
WINDOW, LEVEL = 500, Fraction(99, 100)
LARGEST_RATIO = 1.0


def run() -> bool:
    """Measure all; True when the claim holds."""
    panel = load_panel(PRICES)
    returns = portfolio_returns(panel.returns, np.full(len(panel.symbols), 1 / len(panel.symbols)))
    windows = windows_before(returns, WINDOW)
    k = rank(WINDOW, LEVEL)
    exact = -np.sort(windows, axis=1)[:, k - 1 : k + 1]
    rolling = pd.Series(returns).rolling(WINDOW)
    loop, value_at_risk = _single()
    ways: dict[str, Callable[[], Floats]] = {
        "ours": lambda: rolling_historical_var(returns, WINDOW, LEVEL),
        "pandas lower": lambda: _before(rolling.quantile(0.01, interpolation="lower")),
        "pandas linear": lambda: _before(rolling.quantile(0.01)),
        loop: lambda: np.array([value_at_risk(row) for row in windows]),
    }
    found = {name: way() for name, way in ways.items()}
    times = milliseconds(ways, repeat=4)
    for name, var in found.items():
        print(
            f"rolling: {name} {times[name]:.2f} ms, {times[name] / times['ours']:.1f} times ours; "
            f"of {len(windows)} windows {(var != exact[:, 0]).sum()} are not the {k}th worst, "
            f"{(var == exact[:, 1]).sum()} are the next"
        )
    ratio = times["ours"] / min(time for name, time in times.items() if name != "ours")
    print(f"rolling: ours takes {ratio:.2f} times the fastest other (at most {LARGEST_RATIO})")
    return bool((found["ours"] == exact[:, 0]).all()) and ratio <= LARGEST_RATIO


def _before(quantiles: "pd.Series[float]") -> Floats:
    """pandas' entry for a day includes that day, so it is the forecast for the next one."""
    var: Floats = np.negative(quantiles.to_numpy())[WINDOW - 1 : -1]
    return var


def _single() -> tuple[str, Callable[[Floats], float]]:
    """The VaR of one window by somebody else, and what to call a loop over it."""
    try:
        measures = importlib.import_module("skfolio.measures")
    except ImportError:
        print("rolling: skfolio is not installed, the loop is over numpy.quantile instead")
        return "numpy.quantile loop", lambda window: -np.quantile(window, 0.01, method="lower")
    return "skfolio loop", lambda window: measures.value_at_risk(window, beta=0.99)


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
