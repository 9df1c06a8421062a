"""The governor against what Redis alone takes, and its gate against the framework alone.

A cycle (read all inputs, judge, recall, compute, write budgets, memory and counters under the
lease) for 100, 1,000 and 10,000 symbols, against one pipeline that reads the same keys and one that
writes the same hashes: within 2 times at 1,000 and 10,000. Round trips are counted.

`POST /budget/check` against the same framework, served the same way, doing one HGETALL: p99 within
2 times.

On the Redis that the tests find; a stand-in is no measure of either.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks._hub import Measured, load, post, serving, serving_command
from riskhub.governor.cycle import run_cycle
from riskhub.governor.inputs import CLUSTER_PREFIX, MARKET_PREFIX, MEMORY_KEY, PORTFOLIO_KEY
from riskhub.governor.lease import WRITER_KEY, Lease
from riskhub.governor.publish import BUDGET_PREFIX
from riskhub.governor.settings import GovernorSettings
from riskhub.store import create_engine, migrate
from tests.service_resolution import flushed, free_port, resolve_redis

SIZES = (100, 1_000, 10_000)
BOUND_SIZES = (1_000, 10_000)
LARGEST_CYCLE_RATIO = 2.0
ROUNDS = 9
CLUSTERS = 20

CONNECTIONS = (1, 16, 64)
LARGEST_P99_RATIO = 2.0
LOADS = 3
SECONDS = 3.0
SYMBOLS = 1_000
FLOOR = (
    "from api.server import serve; from riskhub.settings import load_settings; "
    "serve(load_settings(), 'benchmarks._hgetall:app')"
)


def run() -> bool:
    """Measure both; True when the claims hold."""
    form = resolve_redis()
    print(f"governor: Redis is a {form.label}; load average {os.getloadavg()[0]:.1f}")
    with form.serve() as url:
        within = [_cycle(url, size) for size in SIZES]
        within.append(_gate(url))
    return all(within)


# -- the cycle ------------------------------------------------------------------------------------


class Counting(redis.Connection):
    """Counts what is written to the socket: a command or a pipeline, and so a round trip."""

    sent = 0
    scans = 0

    def send_packed_command(self, command: Any, *args: Any, **kwargs: Any) -> None:
        text = command if isinstance(command, bytes) else b"".join(command)
        Counting.sent += 1
        Counting.scans += b"\r\nSCAN\r\n" in text
        super().send_packed_command(command, *args, **kwargs)


@dataclass(frozen=True)
class Portfolio:
    """Symbols with positions, each in a cluster."""

    symbols: list[str]
    settings: GovernorSettings

    @classmethod
    def of(cls, size: int) -> "Portfolio":
        symbols = [f"SYM{number:05d}USDT" for number in range(size)]
        clusters = {symbol: f"c{number % CLUSTERS}" for number, symbol in enumerate(symbols)}
        return cls(symbols, GovernorSettings(clusters=clusters))

    @property
    def clusters(self) -> list[str]:
        return sorted(set(self.settings.clusters.values()))

    def write_inputs(self, client: redis.Redis) -> None:
        pipeline = client.pipeline(transaction=False)
        for cluster in self.clusters:
            pipeline.hset(CLUSTER_PREFIX + cluster, "stress", "0.25")
        for number, symbol in enumerate(self.symbols):
            position = {"position_amt": "1.5", "mark_price": "100.0"}
            pipeline.hset(f"quantum:position:snapshot:{symbol}", mapping=position)
            regime = ("LOW_VOL", "NORMAL_VOL", "HIGH_VOL", "EXTREME_VOL")[number % 4]
            pipeline.hset(MARKET_PREFIX + symbol, mapping={"vol_regime": regime, "sigma": "0.01"})
        pipeline.execute()


def _cycle(url: str, size: int) -> bool:
    portfolio = Portfolio.of(size)
    pool = redis.ConnectionPool.from_url(url, connection_class=Counting)
    with flushed(url), redis.Redis.from_pool(pool) as client:
        portfolio.write_inputs(client)
        lease = Lease(client, "benchmark", sec=60)
        assert lease.take()

        def ours() -> None:
            now = time.time()
            cycle = run_cycle(client, portfolio.settings, now, lease=lease)
            assert len(cycle.budgets) == size, cycle.no_budget_reason

        _write_state(client)
        ours()  # and there is a memory, as there is in every cycle but the first
        Counting.sent = Counting.scans = 0
        ours()
        others, scans = Counting.sent - Counting.scans, Counting.scans
        floor = _floor(client, portfolio)
        ratio, ours_sec, floor_sec = _ratio(client, ours, floor)
        client.delete(WRITER_KEY)
    bound = size in BOUND_SIZES
    print(
        f"governor: a cycle of {size:6,} symbols {ours_sec * 1000:6.1f} ms, the bare pipelines "
        f"{floor_sec * 1000:6.1f} ms, ratio {ratio:.2f}"
        + (f" (at most {LARGEST_CYCLE_RATIO:g})" if bound else "")
        + f"; {others} round trips and {scans} pages of SCAN",
        flush=True,
    )
    return not bound or ratio <= LARGEST_CYCLE_RATIO


def _floor(client: redis.Redis, portfolio: Portfolio) -> Callable[[], None]:
    """Reads the keys that a cycle reads and writes the hashes that it wrote, in two pipelines."""
    keys = [BUDGET_PREFIX + symbol for symbol in portfolio.symbols]
    keys += [f"{BUDGET_PREFIX}cluster:{cluster}" for cluster in portfolio.clusters]
    budgets: dict[str, Any] = {key: client.hgetall(key) for key in keys}
    memory: Any = client.hgetall(MEMORY_KEY)
    assert all(budgets.values())
    assert memory

    def both() -> None:
        reading = client.pipeline(transaction=False)
        reading.hgetall(MEMORY_KEY)
        reading.hmget(PORTFOLIO_KEY, "equity_usd", "drawdown", "timestamp")
        for cluster in portfolio.clusters:
            reading.hmget(CLUSTER_PREFIX + cluster, "stress")
        for symbol in portfolio.symbols:
            reading.hmget(MARKET_PREFIX + symbol, "vol_regime", "sigma")
        reading.execute()
        writing = client.pipeline(transaction=False)
        writing.hset(MEMORY_KEY, mapping=memory)
        for key, fields in budgets.items():
            writing.hset(key, mapping=fields)
            writing.expire(key, 300)
        writing.execute()

    return both


def _ratio(
    client: redis.Redis, ours: Callable[[], None], floor: Callable[[], None]
) -> tuple[float, float, float]:
    """The median of the ratios, and each one's median, in turn: what disturbs hits both."""
    seconds: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        _write_state(client)
        seconds.append((_seconds(ours), _seconds(floor)))
    ours_sec, floor_sec = (statistics.median(each) for each in zip(*seconds, strict=True))
    return statistics.median(one / other for one, other in seconds), ours_sec, floor_sec


def _write_state(client: redis.Redis) -> None:
    state = {"equity_usd": "100000.0", "drawdown": "0.1", "timestamp": repr(time.time())}
    client.hset(PORTFOLIO_KEY, mapping=state)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# -- the gate -------------------------------------------------------------------------------------


def _gate(url: str) -> bool:
    with (
        tempfile.TemporaryDirectory() as directory,
        flushed(url),
        redis.Redis.from_url(url) as client,
    ):
        database = f"sqlite:///{directory}/hub.db"
        migrate(create_engine(database))
        _write_budgets(client)
        with serving(database, url) as port, _serving_floor(url) as floor_port:
            ports = {"ours": port, "floor": floor_port}
            for each in ports.values():
                load(each, 8, _requests(2_000), 1.0)
            within = [_compare(client, ports, connections) for connections in CONNECTIONS]
    return all(within)


def _compare(client: redis.Redis, ports: dict[str, int], connections: int) -> bool:
    seen: dict[str, list[Measured]] = {name: [] for name in ports}
    for _ in range(LOADS):
        for name, port in ports.items():
            _write_budgets(client)  # a stale budget would be less work
            seen[name].append(load(port, connections, _requests(60_000), SECONDS))
    ours, floor = seen["ours"], seen["floor"]
    ratio = statistics.median(
        one.p99_ms / other.p99_ms for one, other in zip(ours, floor, strict=True)
    )
    middle = sorted(ours, key=lambda each: each.p99_ms)[LOADS // 2]
    middle_floor = sorted(floor, key=lambda each: each.p99_ms)[LOADS // 2]
    print(
        f"governor: budget/check, {connections:2} connections: {middle}, the framework with one "
        f"HGETALL {middle_floor}, ratio of p99 {ratio:.2f} (at most {LARGEST_P99_RATIO:g})",
        flush=True,
    )
    return ratio <= LARGEST_P99_RATIO


@contextmanager
def _serving_floor(url: str) -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ) | {
            "RISKHUB_HOME": home,
            "RISKHUB_API_PORT": str(port),
            "RISKHUB_REDIS_URL": url,
        }
        with serving_command([sys.executable, "-c", FLOOR], port, environment):
            yield port


def _requests(count: int) -> list[bytes]:
    return [
        post(f"/budget/check?symbol=S{n % SYMBOLS:05}&position_notional={100 + n % 300}", b"")
        for n in range(count)
    ]


def _write_budgets(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(SYMBOLS):
        symbol = f"S{number:05}"
        fields = {
            "symbol": symbol,
            "budget_usd": 1_868.0,
            "stress_factor": 0.066,
            "equity_usd": 100_000.0,
            "portfolio_heat": 0.0,
            "cluster_stress": 0.0,
            "vol_regime": 0.33,
            "mode": "enforce",
            "timestamp": int(time.time()),
            "base_risk_pct": 0.02,
        }
        pipeline.hset(BUDGET_PREFIX + symbol, mapping=fields)
    pipeline.execute()


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
