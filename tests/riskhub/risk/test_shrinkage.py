from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.prices import load_panel
from riskhub.risk import (
    NotFinite,
    NoVariance,
    TooFewReturns,
    WrongShape,
    ledoit_wolf,
    smallest_eigenvalue,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sp500_prices.csv.gz"
seeds = st.integers(0, 2**32 - 1)


def honey(returns):
    """Appendix B of "Honey, I shrunk the sample covariance matrix", sum by sum."""
    t, n = returns.shape
    x = returns - returns.mean(axis=0)
    s = x.T @ x / t
    root = np.sqrt(np.diag(s))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    mean = sum(s[i, j] / (root[i] * root[j]) for i, j in pairs) / len(pairs)
    f = mean * np.outer(root, root)
    np.fill_diagonal(f, np.diag(s))
    pi = sum(np.mean((x[:, i] * x[:, j] - s[i, j]) ** 2) for i in range(n) for j in range(n))
    rho = sum(np.mean((x[:, i] ** 2 - s[i, i]) ** 2) for i in range(n))
    for i, j in pairs:
        with_i = np.mean((x[:, i] ** 2 - s[i, i]) * (x[:, i] * x[:, j] - s[i, j]))
        with_j = np.mean((x[:, j] ** 2 - s[j, j]) * (x[:, i] * x[:, j] - s[i, j]))
        rho += mean / 2 * (root[j] / root[i] * with_i + root[i] / root[j] * with_j)
    gamma = ((f - s) ** 2).sum()
    delta = max(0.0, min((pi - rho) / gamma / t, 1.0))
    return delta * f + (1 - delta) * s, delta


def well_conditioned(returns):
    """Ledoit and Wolf (2004, JMVA), lemmas 3.2 to 3.5, with their norm ||A||^2 = tr(AA')/n."""
    t, n = returns.shape
    x = returns - returns.mean(axis=0)
    s = x.T @ x / t
    m = np.trace(s) / n
    d2 = ((s - m * np.eye(n)) ** 2).sum() / n
    b2 = sum(((np.outer(row, row) - s) ** 2).sum() / n for row in x) / t**2
    b2 = min(b2, d2)
    return b2 / d2 * m * np.eye(n) + (d2 - b2) / d2 * s, b2 / d2


def test_identity_target_gives_scikit_learns_published_example():
    # scikit-learn's documentation of `ledoit_wolf`: [[0.44, 0.16], [0.16, 0.80]] and 0.23; of
    # `LedoitWolf`: 0.4406, 0.1616, 0.8022.
    generator = np.random.RandomState(0)
    returns = generator.multivariate_normal(mean=[0, 0], cov=[[0.4, 0.2], [0.2, 0.8]], size=50)
    shrunk = ledoit_wolf(returns, "identity")
    expected = [[0.4406, 0.1616], [0.1616, 0.8022]]
    np.testing.assert_allclose(shrunk.covariance, expected, atol=1e-4)
    assert shrunk.intensity == pytest.approx(0.23, abs=5e-3)
    assert shrunk.target == "identity"


@given(seeds, st.integers(5, 60), st.integers(3, 7))
def test_constant_correlation_is_that_of_the_paper(seed, days, n):
    returns = np.random.default_rng(seed).standard_t(4, (days, n)) * 0.01
    returns += returns[:, :1] * 0.7
    covariance, intensity = honey(returns)
    shrunk = ledoit_wolf(returns)
    assert shrunk.target == "constant correlation"
    assert shrunk.intensity == pytest.approx(intensity, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(shrunk.covariance, covariance, rtol=1e-6, atol=1e-12)


@given(seeds, st.integers(2, 60), st.integers(2, 7))
def test_identity_is_that_of_the_paper(seed, days, n):
    returns = np.random.default_rng(seed).standard_t(4, (days, n)) * 0.01
    covariance, intensity = well_conditioned(returns)
    shrunk = ledoit_wolf(returns, "identity")
    assert shrunk.intensity == pytest.approx(intensity, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(shrunk.covariance, covariance, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("target", ["constant correlation", "identity"])
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_intensity_has_no_unit(target, seed, scale):
    returns = np.random.default_rng(seed).normal(0, 0.01, (30, 4))
    before, after = ledoit_wolf(returns, target), ledoit_wolf(returns * scale, target)
    assert 0 <= before.intensity <= 1
    assert after.intensity == pytest.approx(before.intensity, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(after.covariance, before.covariance * scale**2, rtol=1e-8)


@pytest.mark.parametrize("target", ["constant correlation", "identity"])
def test_makes_a_short_sample_invertible(target):
    panel = load_panel(SHIPPED)
    returns = panel.returns[-12:]  # 12 days of 20 symbols
    sample = np.cov(returns.T, ddof=0)
    shrunk = ledoit_wolf(returns, target)
    assert abs(np.linalg.eigvalsh(sample)[0]) < 1e-12
    assert smallest_eigenvalue(shrunk.covariance) > 1e-6
    if target == "constant correlation":
        np.testing.assert_allclose(shrunk.covariance.diagonal(), sample.diagonal(), rtol=1e-12)
    else:
        assert np.trace(shrunk.covariance) == pytest.approx(np.trace(sample), rel=1e-12)


def test_a_sample_that_is_its_target_is_left_as_it_is():
    returns = [[0.01], [-0.02], [0.03]]
    for target in ("constant correlation", "identity"):
        shrunk = ledoit_wolf(returns, target)
        assert shrunk.intensity == 0.0
        assert shrunk.covariance[0, 0] == pytest.approx(np.var(returns), rel=1e-12)


def test_refuses_by_name():
    with pytest.raises(NoVariance, match="never moved"):
        ledoit_wolf([[0.0, 0.1], [0.0, -0.1], [0.0, 0.2]])
    with pytest.raises(TooFewReturns):
        ledoit_wolf([[0.01, 0.02]])
    with pytest.raises(NotFinite):
        ledoit_wolf([[1e100, 1.0], [-1e100, 0.5], [1e99, 2.0]])
    with pytest.raises(NotFinite):
        ledoit_wolf([[np.nan, 1.0], [1.0, 2.0]])
    with pytest.raises(WrongShape):
        ledoit_wolf(np.empty((5, 0)))
