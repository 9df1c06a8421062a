"""The distributions that the tests refer to, in the standard library's arithmetic.

Binomial probabilities are sums of integers, rounded once at the end: with alpha = a/d, the
probability of k in n is C(n, k) a^k (d - a)^(n - k) in units of 1/d^n.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import comb, erfc, exp, lgamma, log, log1p, pi, sqrt

_TINY = 1e-300
_EPSILON = 1e-15


def chi_square_sf(x: float, degrees: float) -> float:
    """P(chi-square with `degrees` > 0 of freedom > x), `degrees` not necessarily whole.

    The regularised upper incomplete gamma Q(degrees / 2, x / 2), by series and by continued
    fraction: Press et al., "Numerical Recipes" (2007), section 6.2.
    """
    a, t = degrees / 2, x / 2
    if t <= 0:
        return 1.0
    if degrees == 1:
        return erfc(sqrt(t))
    if t < a + 1:
        return max(0.0, 1.0 - exp(a * log(t) - t - lgamma(a + 1)) * _lower_gamma_series(a, t))
    return min(1.0, exp(a * log(t) - t - lgamma(a)) * _upper_gamma_fraction(a, t))


def _lower_gamma_series(a: float, t: float) -> float:
    term = total = 1.0
    while term > 0.1 * _EPSILON * total:
        a += 1
        term *= t / a
        total += term
    return total


def _upper_gamma_fraction(a: float, t: float) -> float:
    b = t + 1 - a
    c, d = 1 / _TINY, 1 / b
    result = d
    step, i = 0.0, 0
    while abs(step - 1) > _EPSILON:
        i += 1
        b += 2
        d = 1 / _away_from_zero(b - i * (i - a) * d)
        c = _away_from_zero(b - i * (i - a) / c)
        step = c * d
        result *= step
    return result


def _away_from_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY


def binomial_two_sided(n: int, k: int, alpha: Fraction) -> float:
    """P(an outcome that is no more probable than k) for a binomial (n, alpha).

    The minimum-likelihood construction of Sterne, as in R's binom.test and scipy's binomtest.
    Exact: which outcomes are as probable as k is decided in integers.
    """
    a, d = alpha.numerator, alpha.denominator
    b = d - a
    observed = comb(n, k) * a**k * b ** (n - k)
    mode = (n + 1) * a // d
    peak = comb(n, mode) * a**mode * b ** (n - mode)
    likelier, j, weight = 0, mode, peak
    while weight > observed:  # ends: past n the weight is 0
        likelier += weight
        weight = weight * (n - j) * a // ((j + 1) * b)
        j += 1
    j, weight = mode, peak
    while weight > observed and j > 0:
        weight = weight * j * b // ((n - j + 1) * a)
        j -= 1
        if weight > observed:
            likelier += weight
    total: int = d**n
    return (total - likelier) / total


def binomial_tails(n: int, k: int, alpha: Fraction) -> tuple[float, float]:
    """P(X <= k) and P(X >= k) for a binomial (n, alpha), each correctly rounded."""
    total = alpha.denominator**n
    below = at = 0
    for j, weight in enumerate(_binomial_weights(n, alpha)):
        at = weight
        if j == k:
            break
        below += weight
    return (below + at) / total, (total - below) / total


def binomial_quantiles(n: int, alpha: Fraction, probabilities: tuple[Fraction, ...]) -> list[int]:
    """For each of the ascending probabilities < 1 the smallest k with P(X <= k) at least that."""
    total = alpha.denominator**n
    bounds = [-(-total * p.numerator // p.denominator) for p in probabilities]
    found: list[int] = []
    cumulative = 0
    for k, weight in enumerate(_binomial_weights(n, alpha)):
        cumulative += weight
        while len(found) < len(bounds) and cumulative >= bounds[len(found)]:
            found.append(k)
        if len(found) == len(bounds):
            break
    return found


def _binomial_weights(n: int, alpha: Fraction) -> Iterator[int]:
    a = alpha.numerator
    b = alpha.denominator - a
    weight: int = b**n
    for k in range(n + 1):
        yield weight
        weight = weight * (n - k) * a // ((k + 1) * b)


def student_t_tail(alpha: float, degrees: float) -> tuple[float, float]:
    """(q, es) of Student's t with `degrees` > 1 of freedom: P(T > q) = alpha, es = E(T | T > q).

    0 < alpha <= 1/2. q by bisection of the incomplete beta function; es = f(q) / alpha
    (degrees + q^2) / (degrees - 1), McNeil, Frey and Embrechts (2015), section 2.3.
    """
    low, high = 0.0, 1.0
    while _student_t_sf(high, degrees) > alpha:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if _student_t_sf(middle, degrees) > alpha:
            low = middle
        else:
            high = middle
    density = exp(
        lgamma((degrees + 1) / 2)
        - lgamma(degrees / 2)
        - log(pi * degrees) / 2
        - (degrees + 1) / 2 * log1p(high * high / degrees)
    )
    return high, density / alpha * (degrees + high * high) / (degrees - 1)


def _student_t_sf(t: float, degrees: float) -> float:
    square = t * t
    return _incomplete_beta(degrees / (degrees + square), square / (degrees + square), degrees) / 2


def _incomplete_beta(x: float, complement: float, degrees: float) -> float:
    """I_x(degrees / 2, 1 / 2), with 1 - x given because it may be lost in x."""
    if complement == 0:
        return 1.0
    a, b = degrees / 2, 0.5
    log_x = log(x) if x < 0.5 else log1p(-complement)
    factor = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log_x + b * log(complement))
    if x < (a + 1) / (a + b + 2):
        return factor * _beta_fraction(a, b, x) / a
    return 1.0 - factor * _beta_fraction(b, a, complement) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Lentz's method: Press et al. (2007), section 6.4."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    result = d
    step, m = 0.0, 0
    while abs(step - 1) > _EPSILON:
        m += 1
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + numerator * d)
            c = _away_from_zero(1 + numerator / c)
            step = c * d
            result *= step
    return result
