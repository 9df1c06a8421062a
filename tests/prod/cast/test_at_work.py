"""Production as a producer sees it, up to all that follows; and restarted under load."""

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from builders import wait_until
from on_topic import all_on
from producing import producers
from production import SYMBOLS, TOKEN, Production, budget_age_sec

from riskhub import bootstrap
from riskhub.client import RiskHubClient
from riskhub.controlbus.events import EXIT_SIGNAL, METRICS_UPDATED, SNAPSHOT_UPDATED
from riskhub.settings import Settings

pytestmark = pytest.mark.timeout(600)

WORLD = "desk"
NAMES = tuple(f"N{number:02}" for number in range(24))
SOME = 30
"""So many snapshots are acknowledged before, and after, each restart."""


def covariance() -> dict[str, float]:
    return {
        f"{one},{other}": 4e-4 if one == other else 1e-4
        for one, other in itertools.product(NAMES, NAMES)
        if one <= other
    }


def get(settings: Settings, path: str, **params: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{settings.api_url}{path}"
    return httpx.get(url, headers=headers, params=params, timeout=30)


@pytest.fixture(scope="module")
def posted(prod: Production) -> dict[str, Any]:
    """A snapshot of each kind, posted; the newest of its world has most of it in one position."""
    now = datetime.now(UTC)
    with RiskHubClient.from_settings(prod.settings, actor="optimizer", stage="paper") as client:

        def publish(version: str, **fields: Any) -> Any:
            made = {
                "as_of": now.isoformat(),
                "version": version,
                "weights": {"BAC": 0.5, "JPM": 0.5},
            }
            published = client.publish(made | fields, world_id=WORLD)
            assert published.status == "created"
            return published.body

        bodies = {
            "offloaded": publish(
                "offloaded",
                weights=dict.fromkeys(NAMES, 1 / len(NAMES)),
                covariance=covariance(),
                as_of=(now - timedelta(seconds=3)).isoformat(),
            ),
            "large": publish(
                "large",
                realized_returns={"portfolio": [0.001 * (n % 9 - 4) for n in range(50_000)]},
                as_of=(now - timedelta(seconds=2)).isoformat(),
            ),
            "delayed": publish("delayed", as_of=(now - timedelta(days=2)).isoformat()),
            "newest": publish("newest", weights={"BAC": 0.75, "JPM": 0.25}),
            "expired": publish(
                "expired",
                weights={"BAC": 0.75, "JPM": 0.25},
                ttl_sec=1,
                as_of=(now + timedelta(seconds=1)).isoformat(),
            ),
        }
    prod.wait_for(lambda: _measured(prod) >= bodies.keys(), within_sec=90)
    return bodies


def _measured(prod: Production) -> set[str]:
    answer = get(prod.settings, f"/risk-hub/worlds/{WORLD}/risk", limit="50")
    return {row["version"] for row in answer.json()["risk"]} if answer.is_success else set()


def test_large_fields_lie_in_s3_and_come_back(prod: Production, posted: dict[str, Any]) -> None:
    for version, field in (("offloaded", "covariance"), ("large", "realized_returns")):
        ref = posted[version][f"{field}_ref"]
        assert ref.startswith(f"s3://{prod.settings.blobs.s3_bucket}/")
        whole = get(
            prod.settings,
            f"/risk-hub/worlds/{WORLD}/snapshots/lookup",
            version=version,
            expand="true",
        ).json()
        assert field in whole
    assert whole["realized_returns"]["portfolio"][:2] == [-0.004, -0.003]


def test_the_latest_is_neither_what_expired_nor_what_came_late(
    prod: Production, posted: dict[str, Any]
) -> None:
    latest = f"/risk-hub/worlds/{WORLD}/snapshots/latest"
    prod.wait_for(lambda: get(prod.settings, latest).json()["version"] == "newest")
    lookup = f"/risk-hub/worlds/{WORLD}/snapshots/lookup"
    assert get(prod.settings, lookup, version="expired").status_code == 404
    found = get(prod.settings, lookup, version="expired", include_expired="true")
    assert found.json() == posted["expired"]


def test_every_landing_and_its_numbers_are_events_on_the_topic(
    prod: Production, posted: dict[str, Any]
) -> None:
    wanted = {
        (kind, f"{WORLD}/{version}")
        for kind in (SNAPSHOT_UPDATED, METRICS_UPDATED)
        for version in posted
    }

    def told() -> set[tuple[str, str]]:
        brokers = prod.settings.controlbus_brokers or ""
        records = all_on(brokers, prod.settings.controlbus_topic)
        return {(record.event.type, record.event.subject) for record in records}

    prod.wait_for(lambda: wanted <= told(), within_sec=60)


def test_the_numbers_are_those_of_the_offloaded_covariance(
    prod: Production, posted: dict[str, Any]
) -> None:
    path = f"/risk-hub/worlds/{WORLD}/risk"
    row = get(prod.settings, path, version="offloaded", method="normal", level="0.99").json()
    [tail] = row["tails"]
    # 1/24 each, sigma 2 %, correlation 1/4: the quantile of a normal times the deviation.
    sigma = ((24 * 4e-4 + 24 * 23 * 1e-4) / 24**2) ** 0.5
    assert tail["var"] == pytest.approx(2.3263478740 * sigma)


def test_symbols_have_budgets(prod: Production, posted: dict[str, Any]) -> None:
    with bootstrap.redis_client(prod.settings) as client:
        prod.wait_for(lambda: budget_age_sec(client, time.time()) < 15)
    budget = get(prod.settings, f"/budget/{SYMBOLS[0]}").json()
    assert budget["budget_usd"] > 0


def test_what_is_too_concentrated_is_an_exit_signal(
    prod: Production, posted: dict[str, Any]
) -> None:
    def signals() -> list[dict[str, Any]]:
        answer = get(prod.settings, "/risk-hub/exit-signals", world=WORLD)
        return list(answer.json()["exit_signals"])

    prod.wait_for(lambda: any(each["rule"] == "largest-position" for each in signals()))
    with prod.store() as store:
        events = store.events_after(0, limit=1_000, types=[EXIT_SIGNAL])
    assert any(event.key == WORLD for event in events)


def test_a_person_sees_it_on_a_page(prod: Production, posted: dict[str, Any]) -> None:
    page = get(prod.settings, f"/worlds/{WORLD}")
    assert page.status_code == 200
    assert "largest-position" in page.text or "One position is most" in page.text
    assert WORLD in get(prod.settings, "/").text
    unknown = httpx.get(f"{prod.settings.api_url}/worlds/{WORLD}", follow_redirects=False)
    assert unknown.status_code == 303  # to the login


def test_and_all_of_it_is_there(prod: Production, posted: dict[str, Any]) -> None:
    _settle(prod)
    audited = prod.riskhub("audit", "--settle", "0", "--topic", "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    looked_at = json.loads(audited.stdout)["looked_at"]
    assert looked_at["landings"] == 5
    assert looked_at["blobs"] == 2
    assert looked_at["events on the topic"] >= 10


# -- restarts --------------------------------------------------------------------------------------


class Budgets:
    """How old the oldest budget became, while one looks; and while which process was restarted."""

    def __init__(self, settings: Settings) -> None:
        self.oldest_sec: dict[str, float] = {}
        self.meanwhile = ""
        self._settings = settings
        self._over = Event()

    @contextmanager
    def watched(self) -> Iterator["Budgets"]:
        """Look every 0.2 s, from when there are fresh ones."""
        with bootstrap.redis_client(self._settings) as client:
            wait_until(lambda: budget_age_sec(client, time.time()) < 2)
        thread = Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        with bootstrap.redis_client(self._settings) as client:
            while not self._over.wait(0.2):
                of, age_sec = self.meanwhile, budget_age_sec(client, time.time())
                self.oldest_sec[of] = max(self.oldest_sec.get(of, 0.0), age_sec)


def test_each_process_is_restarted_under_load_and_nothing_is_lost(
    prod: Production, posted: dict[str, Any], tmp_path: Path
) -> None:
    acknowledged = tmp_path / "acknowledged"
    with producers(prod.settings, acknowledged, seed=8, pause_sec=0.25) as load:
        load.wait_for(SOME)
        with Budgets(prod.settings).watched() as budgets:
            for name in [name for name in prod.children if name != "api"]:
                budgets.meanwhile = name
                prod.restart(name)
                load.wait_for(SOME // 3)
        oldest = {name: round(age_sec, 1) for name, age_sec in budgets.oldest_sec.items()}
        print(f"oldest budget, in seconds: {oldest}")
        assert max(oldest.values()) < 15  # whoever reads them, whenever, and one is due each 10 s
        assert not load.failed  # the API was there all the while

        # One worker after the other, each when its successor serves.
        before = set(prod.workers_of("api"))
        assert len(before) == 2
        os.kill(prod.pid("api"), signal.SIGHUP)
        prod.wait_for(lambda: _renewed(prod, before))
        load.wait_for(SOME)
        refused = load.failed.pop("ConnectError", 0)
        assert refused == 0  # somebody took connections all the while

        # And the whole of it: for seconds nobody answers, and the client waits.
        prod.restart("api")
        load.wait_for(SOME)
    load.check()
    _settle(prod)
    audited = prod.riskhub(
        "audit", "--settle", "0", "--topic", "--json", "--acknowledged", str(acknowledged)
    )
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert json.loads(audited.stdout)["looked_at"]["acknowledged snapshots"] == load.acknowledged


def _renewed(prod: Production, before: set[int]) -> bool:
    now = set(prod.workers_of("api"))
    return len(now) == 2 and not now & before


def _settle(prod: Production) -> None:
    """Return when all that landed is judged, measured and told."""
    with prod.store() as store:
        prod.wait_for(lambda: prod.is_settled(store), within_sec=180)
