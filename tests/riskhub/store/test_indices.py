"""Each question finds its rows through an index, as the databases themselves say."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from builders import NOW, accept
from sqlalchemy import event
from stored import plans_of

from riskhub.store import Filter, Store
from riskhub.store.engine import writing
from riskhub.store.reading import Lookup

WORLDS = 4
PER_WORLD = 3_000
EVERY = timedelta(minutes=10)
PAST = NOW - PER_WORLD * EVERY / 2
NARROWED = {
    "ix_snapshots_world": {},
    "ix_snapshots_stage": {"stage": "s1"},
    "ix_snapshots_actor": {"actor": "a1"},
    "ix_snapshots_actor_stage": {"actor": "a1", "stage": "s1"},
}
"""The index that each kind of question has."""

narrowed = pytest.mark.parametrize(
    ("index", "which"), NARROWED.items(), ids=[name.split("_", 2)[2] for name in NARROWED]
)


def add_history(store: Store, since: datetime, count: int, worlds: int = 1) -> None:
    """A snapshot each ten minutes for each world, alive for an hour: worlds after weeks."""
    template = accept(ttl_sec=3_600)
    store.land(
        [
            replace(
                template,
                world_id=f"w{world}",
                version=f"{since} {number}",
                as_of=since + number * EVERY,
                received_at=since + number * EVERY,
                stage=f"s{number % 2}",
                actor=f"a{number // 2 % 2}",
            )
            for number in range(count)
            for world in range(worlds)
        ]
    )


def analyze(store: Store) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql("ANALYZE")


@pytest.fixture
def weeks(store: Store) -> Store:
    add_history(store, NOW - PER_WORLD * EVERY, PER_WORLD, WORLDS)
    analyze(store)
    return store


def touches_no_more_than_it_must(plan: str, index: str) -> None:
    assert re.search(rf"\b{index}\b", plan), plan
    assert "Seq Scan on snapshots" not in plan, plan
    assert "SCAN snapshots" not in plan, plan


def reads_in_order(plan: str, index: str) -> None:
    touches_no_more_than_it_must(plan, index)
    assert "sort" not in plan.lower(), plan
    assert "temp b-tree" not in plan.lower(), plan


@narrowed
def test_latest_list_and_lookup_read_their_index_in_order(
    weeks: Store, index: str, which: dict[str, Any]
) -> None:
    newest = Filter(**which)
    asked = [
        newest,
        replace(newest, up_to=PAST, include_expired=True),
        replace(newest, since=PAST, up_to=PAST + 900 * EVERY, include_expired=True),
        replace(newest, known_at=PAST, up_to=PAST, include_expired=True),
    ]
    with plans_of(weeks) as plans:
        for filter_ in asked:
            assert weeks.newest_first("w1", filter_, now=NOW, limit=1).snapshots
        for filter_ in asked:
            page = weeks.newest_first(
                "w1", replace(filter_, include_expired=True), now=NOW, limit=5
            )
            after = page.next_key
            later = replace(filter_, include_expired=True)
            assert weeks.newest_first("w1", later, now=NOW, limit=5, after=after).snapshots
        assert weeks.look_up([Lookup("w1", None, asked[1])], now=NOW) != [None]
    assert len(plans) == 3 * len(asked) + 1
    for plan in plans:
        reads_in_order(plan, index)


@narrowed
def test_what_is_alive_behind_what_has_expired_is_found_by_its_expiry(
    weeks: Store, index: str, which: dict[str, Any]
) -> None:
    known = Filter(known_at=PAST, **which)
    with plans_of(weeks) as plans:
        assert weeks.latest("w1", Filter(**which), now=NOW + EVERY) is not None
        page = weeks.newest_first("w1", Filter(**which), now=NOW, limit=50)
        assert 0 < len(page.snapshots) < 50
        assert weeks.latest("w1", known, now=NOW) is not None
        assert weeks.look_up([Lookup("w1", None, known)], now=NOW) != [None]
    by_expiry = [plan for plan in plans if "ix_snapshots_expiry" in plan]
    in_order = [plan for plan in plans if "ix_snapshots_expiry" not in plan]
    assert len(by_expiry) >= 3
    for plan in by_expiry:
        touches_no_more_than_it_must(plan, "ix_snapshots_expiry")
    for plan in in_order:
        reads_in_order(plan, index)


def test_a_version_is_found_by_its_name(filled: Store) -> None:
    with plans_of(filled) as plans:
        assert filled.by_version("w7", "v7", now=NOW)
    assert "world_id_version" in plans[0] or "autoindex_snapshots" in plans[0], plans[0]


def test_a_day_is_read_through_its_index(filled: Store) -> None:
    day = date(2020, 2, 1)
    with plans_of(filled) as plans:
        for read in (
            filled.landed_on,
            filled.accepted_on,
            filled.verdicts_on,
            filled.metrics_on,
            filled.tails_on,
            filled.weights_of,
        ):
            assert len(read(day, day)) == 8
    indices = [
        "ix_snapshots_as_of",
        "ix_validated_snapshots_day",
        "ix_validated_snapshots_day",
        "ix_risk_metrics_day",
        "ix_risk_tails_day",
        "ix_snapshot_weights_day",
    ]
    for plan, index in zip(plans, indices, strict=True):
        assert index in plan, plan


# -- work, counted by the databases ---------------------------------------------------------------


def work_of(store: Store, ask: Callable[[], Any]) -> int:
    """How much the database did: rows touched in Postgres, steps of its machine in SQLite."""
    if store.engine.dialect.name == "sqlite":
        return steps_of(store, ask)
    with plans_of(store, "(ANALYZE, TIMING OFF, FORMAT JSON)") as plans:
        ask()
    return sum(rows_touched(json.loads(plan)[0]["Plan"]) for plan in plans)


def rows_touched(node: dict[str, Any]) -> int:
    """Rows that the scans of a plan looked at, whether or not they were of use."""
    below = sum(rows_touched(child) for child in node.get("Plans", []))
    if "Relation Name" not in node:
        return below
    seen = node["Actual Rows"] + sum(
        node.get(f"Rows Removed by {reason}", 0) for reason in ("Filter", "Index Recheck")
    )
    return below + round(seen * node["Actual Loops"])


def steps_of(store: Store, ask: Callable[[], Any]) -> int:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(dbapi_connection: Any, *_: Any) -> None:
        dbapi_connection.set_progress_handler(step, 1)

    def leave(dbapi_connection: Any, *_: Any) -> None:
        dbapi_connection.set_progress_handler(None, 1)

    event.listen(store.engine, "checkout", watch)
    event.listen(store.engine, "checkin", leave)
    ask()
    event.remove(store.engine, "checkout", watch)
    event.remove(store.engine, "checkin", leave)
    return steps


@narrowed
def test_weeks_of_expired_history_cost_a_reader_nothing(
    store: Store, index: str, which: dict[str, Any]
) -> None:
    """The same few are alive, behind ten times the history: on either side of them."""
    asked = Filter(**which)

    def questions() -> None:
        assert store.latest("w0", asked, now=NOW) is not None
        assert store.newest_first("w0", asked, now=NOW, limit=50).snapshots
        assert store.latest("w0", replace(asked, known_at=NOW), now=NOW + 9 * EVERY) is not None
        assert store.latest("w0", asked, now=NOW + 9 * EVERY) is None

    def landed_before(steps: int, count: int) -> None:
        add_history(store, NOW - steps * EVERY, count)
        analyze(store)

    landed_before(400, 399)
    short = work_of(store, questions)
    landed_before(8_400, 8_000)
    long = work_of(store, questions)
    # A search in a deeper tree takes a few steps more; a scan would take twenty times as many.
    assert long < 1.5 * short
