"""What a candidate position does to VaR and ES: with it, and without.

The candidate and its weight are those of a snapshot's `constraints`; who pays for it is said by
name, because the answer depends on it.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import portfolio_volatility
from riskhub.risk.inputs import Floats, RiskInputError, finite_array
from riskhub.risk.levels import Level
from riskhub.risk.returns import portfolio_returns
from riskhub.risk.var import Tail, historical, normal_from_moments

Funding = Literal["pro rata", "cash"]


@dataclass(frozen=True, slots=True)
class Incremental:
    """A tail without and with the candidate, by one method at one level."""

    funding: Funding
    without: Tail
    with_candidate: Tail

    @property
    def var(self) -> float:
        """What the candidate adds to the VaR; negative when it hedges."""
        return self.with_candidate.var - self.without.var

    @property
    def es(self) -> float:
        """What the candidate adds to the ES; negative when it hedges."""
        return self.with_candidate.es - self.without.es


def add_candidate(
    weights: ArrayLike, candidate: int, candidate_weight: float, funding: Funding
) -> Floats:
    """(N,) weights after the candidate was bought.

    "pro rata": every existing weight is scaled by 1 - c and c is added to the candidate's, so a
    book that sums to 1 still does. "cash": c is added and nothing else changes, so the book's net
    exposure grows by c, out of cash or on credit.

    Args:
        weights: (N,), signed fractions of equity; 0 for a candidate that is not held yet.
        candidate: its position among the N.
        candidate_weight: c, in (0, 1], as a snapshot's `constraints` have it.

    Raises:
        RiskInputError: another weight, position or funding; `NotFinite`, `WrongShape`.
    """
    before = finite_array(weights, 1, "weights")
    if not 0 <= candidate < len(before):
        raise RiskInputError(f"there is no position {candidate} among {len(before)} weights")
    if not (isfinite(candidate_weight) and 0 < candidate_weight <= 1):
        raise RiskInputError(f"the candidate's weight {candidate_weight} is not in (0, 1]")
    if funding not in get_args(Funding):
        raise RiskInputError(f"funding is {' or '.join(get_args(Funding))}, not {funding}")
    kept = 1.0 - candidate_weight if funding == "pro rata" else 1.0
    after: Floats = before * kept
    after[candidate] += candidate_weight
    return after


def incremental_normal(
    weights: ArrayLike,
    candidate: int,
    candidate_weight: float,
    covariance: ArrayLike,
    level: Level,
    funding: Funding = "pro rata",
    means: ArrayLike | None = None,
) -> Incremental:
    """Normal VaR and ES without and with the candidate.

    `covariance`: (N, N), daily, of all N symbols, the candidate's among them; `means`: (N,) mean
    returns per day, None is zero. Raises as `add_candidate` and `portfolio_volatility`, and
    `BadLevel`.
    """
    mean = np.zeros(len(np.asarray(weights))) if means is None else finite_array(means, 1, "means")
    without, bought = (
        normal_from_moments(float(mean @ book), portfolio_volatility(book, covariance), level)
        for book in _books(weights, candidate, candidate_weight, funding)
    )
    return Incremental(funding, without, bought)


def incremental_historical(
    weights: ArrayLike,
    candidate: int,
    candidate_weight: float,
    scenarios: ArrayLike,
    level: Level,
    funding: Funding = "pro rata",
) -> Incremental:
    """Historical VaR and ES without and with the candidate.

    `scenarios`: (n, N), simple returns, n >= 1, of all N symbols, the candidate's among them.
    Raises as `add_candidate` and `historical`.
    """
    without, bought = (
        historical(portfolio_returns(scenarios, book), level)
        for book in _books(weights, candidate, candidate_weight, funding)
    )
    return Incremental(funding, without, bought)


def _books(
    weights: ArrayLike, candidate: int, candidate_weight: float, funding: Funding
) -> tuple[Floats, Floats]:
    after = add_candidate(weights, candidate, candidate_weight, funding)
    return np.asarray(weights, dtype=np.float64), after
