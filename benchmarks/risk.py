"""One snapshot's risk numbers against NumPy's own quantiles of the same returns.

The alternative in the same run: `numpy.quantile` at the three levels, without ES, drawdown or the
normal method. The claim: all our numbers take less than 3 times that.
"""

import sys
import timeit

import numpy as np

from riskhub.risk import measure

LARGEST_RATIO = 3.0
RETURNS = 500


def run() -> bool:
    """Measure both; True when the claim holds."""
    returns = np.random.default_rng(7).normal(0.0005, 0.012, RETURNS)
    ours = _microseconds(lambda: measure(returns))
    quantiles = _microseconds(lambda: np.quantile(returns, [0.05, 0.025, 0.01]))
    ratio = ours / quantiles
    print(
        f"risk: measure() of {RETURNS} returns {ours:.0f} us, three bare quantiles "
        f"{quantiles:.0f} us, ratio {ratio:.2f} (at most {LARGEST_RATIO})"
    )
    return ratio <= LARGEST_RATIO


def _microseconds(call) -> float:
    return min(timeit.repeat(call, number=500, repeat=7)) / 500 * 1e6


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
