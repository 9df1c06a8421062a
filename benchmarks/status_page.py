"""The status pages over HTTP, on a Postgres with 100 worlds and a million snapshots.

Each world has 10,000 snapshots over its last 250 days, forty a day, every one with its verdict,
numbers by seven methods at three levels, and contributions of the newest; each day with an outcome
and backtests. `/` and `/worlds/{world_id}` are measured at one connection, as a browser that looks
every 15 s asks for them: each under 50 ms at the median and at the 99th percentile.

RISKHUB_BENCH_ROWS sets another number than a million, which take some minutes to make.
"""

import os
import sys
import time

import psycopg
import redis

from benchmarks._hub import databases, get, load, serving

SECONDS = 8.0
LIMIT_MS = 50.0
WORLDS = 100
DAYS = 250
SYMBOLS = 20
ROWS = int(os.environ.get("RISKHUB_BENCH_ROWS", "1000000"))


def run() -> bool:
    """Measure both pages; True when the claims hold."""
    with databases() as all_of_them:
        (_, database, state) = next(each for each in all_of_them if each[0] == "Postgres")
        assert state is not None
        _fill(database, ROWS // WORLDS // DAYS)
        _write_budgets(state)
        asked = {
            "/": [get("/")],
            "/worlds/{world_id}": [
                get(f"/worlds/w{number}?stage=live") for number in range(WORLDS)
            ],
        }
        within = []
        with serving(database, state) as port:
            for page, requests in asked.items():
                load(port, 1, requests, 3.0)
                measured = load(port, 1, requests, SECONDS)
                print(
                    f"status page: {page}: p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} "
                    f"ms (at most {LIMIT_MS:.0f})",
                    flush=True,
                )
                within.append(measured.p99_ms <= LIMIT_MS)
    return all(within)


def _write_budgets(url: str) -> None:
    with redis.Redis.from_url(url) as client, client.pipeline() as pipeline:
        for number in range(WORLDS):
            budget = {"budget_usd": 1000 + number, "mode": "shadow", "timestamp": int(time.time())}
            pipeline.hset(f"quantum:portfolio:budget:S{number}", mapping=budget)
        pipeline.execute()


_AS_OF = "now() - (%(days)s - day) * interval '1 day' + number * interval '10 seconds'"
_LANDINGS = f"""
    INSERT INTO snapshots (world_id, version, as_of, received_at, expires_at, stage, actor, digest,
                           body)
    SELECT 'w' || world, 'v' || day || '-' || number, as_of, as_of + interval '1 second',
           as_of + interval '15 minutes', 'live', 'bench',
           'sha256:' || repeat(md5(day || '-' || number), 2),
           '{{"weights":{{"' || repeat('S', 400) || '":1}}}}'
    FROM generate_series(1, %(days)s) day, generate_series(0, %(each)s - 1) number,
         generate_series(0, %(worlds)s - 1) world, LATERAL (SELECT {_AS_OF} AS as_of) instant
"""  # noqa: S608 - made of our own names
_NUMBERS = (
    "INSERT INTO world_stages (world_id, stage, newest_as_of, stamp, alive_until) "
    "SELECT world_id, stage, max(as_of), 1, max(expires_at) FROM snapshots GROUP BY 1, 2",
    """
    INSERT INTO validated_snapshots (position, day, world_id, version, as_of, stage, digest,
                                     accepted, reasons, flags, schema_version)
    SELECT position, as_of::date, world_id, version, as_of, stage, digest, true, '[]', '[]', '1'
    FROM snapshots
    """,
    """
    INSERT INTO risk_metrics (position, day, world_id, version, as_of, stage, horizon_days,
        "window", n, mean, volatility, annualised_volatility, max_drawdown, current_drawdown,
        gross, net, largest, herfindahl, effective_names, snapshot_digest, passed_over, absent,
        contributions_level, code_version)
    SELECT position, as_of::date, world_id, version, as_of, stage, 1, 500, 500, 0, 0.01, 0.16,
           0.2, 0.1, 1, 1, 0.2, 0.05, 18, digest, '{}', '{}', '0.99', 'riskhub/0'
    FROM snapshots
    """,
    """
    INSERT INTO risk_tails (position, method, level, day, var, es, source)
    SELECT position, method, level, as_of::date, 0.02 + position %% 100 / 10000.0,
           0.03 + position %% 100 / 10000.0, 'prices'
    FROM snapshots, unnest(ARRAY['cornish_fisher', 'ewma', 'filtered_historical', 'historical',
                                 'monte_carlo', 'normal', 'student_t']) method,
         unnest(ARRAY['0.95', '0.975', '0.99']) level
    """,
    """
    INSERT INTO snapshot_stress (position, day, world_id, version, as_of, stage, book_digest,
        snapshot_digest, prices_digest, loss_limit, code_version)
    SELECT position, as_of::date, world_id, version, as_of, stage, 'book', digest, 'prices', 0.1,
           'riskhub/0'
    FROM snapshots
    """,
    """
    CREATE TEMPORARY TABLE closes AS
    SELECT DISTINCT ON (world_id, stage, as_of::date) position, world_id, stage,
           as_of::date AS day
    FROM snapshots ORDER BY world_id, stage, as_of::date, as_of DESC
    """,
    """
    INSERT INTO risk_contributions (position, symbol, day, weight, marginal_var, marginal_es, var,
                                    es)
    SELECT position, 'S' || symbol, day, 0.05, 0.02, 0.03, 0.001 * symbol, 0.002 * symbol
    FROM closes, generate_series(1, %(symbols)s) symbol ORDER BY position, symbol
    """,
    """
    INSERT INTO stress_results (position, origin, scenario, day, pnl, worst)
    SELECT position, 'riskhub', 'scenario ' || scenario, day, -0.01 * scenario, -0.02 * scenario
    FROM closes, generate_series(1, 15) scenario ORDER BY position, scenario
    """,
    """
    INSERT INTO var_outcomes (position, day, world_id, stage, forecast_day, loss, hindsight,
                              prices_digest, code_version)
    SELECT position, day + 1, world_id, stage, day,
           CASE WHEN position %% 83 = 0 THEN 0.05 ELSE 0.001 END, false, 'prices', 'riskhub/0'
    FROM closes
    """,
    """
    INSERT INTO var_backtests (world_id, stage, method, level, day, "window", observations,
        exceedances, exceeded, zone, kupiec_p, christoffersen_p, code_version)
    SELECT DISTINCT world_id, stage, method, '0.99', closes.day + 1, 250, 250, 3, false, 'green',
           0.5, 1, 'riskhub/0'
    FROM closes JOIN risk_tails USING (position)
    """,
)


def _fill(database: str, each: int) -> None:
    """A history of `each` snapshots a day and world, with all that is made of them."""
    began = time.perf_counter()
    given = {"days": DAYS, "each": each, "worlds": WORLDS, "symbols": SYMBOLS}
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement in (_LANDINGS, *_NUMBERS):
            connection.execute(statement, given)
        connection.execute("VACUUM ANALYZE")
    rows = each * DAYS * WORLDS
    print(
        f"status page: {rows:,} snapshots made in {time.perf_counter() - began:.0f} s", flush=True
    )


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
