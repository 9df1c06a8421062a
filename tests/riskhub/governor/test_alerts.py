"""The alert rules: well-formed, on metrics that there are, at the deployed thresholds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from riskhub import strict_yaml
from riskhub.governor import counters, published
from riskhub.governor.metrics import exposition
from riskhub.governor.settings import GovernorSettings

ALERTS = Path(__file__).parents[3] / "deploy" / "prometheus"
RULES = ALERTS / "governor.yml"
NOW = 1_738_000_000.0


def rules() -> list[dict[str, Any]]:
    content = strict_yaml.load(RULES)
    assert isinstance(content, dict)
    return [rule for group in content["groups"] for rule in group["rules"]]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with published.client_of(redis_url) as connected:
        yield connected


def test_no_two_alerts_have_a_name() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 3


def test_every_metric_and_label_of_a_rule_is_on_the_page_before_anything_was_counted(
    client: redis.Redis,
) -> None:
    client.hset(
        "quantum:portfolio:budget:BTCUSDT",
        mapping={"budget_usd": 1, "mode": "shadow", "timestamp": NOW},
    )
    there_are = {
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(
            exposition(client, GovernorSettings(), NOW).decode()
        )
        for sample in family.samples
    }
    for rule in rules():
        named = re.findall(r'(p28_\w+)(?:\{(\w+)="(\w+)"\})?', rule["expr"])
        assert named
        for name, label, value in named:
            wanted = {(label, value)} if label else set()
            assert any(found == name and wanted <= set(labels) for found, *labels in there_are), (
                f"{rule['alert']}: {name}"
            )


def test_the_thresholds_are_those_of_the_deployed_governor() -> None:
    expressions = {rule["alert"]: " ".join(rule["expr"].split()) for rule in rules()}
    for name, metric, threshold in (
        ("PortfolioTooOld", counters.PORTFOLIO_TOO_OLD, "> 10"),
        ("LastKnownGood", counters.LKG_CACHE_USED, "> 50"),
        ("NoBudgets", counters.BUDGET_COMPUTED, "== 0"),
    ):
        expression = expressions[f"RiskHubGovernor{name}"]
        assert f"increase({metric}[1m])" in expression
        assert expression.endswith(threshold)
