"""VaR and ES by a Student-t distribution fitted to returns by maximum likelihood."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.inputs import NotFinite, RiskInputError, finite_returns
from riskhub.risk.levels import Level, tail_mass
from riskhub.risk.t_distribution import checked_degrees, t_density, t_quantile
from riskhub.risk.t_likelihood import most_likely
from riskhub.risk.var import Tail


@dataclass(frozen=True, slots=True)
class StudentT:
    """A t distribution of daily returns: location and scale (>= 0) per day, degrees > 2.

    Its standard deviation is scale sqrt(degrees / (degrees - 2)).
    """

    location: float
    scale: float
    degrees: float


def student_t(returns: ArrayLike, level: Level, degrees: float | None = None) -> Tail:
    """VaR and ES of the t distribution that `fit_student_t` fits to daily returns (n,), n >= 3.

    Raises as `fit_student_t`, and `BadLevel`.
    """
    return student_t_from_fit(fit_student_t(returns, degrees), level)


def student_t_var(returns: ArrayLike, level: Level, degrees: float | None = None) -> float:
    """The VaR of `student_t`, positive, as a fraction of equity. Raises as it does."""
    return student_t(returns, level, degrees).var


def fit_student_t(returns: ArrayLike, degrees: float | None = None) -> StudentT:
    """The t distribution of greatest likelihood for daily returns (n,), n >= 3.

    `degrees`: given, > 2; or None to be fitted too, within [2.1, 200] (at 200 it can hardly be
    told from a normal). For each of them location and scale are at their one best (Kent and
    Tyler, Annals of Statistics 19, 1991). Deterministic, and blind to the order of the returns.
    Returns that are all equal have scale 0.

    Raises `NoFit` when two thirds of the returns are one value, `BadDegrees`, `TooFewReturns`,
    `NotFinite`, `WrongShape`.
    """
    series = finite_returns(returns, at_least=3)
    given = None if degrees is None else checked_degrees(degrees)
    location, scale, fitted = most_likely(series[np.newaxis], given)
    return StudentT(float(location[0]), float(scale[0]), float(fitted[0]))


def student_t_from_fit(fit: StudentT, level: Level) -> Tail:
    """VaR = -m + s q and ES = -m + s f(q) / (1 - c) (v + q^2) / (v - 1), q the c-quantile of t_v.

    m, s and v are location, scale and degrees, f the density of t_v. McNeil, Frey and Embrechts,
    "Quantitative Risk Management" (2015), section 2.3. Raises `BadLevel`, `BadDegrees`,
    `NotFinite`, and `RiskInputError` for a negative scale.
    """
    if not (isfinite(fit.location) and isfinite(fit.scale)):
        raise NotFinite(f"location {fit.location} and scale {fit.scale} must be finite")
    if fit.scale < 0:
        raise RiskInputError(f"scale {fit.scale} is negative")
    quantile, shortfall = standard_t_tail(fit.degrees, level)
    return Tail(
        method="student_t",
        level=level,
        var=fit.scale * quantile - fit.location,
        es=fit.scale * shortfall - fit.location,
        rank=None,
        var_next=None,
    )


def standard_t_tail(degrees: float, level: Level) -> tuple[float, float]:
    """VaR and ES at location 0 and scale 1. Raises `BadLevel`, `BadDegrees`."""
    alpha = tail_mass(1, level)
    quantile = t_quantile(alpha, degrees)
    density = t_density(quantile, degrees)
    return quantile, density / alpha * (degrees + quantile * quantile) / (degrees - 1)
