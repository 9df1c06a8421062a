"""What the governor tells Prometheus: read from Redis at the scrape, so any process may tell it."""

from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import Any

import redis
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from riskhub.exposition import render
from riskhub.governor.counters import COUNTERS_KEY, DESCRIBED, read_counts
from riskhub.governor.inputs import CLUSTER_MARK
from riskhub.governor.published import Published, read_published
from riskhub.governor.settings import GovernorSettings

MOST_SYMBOLS = 1_000
"""So many symbols have metrics of their own."""

_WITHIN_SEC = 2.0


def exposition(client: redis.Redis, settings: GovernorSettings, now: float) -> bytes:
    """The governor's part of the page: counters of all processes, and the budgets as of now.

    Without Redis it says so (``p28_redis_up 0``) and leaves the rest out: a counter that is not
    known is not 0.

    Args:
        client: one that gives up soon, and decodes its responses.
        settings: when a budget is stale, and the mode while there is no budget to tell it.
        now: unix seconds.
    """
    up = GaugeMetricFamily("p28_redis_up", "Whether budgets and counters could be read.")
    try:
        fields: Any = client.hgetall(COUNTERS_KEY)
        budgets = read_published(client, now, within_sec=_WITHIN_SEC)
    except (redis.RedisError, OSError, ValueError):
        up.add_metric((), 0)
        return render([up])
    up.add_metric((), 1)
    return render([up, *_counters(fields), *_gauges(budgets, settings, now)])


def _counters(fields: Mapping[str, str]) -> Iterable[Metric]:
    families = {
        name: CounterMetricFamily(
            name, described.about, labels=[described.label] if described.label else []
        )
        for name, described in DESCRIBED.items()
    }
    for name, value, count in read_counts(fields):
        families[name].add_metric([] if value is None else [value], count)
    return families.values()


def _gauges(
    budgets: Mapping[str, Published], settings: GovernorSettings, now: float
) -> Iterable[Metric]:
    of_symbols = [budget for name, budget in budgets.items() if not name.startswith(CLUSTER_MARK)]
    # What the gate goes by: a stale budget is none.
    usable = [budget for budget in of_symbols if budget.age_sec(now) < settings.gate_stale_sec]
    modes = {budget.mode for budget in usable} or {settings.mode}
    yield GaugeMetricFamily(
        "p28_enforce_mode", "Whether any budget is to be obeyed.", value="enforce" in modes
    )
    if of_symbols:
        yield GaugeMetricFamily(
            "p28_budget_age_seconds",
            "Age of the newest budget, stale or not.",
            value=min(budget.age_sec(now) for budget in of_symbols),
        )
    # The smallest: whatever is left out may risk more than all that can be seen.
    shown = nsmallest(MOST_SYMBOLS, usable, key=lambda budget: budget.budget_usd)
    value = GaugeMetricFamily(
        "p28_budget_value_usd", "The budget of a symbol, USD.", labels=["symbol"]
    )
    stress = GaugeMetricFamily(
        "p28_stress_factor", "The stress of a symbol, 0 (calm) to 1.", labels=["symbol"]
    )
    for budget in shown:
        value.add_metric([budget.symbol], budget.budget_usd)
        if (factor := budget.told["stress_factor"]) is not None:
            stress.add_metric([budget.symbol], factor)
    yield value
    yield stress
    yield GaugeMetricFamily(
        "p28_budget_symbols_left_out",
        "Symbols with larger budgets than those here, that are too many to show.",
        value=len(usable) - len(shown),
    )
