"""The risk numbers of many worlds against bare NumPy on the same arrays.

Every world has its own weights of 100 symbols, and all share 500 scenarios of these. Ours: the
portfolio returns, historical and normal VaR and ES at 95, 97.5 and 99 %, the covariance, and the
Euler contributions at 99 %. The alternative in the same run is only what cannot be left out of
that: the product of weights and scenarios, one partition at the largest rank, the covariance, and
its product with the weights; nothing is checked, sorted or averaged. The claims: ours takes less
than 2 times that, no more per world when there are more of them, and no more memory beside what
goes in and comes out.

Each step is timed by itself, at its best, with freed memory at hand: to get new pages from the
system takes as long as to fill them, and how often that happens is the allocator's affair.
"""

import sys
import timeit
import tracemalloc
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import inf
from typing import TypeVar

import numpy as np

from riskhub.risk import (
    LEVELS,
    euler_contributions_many,
    historical_many,
    normal_many,
    portfolio_returns_many,
    rank,
    sample_covariance,
)

LARGEST_RATIO = 2.0  # of time, at WORLDS
LARGEST_GROWTH = 1.25  # of time per world, and of memory
WORLDS, SYMBOLS, SCENARIOS = 1_000, 100, 500

Key = TypeVar("Key")
Step = Callable[[], object]


def run() -> bool:
    """Measure both; True when the claims hold."""
    steps: dict[tuple[int, str, str], Step] = {}
    for worlds in (250, 500, WORLDS, 2_000):
        for side, of_side in zip(("ours", "bare"), _both(worlds), strict=True):
            steps |= {(worlds, side, name): step for name, step in of_side.items()}
    times = milliseconds(steps, repeat=30)
    ratios, per_world = {}, {}
    for worlds in (250, 500, WORLDS, 2_000):
        ours, bare = (
            {key[2]: time for key, time in times.items() if key[:2] == (worlds, side)}
            for side in ("ours", "bare")
        )
        total = sum(ours.values())
        ratios[worlds] = total / sum(bare.values())
        per_world[worlds] = total / worlds * 1000
        print(
            f"kernel: {worlds} worlds {total:.2f} ms, {per_world[worlds]:.2f} us each, bare NumPy "
            f"{sum(bare.values()):.2f} ms, ratio {ratios[worlds]:.2f}"
        )
        if worlds == WORLDS:
            print(f"    ours: {_listed(ours)}\n    bare: {_listed(bare)}")
    growth = per_world[2_000] / per_world[250]
    few, many = (_most_beside(_both(worlds)[0]) for worlds in (1_000, 4_000))
    print(
        f"kernel: ratio at {WORLDS} worlds {ratios[WORLDS]:.2f} (at most {LARGEST_RATIO}); a world "
        f"of 2000 takes {growth:.2f} times one of 250 (at most {LARGEST_GROWTH}); beside input and "
        f"result {few / 2**20:.1f} MiB for 1000 worlds, {many / 2**20:.1f} MiB for 4000, "
        f"ratio {many / few:.2f} (at most {LARGEST_GROWTH})"
    )
    return (
        ratios[WORLDS] <= LARGEST_RATIO
        and growth <= LARGEST_GROWTH
        and many / few <= LARGEST_GROWTH
    )


def _both(worlds: int) -> tuple[dict[str, Step], dict[str, Step]]:
    generator = np.random.default_rng(7)
    scenarios = generator.normal(0.0005, 0.012, (SCENARIOS, SYMBOLS))
    weights = generator.normal(0.0, 0.1, (worlds, SYMBOLS))
    returns, covariance = weights @ scenarios.T, sample_covariance(scenarios)
    largest = max(rank(SCENARIOS, level) for level in LEVELS)
    ours: dict[str, Step] = {
        "returns": lambda: portfolio_returns_many(scenarios, weights),
        "historical": lambda: historical_many(returns, LEVELS),
        "normal": lambda: normal_many(returns, LEVELS),
        "covariance": lambda: sample_covariance(scenarios),
        "Euler": lambda: euler_contributions_many(weights, covariance, Fraction(99, 100)),
    }
    bare: dict[str, Step] = {
        "returns": lambda: weights @ scenarios.T,
        "partition": lambda: np.partition(returns, largest - 1, axis=1),
        "covariance": lambda: np.cov(scenarios, rowvar=False),
        "weights @ covariance": lambda: weights @ covariance,
    }
    return ours, bare


def milliseconds(steps: Mapping[Key, Step], repeat: int) -> dict[Key, float]:
    """The best of 10 rounds of `repeat`: a machine that is busy for seconds spoils no step."""
    best = dict.fromkeys(steps, inf)
    for _ in range(10):
        for key, step in steps.items():
            best[key] = min(best[key], *timeit.repeat(step, number=1, repeat=repeat))
    return {key: time * 1e3 for key, time in best.items()}


def _listed(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {time:.2f} ms" for name, time in times.items())


def _most_beside(steps: dict[str, Step]) -> int:
    """The most bytes that a step holds at once beyond its input and its result."""
    most = 0
    for step in steps.values():
        tracemalloc.start()
        result = step()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del result
        most = max(most, peak - held)
    return most


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
