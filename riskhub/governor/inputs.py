"""What the governor reads, and what it makes of input that is old, broken or not there.

Each value carries a `Policy` that says how it came about:

- there and usable: taken as it is, `fresh`;
- there and broken (`malformed`, `out_of_range`): taken as the worst, 1.0, so that broken input
  never raises a budget;
- not there (`missing`), or nobody said where to look (`not_configured`): the fallback, which is
  0.0 for heat and cluster stress and 0.33 for the volatility regime. A heat page that is
  configured and can't be read is broken rather than optional: `missing`, and 1.0.

Portfolio state has no fallback: without a usable equity there is no budget.

Only reading belongs here. How a value is judged is pure and separate from how it is fetched.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, Literal, TypeAlias, TypeVar

import httpx
import redis

from riskhub.governor.settings import GovernorSettings

Policy = Literal["fresh", "stale", "missing", "malformed", "out_of_range", "not_configured"]

PORTFOLIO_KEY = "quantum:state:portfolio"
POSITION_PREFIXES = ("quantum:position:snapshot:", "quantum:state:positions:")
MARKET_PREFIX = "quantum:state:market:"
CLUSTER_PREFIX = "quantum:cluster:stress:"
HEAT_METRICS = ("portfolio_heat_composite_normalized", "p26_heat_value")

REGIMES: Mapping[str, float] = {
    "LOW_VOL": 0.0,
    "NORMAL_VOL": 0.33,
    "HIGH_VOL": 0.67,
    "EXTREME_VOL": 1.0,
}

WORST = 1.0
FUTURE_TOLERANCE_SEC = 2.0
"""How far a producer's clock may run ahead of ours. A time in milliseconds lies far beyond."""

_SCAN_COUNT = 1000
# What `float` takes beyond this (underscores, blanks, other scripts' digits) no producer means.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_T = TypeVar("_T")
_Raw: TypeAlias = bytes | str | None
_Fields: TypeAlias = Sequence[_Raw] | redis.ResponseError
"""What HMGET gives for the fields asked for, or WRONGTYPE where the key is no hash."""


@dataclass(frozen=True, slots=True)
class Input(Generic[_T]):
    """A value as it is to be used, how it came about, and its age in seconds where one is known."""

    value: _T
    policy: Policy
    age_sec: float | None = None


@dataclass(frozen=True, slots=True)
class PortfolioState:
    """The portfolio as its producer last wrote it.

    Attributes:
        equity_usd: total equity, USD, finite and > 0.
        drawdown: as written; None if that is no number. The formula does not use it.
        timestamp: when it was written, unix seconds.
    """

    equity_usd: float
    drawdown: float | None
    timestamp: float


@dataclass(frozen=True, slots=True)
class GovernorInputs:
    """Everything that one cycle works from.

    Attributes:
        portfolio: the value is there if the policy is `fresh` or `stale`, and None otherwise.
        symbols: those with a position, sorted, each once.
        heat: 0 (calm) to 1.
        clusters: stress by cluster id, 0 to 1; each cluster of `symbols` is there.
        regimes: volatility regime by symbol, 0 to 1; each of `symbols` is there.
    """

    portfolio: Input[PortfolioState | None]
    symbols: tuple[str, ...]
    heat: Input[float]
    clusters: Mapping[str, Input[float]]
    regimes: Mapping[str, Input[float]]


def read_inputs(
    redis: redis.Redis, *, now: float, settings: GovernorSettings, http: httpx.Client | None
) -> GovernorInputs:
    """Read all inputs: SCAN for the symbols, one pipeline for the hashes, one scrape for the heat.

    Args:
        redis: a client with or without `decode_responses`.
        now: unix seconds, against which the age of the portfolio state is taken.
        settings: where the inputs are and when they are stale.
        http: what the heat page is fetched with; None opens a connection for this call.

    Raises:
        redis.RedisError: Redis is out of reach or refuses the commands. A key of the wrong type
            is no error but malformed input.
    """
    symbols = _active_symbols(redis)
    cluster_ids = sorted({settings.cluster_of(symbol) for symbol in symbols})

    pipeline = redis.pipeline(transaction=False)
    pipeline.hmget(PORTFOLIO_KEY, "equity_usd", "drawdown", "timestamp")
    for cluster_id in cluster_ids:
        pipeline.hmget(CLUSTER_PREFIX + cluster_id, "stress")
    for symbol in symbols:
        pipeline.hmget(MARKET_PREFIX + symbol, "vol_regime", "sigma")
    portfolio, *others = map(_readable, pipeline.execute(raise_on_error=False))
    clusters, markets = others[: len(cluster_ids)], others[len(cluster_ids) :]

    return GovernorInputs(
        portfolio=portfolio_input(portfolio, now=now, stale_sec=settings.stale_sec),
        symbols=symbols,
        heat=_scrape_heat(settings, http),
        clusters=dict(zip(cluster_ids, map(cluster_input, clusters), strict=True)),
        regimes=dict(zip(symbols, map(regime_input, markets), strict=True)),
    )


def portfolio_input(
    fields: _Fields, *, now: float, stale_sec: float
) -> Input[PortfolioState | None]:
    """Judge `equity_usd`, `drawdown`, `timestamp`: fresh while ``0 <= age < stale_sec``.

    Equity that is missing, not finite or <= 0 is no state at all, and neither is a state whose
    timestamp is missing, broken or in the future; a clock that is `FUTURE_TOLERANCE_SEC` ahead is
    forgiven and gives age 0.
    """
    if isinstance(fields, redis.ResponseError):
        return Input(None, "malformed")
    raw_equity, raw_drawdown, raw_timestamp = fields
    if raw_equity is None:
        return Input(None, "missing")
    equity, timestamp = _number(raw_equity), _number(raw_timestamp)
    if equity is None or timestamp is None:
        return Input(None, "malformed")
    if equity <= 0:
        return Input(None, "out_of_range")
    age = now - timestamp
    if age < -FUTURE_TOLERANCE_SEC:
        return Input(None, "malformed")
    age = max(age, 0.0)
    state = PortfolioState(equity, _number(raw_drawdown), timestamp)
    return Input(state, "fresh" if age < stale_sec else "stale", age)


def cluster_input(fields: _Fields) -> Input[float]:
    """Judge `stress`: 0 to 1; broken is 1.0, missing is 0.0."""
    if isinstance(fields, redis.ResponseError):
        return Input(WORST, "malformed")
    (stress,) = fields
    return Input(0.0, "missing") if stress is None else _unit_interval(stress)


def regime_input(fields: _Fields) -> Input[float]:
    """Judge `vol_regime`, `sigma`: the regime by its exact name; where none is given, by sigma.

    Sigma > 0.03 is extreme, > 0.02 high, < 0.005 low, any other normal. A name that is not known
    is broken (1.0) whatever sigma says: it may be an EXTREME_VOL with a typo. With both missing
    it is 0.33.
    """
    if isinstance(fields, redis.ResponseError):
        return Input(WORST, "malformed")
    regime, raw_sigma = fields
    if regime is not None:
        named = REGIMES.get(_text(regime))
        return Input(WORST, "malformed") if named is None else Input(named, "fresh")
    if raw_sigma is not None:
        return _by_sigma(raw_sigma)
    return Input(REGIMES["NORMAL_VOL"], "missing")


def heat_input(page: str) -> Input[float]:
    """Judge a Prometheus text page: the first of `HEAT_METRICS` on it, 0 to 1; broken is 1.0.

    Of several series of the metric the hottest counts. A page with neither metric is `missing`,
    and 1.0: someone configured a page that should have them.
    """
    for metric in HEAT_METRICS:
        series = re.findall(rf"^{metric}(?:\{{.*\}})?[ \t]+(\S+)", page, re.MULTILINE)
        if series:
            return max(map(_unit_interval, series), key=lambda heat: heat.value)
    return Input(WORST, "missing")


def _scrape_heat(settings: GovernorSettings, http: httpx.Client | None) -> Input[float]:
    if settings.heat_url is None:
        return Input(0.0, "not_configured")
    get = httpx.get if http is None else http.get
    try:
        page = get(settings.heat_url, timeout=settings.heat_timeout_sec).raise_for_status().text
    except httpx.HTTPError:
        return Input(WORST, "missing")
    return heat_input(page)


def _active_symbols(redis: redis.Redis) -> tuple[str, ...]:
    symbols: set[str] = set()
    for prefix in POSITION_PREFIXES:
        keys: Iterable[bytes | str] = redis.scan_iter(match=f"{prefix}*", count=_SCAN_COUNT)
        symbols.update(_text(key).removeprefix(prefix) for key in keys)
    return tuple(sorted(symbols - {""}))


def _readable(reply: _Fields | Exception) -> _Fields:
    if isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE"):
        return reply
    if isinstance(reply, Exception):
        raise reply
    return reply


def _unit_interval(raw: bytes | str) -> Input[float]:
    value = _number(raw)
    if value is None:
        return Input(WORST, "malformed")
    if not 0.0 <= value <= 1.0:
        return Input(WORST, "out_of_range")
    return Input(value, "fresh")


def _by_sigma(raw: bytes | str) -> Input[float]:
    sigma = _number(raw)
    if sigma is None:
        return Input(WORST, "malformed")
    if sigma < 0:
        return Input(WORST, "out_of_range")
    return Input(REGIMES[_regime_of(sigma)], "fresh")


def _regime_of(sigma: float) -> str:
    if sigma > 0.03:
        return "EXTREME_VOL"
    if sigma > 0.02:
        return "HIGH_VOL"
    return "LOW_VOL" if sigma < 0.005 else "NORMAL_VOL"


def _number(raw: _Raw) -> float | None:
    """A finite number, or None."""
    text = _text(raw)
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if isfinite(value) else None


def _text(raw: _Raw) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""
