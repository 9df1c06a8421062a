"""A producer stops and somebody hears of it; it starts and they hear of that. All of it is real.

A real Prometheus scrapes a real API, and a real Alertmanager hears from Prometheus' rules and from
`riskhub alerts`, as `deploy/` configures them but for addresses and how long things wait.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import service_resolution
from builders import HEADERS, raw_document, wait_until
from daemons import Daemon
from inbox import Inbox, inbox
from served import api_process, migrate_home

from riskhub import strict_yaml

pytestmark = pytest.mark.timeout(180)

DEPLOY = Path(__file__).parents[2] / "deploy"
STALE_AFTER_SEC = 6
STALE, KEY = "RiskHubSnapshotStale", "late:equities/paper"


class Producer:
    """Posts a snapshot of a world over and over, between start and stop."""

    def __init__(self, url: str, world_id: str) -> None:
        self._url = f"{url}/risk-hub/worlds/{world_id}/snapshots"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.landed = 0

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def _post(self) -> None:
        with httpx.Client(headers=HEADERS, timeout=30) as client:
            while not self._stop.wait(0.3):
                now = datetime.now(UTC).isoformat()
                answer = client.post(self._url, content=raw_document(version=now, as_of=now))
                assert answer.status_code == 201, answer.text
                self.landed += 1


@dataclass
class Deployed:
    """Everything, and what arrived where."""

    url: str
    prometheus: str
    alertmanager: str
    box: Inbox
    producers: dict[str, Producer] = field(default_factory=dict)
    start_watching: Callable[[], object] = print

    def told(self, receiver: str) -> list[tuple[str, str, str]]:
        """What Alertmanager has told a receiver: status, alert and origin."""
        return [
            (alert["status"], alert["labels"]["alertname"], alert["labels"]["origin"])
            for _, path, body in self.box.requests
            if path == f"/{receiver}"
            for alert in body["alerts"]
        ]

    def told_directly(self) -> list[tuple[str, str]]:
        """What `riskhub alerts` has told the webhook: what, and the key."""
        return [
            (alert["what"], alert["key"])
            for _, path, body in self.box.requests
            if path == "/direct"
            for alert in body["alerts"]
        ]

    def active(self, name: str) -> dict[str, dict[str, Any]]:
        """The alerts of a name that Alertmanager has, by origin."""
        answer = httpx.get(
            f"{self.alertmanager}/api/v2/alerts", params={"filter": f'alertname="{name}"'}
        )
        return {alert["labels"]["origin"]: alert for alert in answer.json()}


def alertmanager_config(box: Inbox, directory: Path) -> Path:
    """As deployed, but for where it tells and how long it waits to."""
    config: Any = strict_yaml.load(DEPLOY / "alertmanager" / "alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", ()):
            hook["url"] = f"{box.url}/{receiver['name']}"
    return _written(directory / "alertmanager.yml", config)


def prometheus_config(port: int, alertmanager: str, directory: Path) -> Path:
    """As deployed, but for the addresses and how often it looks."""
    config: Any = strict_yaml.load(DEPLOY / "prometheus" / "prometheus.yml")
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
    address = alertmanager.removeprefix("http://")
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [address]}]}]
    config["scrape_configs"] = [
        {
            "job_name": "riskhub-api",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
    ]
    return _written(directory / "prometheus.yml", config)


def _written(file: Path, config: Any) -> Path:
    file.write_text(json.dumps(config))
    return file


@pytest.fixture
def deployed(tmp_path: Path, redis_url: str, free_port: Callable[[], int]) -> Iterator[Deployed]:
    migrate_home(tmp_path)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        box = stack.enter_context(inbox())
        try:
            alertmanager = stack.enter_context(
                service_resolution.alertmanager(lambda scratch: alertmanager_config(box, scratch))
            )
            prometheus = stack.enter_context(
                service_resolution.prometheus(
                    lambda scratch: prometheus_config(port, alertmanager, scratch)
                )
            )
        except service_resolution.NoAlerting as reason:
            if service_resolution.requires_real():
                raise
            pytest.skip(str(reason))
        ours = {"RISKHUB_STALE_AFTER_SEC": str(STALE_AFTER_SEC), "RISKHUB_REDIS_URL": redis_url}
        stack.enter_context(api_process(tmp_path, port, **ours))
        it = Deployed(url, prometheus, alertmanager, box)
        for world_id in ("equities", "bonds"):
            producer = it.producers[world_id] = Producer(url, world_id)
            stack.callback(producer.stop)
            producer.start()
        it.start_watching = lambda: stack.callback(_watch(tmp_path, ours, port, it).close)
        yield it


def _watch(home: Path, ours: dict[str, str], port: int, it: Deployed) -> Daemon:
    """`riskhub alerts`, that tells Alertmanager and a webhook."""
    alerts = {
        "interval_sec": 0.5,
        "open_after_sec": 1,
        "resolve_after_sec": 2,
        "alertmanagers": [it.alertmanager],
        "webhooks": [{"name": "direct", "url": f"{it.box.url}/direct"}],
        "watch_dagster": False,
    }
    settings = {"RISKHUB_API_PORT": str(port), "RISKHUB_ALERTS": json.dumps(alerts)}
    return Daemon("alerts", home, ours | settings)


def test_a_producer_that_stops_is_told_once_and_that_it_is_back_too(deployed: Deployed) -> None:
    deployed.start_watching()
    wait_until(lambda: all(each.landed for each in deployed.producers.values()))
    # Both watchdogs are heard: the way from here to there works, from both ends.
    dogs = {("firing", "RiskHubWatchdog", origin) for origin in ("riskhub", "prometheus")}
    wait_until(lambda: dogs <= set(deployed.told("watchdog")))
    assert deployed.active(STALE) == {}

    deployed.producers["equities"].stop()
    wait_until(lambda: ("firing", STALE, "riskhub") in deployed.told("desk"), within_sec=60)
    wait_until(lambda: deployed.active(STALE).keys() == {"riskhub", "prometheus"})
    for alert in deployed.active(STALE).values():
        assert (alert["labels"]["world_id"], alert["labels"]["stage"]) == ("equities", "paper")
    # People hear it once: what riskhub has told, Prometheus need not tell as well.
    wait_until(lambda: deployed.active(STALE)["prometheus"]["status"]["state"] == "suppressed")
    shown = httpx.get(f"{deployed.url}/risk-hub/alerts", params={"open": "true"}).json()
    assert KEY in {alert["key"] for alert in shown["alerts"]}

    deployed.producers["equities"].start()
    wait_until(lambda: ("resolved", STALE, "riskhub") in deployed.told("desk"), within_sec=60)
    wait_until(lambda: deployed.active(STALE) == {}, within_sec=60)
    of_the_world = [each for each in deployed.told_directly() if each[1] == KEY]
    assert of_the_world == [("opened", KEY), ("resolved", KEY)]


def test_when_nobody_watches_from_inside_prometheus_tells_it(deployed: Deployed) -> None:
    wait_until(lambda: ("firing", "RiskHubWatchdog", "prometheus") in deployed.told("watchdog"))
    deployed.producers["equities"].stop()
    wait_until(lambda: ("firing", STALE, "prometheus") in deployed.told("desk"), within_sec=60)
    deployed.producers["equities"].start()
    wait_until(lambda: ("resolved", STALE, "prometheus") in deployed.told("desk"), within_sec=60)
    rules = httpx.get(f"{deployed.prometheus}/api/v1/rules").json()["data"]["groups"]
    health = {rule["health"] for group in rules for rule in group["rules"]}
    assert health <= {"ok", "unknown"}  # as yet
