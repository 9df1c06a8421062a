"""Ledoit and Wolf's covariance: a sample covariance pulled towards a simple target."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from riskhub.risk.covariance import NoVariance, sample_covariance
from riskhub.risk.inputs import Floats, NotFinite, TooFewReturns, WrongShape, finite_array

Target = Literal["constant correlation", "identity"]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """(1 - intensity) S + intensity F, of the sample covariance S (ddof=0) and the target F.

    `covariance`: (N, N), daily, read-only. `intensity`: in [0, 1], estimated from the returns.
    """

    covariance: Floats = field(repr=False, compare=False)
    intensity: float
    target: Target


def ledoit_wolf(returns: ArrayLike, target: Target = "constant correlation") -> Shrunk:
    """Covariance of daily returns (T, N), T >= 2, N >= 1, shrunk by the intensity that their
    asymptotics call optimal.

    Target "constant correlation" keeps each variance and gives every pair the mean sample
    correlation: Ledoit and Wolf, "Honey, I shrunk the sample covariance matrix", J. Portfolio
    Management 30 (2004). Target "identity" is the mean variance times I: the same, "A
    well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate
    Analysis 88 (2004), which is scikit-learn's `LedoitWolf`. Both over T, about the means, as
    published. Where S is the target already the intensity is 0.

    Raises `NoVariance` for a symbol that never moved (constant correlation only),
    `TooFewReturns`, `WrongShape`, `NotFinite`.
    """
    matrix = finite_array(returns, 2, "asset returns")
    if not matrix.shape[1]:
        raise WrongShape("returns of no symbol have no covariance")
    if len(matrix) < 2:
        raise TooFewReturns(len(matrix), 2)
    sample = sample_covariance(matrix, ddof=0)
    with np.errstate(over="ignore", invalid="ignore"):
        centred = matrix - matrix.mean(axis=0)
        squares = np.square(centred)
        # Of each entry of S: T times its variance over samples.
        noise = squares.T @ squares / len(matrix) - np.square(sample)
        if target == "identity":
            towards = np.eye(len(sample)) * np.trace(sample) / len(sample)
            excess = float(noise.sum())
        else:
            towards, shared = _constant_correlation(sample, centred)
            excess = float(noise.sum()) - shared
        misfit = float(np.square(sample - towards).sum())
    if not (isfinite(excess) and isfinite(misfit)):
        raise NotFinite("returns are too large for the fourth powers that shrinkage takes")
    fits = misfit <= (1e-14 * float(np.linalg.norm(sample))) ** 2
    intensity = 0.0 if fits else min(max(excess / misfit / len(matrix), 0.0), 1.0)
    covariance = (1 - intensity) * sample + intensity * towards
    covariance.setflags(write=False)
    return Shrunk(covariance, intensity, target)


def _constant_correlation(sample: Floats, centred: Floats) -> tuple[Floats, float]:
    """The target, and `rho` of the paper: how its estimation errors go with those of S."""
    variances = sample.diagonal()
    if (variances == 0).any():
        raise NoVariance("a symbol never moved, so it correlates with nothing")
    n = len(sample)
    sigma = np.sqrt(variances)
    correlation = sample / np.outer(sigma, sigma)
    mean = (float(correlation.sum()) - n) / (n * (n - 1)) if n > 1 else 0.0
    towards = mean * np.outer(sigma, sigma)
    np.fill_diagonal(towards, variances)
    # theta[i, j]: covariance over samples of s_ii with s_ij, times T.
    theta = (np.square(centred) * centred).T @ centred / len(centred) - variances[
        :, np.newaxis
    ] * sample
    ratio = sigma / sigma[:, np.newaxis]  # sigma_j / sigma_i
    diagonal = np.square(np.square(centred)).mean(axis=0) - np.square(variances)
    off = ratio * theta
    np.fill_diagonal(off, 0.0)
    return towards, float(diagonal.sum()) + mean * float(off.sum())
