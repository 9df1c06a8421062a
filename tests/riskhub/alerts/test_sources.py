"""Where facts come from: a real store and Redis, an API and a Dagster that are there or away."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from alerting import condition
from builders import NOW, WORLD, Clock, accept
from dagster_stand_in import DagsterStandIn, dagster_stand_in
from databases import migrate
from exiting import write_verdict
from inbox import inbox

from riskhub.alerts.facts import Counted
from riskhub.alerts.reconcile import Alert, State
from riskhub.alerts.records import alert_row
from riskhub.alerts.sources import Sources
from riskhub.governor import published
from riskhub.settings import Settings
from riskhub.standing import DagsterFigures, exposition
from riskhub.store import Store, create_engine

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(create_engine(url))
    migrate(opened.engine)
    yield opened
    opened.close()


class Asked:
    """Sources on a store; the test has the clock."""

    def __init__(self, store: Store, home: Path, redis_url: str, **alerts: Any) -> None:
        given = {"api_url": NOBODY, "watch_dagster": False, "timeout_sec": 2} | alerts
        self.settings = Settings(home=home, alerts=given)  # type: ignore[arg-type]
        self.clock = Clock()
        self.http = httpx.Client(timeout=2)
        self.redis = published.client_of(redis_url)
        self.sources = Sources(
            self.settings,
            store,
            self.redis,
            self.http,
            clock=self.clock,
            monotonic=lambda: self.clock().timestamp(),
        )

    def close(self) -> None:
        self.http.close()
        self.redis.close()


@pytest.fixture
def ask(store: Store, tmp_path: Path, redis_url: str) -> Iterator[Any]:
    asked: list[Asked] = []

    def made(**alerts: Any) -> Asked:
        asked.append(Asked(store, tmp_path, alerts.pop("redis_url", redis_url), **alerts))
        return asked[-1]

    yield made
    for each in asked:
        each.close()


def land(store: Store, version: str, *, accepted: bool, minutes: int = 0, **fields: Any) -> int:
    at = NOW - timedelta(minutes=minutes)
    snapshot = accept(version=version, as_of=at.isoformat(), received_at=at, **fields)
    store.land([snapshot])
    position = store.head()
    of_it = {"version": version, "as_of": at, "stage": fields.get("stage", "paper")}
    write_verdict(store, position, now=at, accepted=accepted, world_id=snapshot.world_id, **of_it)
    return position


def backtest(**row: Any) -> dict[str, Any]:
    named = {"world_id": WORLD, "level": "0.99", "code_version": "test", "z2": None}
    counted = {"window": 250, "observations": 250, "exceedances": 9, "exceeded": False}
    return named | counted | {"multiplier": 4.0, "kupiec_p": 0.01, "christoffersen_p": 0.5} | row


def test_an_empty_hub_has_nothing_wrong(ask: Any) -> None:
    facts = ask().sources.gather()
    stored = facts.stored
    assert stored is not None
    assert (stored.worlds, stored.rejected, stored.models, stored.episodes) == ([], [], [], [])
    assert (stored.cycle, stored.relay, stored.readers, stored.dead_letters) == (None, None, [], 0)
    assert facts.governor is not None
    assert (facts.governor.newest_budget_age_sec, facts.governor.writer) == (None, None)
    assert (facts.dagster, facts.dagster_problem) == (None, None)
    assert facts.counted is None
    assert facts.api_problem is not None


def test_what_was_rejected_is_told_while_nothing_newer_is_accepted(ask: Any, store: Store) -> None:
    land(store, "v1", accepted=True, minutes=50)
    land(store, "v2", accepted=False, minutes=40)
    stored = ask().sources.gather().stored
    (rejected,) = stored.rejected
    assert (rejected.version, rejected.is_newest) == ("v2", True)
    assert rejected.since == NOW - timedelta(minutes=40)
    land(store, "v3", accepted=True, minutes=30)
    assert ask().sources.gather().stored.rejected == []


def test_what_was_rejected_of_late_is_told_also_when_newer_ones_are_accepted(
    ask: Any, store: Store
) -> None:
    land(store, "v1", accepted=True, minutes=1)
    land(store, "v0", accepted=False, minutes=2)
    (rejected,) = ask().sources.gather().stored.rejected
    assert (rejected.version, rejected.is_newest) == ("v0", False)
    assert ask(quarantine_sec=60).sources.gather().stored.rejected == []


def test_history_that_was_rejected_is_told_for_a_while(ask: Any, store: Store) -> None:
    land(store, "v1", accepted=False, minutes=5, stage="backtest")
    assert len(ask().sources.gather().stored.rejected) == 1
    assert ask(quarantine_sec=60).sources.gather().stored.rejected == []


def test_the_newest_light_of_a_model_counts_and_history_has_none(ask: Any, store: Store) -> None:
    for stage in ("paper", "backtest"):
        land(store, f"{stage}1", accepted=True, stage=stage)
        day = NOW.date()
        rows = [
            backtest(day=day - timedelta(days=ago), zone=zone, stage=stage, method=method)
            for method, zones in (
                ("normal", ("red", "yellow")),
                ("historical", ("green", "red")),
            )
            for ago, zone in enumerate(zones)
        ]
        store.write_days(
            {"var_backtests": rows}, sorted({row["day"] for row in rows}), replace=False
        )
    (model,) = ask().sources.gather().stored.models
    assert (model.stage, model.method, model.zone) == ("paper", "normal", "red")


def test_readers_that_have_read_and_what_waits_for_them(ask: Any, store: Store) -> None:
    land(store, "v1", accepted=True, minutes=9)
    store.move_cursor("exit-engine", store.events_head(), NOW)
    store.move_cursor("group:worldservice-risk-hub", 0, NOW)
    store.move_cursor("group:another", 0, NOW)
    land(store, "v2", accepted=True, minutes=3)
    readers = {each.reader: each for each in ask().sources.gather().stored.readers}
    assert readers.keys() == {"exit-engine", "group:worldservice-risk-hub"}
    assert readers["exit-engine"].since == NOW - timedelta(minutes=3)
    assert readers["group:worldservice-risk-hub"].since == NOW - timedelta(minutes=9)
    store.move_cursor("exit-engine", store.events_head(), NOW)
    (_, done) = sorted(ask().sources.gather().stored.readers, key=lambda each: -each.behind)
    assert (done.reader, done.behind, done.since) == ("exit-engine", 0, None)


def test_budgets_and_who_writes_them(ask: Any, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        fields = {"budget_usd": 1, "mode": "shadow", "timestamp": NOW.timestamp() - 42}
        client.hset("quantum:portfolio:budget:BTCUSDT", mapping=fields)
        client.hset(
            "quantum:portfolio:budget:cluster:majors",
            mapping=fields | {"timestamp": NOW.timestamp()},
        )
        client.set("riskhub:governor:writer", "somebody")
    governor = ask().sources.gather().governor
    assert (governor.newest_budget_age_sec, governor.writer) == (42.0, "somebody")


def test_what_is_away_says_so_and_the_others_are_read(ask: Any, store: Store) -> None:
    away = ask(redis_url="redis://127.0.0.1:1/0")
    store.close()
    facts = away.sources.gather()
    assert facts.governor is None
    assert facts.governor_problem is not None
    assert facts.stored is not None  # the pool has connected again


def test_a_database_that_was_never_migrated_is_a_problem(tmp_path: Path, redis_url: str) -> None:
    store = Store(create_engine(f"sqlite:///{tmp_path / 'new.db'}"))
    asked = Asked(store, tmp_path, redis_url)
    try:
        facts = asked.sources.gather()
    finally:
        asked.close()
        store.close()
    assert facts.stored is None
    assert "riskhub migrate" in str(facts.stored_problem)


def test_the_api_counts_and_refuses(ask: Any) -> None:
    with inbox() as box:  # answers with nothing: a page without counters
        asked = ask(api_url=box.url + "/", api_token="s3cret")
        facts = asked.sources.gather()
        assert (facts.counted, facts.api_problem) == (Counted(0, 0, {}), None)
        assert [each[1] for each in box.requests] == ["/metrics"]
        box.status = 401
        problem = asked.sources.gather().api_problem
        assert "set alerts.api_token" in problem
        assert "s3cret" not in problem
        box.status = 500
        assert "answered 500" in asked.sources.gather().api_problem


# --- Dagster ---------------------------------------------------------------------------------


@pytest.fixture
def dagster() -> Iterator[DagsterStandIn]:
    with dagster_stand_in() as stand_in:
        yield stand_in


def test_dagster_tells_what_failed(ask: Any, dagster: DagsterStandIn) -> None:
    now = NOW.timestamp()
    dagster.ended = [
        ("compute_landed", "FAILURE", now - 10),
        ("compute_budgets", "SUCCESS", now - 20),
        ("compute_budgets", "FAILURE", now - 80),
    ]
    dagster.checks = [
        ("risk_metrics", "es_covers_var", "FAILED", "ERROR"),
        ("risk_metrics", "nothing_guessed", "FAILED", "WARN"),
        ("var_backtests", "light_ewma", "FAILED", "ERROR"),
        ("landed_snapshots", "worlds_are_fresh", "FAILED", "ERROR"),
        ("prices", "there", "SUCCEEDED", "ERROR"),
        ("prices", "never", "", ""),
    ]
    dagster.daemons = {"SENSOR": True, "BACKFILL": False}
    found = ask(watch_dagster=None, dagster_url=dagster.url).sources.gather().dagster
    assert [(run.job, run.run_id) for run in found.failed_runs] == [("compute_landed", "r0")]
    assert [(check.asset, check.check) for check in found.failed_checks] == [
        ("risk_metrics", "es_covers_var")
    ]
    assert found.sick_daemons == ["BACKFILL"]


def test_dagster_is_asked_less_often_than_the_rest(ask: Any, dagster: DagsterStandIn) -> None:
    asked = ask(watch_dagster=None, dagster_url=dagster.url)
    for _ in range(6):
        asked.sources.gather()
        asked.clock.advance(10)
    assert dagster.asked == 2 * 2  # how it is, and its checks


def test_a_dagster_that_never_answered_need_not_be_there(ask: Any) -> None:
    facts = ask(watch_dagster=None, dagster_url=NOBODY).sources.gather()
    assert (facts.dagster, facts.dagster_problem) == (None, None)
    assert ask(watch_dagster=True, dagster_url=NOBODY).sources.gather().dagster_problem


def test_a_dagster_that_answered_must_go_on(ask: Any, dagster: DagsterStandIn) -> None:
    asked = ask(watch_dagster=None, dagster_url=dagster.url)
    assert asked.sources.gather().dagster is not None
    dagster.is_broken = True
    asked.clock.advance(30)
    facts = asked.sources.gather()
    assert facts.dagster is None
    assert facts.dagster_problem == "Dagster answered: no such table: runs"


# --- the page --------------------------------------------------------------------------------


def lines(page: bytes) -> set[str]:
    return {line for line in page.decode().splitlines() if not line.startswith("#")}


def test_how_things_stand_is_on_the_page(store: Store) -> None:
    land(store, "v1", accepted=True, minutes=10)
    land(store, "v2", accepted=False, minutes=5)
    store.move_cursor("exit-engine", 1, NOW)
    store.add_dead_letters(
        [
            {
                "handler": handler, "event_id": "e", "type": "t", "key": "k", "origin": "o",
                "reason": "r", "attempts": 3, "raw": b"", "died_at": NOW,
            }
            for handler in ("numbers", "")
        ]
    )  # fmt: skip
    at = NOW - timedelta(minutes=1)
    wrong = Alert(condition(), State.OPEN, at, at, at, opened_at=at)
    store.write_alerts(
        [alert_row(wrong, over=False)],
        acknowledgements=[],
        turn=0,
        writer="it",
        receivers={"desk": {"why": "x"}, "log": {}},
        now=NOW - timedelta(seconds=7),
    )
    shown = lines(exposition(store.standing(), None, NOW, relay="relay:t"))
    head = store.events_head()
    assert {
        f"riskhub_outbox_head_sequence {head:.1f}",
        'riskhub_outbox_cursor_sequence{reader="exit-engine"} 1.0',
        f'riskhub_outbox_lag_events{{reader="exit-engine"}} {head - 1:.1f}',
        'riskhub_outbox_lag_seconds{reader="exit-engine"} 300.0',
        'riskhub_outbox_cursor_sequence{reader="relay:t"} 0.0',
        f'riskhub_outbox_lag_events{{reader="relay:t"}} {head:.1f}',
        'riskhub_outbox_lag_seconds{reader="relay:t"} 600.0',
        'riskhub_dead_letters_waiting{handler="numbers"} 1.0',
        'riskhub_dead_letters_waiting{handler="none"} 1.0',
        "riskhub_quarantined_snapshots 1.0",
        "riskhub_exit_signals_waiting 0.0",
        'riskhub_alerts_open{name="RiskHubSnapshotStale",severity="warning"} 1.0',
        "riskhub_alerts_untold 0.0",
        "riskhub_alerts_watch_age_seconds 7.0",
        'riskhub_alerts_receiver_up{receiver="desk"} 0.0',
        'riskhub_alerts_receiver_up{receiver="log"} 1.0',
    } == shown


def test_without_a_database_nothing_of_it_is_on_the_page() -> None:
    assert lines(exposition(None, None, NOW)) == set()


def test_dagsters_figures_come_aside_and_go_when_it_is_gone(dagster: DagsterStandIn) -> None:
    now = NOW.timestamp()
    dagster.ended = [("j", "FAILURE", now), ("k", "SUCCESS", now)]
    dagster.queued, dagster.started = [now - 90, now - 5], 2
    dagster.daemons = {"SENSOR": True}
    clock = Clock()
    figures = DagsterFigures(
        dagster.url,
        ended_within_sec=60,
        clock=clock,
        monotonic=lambda: clock().timestamp(),
    )
    figures.ask()
    shown = lines(exposition(None, figures.said(), NOW))
    assert shown == {
        "riskhub_dagster_up 1.0",
        "riskhub_dagster_runs_queued 2.0",
        "riskhub_dagster_runs_started 2.0",
        "riskhub_dagster_queue_wait_seconds 90.0",
        'riskhub_dagster_runs_ended_recently{job="j",status="failure"} 1.0',
        'riskhub_dagster_runs_ended_recently{job="k",status="success"} 1.0',
        'riskhub_dagster_last_run_failed{job="j"} 1.0',
        'riskhub_dagster_last_run_failed{job="k"} 0.0',
        'riskhub_dagster_daemon_up{daemon="SENSOR"} 1.0',
    }
    dagster.is_broken = True
    clock.advance(121)
    assert lines(exposition(None, figures.said(), NOW)) == {"riskhub_dagster_up 0.0"}


def test_where_no_dagster_has_answered_the_page_says_nothing_of_it() -> None:
    clock = Clock()
    figures = DagsterFigures(NOBODY, ended_within_sec=60, clock=clock)
    figures.ask()
    assert lines(exposition(None, figures.said(), NOW)) == set()
    expected = DagsterFigures(NOBODY, ended_within_sec=60, must_answer=True, clock=clock)
    assert lines(exposition(None, expected.said(), NOW)) == {"riskhub_dagster_up 0.0"}
