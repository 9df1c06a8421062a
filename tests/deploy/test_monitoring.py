"""What `deploy/` gives Prometheus, Alertmanager and Grafana: sound, and on metrics there are."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import service_resolution
from answers import SNAPSHOTS, post
from asgi import serving
from builders import NOW, Clock
from dagster_stand_in import dagster_stand_in
from databases import migrate
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from riskhub import strict_yaml
from riskhub.blobs import open_blobs
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import create_engine, open_store
from riskhub.store.exits import EngineStep

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS, DASHBOARD = DEPLOY / "prometheus", DEPLOY / "grafana" / "riskhub.json"
ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"
OURS = r"\b(?:riskhub|risk_hub|p28)_\w+"
Labels = dict[str, set[str]]


def yaml(path: Path) -> dict[str, Any]:
    content = strict_yaml.load(path)
    assert isinstance(content, dict)
    return content


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for name in ("rules.yml", "governor.yml")
        for group in yaml(PROMETHEUS / name)["groups"]
        for rule in group["rules"]
    ]


def panels() -> list[dict[str, Any]]:
    every = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in every if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Every expression of rules and dashboard, by where it stands."""
    of_rules = [(rule["alert"], rule["expr"]) for rule in rules()]
    of_panels = [
        (panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]
    ]
    return of_rules + of_panels


def tool(*words: str | Path) -> str:
    """What promtool or amtool says; it must be content."""
    if shutil.which(str(words[0])) is None and not service_resolution.requires_real():
        pytest.skip(f"{words[0]} is not installed")
    told = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


# --- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch("RiskHub[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert all(rule["annotations"][name].strip() for name in ("summary", "description"))


def test_prometheus_takes_rules_and_configuration() -> None:
    tool("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_no_other_does() -> None:
    tool(
        "promtool", "test", "rules", PROMETHEUS / "rules_test.yml", PROMETHEUS / "governor_test.yml"
    )


def test_every_rule_has_a_case_in_which_it_fires() -> None:
    fired = set(
        re.findall(
            r'alertname="(\w+)"[^}]*}\', value: [1-9]',
            (PROMETHEUS / "rules_test.yml").read_text()
            + (PROMETHEUS / "governor_test.yml").read_text(),
        )
    )
    assert {rule["alert"] for rule in rules()} == fired


def test_alertmanager_takes_its_configuration() -> None:
    tool("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "RiskHubWatchdog", "severity": "info"}, "watchdog"),
        ({"alertname": "RiskHubSnapshotLagCritical", "severity": "critical"}, "pager"),
        ({"alertname": "RiskHubSnapshotStale", "severity": "warning"}, "desk"),
        ({"alertname": "RiskHubVarModel", "severity": "info"}, "nobody"),
    ],
)
def test_alerts_go_to_those_who_should_hear_of_them(labels: dict[str, str], receiver: str) -> None:
    told = tool(
        *("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"),
        *(f"{name}={value}" for name, value in labels.items()),
    )
    assert told.strip() == receiver


# --- metrics ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there_are(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Labels]:
    """Every name that a sample can have on the pages of API and worker, with its labels."""
    home = tmp_path_factory.mktemp("home")
    with dagster_stand_in() as dagster, service_resolution.flushed(redis_server) as redis_url:
        now = NOW.timestamp()
        dagster.ended = [("j", "FAILURE", now)]
        dagster.daemons = {"SENSOR": True}
        settings = Settings(
            home=home,
            redis_url=redis_url,
            controlbus_brokers="127.0.0.1:1",
            alerts={"dagster_url": dagster.url},  # type: ignore[arg-type]
        )
        with redis.Redis.from_url(redis_url) as client:
            client.hset(
                "quantum:portfolio:budget:BTCUSDT",
                mapping={
                    "budget_usd": 1, "mode": "shadow", "timestamp": now, "stress_factor": 0.5
                },
            )  # fmt: skip
        engine = create_engine(settings.effective_database_url)
        migrate(engine)
        engine.dispose()
        store = open_store(settings.effective_database_url)
        store.write_exit_step(
            EngineStep([], [], [], [], 0), turn=0, writer="it", rules_digest="x", now=NOW
        )
        store.write_alerts(
            [], acknowledgements=[], turn=0, writer="it", receivers={"desk": {}}, now=NOW
        )
        hub = Hub(store, settings, Clock(), blobs=open_blobs(settings))
        with serving(create_app(settings, hub)) as api:
            api.app.state.edge.dagster.ask()
            for _ in range(2):
                assert post(api).is_success
            api.get(f"{SNAPSHOTS}/latest")
            api.get("/risk-hub/worlds/another/snapshots/latest")
            page = api.get("/metrics").text
        worker = WorkerMetrics()
        worker.lag({"part": 1})
        page += generate_latest(worker.registry).decode()
        yield _names_of(page)


def _names_of(page: str) -> Labels:
    names: Labels = {}
    for family in text_string_to_metric_families(page):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        for suffix in suffixes.get(family.type, ("",)):
            names.setdefault(family.name + suffix, set())
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_it_is_on_metrics_that_there_are(where: str, expression: str, there_are: Labels) -> None:
    named = re.findall(OURS, expression)
    assert named or expression == "vector(1)" or "up{" in expression, where
    assert set(named) <= there_are.keys()
    for name, matchers in re.findall(rf"({OURS}){{([^}}]*)}}", expression):
        labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)"', matchers))
        assert not there_are[name] or labels <= there_are[name], (where, name)


def test_every_metric_of_the_contract_is_there(there_are: Labels) -> None:
    contract = {
        *(
            f"risk_hub_snapshot_{name}"
            for name in (
                *("lag_seconds", "missing_total", "dedupe_total", "expired_total"),
                *("processed_total", "failed_total", "retry_total", "dlq_total"),
            )
        ),
        *(
            f"p28_{name}"
            for name in (
                *("budget_computed_total", "lkg_cache_used_total", "portfolio_too_old_total"),
                *("stale_input_total", "enforce_mode", "budget_value_usd", "stress_factor"),
                *("budget_blocks_total", "budget_allow_total", "redis_write_fail_total"),
            )
        ),
    }
    assert contract <= there_are.keys()
    for name in ("lag_seconds", "dedupe_total", "expired_total"):
        assert there_are[f"risk_hub_snapshot_{name}"] == {"world_id", "stage"}
    assert there_are["p28_stale_input_total"] == {"input_type"}


# --- the dashboard ---------------------------------------------------------------------------


def test_no_two_panels_are_in_the_same_place() -> None:
    every = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken = Counter(
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert set(taken.values()) == {1}
    assert max(x for x, _ in taken) == 23


def test_the_data_source_is_for_whoever_imports_it_to_choose() -> None:
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert panel["title"]


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$world": ".*"}
    recorded = []
    for n, (_, expression) in enumerate(expressions()):
        for name, value in variables.items():
            expression = expression.replace(name, value)  # noqa: PLW2901
        recorded.append({"record": f"panel:{n}", "expr": expression})
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    tool("promtool", "check", "rules", file)
