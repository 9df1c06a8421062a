"""A hub where all is well, to be tampered with, and what an audit finds of that."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import ACTOR, WORLD, raw_document
from databases import migrate
from exiting import STAGE, load, rule, seen, write_rules

from riskhub.audit.findings import FINDINGS, Ledger
from riskhub.audit.look import Auditor, Scope
from riskhub.blobs import BlobStore, open_blobs
from riskhub.controlbus.bus import OutboxBus
from riskhub.controlbus.handlers import Context, load_handlers
from riskhub.controlbus.metrics import WorkerMetrics
from riskhub.controlbus.worker import Hurry, Worker
from riskhub.exits.engine import State, decide
from riskhub.exits.live import event_of
from riskhub.exits.records import episode_row, signal_row, state_row
from riskhub.governor import (
    GovernorInputs,
    GovernorSettings,
    Input,
    PortfolioState,
    compute_budgets,
)
from riskhub.governor.gate import Violation
from riskhub.governor.history import receipt
from riskhub.hub import Hub, utc_now
from riskhub.settings import Settings, WorkerSettings
from riskhub.store import Store, create_engine
from riskhub.store.audit import TABLES
from riskhub.store.engine import writing
from riskhub.store.exits import EngineStep

PAIR = {"BAC": 0.5, "JPM": 0.5}
CALM = {"BAC,BAC": 4e-4, "JPM,JPM": 1e-4, "BAC,JPM": 1e-4}
NOT_PSD = {"BAC,BAC": 1.0, "JPM,JPM": 1.0, "BAC,JPM": 2.0}
CYCLE = datetime(2026, 1, 31, 21, 5, tzinfo=UTC)
INPUTS = GovernorInputs(
    portfolio=Input(PortfolioState(100_000.0, 0.1, CYCLE.timestamp()), "fresh", 1.0),
    symbols=("AMD", "NVDA", "SPY"),
    heat=Input(0.25, "fresh", 1.0),
    clusters={"default": Input(0.3, "fresh")},
    regimes={
        "AMD": Input(0.33, "fresh"),
        "NVDA": Input(0.67, "held"),
        "SPY": Input(1.0, "malformed"),
    },
)

Break = Callable[[Store, BlobStore], None]


def settings_in(home: Path, blobs: Path, url: str | None = None) -> Settings:
    return Settings(
        home=home,
        database_url=url,
        inline_cov_threshold=1,
        blobs={"kind": "file", "directory": blobs},  # type: ignore[arg-type]
    )


def fill(settings: Settings) -> None:
    """Snapshots of each kind, judged and measured; cycles, violations and exit signals."""
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
        add_cycle(store, 0)
        add_cycle(store, 1, only="AMD")
        store.add_violations([violation(0, "AMD").row(), violation(1, "NVDA").row()])
        decide_exits(store, settings.home / "rules.yaml")


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


def add_cycle(
    store: Store,
    number: int,
    *,
    only: str | None = None,
    writer: str = "test",
    settings: GovernorSettings | None = None,
    **inputs: Any,
) -> None:
    """A cycle of the governor, as it keeps it: whole, or of one symbol."""
    now = (CYCLE + timedelta(minutes=number)).timestamp()
    governed = settings or GovernorSettings()
    cycle = compute_budgets(replace(INPUTS, **inputs), governed, now)
    symbols = [each for each in cycle.budgets if each.symbol == only] if only else None
    store.add_cycle(*receipt(cycle, writer=writer, mode=governed.mode, now=now, symbols=symbols))


def violation(number: int, symbol: str) -> Violation:
    at = (CYCLE + timedelta(seconds=number)).timestamp()
    return Violation(symbol, -2_000.0, 1_500.0, 500.0, "shadow", at)


def decide_exits(store: Store, rules: Path) -> None:
    """An episode that is over, and one that is open."""
    book = load(write_rules(rules, rule()))
    states: dict[str, State] = {}
    for number, es in enumerate([0.1, 0.01, 0.1]):
        found = seen(number, es)
        decided = decide(book, found, states, CYCLE + timedelta(days=number))
        states |= decided.states
        key = (found.world_id, STAGE)
        step = EngineStep(
            states=[state_row(name, key, state) for name, state in decided.states.items()],
            episodes=[episode_row(episode) for episode in decided.episodes],
            signals=[signal_row(signal) for signal in decided.signals],
            events=[event_of(signal) for signal in decided.signals],
            cursor=0,
        )
        store.write_exit_step(
            step, turn=number, writer="test", rules_digest=book.digest, now=utc_now()
        )


def audit(store: Store, blobs: BlobStore | None, **scope: Any) -> Ledger:
    scope = {"now": utc_now(), "settle_sec": 0.0} | scope
    auditor = Auditor(store, blobs, Scope(**scope), lambda *_: None)
    auditor.run()
    return auditor.ledger


def found(ledger: Ledger) -> set[tuple[str, str]]:
    """What was found; each of it is a finding that there is."""
    for what, fault in ledger.findings:
        assert fault in FINDINGS.get(what, ()) or (fault == "extra" and what in TABLES)
    return set(ledger.findings)


def sql(*statements: str) -> Break:
    def do(store: Store, _: BlobStore | None = None) -> None:
        with writing(store.engine) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    return do


def at(version: str) -> str:
    return f"(SELECT position FROM snapshots WHERE version = '{version}')"  # noqa: S608 - our own
