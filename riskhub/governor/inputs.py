"""What the governor reads, and what it makes of input that is old, broken or not there.

Each value carries a `Policy` that says how it came about. First it is judged, by itself:

- there and usable: taken as it is, `fresh`;
- there and broken (`malformed`, `out_of_range`): taken as the worst, 1.0, so that broken input
  never raises a budget;
- not there (`missing`), or nobody said where to look (`not_configured`): the fallback, which is
  0.0 for heat, cluster stress and drawdown, and 0.33 for the volatility regime. A heat page or
  world that is configured and can't be read is broken rather than optional: `missing`, and 1.0.

Portfolio state has no fallback: without a usable equity there is no budget. What was known before
stands in for what is missing now; see `riskhub.governor.memory`.

Only reading belongs here. How a value is judged is pure and separate from how it is fetched.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import httpx
import redis
from redis.client import NEVER_DECODE

from riskhub.governor.settings import GovernorSettings

Policy = Literal[
    "fresh",
    "stale",
    "missing",
    "malformed",
    "out_of_range",
    "not_configured",
    "last_known_good",
    "too_old",
    "held",
    "held_careful",
]
"""How a value came about. The last four are those of `riskhub.governor.memory`."""

MEMORY_KEY = "riskhub:governor:known"
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

CLUSTER_MARK = "cluster:"
"""What follows the prefix in the key of a cluster's budget: no symbol may begin so."""
LONGEST_SYMBOL = 128

# Both kinds of position in one walk over the keys, and little else.
_POSITION_GLOB = "quantum:[ps]*:[ps]*:*"
_SCAN_COUNT = 5_000  # about a millisecond of Redis
_LONGEST_PAGE = 4 << 20
_POSITION_PREFIXES = tuple(prefix.encode() for prefix in POSITION_PREFIXES)
# What is no text is malformed input of its own, not the end of the cycle.
_AS_BYTES: Mapping[str, Any] = {NEVER_DECODE: True}
# What `float` takes beyond this (underscores, blanks, other scripts' digits) no producer means.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_T = TypeVar("_T")
_Raw: TypeAlias = bytes | str | None
_Fields: TypeAlias = Sequence[_Raw] | redis.ResponseError
"""What HMGET gives for the fields asked for, or WRONGTYPE where the key is no hash."""
Shares: TypeAlias = Mapping[str, float]
"""Of each symbol of a world, its share of the world's expected shortfall; they add up to 1."""


@dataclass(frozen=True, slots=True)
class Input(Generic[_T]):
    """A value as it is to be used, and how it came about.

    Attributes:
        value: to be used.
        policy: how it came about.
        age_sec: how old it is, seconds, where that is known.
        unfresh_sec: how long ago it was last fresh, seconds; 0 while it is, or never was.
        second_choice: it is not what is asked for first: sigma where there is no name of a
            regime, or the second of `HEAT_METRICS`.
        as_of: of what is made of a snapshot of the hub, also of one that has expired: that of the
            snapshot, unix seconds.
    """

    value: _T
    policy: Policy
    age_sec: float | None = None
    unfresh_sec: float = 0.0
    second_choice: bool = False
    as_of: float | None = None


@dataclass(frozen=True, slots=True)
class PortfolioState:
    """The portfolio as its producer last wrote it.

    Attributes:
        equity_usd: total equity, USD, finite and > 0.
        drawdown: as written; None if that is no number.
        timestamp: when it was written, unix seconds.
    """

    equity_usd: float
    drawdown: float | None
    timestamp: float


NO_SHARES: Input[Shares] = Input({}, "not_configured")
NO_DRAWDOWN: Input[float] = Input(0.0, "missing")


@dataclass(frozen=True, slots=True)
class GovernorInputs:
    """Everything that one cycle works from.

    Attributes:
        portfolio: the value is there if the policy is `fresh`, `stale` or `last_known_good`, and
            None otherwise.
        symbols: those with a position, sorted, each once.
        heat: 0 (calm) to 1.
        clusters: stress by cluster id, 0 to 1; each cluster of `symbols` is there.
        regimes: volatility regime by symbol, 0 to 1; each of `symbols` is there.
        drawdown: of the portfolio, 0 to 1; used where a haircut by drawdown is asked for.
        shares: of the expected shortfall, by symbol; used where budgets go by contribution.
        refused: names in keys of positions that are no symbols, sorted.
    """

    portfolio: Input[PortfolioState | None]
    symbols: tuple[str, ...]
    heat: Input[float]
    clusters: Mapping[str, Input[float]]
    regimes: Mapping[str, Input[float]]
    drawdown: Input[float] = NO_DRAWDOWN
    shares: Input[Shares] = NO_SHARES
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """What was read in one pass: the inputs, judged, and the memory, as it is in its hash."""

    inputs: GovernorInputs
    memory: Mapping[bytes | str, bytes | str]


def read_inputs(
    client: redis.Redis, *, now: float, settings: GovernorSettings, http: httpx.Client | None
) -> Read:
    """SCAN for the symbols, one pipeline for all hashes, then one scrape for the heat.

    Shares, and a heat without a page, are not read here but from the hub; see
    `riskhub.governor.hub_inputs`.

    Args:
        client: with or without `decode_responses`.
        now: unix seconds, against which the age of the portfolio state is taken.
        settings: where the inputs are and when they are stale.
        http: what the heat page is fetched with; None opens a connection for this call.

    Raises:
        redis.RedisError: Redis is out of reach or refuses the commands. A key of the wrong type
            is no error but malformed input, except for the memory, which only the governor writes.
    """
    symbols, refused = _active_symbols(client)
    cluster_ids = sorted({settings.cluster_of(symbol) for symbol in symbols})

    pipeline = client.pipeline(transaction=False)
    ask: Callable[..., object] = partial(pipeline.execute_command, **_AS_BYTES)
    ask("HGETALL", MEMORY_KEY)
    ask("HMGET", PORTFOLIO_KEY, "equity_usd", "drawdown", "timestamp")
    for cluster_id in cluster_ids:
        ask("HMGET", CLUSTER_PREFIX + cluster_id, "stress")
    for symbol in symbols:
        ask("HMGET", MARKET_PREFIX + symbol, "vol_regime", "sigma")
    memory, *replies = pipeline.execute(raise_on_error=False)
    if isinstance(memory, redis.ResponseError):
        raise redis.ResponseError(f"{MEMORY_KEY}: {memory}")
    portfolio, *others = map(_readable, replies)
    clusters, markets = others[: len(cluster_ids)], others[len(cluster_ids) :]

    state = portfolio_input(portfolio, now=now, stale_sec=settings.stale_sec)
    return Read(
        GovernorInputs(
            portfolio=state,
            symbols=symbols,
            heat=_scrape_heat(settings, http),
            clusters=dict(zip(cluster_ids, map(cluster_input, clusters), strict=True)),
            regimes=dict(zip(symbols, map(regime_input, markets), strict=True)),
            drawdown=drawdown_input(portfolio) if state.policy == "fresh" else NO_DRAWDOWN,
            refused=refused,
        ),
        memory,
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


def drawdown_input(fields: _Fields) -> Input[float]:
    """Judge the `drawdown` of a fresh portfolio state: 0 to 1; broken is 1.0, missing is 0.0."""
    if isinstance(fields, redis.ResponseError):
        return Input(WORST, "malformed")
    _, drawdown, _ = fields
    return NO_DRAWDOWN if drawdown is None else _unit_interval(drawdown)


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
        return Input(WORST, "malformed", second_choice=True)  # either of them makes it good again
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
            hottest = max(map(_unit_interval, series), key=lambda heat: heat.value)
            return replace(hottest, second_choice=metric != HEAT_METRICS[0])
    return Input(WORST, "missing")


def is_symbol(name: str) -> bool:
    """Whether this may be the symbol of a position: printable, not long, no cluster's mark."""
    return (
        0 < len(name) <= LONGEST_SYMBOL and name.isprintable() and not name.startswith(CLUSTER_MARK)
    )


def _scrape_heat(settings: GovernorSettings, http: httpx.Client | None) -> Input[float]:
    if settings.heat_url is None:
        return Input(0.0, "not_configured")
    try:
        return heat_input(_page_in_time(settings.heat_url, settings.heat_timeout_sec, http))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError, TimeoutError):
        return Input(WORST, "missing")


def _page_in_time(url: str, timeout_sec: float, http: httpx.Client | None) -> str:
    """A page that arrives in time, or `TimeoutError`, also when it is its headers that don't end.

    httpx bounds each read and no look-up of a name, so a thread waits for it. One that is late is
    left to itself; there are no more of them than `http` has connections.
    """
    page: Future[str] = Future()

    def fetch() -> None:
        try:
            page.set_result(_page(url, timeout_sec, http))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            page.set_exception(error)

    threading.Thread(target=fetch, name="heat", daemon=True).start()
    return page.result(timeout_sec)


def _page(url: str, timeout_sec: float, http: httpx.Client | None) -> str:
    """A page whose body arrives in time. `timeout` bounds each read, and a body may have many."""
    until = time.monotonic() + timeout_sec
    stream = httpx.stream if http is None else http.stream
    with stream("GET", url, timeout=timeout_sec) as response:
        response.raise_for_status()
        page = bytearray()
        for part in response.iter_bytes():
            page += part
            if time.monotonic() > until or len(page) > _LONGEST_PAGE:
                raise httpx.ReadTimeout("the page does not end", request=response.request)
    return page.decode()


def _active_symbols(client: redis.Redis) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The symbols with a position, and what stands in their place and is none."""
    keys: Iterable[bytes] = client.scan_iter(match=_POSITION_GLOB, count=_SCAN_COUNT, **_AS_BYTES)
    symbols: set[str] = set()
    refused: set[str] = set()
    for key in keys:
        for prefix in _POSITION_PREFIXES:
            if key.startswith(prefix):
                name = key[len(prefix) :].decode(errors="backslashreplace")
                text = name.encode() == key[len(prefix) :]
                (symbols if text and is_symbol(name) else refused).add(name)
    return tuple(sorted(symbols)), tuple(sorted(refused))


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
        return Input(WORST, "malformed", second_choice=True)
    if sigma < 0:
        return Input(WORST, "out_of_range", second_choice=True)
    return Input(REGIMES[_regime_of(sigma)], "fresh", second_choice=True)


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
