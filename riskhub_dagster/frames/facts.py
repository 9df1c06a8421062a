"""What is measured of one snapshot before it is judged: rows for the frames, flags, evidence.

Plain numpy, one snapshot at a time: what is behind references may be large. What is missing is
counted or named here, and never filled in.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskhub.portfolio import whole_series
from riskhub.prices import PriceFileError
from riskhub.risk import (
    MissingPairs,
    NotSymmetric,
    RiskInputError,
    covariance_from_pairs,
    repaired,
)
from riskhub.strict_json import shown
from riskhub_dagster.frames.schemas import PSD_TOLERANCE

# So many zeros in a row at the end of a series that moved before are no trading week.
LONGEST_STANDSTILL = 4
MOST_NAMED = 5
MOST_KEPT = 20

Series = Mapping[str, Sequence[float]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Facts:
    """What one field of a snapshot holds.

    `rows`: for its frame, without the position. `flags`: what is worth knowing and rejects nothing.
    `evidence`: the measurements, as JSON; None when there is nothing to measure.
    """

    rows: Sequence[tuple[Any, ...]] = ()
    flags: list[str] = field(default_factory=list)
    evidence: dict[str, Any] | None = None


def returns_facts(series: Series, symbols: Collection[str], min_returns: int) -> Facts:
    """Of realized returns: series of daily returns, oldest first, each with at least one point.

    Args:
        symbols: those that carry weight.
        min_returns: with fewer there are no numbers.
    """
    arrays = {name: np.array(points, dtype=np.float64) for name, points in series.items()}
    used = _made_from(arrays, symbols)
    shortest = min(map(len, arrays.values()))
    worst = min(float(points.min()) for points in arrays.values())
    lengths = {name: len(arrays[name]) for name in used}
    zeros = {name: count for name in used if (count := _zeros_at_the_end(arrays[name]))}
    unmoved = [name for name in used if not arrays[name].any()]
    # What never moved is cash, and cash is like cash.
    twins = _identical({name: arrays[name] for name in used if name not in unmoved})
    evidence: dict[str, Any] = {"series": len(arrays), "points": shortest, "worst": worst}
    flags = []
    if used:
        of_used = evidence["points_used"] = min(lengths.values())
        if 2 <= of_used < min_returns:
            flags.append(f"realized_returns has {of_used} points; {min_returns} make numbers")
    if len(set(lengths.values())) > 1:
        evidence["lengths"] = _first(lengths)
    is_whole = whole_series(arrays, symbols) is not None
    missing = [] if is_whole else sorted(set(symbols) - arrays.keys())
    if missing:
        evidence["missing"] = missing[:MOST_KEPT]
        flags.append(f"realized_returns has no series for {_named(missing)}")
    if zeros:
        evidence["zeros_at_the_end"] = _first(zeros)
        ends = [f"{name} ({count})" for name, count in zeros.items()]
        flags.append(f"realized_returns end in zeros, as if the rest were missing: {_named(ends)}")
    if unmoved:
        evidence["only_zeros"] = unmoved[:MOST_KEPT]
    if twins:
        evidence["identical"] = twins[:MOST_KEPT]
        alike = [" = ".join(names) for names in twins]
        flags.append(f"realized_returns has the same series twice: {_named(alike)}")
    return Facts([(shortest, len(set(lengths.values())), worst)], flags, evidence)


def covariance_facts(pairs: Mapping[str, float], symbols: Sequence[str]) -> Facts:
    """Of a covariance, by pairs as the contract has them, of the symbols that carry weight.

    One that is not positive semidefinite is repaired as evidence of how far from a covariance it
    is; see `riskhub.risk.repaired`. What landed stays what it was.
    """
    evidence: dict[str, Any] = {"symbols": len(symbols)}
    try:
        matrix = covariance_from_pairs(pairs, symbols)
    except MissingPairs as lack:
        missing = evidence["missing"] = _count_missing(pairs, symbols)
        evidence["missing_symbols"] = list(lack.symbols[:MOST_KEPT])
        evidence["missing_pairs"] = [list(pair) for pair in lack.pairs[:MOST_KEPT]]
        return Facts([(missing, True, None)], evidence=evidence)
    except NotSymmetric as error:
        evidence["asymmetry"] = str(error)
        return Facts([(0, False, None)], evidence=evidence)
    # Scaled, or the eigenvalues of large entries overflow.
    scale = float(np.abs(matrix).max()) or 1.0
    values = np.linalg.eigvalsh(matrix / scale)
    relative = float(values[0] / (np.abs(values).max() or 1.0))
    evidence |= {
        "smallest_eigenvalue": _number(float(values[0]) * scale),
        "largest_eigenvalue": _number(float(values[-1]) * scale),
    }
    if relative < -PSD_TOLERANCE:
        evidence |= _repair(matrix, symbols)
    return Facts([(0, True, relative)], evidence=evidence)


def stress_facts(stress: Mapping[str, Mapping[str, float]]) -> Facts:
    """Of a producer's own stress results, by scenario and measure."""
    rows: list[tuple[Any, ...]] = []
    flags = []
    for scenario, measures in stress.items():
        rows += [(scenario, measure, float(value)) for measure, value in measures.items()]
        if not measures:
            rows.append((scenario, None, None))
            flags.append(f"stress scenario {shown(scenario)} has no measures")
    counts = {"scenarios": len(stress), "measures": sum(map(len, stress.values()))}
    return Facts(rows, flags, counts)


def symbol_facts(symbols: Collection[str], known: Collection[str] | PriceFileError) -> Facts:
    """Of symbols that only prices can measure, and those that there are prices of."""
    if isinstance(known, PriceFileError):
        return Facts(flags=[f"whether there are prices of its symbols is not known: {known}"])
    unknown = sorted(symbol for symbol in symbols if symbol not in known)
    if not unknown:
        return Facts()
    flag = f"no returns, covariance or prices of {_named(unknown)}"
    return Facts(flags=[flag], evidence={"unknown": unknown[:MOST_KEPT]})


def _made_from(series: Collection[str], symbols: Collection[str]) -> list[str]:
    """The series that a portfolio's returns are made from."""
    whole = whole_series(series, symbols)
    return [whole] if whole is not None else sorted(set(series) & set(symbols))


def _zeros_at_the_end(points: Floats) -> int:
    """How many exact zeros a series ends in that moved before; 0 for a few."""
    moves = np.flatnonzero(points)
    count = len(points) - 1 - int(moves[-1]) if len(moves) else 0
    return count if count > LONGEST_STANDSTILL else 0


def _identical(series: Mapping[str, Floats]) -> list[list[str]]:
    """The names of series that are alike bit for bit, those of a kind together."""
    alike: dict[bytes, list[str]] = {}
    for name, points in series.items():
        alike.setdefault(points.tobytes(), []).append(name)
    return [names for names in alike.values() if len(names) > 1]


def _count_missing(pairs: Mapping[str, float], symbols: Sequence[str]) -> int:
    return sum(
        f"{first},{second}" not in pairs and f"{second},{first}" not in pairs
        for row, first in enumerate(symbols)
        for second in symbols[: row + 1]
    )


@np.errstate(over="ignore", invalid="ignore")
def _repair(matrix: Floats, symbols: Sequence[str]) -> dict[str, Any]:
    """How far the nearest covariance is, and the correlation that it changes most."""
    try:
        repair = repaired(matrix)
    except RiskInputError as error:
        return {"not_repaired": str(error)}
    evidence: dict[str, Any] = {
        "nearest_distance": _number(repair.correlation_distance),
        "nearest_relative_distance": _number(repair.relative_distance),
        "nearest_smallest_eigenvalue": _number(repair.smallest_after),
    }
    if repair.unvaried:
        evidence["without_variance"] = [symbols[index] for index in repair.unvaried[:MOST_KEPT]]
    sigma = np.sqrt(matrix.diagonal())
    sigma[sigma == 0] = np.inf  # nothing correlates with a constant
    before, after = (each / sigma / sigma[:, np.newaxis] for each in (matrix, repair.covariance))
    row, column = divmod(int(np.abs(after - before).argmax()), len(symbols))
    if before[row, column] != after[row, column]:
        evidence["most_changed"] = {
            "pair": sorted([symbols[row], symbols[column]]),
            "correlation": _number(before[row, column]),
            "nearest": _number(after[row, column]),
        }
    return evidence


def _number(value: float) -> float | None:
    """A number that JSON has; None for one that overflowed."""
    return float(value) if isfinite(value) else None


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(list(counts.items())[:MOST_KEPT])
