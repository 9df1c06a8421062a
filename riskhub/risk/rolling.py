"""Numbers for each day of one series, made from a window of the returns before that day."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from riskhub.risk.inputs import Floats, RiskInputError, finite_returns
from riskhub.risk.levels import Level, rank


def windows_before(returns: ArrayLike, window: int) -> Floats:
    """(n - window, window): row i holds the returns before day window + i, and not that day's.

    A read-only view, of no size of its own. Row i with returns[window + i] is a forecast and its
    outcome. Raises `TooFewReturns` for n <= window, `NotFinite`, `WrongShape`, and
    `RiskInputError` for a window below 1.
    """
    if window < 1:
        raise RiskInputError(f"a window of {window} returns")
    series = finite_returns(returns, at_least=window + 1)
    view: Floats = sliding_window_view(series[:-1], window)
    return view


def rolling_historical_var(returns: ArrayLike, window: int, level: Level) -> Floats:
    """(n - window,) VaR by `historical` for each day but the first `window`, oldest first.

    Entry i is for day window + i and made from the `window` returns before it: to the last bit
    `historical(returns[i : window + i], level).var`. Raises `BadLevel`, and as `windows_before`.
    """
    rows = windows_before(returns, window)
    k = rank(window, level)
    series = finite_returns(returns)[np.newaxis, :-1]
    groups = tuple(size for size in _GROUPS if 2 * size <= window)
    whole = len(rows) // groups[0] * groups[0] if groups else 0
    parts = [
        _kth_smallest(_NONE, series[:, start : stop + window - 1], window, k, groups)
        for start in range(0, whole, _AT_ONCE)
        for stop in [min(start + _AT_ONCE, whole)]
    ]
    if whole < len(rows):
        parts.append(_kth_smallest(_NONE, series[:, whole:], window, k, ()))
    var: Floats = 0.0 - np.concatenate(parts, axis=1)[0]
    return var


def _kth_smallest(
    fixed: Floats, series: Floats, window: int, k: int, groups: tuple[int, ...]
) -> Floats:
    """(m, count): per row, the k-th smallest of fixed[row] and each window of series[row].

    `fixed` (m, f), `series` (m, count + window - 1). Neighbouring windows share most of their
    values. With groups, `groups[0]` neighbours are taken together: what they share is partitioned
    once, and only that of it which may be the k-th of one of them is fixed for the next, smaller
    groups, each window being left with the few values of its own.
    """
    if not groups:
        candidates = _beside(fixed, sliding_window_view(series, window, axis=1))
        return _partitioned(candidates, k, k)[:, :, 0]
    size, own = groups[0], groups[0] - 1
    starts = np.arange(0, series.shape[1] - window + 1, size)
    candidates = _beside(fixed, sliding_window_view(series, window - own, axis=1)[:, starts + own])
    # The j-th smallest of what is shared is between the j-th and the (j + own)-th of a window.
    first, last = max(k - own, 1), min(k, candidates.shape[2])
    shared = _partitioned(candidates, first, last)
    edges = sliding_window_view(series, own, axis=1)
    left, right = edges[:, starts], edges[:, starts + window]
    found = _kth_smallest(
        fixed=shared.reshape(-1, last - first + 1),
        series=np.concatenate([left, right], axis=2).reshape(-1, 2 * own),
        window=own,
        k=k - first + 1,
        groups=groups[1:],
    )
    return found.reshape(len(series), -1)


def _beside(fixed: Floats, rows: Floats) -> Floats:
    """(m, count, f + window): the values fixed[i] before every one of rows[i]."""
    m, count, window = rows.shape
    both = np.empty((m, count, fixed.shape[1] + window))
    both[:, :, : fixed.shape[1]] = fixed[:, np.newaxis]
    both[:, :, fixed.shape[1] :] = rows
    return both


def _partitioned(candidates: Floats, first: int, last: int) -> Floats:
    """The first-th to the last-th smallest of each row, counted from 1, in any order between."""
    bounds = ({first - 1} if first > 1 else set()) | {last - 1}
    candidates.partition(sorted(bounds), axis=2)
    return candidates[:, :, first - 1 : last]


_NONE: Floats = np.empty((1, 0))
_GROUPS = (32, 8)  # by measurement; each divides the one before
_AT_ONCE = 2048  # windows, a multiple of the largest group; more are slower, out of cache
