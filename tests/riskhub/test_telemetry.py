"""What Prometheus reads: names, sums, and labels that don't grow."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from builders import NOW
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from riskhub.freshness import Newest, Policy, WorldFreshness, assess
from riskhub.telemetry import OTHER, Telemetry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(telemetry: Telemetry, worlds: list[WorldFreshness] | None = None) -> Samples:
    page = telemetry.exposition(worlds).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def sample(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def aged(*ages: float) -> list[WorldFreshness]:
    return assess(
        [
            Newest(f"w{number}", "live", NOW - timedelta(seconds=age), NOW + timedelta(1))
            for number, age in enumerate(ages)
        ],
        now=NOW,
        policy_of=lambda *_: Policy(600, 1800),
    )


@pytest.mark.parametrize(
    ("verb", "name", "labels"),
    [
        (lambda it: it.landed("w", "live"), "risk_hub_snapshot_processed_total", {}),
        (
            lambda it: it.landed("w", "live"),
            "riskhub_landings_total",
            {"outcome": "created"},
        ),
        (
            lambda it: it.deduped("w", "live"),
            "risk_hub_snapshot_dedupe_total",
            {"world_id": "w", "stage": "live"},
        ),
        (
            lambda it: it.deduped("w", "live"),
            "riskhub_landings_total",
            {"outcome": "duplicate"},
        ),
        (
            lambda it: it.conflicted(),
            "riskhub_landings_total",
            {"outcome": "conflict"},
        ),
        (lambda it: it.refused(), "riskhub_landings_total", {"outcome": "refused"}),
        (lambda it: it.failed(), "risk_hub_snapshot_failed_total", {}),
        (lambda it: it.missing(), "risk_hub_snapshot_missing_total", {}),
        (
            lambda it: it.expired("w", "live"),
            "risk_hub_snapshot_expired_total",
            {"world_id": "w", "stage": "live"},
        ),
        (lambda it: it.group(3), "riskhub_group_commit_snapshots_count", {}),
        (lambda it: it.group(3), "riskhub_group_commit_snapshots_bucket", {"le": "4.0"}),
        (
            lambda it: it.cache("redis", "hit"),
            "riskhub_cache_lookups_total",
            {"level": "redis", "outcome": "hit"},
        ),
        (lambda it: it.blob_failed("altered"), "riskhub_blob_failures_total", {"kind": "altered"}),
        (lambda it: it.auth_failed("scope"), "riskhub_auth_failures_total", {"reason": "scope"}),
        (
            lambda it: it.request("/worlds/{world_id}", "GET", 200, 0.002),
            "riskhub_http_requests_total",
            {"route": "/worlds/{world_id}", "method": "GET", "status": "200"},
        ),
        (
            lambda it: it.request("/worlds/{world_id}", "GET", 200, 0.002),
            "riskhub_http_request_seconds_count",
            {"route": "/worlds/{world_id}", "method": "GET"},
        ),
    ],
)
def test_each_verb_counts_once(
    verb: Callable[[Telemetry], None], name: str, labels: dict[str, str]
) -> None:
    telemetry = Telemetry()
    verb(telemetry)
    assert sample(read(telemetry), name, **labels) == 1


def test_what_can_be_known_beforehand_begins_at_zero() -> None:
    telemetry = Telemetry()
    telemetry.landed("w", "live")
    samples = read(telemetry)
    assert sample(samples, "risk_hub_snapshot_missing_total") == 0
    assert sample(samples, "riskhub_landings_total", outcome="conflict") == 0
    assert sample(samples, "riskhub_blob_failures_total", kind="missing") == 0
    for name in ("risk_hub_snapshot_dedupe_total", "risk_hub_snapshot_expired_total"):
        assert sample(samples, name, world_id="w", stage="live") == 0


def test_worlds_beyond_the_limit_share_one_label() -> None:
    telemetry = Telemetry(max_worlds=2)
    for number in range(5_000):
        telemetry.deduped(f"w{number}", "live")
        telemetry.expired(f"w{number}", "live")
    telemetry.deduped("w0", "live")
    samples = read(telemetry)
    for name in ("risk_hub_snapshot_dedupe_total", "risk_hub_snapshot_expired_total"):
        assert len([one for one, _ in samples if one == name]) == 3
        assert sample(samples, name, world_id=OTHER, stage=OTHER) == 4_998
    dedupe = "risk_hub_snapshot_dedupe_total"
    assert sample(samples, dedupe, world_id="w0", stage="live") == 2


def test_threads_do_not_exceed_the_limit_nor_lose_a_count() -> None:
    telemetry = Telemetry(max_worlds=10)

    def count(start: int) -> None:
        for number in range(start, start + 500):
            telemetry.deduped(f"w{number}", "live")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(0, 4_000, 500)))
    counted = [
        value for (name, _), value in read(telemetry).items() if name.endswith("dedupe_total")
    ]
    assert (len(counted), sum(counted)) == (11, 4_000)


def test_a_method_that_a_client_made_up_is_no_label() -> None:
    telemetry = Telemetry()
    for number in range(100):
        telemetry.request("/metrics", f"BREW{number}", 405, 0.001)
    samples = read(telemetry)
    name = "riskhub_http_requests_total"
    assert sample(samples, name, route="/metrics", method=OTHER, status="405") == 100
    assert len([one for one, _ in samples if one == name]) == 1


def test_lags_are_those_of_the_stalest_worlds() -> None:
    samples = read(Telemetry(max_worlds=2), aged(30, 2_000, 10, 700))
    lags = {
        dict(labels)["world_id"]: value
        for (name, labels), value in samples.items()
        if name == "risk_hub_snapshot_lag_seconds"
    }
    assert lags == {"w1": 2_000, "w3": 700}
    assert sample(samples, "riskhub_lag_worlds_left_out") == 2
    assert sample(samples, "riskhub_store_up") == 1


def test_each_world_has_its_state_and_each_state_its_number_of_worlds() -> None:
    expected = {("never", "live")}
    worlds = aged(30, 2_000, 700) + assess(
        [Newest("old", "backtest", NOW - timedelta(9_999), None)],
        now=NOW,
        policy_of=lambda *_: Policy(600, 1800, exempt=True),
        expected=expected,
    )
    samples = read(Telemetry(), worlds)
    states = {
        dict(labels)["world_id"]: dict(labels)["state"]
        for (name, labels), value in samples.items()
        if name == "risk_hub_snapshot_state" and value == 1
    }
    assert states == {"w0": "fresh", "w1": "critical", "w2": "stale", "never": "missing"}
    counted = {
        dict(labels)["state"]: value
        for (name, labels), value in samples.items()
        if name == "riskhub_worlds"
    }
    once = dict.fromkeys(("fresh", "stale", "critical", "missing", "exempt"), 1)
    assert counted == once | {"expired": 0}
    # What never landed and what is exempt has a state, or none, and no age.
    assert len([name for name, _ in samples if name == "risk_hub_snapshot_lag_seconds"]) == 3


def test_beyond_the_limit_of_worlds_the_worst_are_shown() -> None:
    worlds = aged(*range(50), 700) + assess(
        [], now=NOW, policy_of=lambda *_: Policy(600, 1800), expected={("never", "live")}
    )
    samples = read(Telemetry(max_worlds=2), worlds)
    shown = [labels for name, labels in samples if name == "risk_hub_snapshot_state"]
    assert {dict(labels)["world_id"] for labels in shown} == {"w50", "never"}
    assert sample(samples, "riskhub_lag_worlds_left_out") == 50
    assert sample(samples, "riskhub_worlds", state="fresh") == 50


def test_a_snapshot_ahead_of_the_clock_has_no_lag() -> None:
    samples = read(Telemetry(), aged(-60))
    assert sample(samples, "risk_hub_snapshot_lag_seconds", world_id="w0", stage="live") == 0


def test_a_store_that_can_not_be_read_is_said_and_hides_no_counter() -> None:
    samples = read(Telemetry(), None)
    assert sample(samples, "riskhub_store_up") == 0
    assert sample(samples, "risk_hub_snapshot_missing_total") == 0
    assert not [name for name, _ in samples if "lag" in name]


def test_any_world_and_stage_can_be_a_label() -> None:
    telemetry, stage = Telemetry(), 'a "quoted" \\ stage, ünïcode'
    telemetry.deduped("w:1.a_b-c", stage)
    name = "risk_hub_snapshot_dedupe_total"
    assert sample(read(telemetry), name, world_id="w:1.a_b-c", stage=stage) == 1


def test_registries_are_independent() -> None:
    counted, other = Telemetry(registry=CollectorRegistry()), Telemetry()
    counted.missing()
    assert sample(read(counted), "risk_hub_snapshot_missing_total") == 1
    assert sample(read(other), "risk_hub_snapshot_missing_total") == 0


def test_the_file_of_a_worker_that_is_just_starting_spoils_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "counter_0.db").touch()
    (tmp_path / "counter_1.db").write_bytes(bytes(65_536))
    assert sample(read(Telemetry(), []), "riskhub_store_up") == 1
