"""What a worker makes of landings is what the assets make of them, row for row."""

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from riskhub.controlbus.bus import OutboxBus
from riskhub.controlbus.events import METRICS_UPDATED, SNAPSHOT_QUARANTINED, Event, parse
from riskhub.controlbus.handlers import Context, HandlersInvalid, Outage, load_handlers
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.worker import Hurry, Worker
from riskhub.hub import utc_now
from riskhub.settings import Settings, WorkerSettings, load_settings
from riskhub.store import Store
from riskhub.store.tables import handled_events, snapshots

DAY, NEXT = date(2020, 3, 16), date(2020, 3, 17)
PAIR = {"BAC": 0.5, "JPM": 0.5}
NOT_PSD = {"BAC,BAC": 1.0, "JPM,JPM": 1.0, "BAC,JPM": 2.0}
Tables = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


class Works:
    """A worker on the outbox that handles what there is, and ends."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.metrics = WorkerMetrics()
        self.context = Context(
            settings,
            store,
            tell=lambda event, **fields: self.told.append((event, fields)),
            passed_over=self.metrics.passed_over,
        )
        self.handlers = load_handlers(self.context)

    def __call__(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        hurry = Hurry()
        worker = Worker(
            OutboxBus(self.store, "test", clock=utc_now),
            self.handlers,
            self.store,
            WorkerSettings(backoff_sec=0.0),
            hurry=hurry,
            metrics=self.metrics,
            clock=utc_now,
            monotonic=time.monotonic,
            tell=lambda event, **fields: self.told.append((event, fields)),
        )
        assert await worker.run(once=True)

    def count(self, reason: str) -> float:
        name = "riskhub_worker_passed_over_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest.fixture
def work(store: Store, settings: Settings) -> Works:
    return Works(store, settings)


def land_of_all_kinds(land: Any) -> None:
    """Snapshots with every source of numbers, and some that are rejected or have none."""
    land(DAY, weights=PAIR)
    land(NEXT, weights={"AAPL": 1.5, "XOM": -0.5}, world_id="hedge")
    land(DAY, weights=PAIR, covariance=NOT_PSD)  # is rejected
    land(
        DAY,
        weights=PAIR,
        covariance={"BAC,BAC": 4e-4, "JPM,JPM": 1e-4, "BAC,JPM": 1e-4},
        stress={"rates": {"pnl": -0.1}},
    )
    land(DAY, weights={"NEW": 1.0}, world_id="unknown")
    land(
        NEXT,
        weights=PAIR,
        realized_returns={"portfolio": [0.001 * (n % 7 - 3) for n in range(300)]},
        constraints={"candidate_id": "AAPL", "candidate_weight": 0.1},
    )


def events_of(store: Store) -> Counter[str]:
    return Counter(event.type for event in store.events_after(0, limit=1_000))


def test_a_worker_writes_what_the_assets_write(
    land, compute, tables: Tables, empty_derived, store: Store, work: Works
) -> None:
    land_of_all_kinds(land)
    assert compute(DAY, NEXT).success
    by_assets = tables()
    held = store.quarantined(limit=10).rows
    empty_derived()

    work()

    assert tables() == by_assets
    assert all(by_assets.values())
    assert [row["position"] for row in store.quarantined(limit=10).rows] == [
        row["position"] for row in held
    ]
    assert store.pending_days().days == ()
    assert store.count_dead_letters() == 0
    told = events_of(store)
    assert (told[METRICS_UPDATED], told[SNAPSHOT_QUARANTINED]) == (5, 1)


def test_what_a_worker_has_done_is_left_alone_by_dagster_and_by_another_worker(
    land, compute, tables: Tables, store: Store, settings: Settings, work: Works
) -> None:
    land_of_all_kinds(land)
    work()
    by_worker, told = tables(), events_of(store)

    assert compute(DAY, NEXT, only_new=True).success
    with store.engine.begin() as connection:
        connection.execute(sa.delete(handled_events))
        connection.execute(sa.text("DELETE FROM event_cursors"))
    again = Works(store, settings)
    again()

    assert tables() == by_worker
    assert events_of(store) == told
    assert again.metrics.registry.get_sample_value("risk_hub_snapshot_failed_total") == 0


def test_an_event_that_comes_again_does_nothing(
    land, tables: Tables, store: Store, work: Works
) -> None:
    land(DAY, weights=PAIR)
    work()
    before = tables()
    store.repeat_events([1])

    work()

    assert tables() == before
    assert work.count("duplicate") == 3  # for each of its handlers


def test_events_of_snapshots_that_are_gone_or_of_another_hub_are_done(
    land, store: Store, tables: Tables, work: Works
) -> None:
    land(DAY, weights=PAIR)
    (mine,) = events(store)
    foreign = json.loads(mine.raw)
    foreign["data"]["hash"] = "sha256:of-another-hub"
    gone = json.loads(mine.raw)
    gone["data"]["version"] = "removed"

    for handler in work.handlers:
        handler.handle([parse(json.dumps(each).encode()) for each in (foreign, gone)])

    assert not any(tables().values())
    assert work.count("snapshot is not here") == 2


def events(store: Store) -> Sequence[Event]:
    return [parse(event.cloud_event()) for event in store.events_after(0, limit=100)]


def test_without_prices_snapshots_are_judged_and_numbers_wait(
    land, store: Store, tables: Tables, settings: Settings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = tmp_path / "prices.csv.gz"
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(there))
    land(DAY, weights=PAIR)
    work = Works(store, load_settings())

    with pytest.raises(Outage):
        work()

    assert len(tables()["validated_snapshots"]) == len(tables()["snapshot_weights"]) // 2 == 1
    assert tables()["risk_metrics"] == []
    assert [event for event, _ in work.told].count("prices can't be read") == 1

    shutil.copy(Settings.model_fields["prices_path"].default, there)
    Works(store, load_settings())()
    assert len(tables()["risk_metrics"]) == len(tables()["snapshot_stress"]) == 1


def test_prices_that_change_are_read_again_and_those_that_fail_are_kept(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.csv"
    monkeypatch.setenv("RISKHUB_PRICES_PATH", str(path))
    path.write_text("Date,AAA\n2020-01-02,1.0\n2020-01-03,2.0\n")
    now = 0.0
    context = Context(load_settings(), store, monotonic=lambda: now)
    first = context.sources()

    path.write_text("Date,AAA\n2020-01-02,1.0\n2020-01-03,2.0\n2020-01-06,3.0\n")
    assert context.sources() is first  # a look a second
    now = 1.0
    second = context.sources()
    path.write_text("nonsense")
    now = 2.0

    assert second.panel.digest != first.panel.digest
    assert context.sources() is second


def test_numbers_are_not_run_without_validation(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISKHUB_WORKER__HANDLERS", '["numbers"]')
    with pytest.raises(HandlersInvalid, match="handler numbers needs validation"):
        load_handlers(Context(load_settings(), store))

    monkeypatch.setenv("RISKHUB_WORKER__HANDLERS", '["mine"]')
    with pytest.raises(HandlersInvalid, match="no handler mine; installed are numbers, stress"):
        load_handlers(Context(load_settings(), store))


def test_events_that_are_poison_leave_the_others_their_rows(
    land, store: Store, tables: Tables, work: Works
) -> None:
    positions = [land(DAY, weights=PAIR, world_id=f"w{n % 3}") for n in range(9)]
    with store.engine.begin() as connection:  # as no producer can make them
        body = sa.select(snapshots.c.body).where(snapshots.c.position == positions[5])
        document = json.loads(connection.execute(body).scalar_one())
        document["weights"] = {"BAC": "half"}
        broken = {positions[4]: '{"hash": "sha256:0"', positions[5]: json.dumps(document)}
        for position, text in broken.items():
            where = snapshots.c.position == position
            connection.execute(sa.update(snapshots).where(where).values(body=text))

    work()

    assert len(tables()["risk_metrics"]) == len(tables()["snapshot_stress"]) == 7
    letters = {letter["key"]: letter for letter in store.dead_letters(limit=10)}
    assert letters["w1"]["handler"] == ""  # no event at all
    assert letters["w2"]["handler"] == "validation"  # and the handlers after it never got it
    assert "could not convert string to float: 'half'" in letters["w2"]["reason"]
    assert len(letters) == 2
