"""An audit finds each thing that can be wrong, by making it, and nothing where all is well."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from auditing import Break, audit, found, sql
from builders import WORLD
from tampering.landings import BREAKS, without
from typed import forget_settings
from typer.testing import CliRunner, Result

from riskhub.audit.findings import EXAMPLES, Finding, Ledger
from riskhub.blobs import BlobStore
from riskhub.cli import app
from riskhub.controlbus.replay import into_outbox, replay
from riskhub.hub import Hub, utc_now
from riskhub.settings import Settings
from riskhub.store import Store


@pytest.mark.parametrize(("do", "expected"), BREAKS.values(), ids=BREAKS)
def test_what_is_wrong_is_found(
    store: Store, blobs: BlobStore, do: Break, expected: tuple[str, str]
) -> None:
    do(store, blobs)
    ledger = audit(store, blobs)
    assert expected in found(ledger)
    assert ledger.findings[expected].examples  # type: ignore[index]


def test_where_all_is_well_nothing_is_found(store: Store, blobs: BlobStore) -> None:
    ledger = audit(store, blobs)
    assert found(ledger) == set()
    assert ledger.looked_at["landings"] == ledger.looked_at["bodies"] == 5
    assert ledger.looked_at["blobs"] == 2
    assert ledger.looked_at["events"] == 5 + 1 + 4 + 2 + 3
    assert ledger.looked_at["violations"] == 2
    assert (ledger.looked_at["exit signals"], ledger.looked_at["exit episodes"]) == (3, 2)
    assert ledger.looked_at["budgets"] == ledger.looked_at["budgets computed anew"] == 4
    assert ledger.notes == []


def test_what_left_the_quarantine_and_entered_it_again_was_there_twice(
    store: Store, blobs: BlobStore
) -> None:
    """Or without a break, where it left and entered at one instant; both times it was told."""
    [rejected] = store.rejected_on(date(2020, 1, 1), date(2021, 1, 1), limit=9)
    began = utc_now()

    def judge(seconds: int, *, accepted: bool) -> None:
        now = began + timedelta(seconds=seconds)
        row = rejected | {"accepted": accepted}
        store.write_verdicts([row], [rejected["day"]], now=now, replace=False)

    for seconds, accepted in [(1, True), (2, False), (3, True), (3, False)]:
        judge(seconds, accepted=accepted)
    assert found(audit(store, blobs)) == set()
    sql("DELETE FROM quarantine WHERE until IS NOT NULL")(store, blobs)
    ledger = audit(store, blobs)
    assert found(ledger) == {("quarantine", "missing")}
    assert ledger.findings["quarantine", "missing"].count == 1


def test_what_has_just_landed_may_still_be_on_its_way(store: Store, blobs: BlobStore) -> None:
    without("validated_snapshots")(store, blobs)
    assert found(audit(store, blobs, settle_sec=3_600.0)) == set()


def test_what_was_replayed_is_there_twice(
    store: Store, blobs: BlobStore, settings: Settings
) -> None:
    hub = Hub(store, settings, blobs=blobs)
    day = datetime(2020, 3, 16, tzinfo=UTC).date()
    assert replay(hub, WORLD, day, day, into_outbox(store)).told == 4
    assert found(audit(store, blobs)) == {("events of landings", "doubled")}
    assert found(audit(store, blobs, told_again=True)) == set()


def test_what_retention_has_removed_is_not_missed(store: Store, blobs: BlobStore) -> None:
    tomorrow = utc_now() + timedelta(days=1)
    assert store.remove_snapshots({"paper": tomorrow}, tomorrow) == 5
    ledger = audit(store, blobs, now=tomorrow)
    assert found(ledger) == set()
    assert "landings" not in ledger.looked_at


def test_one_world_alone(store: Store, blobs: BlobStore) -> None:
    without("risk_metrics")(store, blobs)
    assert found(audit(store, blobs, world_id="another")) == set()
    assert ("numbers", "missing") in found(audit(store, blobs, world_id=WORLD))


def test_only_what_was_received_since(store: Store, blobs: BlobStore) -> None:
    without("risk_metrics")(store, blobs)
    sql("UPDATE snapshots SET received_at = received_at - 7200000000")(store, blobs)  # two hours
    ledger = audit(store, blobs, since=utc_now() - timedelta(hours=1))
    assert "landings" not in ledger.looked_at
    assert ("numbers", "missing") not in found(ledger)


def test_a_sample_of_bodies(store: Store, blobs: BlobStore) -> None:
    ledger = audit(store, blobs, sample=5)
    assert (ledger.looked_at["landings"], ledger.looked_at["bodies"]) == (5, 1)


def test_without_a_blob_store_references_lead_nowhere(store: Store) -> None:
    assert found(audit(store, None)) == {("blobs", "missing")}


def test_of_many_findings_few_are_shown() -> None:
    ledger = Ledger()
    ledger.add(Finding("bodies", "altered", str(number)) for number in range(100))
    counted = ledger.findings["bodies", "altered"]
    assert (counted.count, len(counted.examples)) == (100, EXAMPLES)


# -- as a person types it --------------------------------------------------------------------------

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Run:
    forget_settings(monkeypatch)
    monkeypatch.chdir(settings.home)
    config = {
        "home": str(settings.home),
        "inline_cov_threshold": 1,
        "blobs": {"kind": "file", "directory": str(settings.blobs.directory)},
    }
    (settings.home / "riskhub.yml").write_text(json.dumps({"risk_hub": config}))
    return lambda *words: CliRunner().invoke(app, ["audit", "--settle", "0", *words])


def test_all_is_there_exits_0(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout.startswith("all is there: looked at 5 landings, 5 bodies")


def test_findings_exit_1_and_are_shown_with_examples(
    run: Run, store: Store, blobs: BlobStore
) -> None:
    without("risk_metrics")(store, blobs)
    result = run()
    assert result.exit_code == 1
    assert "numbers" in result.stdout
    assert f"{WORLD}/plain" in result.stdout
    report = json.loads(run("--json").stdout)
    assert report["clean"] is False
    [numbers] = [each for each in report["findings"] if each["what"] == "numbers"]
    assert numbers == {
        "what": "numbers", "fault": "missing", "count": 1, "examples": [f"{WORLD}/plain"],
    }  # fmt: skip


def test_what_cannot_be_looked_at_exits_2(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_HOME", str(settings.home / "elsewhere"))
    result = run()
    assert result.exit_code == 2
    assert "riskhub migrate" in result.stderr


def test_what_was_acknowledged_must_be_there(run: Run, store: Store, tmp_path: Path) -> None:
    ((_, digest),) = store.positions_of([(WORLD, "plain")]).values()
    told = {"world": WORLD, "version": "plain", "hash": digest}
    file = tmp_path / "acknowledged"
    file.write_text(json.dumps(told) + "\n")
    assert run("--acknowledged", str(file)).exit_code == 0

    lines = [told | {"version": "lost"}, told | {"hash": "sha256:other"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    result = run("--json", "--acknowledged", str(file))
    assert result.exit_code == 1
    assert {(each["what"], each["fault"]) for each in json.loads(result.stdout)["findings"]} == {
        ("acknowledged snapshots", "missing"),
        ("acknowledged snapshots", "altered"),
    }

    file.write_text("{}\n")
    assert run("--acknowledged", str(file)).exit_code == 2
