"""An audit finds each thing that can be wrong, by making it, and nothing where all is well."""

# ruff: noqa: S608 - statements of our own text

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import ACTOR, WORLD, raw_document
from databases import migrate
from stored import outcome
from typer.testing import CliRunner, Result

from riskhub.audit.findings import EXAMPLES, Finding, Ledger
from riskhub.audit.look import Auditor, Scope
from riskhub.blobs import BlobStore, open_blobs
from riskhub.cli import app
from riskhub.controlbus.bus import OutboxBus
from riskhub.controlbus.handlers import Context, load_handlers
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.replay import into_outbox, replay
from riskhub.controlbus.worker import Hurry, Worker
from riskhub.hub import Hub, utc_now
from riskhub.settings import Settings, WorkerSettings
from riskhub.store import Store, create_engine
from riskhub.store.engine import writing

PAIR = {"BAC": 0.5, "JPM": 0.5}
CALM = {"BAC,BAC": 4e-4, "JPM,JPM": 1e-4, "BAC,JPM": 1e-4}
NOT_PSD = {"BAC,BAC": 1.0, "JPM,JPM": 1.0, "BAC,JPM": 2.0}
CYCLE = datetime(2026, 1, 31, 21, 5, tzinfo=UTC)

Break = Callable[[Store, BlobStore], None]


# -- a hub where all is well -----------------------------------------------------------------------


def settings_in(home: Path, blobs: Path, url: str | None = None) -> Settings:
    return Settings(
        home=home,
        database_url=url,
        inline_cov_threshold=1,
        blobs={"kind": "file", "directory": blobs},  # type: ignore[arg-type]
    )


def fill(settings: Settings) -> None:
    """Snapshots of each kind, judged and measured; two cycles of the governor."""
    with closing(Store(create_engine(settings.effective_database_url))) as store:
        migrate(store.engine)
        hub = Hub(store, settings, blobs=open_blobs(settings))
        documents: list[dict[str, Any]] = [
            {"version": "plain"},
            {"version": "offloaded", "covariance": CALM},
            {"version": "rejected", "covariance": NOT_PSD},
            {"version": "late", "as_of": "2020-03-13T21:00:00Z"},
            {"version": "old", "created_at": "2020-03-16T22:00:00Z"},
        ]
        for document in documents:
            raw = raw_document(**{"as_of": "2020-03-16T21:00:00Z", "weights": PAIR} | document)
            hub.land([hub.accept(raw, world_id=WORLD, actor=ACTOR, stage="paper")])
        asyncio.run(work(store, settings))
        for number, complete in enumerate([True, False]):
            add_cycle(store, number, complete=complete)


async def work(store: Store, settings: Settings) -> None:
    worker = Worker(
        OutboxBus(store, "test", clock=utc_now),
        load_handlers(Context(settings, store)),
        store,
        WorkerSettings(),
        hurry=Hurry(),
        metrics=WorkerMetrics(),
        clock=utc_now,
        monotonic=time.monotonic,
        tell=lambda *_, **__: None,
    )
    assert await worker.run(once=True)


def add_cycle(store: Store, number: int, *, complete: bool) -> None:
    at = CYCLE + timedelta(minutes=number)
    about_all = {"computed_at": at, "equity_usd": 1e5, "mode": "shadow", "formula_version": "p28/2"}
    cycle = about_all | {
        "writer": "test",
        "no_budget_reason": None,
        "symbols": 2,
        "complete": complete,
        "portfolio_policy": "fresh",
        "portfolio_age_sec": 1.0,
        "heat": 0.25,
        "heat_policy": "fresh",
        "heat_age_sec": 1.0,
    }
    budget = about_all | {
        "budget_usd": 1_500.0,
        "stress_factor": 0.25,
        "portfolio_heat": 0.25,
        "cluster_stress": 0.25,
        "vol_regime": 0.25,
        "base_risk_pct": 0.02,
        "policies": {},
        "haircut": 0.0,
        "portfolio_age_sec": 1.0,
        "share": None,
        "ages": {},
    }
    symbols = ("AMD", "NVDA") if complete else ("AMD",)
    store.add_cycle(cycle, [budget | {"symbol": symbol} for symbol in symbols])


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a hub where all is well, to be copied: its database, and its blobs."""
    home = tmp_path_factory.mktemp("well")
    fill(settings_in(home, home / "blobs"))
    shutil.copytree(home / "blobs", home / "as they were")
    return home


@pytest.fixture
def settings(well: Path, tmp_path: Path) -> Settings:
    shutil.copytree(well, tmp_path / "home")
    # References name the directory: the blobs stay where they are, and are put back.
    shutil.rmtree(well / "blobs")
    shutil.copytree(well / "as they were", well / "blobs")
    return settings_in(tmp_path / "home", well / "blobs")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with closing(Store(create_engine(settings.effective_database_url))) as opened:
        yield opened


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    opened = open_blobs(settings)
    assert opened is not None
    return opened


def audit(store: Store, blobs: BlobStore | None, **scope: Any) -> Ledger:
    scope = {"now": utc_now(), "settle_sec": 0.0} | scope
    auditor = Auditor(store, blobs, Scope(**scope), lambda *_: None)
    auditor.run()
    return auditor.ledger


def found(ledger: Ledger) -> set[tuple[str, str]]:
    return set(ledger.findings)


# -- what is wrong with it -------------------------------------------------------------------------


def sql(*statements: str) -> Break:
    def do(store: Store, _: BlobStore) -> None:
        with writing(store.engine) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    return do


def at(version: str) -> str:
    return f"(SELECT position FROM snapshots WHERE version = '{version}')"


def without(table: str, version: str = "plain") -> Break:
    return sql(f"DELETE FROM {table} WHERE position = {at(version)}")


def damage_a_blob(_: Store, blobs: BlobStore) -> None:
    [ref, *_] = blobs.refs()
    Path(ref.removeprefix("file://")).write_bytes(b"{}")


def lose_a_blob(_: Store, blobs: BlobStore) -> None:
    for ref in blobs.refs():
        blobs.delete(ref)


def outcome_of_nothing(store: Store, _: BlobStore) -> None:
    store.write_days(
        {"var_outcomes": [outcome(10**6, CYCLE.date(), 0.1)]}, [CYCLE.date()], replace=False
    )


ANOTHER = "'sha256:" + "0" * 64 + "'"
COPIED = "type, key, position, event_id, subject, occurred_at, correlation_id, data"
OF_NUMBERS = "type = 'risk_metrics_updated'"
BREAKS: dict[str, tuple[Break, tuple[str, str]]] = {
    "a landing's event is lost": (
        sql(f"DELETE FROM events WHERE event_id IS NULL AND position = {at('plain')}"),
        ("events of landings", "missing"),
    ),
    "a landing's event is doubled": (
        sql(
            f"INSERT INTO events ({COPIED}) SELECT {COPIED} FROM events"
            f" WHERE event_id IS NULL AND position = {at('plain')}"
        ),
        ("events of landings", "doubled"),
    ),
    "an event of numbers is lost": (
        sql(f"DELETE FROM events WHERE {OF_NUMBERS} AND position = {at('plain')}"),
        ("events of numbers", "missing"),
    ),
    "an event of numbers is doubled": (
        sql(f"INSERT INTO events ({COPIED}) SELECT {COPIED} FROM events WHERE {OF_NUMBERS}"),
        ("events", "doubled"),
    ),
    "an event is altered": (
        sql(f"UPDATE events SET data = replace(data, '\"n\":', '\"n\":1') WHERE {OF_NUMBERS}"),
        ("events", "altered"),
    ),
    "an event is cut": (
        sql(f"UPDATE events SET data = substr(data, 1, 40) WHERE {OF_NUMBERS}"),
        ("events", "altered"),
    ),
    "an event has another's id": (
        sql(f"UPDATE events SET event_id = '{'0' * 8}-0000-5000-8000-{'0' * 12}'"
            f" WHERE {OF_NUMBERS} AND position = {at('plain')}"),
        ("events", "altered"),
    ),
    "the quarantine's event is lost": (
        sql("DELETE FROM events WHERE type = 'snapshot_quarantined'"),
        ("events of the quarantine", "missing"),
    ),
    "a body is altered": (
        sql("UPDATE snapshots SET body = replace(body, '0.5', '0.4') WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a body of references is altered": (
        sql("UPDATE snapshots SET body = replace(body, '0.5', '0.4') WHERE version = 'offloaded'"),
        ("bodies", "altered"),
    ),
    "a body is cut": (
        sql("UPDATE snapshots SET body = substr(body, 1, 40) WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a row's digest is altered": (
        sql(f"UPDATE snapshots SET digest = {ANOTHER} WHERE version = 'plain'"),
        ("bodies", "altered"),
    ),
    "a blob is lost": (lose_a_blob, ("blobs", "missing")),
    "a blob is altered": (damage_a_blob, ("blobs", "altered")),
    "a reference is not noted": (without("snapshot_blobs", "offloaded"), ("references", "missing")),
    "a reference too many is noted": (
        sql(f"INSERT INTO snapshot_blobs (ref, position) VALUES ('file:///x', {at('plain')})"),
        ("references", "extra"),
    ),
    "a verdict is lost": (without("validated_snapshots"), ("verdicts", "missing")),
    "a verdict is of something else": (
        sql(f"UPDATE validated_snapshots SET digest = {ANOTHER} WHERE version = 'plain'"),
        ("verdicts", "altered"),
    ),
    "the quarantine is forgotten": (sql("DELETE FROM quarantine"), ("quarantine", "missing")),
    "what is accepted is in the quarantine": (
        sql(f"UPDATE quarantine SET position = {at('plain')}"),
        ("quarantine", "extra"),
    ),
    "weights are lost": (without("snapshot_weights"), ("weights", "missing")),
    "weights are altered": (
        sql("UPDATE snapshot_weights SET weight = 0.4 WHERE symbol = 'BAC'"),
        ("weights", "altered"),
    ),
    "numbers are lost": (without("risk_metrics"), ("numbers", "missing")),
    "numbers are of something else": (
        sql(f"UPDATE risk_metrics SET snapshot_digest = {ANOTHER}"),
        ("numbers", "altered"),
    ),
    "a number is altered": (
        sql(f"UPDATE risk_tails SET var = 0.5 WHERE position = {at('plain')}"),
        ("numbers", "altered"),
    ),
    "tails are lost": (without("risk_tails"), ("tails", "missing")),
    "contributions are lost": (without("risk_contributions"), ("contributions", "missing")),
    "stress is lost": (without("snapshot_stress"), ("stress", "missing")),
    "a stress result is lost": (
        sql(
            "DELETE FROM stress_results WHERE scenario ="
            " (SELECT min(scenario) FROM stress_results WHERE origin = 'riskhub')"
        ),
        ("stress results", "missing"),
    ),
    "what is rejected has weights": (
        sql(f"UPDATE snapshot_weights SET position = {at('rejected')}"
            f" WHERE position = {at('plain')}"),
        ("weights", "extra"),
    ),
    "rows of a landing that is gone": (outcome_of_nothing, ("var_outcomes", "extra")),
    "a landing is gone, and its rows are not": (
        sql("DELETE FROM snapshots WHERE version = 'plain'"),
        ("risk_metrics", "extra"),
    ),
    "a world is not known": (sql("DELETE FROM world_stages"), ("worlds", "missing")),
    "a world is said to be older than it is": (
        sql("UPDATE world_stages SET newest_as_of = NULL"),
        ("worlds", "altered"),
    ),
    "a world is said to be dead": (
        sql("UPDATE world_stages SET alive_until = NULL"),
        ("worlds", "altered"),
    ),
    "a budget is lost": (
        sql("DELETE FROM symbol_budgets WHERE symbol = 'NVDA'"),
        ("budgets", "missing"),
    ),
    "a budget is of another equity": (
        sql("UPDATE symbol_budgets SET equity_usd = 1.0 WHERE symbol = 'NVDA'"),
        ("budgets", "altered"),
    ),
    "a budget too many": (
        sql("UPDATE budget_cycles SET symbols = 1"),
        ("budgets", "extra"),
    ),
    "a cycle is lost": (
        sql("DELETE FROM budget_cycles WHERE complete"),
        ("budgets", "extra"),
    ),
    "a cycle has budgets and a reason for none": (
        sql("UPDATE budget_cycles SET no_budget_reason = 'no_positions'"),
        ("cycles", "altered"),
    ),
}  # fmt: skip


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
    assert ledger.looked_at["events"] == 5 + 1 + 4
    assert ledger.looked_at["budgets"] == 3


def test_on_postgres_too(tmp_path: Path, postgres_url: str) -> None:
    settings = settings_in(tmp_path, tmp_path / "blobs", postgres_url)
    fill(settings)
    blobs = open_blobs(settings)
    assert blobs is not None
    with closing(Store(create_engine(postgres_url))) as store:
        assert found(audit(store, blobs)) == set()
        together = [
            "a landing's event is doubled", "an event of numbers is doubled", "a body is altered",
            "a blob is lost", "a verdict is of something else", "tails are lost",
            "a stress result is lost", "rows of a landing that is gone", "a budget is lost",
            "a cycle has budgets and a reason for none", "a world is said to be dead",
        ]  # fmt: skip
        for name in together:
            BREAKS[name][0](store, blobs)
        assert {BREAKS[name][1] for name in together} <= found(audit(store, blobs))


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
    two_hours = 7_200 * 10**6
    sql(f"UPDATE snapshots SET received_at = received_at - {two_hours}")(store, blobs)
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
    for name in list(os.environ):
        if name.startswith("RISKHUB_"):
            monkeypatch.delenv(name)
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
