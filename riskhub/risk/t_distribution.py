"""Student's t distribution: density, upper tail and quantile, in math alone.

For degrees of freedom above 2, where the variance is finite. Relative accuracy 1e-11 or better up
to 1e4 degrees, 1e-10 above, tested against scipy. Formula numbers are those of the NIST Digital
Library of Mathematical Functions (DLMF).
"""

from math import exp, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

from riskhub.risk.inputs import RiskInputError


class BadDegrees(RiskInputError):
    """Degrees of freedom not in (2, 1e6]: no finite variance, or no difference from normal."""


def checked_degrees(degrees: float) -> float:
    """`degrees` as they are. Raises `BadDegrees`."""
    if not 2 < degrees <= 1e6:
        raise BadDegrees(f"{degrees} degrees of freedom are not in (2, 1e6]")
    return float(degrees)


def t_density(x: float, degrees: float) -> float:
    """Gamma((v+1)/2) / (Gamma(v/2) sqrt(pi v)) (1 + x^2/v)^(-(v+1)/2). Raises `BadDegrees`."""
    v = checked_degrees(degrees)
    return exp(_log_gamma_step(v / 2) - (v + 1) / 2 * log1p(x * x / v)) / sqrt(pi * v)


def t_upper(x: float, degrees: float) -> float:
    """P(T > x) for x >= 0: half the incomplete beta I_y(v/2, 1/2) at y = v / (v + x^2).

    Raises `BadDegrees`.
    """
    v = checked_degrees(degrees)
    # Each side of the beta's mean has the continued fraction that converges fast there.
    complement = x * x / (v + x * x)
    if complement > 1.5 / (v / 2 + 2.5):
        return 0.5 * _incomplete_beta(v / 2, 0.5, v / (v + x * x), complement)
    return 0.5 - 0.5 * _incomplete_beta(0.5, v / 2, complement, v / (v + x * x))


def t_quantile(upper: float, degrees: float) -> float:
    """The x with P(T > x) = `upper`, for `upper` in (0, 1/2]. Raises `BadDegrees`.

    By Newton's iteration on log P(T > e^y), concave in y: from wherever it starts, it comes down
    to the root from above.
    """
    v = checked_degrees(degrees)
    x = -NormalDist().inv_cdf(upper)  # below the t's, which has the fatter tail
    if x <= 0:
        return 0.0
    target = log(upper)
    for _ in range(200):
        beyond = t_upper(x, v)
        step = (log(beyond) - target) * beyond / (x * t_density(x, v))
        x *= exp(min(step, 5.0))
        if abs(step) < 1e-14:
            break
    return x


def _log_gamma_step(x: float) -> float:
    """log Gamma(x + 1/2) - log Gamma(x) for x > 1, without the cancellation of large ones.

    The series is DLMF 5.11.13 in logarithms (Tricomi and Erdelyi, 1951).
    """
    if x < 40:
        return lgamma(x + 0.5) - lgamma(x)
    q = 1 / (x * x)
    return 0.5 * log(x) - (1 / 8 - q * (1 / 192 - q * (1 / 640 - q * 17 / 14336))) / x


def _incomplete_beta(a: float, b: float, y: float, complement: float) -> float:
    """The regularised I_y(a, b), one of a and b being 1/2; `complement` is 1 - y, exactly.

    DLMF 8.17.22, evaluated by Lentz's method (Thompson and Barnett, J. Comp. Physics 64, 1986).
    """
    # 1 / B(1/2, x) = Gamma(x + 1/2) / (Gamma(x) sqrt(pi))
    log_beta = 0.5 * log(pi) - _log_gamma_step(max(a, b))
    if y <= 0:
        return 0.0
    log_y = log(y) if y < 0.5 else log1p(-complement)
    log_complement = log(complement) if complement < 0.5 else log1p(-y)
    front = exp(a * log_y + b * log_complement - log_beta) / a
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * y / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 100_000):
        even = m * (b - m) * y / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * y / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction
