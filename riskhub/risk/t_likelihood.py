"""The Student-t distribution of greatest likelihood, for many samples at once.

Samples are the rows of (m, n). What is found for one does not depend on the others, to the last
bit, nor on the order of its values. In what follows u = (x - location)^2 / scale^2, v the degrees.
"""

import numpy as np
from numpy.typing import NDArray

from riskhub.risk.inputs import Floats, NotFinite, RiskInputError

DEGREES = (2.1, 200.0)

_ROWS_AT_ONCE = 128  # what they need beside them stays in the processor's cache

_Index = NDArray[np.intp]


class NoFit(RiskInputError):
    """No t distribution fits: too many of the returns are one and the same value."""


def most_likely(rows: Floats, degrees: float | None) -> tuple[Floats, Floats, Floats]:
    """Locations, scales and degrees, each (m,), of finite rows (m, n), n >= 3.

    `degrees` given, or None to be fitted within `DEGREES`. A row of equal values has scale 0.
    Raises `NoFit`, and `NotFinite` for values that cannot be brought to one scale.
    """
    chunks = [
        _most_likely(rows[start : start + _ROWS_AT_ONCE], degrees)
        for start in range(0, max(len(rows), 1), _ROWS_AT_ONCE)
    ]
    locations, scales, fitted = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return locations, scales, fitted


def fittable(rows: Floats) -> NDArray[np.bool_]:
    """Which rows of (m, n) have fewer than two thirds of their values in one place, or all: (m,).

    With v/(v+1) of the values in one place the likelihood has no bound: Kent and Tyler, Annals
    of Statistics 19 (1991).
    """
    return _fittable(np.sort(rows, axis=1))


def _fittable(ascending: Floats) -> NDArray[np.bool_]:
    n = ascending.shape[1]
    heap = -(-2 * n // 3)
    tied = (ascending[:, heap - 1 :] == ascending[:, : n - heap + 1]).any(axis=1)
    result: NDArray[np.bool_] = ~tied | (ascending[:, 0] == ascending[:, -1])
    return result


def _most_likely(rows: Floats, degrees: float | None) -> tuple[Floats, Floats, Floats]:
    m, n = rows.shape
    ascending = np.sort(rows, axis=1)
    flat = ascending[:, 0] == ascending[:, -1]
    if not _fittable(ascending).all():
        raise NoFit("two thirds of the returns are one value: no t distribution fits them")
    centre = ascending[:, n // 2].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = ascending - centre[:, np.newaxis]
        spread = np.where(flat, 1.0, np.abs(deviation).mean(axis=1))
        if not (np.isfinite(spread).all() and (spread > 1e-290).all()):
            raise NotFinite("returns are too large or too small to be fitted")
    locations, scales = np.zeros(m), np.zeros(m)
    fitted = np.full(m, DEGREES[1] if degrees is None else degrees)
    moving = np.flatnonzero(~flat)
    if len(moving):
        sample = _Sample(deviation[moving] / spread[moving, np.newaxis])
        if degrees is None:
            fitted[moving] = _most_likely_degrees(sample)
        else:
            sample.fit(np.arange(len(moving)), fitted[moving])
        locations[moving], scales[moving] = sample.location, sample.scale
    return centre + locations * spread, scales * spread, fitted


class _Sample:
    """Rows, and the location and scale of each as they were fitted last."""

    def __init__(self, rows: Floats) -> None:
        self.rows = rows
        self.location = np.zeros(len(rows))
        self.scale = np.ones(len(rows))

    def fit(self, which: _Index, degrees: Floats) -> Floats:
        """Fits rows `which` at their `degrees`; gives each one's slope of the likelihood.

        That is psi((v+1)/2) - psi(v/2) - mean log(1 + u/v): twice the derivative by v of the mean
        log likelihood, where location and scale are at their best.
        """
        left, x, v = which, self.rows[which], degrees
        for attempt in range(1000):
            change, growth = _step(x, v, self.location[left], self.scale[left], attempt < 50)
            self.location[left] += change * self.scale[left]
            self.scale[left] *= np.exp(growth)
            going = (np.abs(change) > 1e-9) | (np.abs(growth) > 1e-9)
            if not going.any():
                break
            if not going.all():
                left, x, v = left[going], x[going], v[going]
        else:
            raise NoFit("the returns have no t distribution of greatest likelihood")
        deviation = self.rows[which] - self.location[which, np.newaxis]
        u = np.square(deviation / self.scale[which, np.newaxis])
        mean: Floats = np.log1p(u / degrees[:, np.newaxis]).mean(axis=1)
        return _digamma_step(degrees / 2) - mean


def _step(
    x: Floats, degrees: Floats, location: Floats, scale: Floats, newton: bool
) -> tuple[Floats, Floats]:
    """The next change of location, in scales, and of log scale.

    Newton's, where it is short and leads up; else that of the EM algorithm with expanded
    parameters, which never leads down (Kent, Tyler and Vardi, Comm. Statistics: Simulation 23,
    1994; Liu, Rubin and Wu, Biometrika 85, 1998).
    """
    n = x.shape[1]
    z = (x - location[:, np.newaxis]) / scale[:, np.newaxis]
    w = 1.0 / (degrees[:, np.newaxis] + z * z)
    wz = w * z
    weight, first, second = w.sum(axis=1), wz.sum(axis=1), (wz * z).sum(axis=1)
    change = first / weight
    growth = 0.5 * np.log(np.maximum(second / weight - change * change, 1e-300))
    if not newton:
        return change, growth
    more = degrees + 1.0
    twice = (w * w).sum(axis=1)
    by_location = more * (2.0 * degrees * twice - weight)
    by_both = 2.0 * degrees * more * (w * wz).sum(axis=1)
    by_scale = 2.0 * degrees * more * (wz * wz).sum(axis=1)
    up_location, up_scale = more * first, more * second - n
    determinant = by_location * by_scale - by_both * by_both
    sound = (by_location > 0) & (determinant > 0)
    determinant = np.where(sound, determinant, 1.0)
    newton_change = (by_scale * up_location - by_both * up_scale) / determinant
    newton_growth = (by_location * up_scale - by_both * up_location) / determinant
    sound &= (np.abs(newton_change) < 0.5) & (np.abs(newton_growth) < 0.5)
    return np.where(sound, newton_change, change), np.where(sound, newton_growth, growth)


def _most_likely_degrees(sample: _Sample) -> Floats:
    """The degrees of each row, to a relative 1e-9: where the slope crosses zero downwards.

    At a bound where the likelihood still rises towards it; at the lower one, with the fatter tail,
    where it rises towards both, as that of a handful of returns may. By the Illinois method on
    log v, which keeps the zero bracketed (Dowell and Jarratt, BIT 11, 1971).
    """
    m = len(sample.rows)
    everyone = np.arange(m)
    low, high = np.full(m, np.log(DEGREES[0])), np.full(m, np.log(DEGREES[1]))
    above = sample.fit(everyone, np.full(m, DEGREES[1])) * DEGREES[1]
    below = sample.fit(everyone, np.full(m, DEGREES[0])) * DEGREES[0]
    result = np.where(below <= 0, *DEGREES)
    left = np.flatnonzero((below > 0) & (above < 0))
    side = np.zeros(m)
    for _ in range(200):
        if not len(left):
            break
        a, b, fa, fb = low[left], high[left], below[left], above[left]
        middle = np.clip((a * fb - b * fa) / (fb - fa), a, b)
        degrees = np.exp(middle)
        slope = sample.fit(left, degrees) * degrees
        rising = slope > 0
        again = side[left] == np.where(rising, 1.0, -1.0)
        side[left] = np.where(rising, 1.0, -1.0)
        moved = np.abs(middle - np.log(result[left]))
        result[left] = degrees
        low[left], below[left] = np.where(rising, middle, a), np.where(rising, slope, fa)
        high[left], above[left] = np.where(rising, b, middle), np.where(rising, fb, slope)
        below[left] *= np.where(again & ~rising, 0.5, 1.0)
        above[left] *= np.where(again & rising, 0.5, 1.0)
        left = left[(moved > 1e-9) & (slope != 0)]
    at_bound = np.flatnonzero((result == DEGREES[0]) | (result == DEGREES[1]))
    if len(at_bound):
        sample.fit(at_bound, result[at_bound])
    return result


def _digamma_step(x: Floats) -> Floats:
    """psi(x + 1/2) - psi(x) for x > 1: recurrence up to x > 11, then DLMF 5.11.2's series."""
    total = np.zeros_like(x)
    for shift in range(10):
        total += 1.0 / (x + shift) - 1.0 / (x + shift + 0.5)
    far = x + 10.0
    q = 1.0 / (far * far)
    series = q * (1 / 8 - q * (1 / 64 - q * (1 / 128 - q * (17 / 2048 - q * 31 / 2048))))
    result: Floats = total + 0.5 / far + series
    return result
