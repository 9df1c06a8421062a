"""Verdicts, and what follows from them: what is served, and what is in the quarantine."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD, accept
from stored import (
    ALL,
    DAY,
    Stumbled,
    latest,
    metrics,
    plans_of,
    tail,
    verdict,
    versions,
    weight,
)

from riskhub.store import Filter, Store
from riskhub.store.engine import writing
from riskhub.store.reading import Lookup
from riskhub.store.tables import quarantine, risk_metrics, risk_tails, snapshot_weights
from riskhub.store.verdicts import VerdictCount

SECOND = timedelta(seconds=1)
GOOD, BAD = "good", "bad"


@pytest.fixture
def pair(store: Store) -> Store:
    """A good snapshot at position 1, and behind it a newer one at position 2."""
    store.land(
        [
            accept(version=GOOD, as_of="2026-01-31T20:00:00Z"),
            accept(version=BAD, as_of="2026-01-31T21:00:00Z"),
        ]
    )
    return store


def judge(
    store: Store, at: datetime = NOW, *, replace: bool = False, **accepted: bool
) -> dict[str, Any]:
    """Give verdicts by version; the positions are those of landing."""
    rows = [
        verdict(row.position, version=row.version, accepted=accepted[row.version], **named(row))
        for row in store.landed_on(date(2020, 1, 1), DAY)
        if row.version in accepted
    ]
    store.write_verdicts(rows, sorted({row["day"] for row in rows}), now=at, replace=replace)
    return {row["version"]: row for row in rows}


def named(row: Any) -> dict[str, Any]:
    return {
        "world_id": row.world_id,
        "stage": row.stage,
        "day": row.day,
        "as_of": row.as_of,
        "reasons": ["why not"],
    }


def look_up(store: Store, now: datetime = NOW, **which: Any) -> str | None:
    (found,) = store.look_up([Lookup(WORLD, None, Filter(**which))], now=now)
    return versions([found.body])[0] if found else None


# --- what is served ------------------------------------------------------------------------------


def test_from_its_verdict_on_a_rejected_snapshot_is_not_the_latest(pair: Store) -> None:
    assert latest(pair) == BAD

    judge(pair, good=True, bad=False)

    assert latest(pair) == GOOD
    assert latest(pair, include_expired=True) == GOOD
    assert latest(pair, stage="paper", actor="optimizer") == GOOD
    assert look_up(pair) == GOOD
    assert look_up(pair, up_to=NOW, include_expired=True) == GOOD
    assert look_up(pair, stage="paper") == GOOD


def test_what_was_never_judged_is_served(pair: Store) -> None:
    judge(pair, good=True)

    assert latest(pair) == BAD


def test_a_rejected_snapshot_is_still_there_by_version_and_in_lists(pair: Store) -> None:
    judge(pair, bad=False)

    found = pair.by_version(WORLD, BAD, now=NOW)
    assert found is not None
    assert versions([found.body]) == [BAD]
    assert versions(pair.newest_first(WORLD, now=NOW, limit=9).bodies) == [BAD, GOOD]
    assert versions(pair.newest_first(WORLD, ALL, now=NOW, limit=1).bodies) == [BAD]


def test_a_snapshot_that_is_accepted_after_all_is_served_again(pair: Store) -> None:
    judge(pair, bad=False)

    judge(pair, NOW + SECOND, bad=True)

    assert latest(pair) == look_up(pair) == BAD
    assert pair.quarantined(limit=9).rows == []


def test_when_everything_is_rejected_nothing_is_the_latest(pair: Store) -> None:
    judge(pair, good=False, bad=False)

    assert latest(pair) is None
    assert latest(pair, include_expired=True) is None
    assert look_up(pair, up_to=NOW) is None


def test_what_has_expired_does_not_come_back_for_what_was_rejected(pair: Store) -> None:
    judge(pair, bad=False)
    expired = NOW + timedelta(seconds=900)

    assert latest(pair, expired) is None
    assert latest(pair, expired, include_expired=True) == GOOD


def test_another_world_stage_or_actor_is_served_as_before(pair: Store) -> None:
    pair.land([accept(version="fx", world_id="fx"), accept(version="live", stage="live")])
    judge(pair, good=False, bad=False)

    assert latest(pair) == "live"
    found = pair.latest("fx", now=NOW)
    assert found is not None
    assert versions([found.body]) == ["fx"]


def test_known_at_tells_what_was_served_then(pair: Store) -> None:
    moments = {
        NOW + 1 * SECOND: BAD,
        NOW + 2 * SECOND: GOOD,  # rejected
        NOW + 3 * SECOND: GOOD,
        NOW + 4 * SECOND: BAD,  # accepted after all
        NOW + 5 * SECOND: BAD,
        NOW + 6 * SECOND: GOOD,  # and rejected again
    }
    for after, accepted in ((2, False), (3, False), (4, True), (6, False)):
        judge(pair, NOW + after * SECOND, bad=accepted)

    for moment, version in moments.items():
        for include_expired in (True, False):
            which = {"known_at": moment, "include_expired": include_expired}
            assert latest(pair, NOW + timedelta(days=1), **which) == version
            assert look_up(pair, NOW + timedelta(days=1), **which) == version


def test_a_verdict_that_is_changed_at_the_same_instant_leaves_no_trace(pair: Store) -> None:
    judge(pair, bad=False)
    judge(pair, bad=True)
    assert latest(pair) == latest(pair, known_at=NOW) == BAD

    judge(pair, NOW + SECOND, bad=False)
    judge(pair, NOW + 2 * SECOND, bad=True)
    judge(pair, NOW + 2 * SECOND, bad=False)
    judge(pair, NOW + 3 * SECOND, bad=True)

    assert latest(pair, known_at=NOW) == BAD
    assert latest(pair, known_at=NOW + SECOND) == GOOD
    assert latest(pair, known_at=NOW + 2 * SECOND) == GOOD
    assert latest(pair, known_at=NOW + 3 * SECOND) == BAD


def test_a_verdict_that_moves_a_snapshot_gives_its_world_another_stamp(pair: Store) -> None:
    pair.land([accept(world_id="fx")])
    before = pair.stamps([WORLD, "fx"])

    judge(pair, good=True, bad=False)
    rejected = pair.stamps([WORLD, "fx"])
    judge(pair, NOW + SECOND, good=True, bad=False)
    again = pair.stamps([WORLD, "fx"])
    judge(pair, NOW + SECOND, bad=True)

    assert rejected[WORLD] != before[WORLD]
    assert again == rejected
    assert pair.stamps([WORLD])[WORLD] != again[WORLD]
    assert rejected["fx"] == before["fx"]


# --- what is new of a world ----------------------------------------------------------------------


def news(store: Store, stage: str = "paper") -> tuple[datetime | None, datetime | None]:
    (found,) = store.newest_per_world(world_id=WORLD, stage=stage)
    return found.newest_as_of, found.alive_until


EIGHT, NINE = (datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (20, 21))
EXPIRY = NOW + 900 * SECOND


def test_what_is_rejected_is_no_news_of_its_world_until_it_is_accepted(pair: Store) -> None:
    assert news(pair) == (NINE, EXPIRY)
    judge(pair, good=True, bad=False)
    assert news(pair) == (EIGHT, EXPIRY)
    judge(pair, good=False)
    assert news(pair) == (None, None)
    pair.land([accept(version="third", as_of="2026-01-31T19:00:00Z", ttl_sec=60)])
    assert news(pair) == (EIGHT - timedelta(hours=1), NOW + 60 * SECOND)
    judge(pair, bad=True)
    assert news(pair) == (NINE, EXPIRY)


def test_what_had_expired_by_the_verdict_makes_nothing_alive(pair: Store) -> None:
    judge(pair, EXPIRY, bad=False)
    assert news(pair) == (EIGHT, None)


def test_another_stage_or_world_keeps_its_news(pair: Store) -> None:
    pair.land([accept(version="live", stage="live"), accept(world_id="fx")])
    judge(pair, good=False, bad=False)
    assert news(pair, "live") == (NINE, EXPIRY)
    assert [each[:2] for each in pair.newest_per_world()] == [
        (WORLD, "live"), (WORLD, "paper"), ("fx", "paper"),
    ]  # fmt: skip
    assert [each.world_id for each in pair.newest_per_world(stage="paper")] == [WORLD, "fx"]


def test_a_verdict_looks_up_the_news_of_its_world_by_index(pair: Store) -> None:
    add_history(pair, good=300, bad=0)
    analyze(pair)

    with plans_of(pair, kinds=("UPDATE world_stages SET newest",)) as plans:
        judge(pair, bad=False)

    (plan,) = plans
    assert re.search(r"ix_snapshots_(stage|expiry)", plan), plan
    assert "Seq Scan on snapshots" not in plan, plan
    assert "SCAN snapshots" not in plan, plan


def analyze(store: Store) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql("ANALYZE")


def add_history(store: Store, *, good: int, bad: int) -> datetime:
    """A snapshot each second, the newest ones rejected; gives the last good `as_of`."""
    template = accept(ttl_sec=86_400)
    instants = [NOW + number * SECOND for number in range(good + bad)]
    store.land([replace(template, version=f"{at}", as_of=at, received_at=at) for at in instants])
    rows = [
        verdict(row.position, day=row.day, accepted=place < good)
        for place, row in enumerate(store.landed_on(date(2026, 1, 1), date(2026, 2, 28)))
    ]
    store.write_verdicts(rows, sorted({row["day"] for row in rows}), now=NOW, replace=False)
    analyze(store)
    return instants[good - 1]


@pytest.mark.parametrize(("bad", "statements"), [(10, 2), (3_000, 3)])
def test_behind_what_was_rejected_the_latest_is_found_in_a_few_statements(
    store: Store, bad: int, statements: int
) -> None:
    """The newest row, a few behind it, then all that is alive: never all that there ever was."""
    last_good = add_history(store, good=3_000, bad=bad)
    now = last_good + (bad + 1) * SECOND
    alive = [Filter(), Filter(known_at=now), Filter(stage="paper", actor="optimizer")]

    def find(which: Filter) -> None:
        (looked_up,) = store.look_up([Lookup(WORLD, None, which)], now=now)
        for found in (store.latest(WORLD, which, now=now), looked_up):
            assert found is not None
            assert found.as_of == last_good

    with plans_of(store) as of_alive:
        for which in alive:
            find(which)
    with plans_of(store) as of_all:
        find(ALL)

    assert len(of_alive) == 2 * statements * len(alive)
    assert len(of_all) == 2 * 2
    for plan in of_all:
        assert "ix_snapshots_world" in plan, plan
        assert "sort" not in plan.lower(), plan
        assert "temp b-tree" not in plan.lower(), plan
    for plan in [*of_all, *of_alive]:
        assert bad == 10 or "Seq Scan on quarantine" not in plan, plan  # ten are quicker read
        assert "SCAN quarantine" not in plan, plan
        assert "hashed" not in plan.lower(), plan


# --- what follows from a verdict -----------------------------------------------------------------


def test_a_rejected_snapshot_loses_all_that_was_made_from_it(store: Store) -> None:
    made = {
        "snapshot_weights": [weight(position, "BAC", 1.0) for position in (1, 2)],
        "risk_metrics": [metrics(position) for position in (1, 2)],
        "risk_tails": [tail(position) for position in (1, 2)],
    }
    store.write_days(made, [DAY], replace=True)

    store.write_verdicts([verdict(1, accepted=False), verdict(2)], [DAY], now=NOW, replace=True)

    with store.engine.connect() as connection:
        for table in (snapshot_weights, risk_metrics, risk_tails):
            assert connection.execute(sa.select(table.c.position)).scalars().all() == [2]


def test_verdicts_and_quarantine_are_written_together_or_not_at_all(
    pair: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: Any) -> None:
        raise Stumbled

    monkeypatch.setattr("riskhub.store.verdicts.give_new_stamps", stumble)
    with pytest.raises(Stumbled):
        judge(pair, bad=False)

    assert pair.verdicts_on(DAY, DAY) == []
    assert pair.quarantined(limit=9).rows == []
    assert latest(pair) == BAD


def test_verdicts_are_counted_by_day_and_shown_by_kind(store: Store) -> None:
    other = DAY - timedelta(days=1)
    flags = ["look at this"]
    verdicts = [
        verdict(1),
        verdict(2, flags=flags),
        verdict(3, accepted=False, flags=flags, evidence={"covariance": {"symbols": 2}}),
        verdict(4, day=other, accepted=False),
        verdict(5, flags=flags),
    ]
    store.write_verdicts(verdicts, [other, DAY], now=NOW, replace=False)

    assert store.verdicts_per_day(other, DAY) == {
        other: VerdictCount(accepted=0, flagged=0, rejected=1),
        DAY: VerdictCount(accepted=3, flagged=2, rejected=1),
    }
    assert store.verdicts_per_day(DAY + timedelta(days=1), DAY + timedelta(days=9)) == {}
    assert [row["position"] for row in store.rejected_on(other, DAY, limit=9)] == [3, 4]
    assert [row["position"] for row in store.rejected_on(other, DAY, limit=1)] == [3]
    (shown,) = store.rejected_on(DAY, DAY, limit=9)
    assert shown["evidence"] == {"covariance": {"symbols": 2}}
    assert [row["position"] for row in store.flagged_on(other, DAY, limit=9)] == [2, 5]
    assert [row["position"] for row in store.flagged_on(other, DAY, limit=1)] == [2]


# --- the list ------------------------------------------------------------------------------------


def test_what_was_rejected_last_is_listed_first_with_what_is_said_of_it(pair: Store) -> None:
    pair.land([accept(version="older", as_of="2026-01-30T21:00:00Z", stage="live")])
    judge(pair, NOW, bad=False)
    judge(pair, NOW + SECOND, older=False)

    page = pair.quarantined(limit=9)

    assert page.next_key is None
    assert [(row["version"], row["since"]) for row in page.rows] == [
        ("older", NOW + SECOND), (BAD, NOW),
    ]  # fmt: skip
    assert {name: page.rows[1][name] for name in ("world_id", "stage", "reasons", "as_of")} == {
        "world_id": WORLD,
        "stage": "paper",
        "reasons": ["why not"],
        "as_of": datetime.fromisoformat("2026-01-31T21:00:00Z"),
    }


def test_a_second_verdict_changes_the_reasons_and_not_since_when(pair: Store) -> None:
    rows = judge(pair, bad=False)
    again = rows[BAD] | {"reasons": ["another"]}

    pair.write_verdicts([again], [DAY], now=NOW + SECOND, replace=True)

    (row,) = pair.quarantined(limit=9).rows
    assert (row["since"], row["reasons"]) == (NOW, ["another"])


def test_pages_hold_each_quarantined_snapshot_once(store: Store) -> None:
    store.land(
        [
            accept(version=f"v{number}", world_id=f"w{number % 2}", stage=f"s{number % 3}")
            for number in range(11)
        ]
    )
    judge(store, **{f"v{number}": False for number in range(7)})
    judge(store, NOW + SECOND, **{f"v{number}": False for number in range(7, 11)})

    def walk(**which: str) -> list[str]:
        page = store.quarantined(limit=2, **which)
        found = [*page.rows]
        while page.next_key:
            page = store.quarantined(limit=2, after=page.next_key, **which)
            assert page.rows
            found += page.rows
        return [row["version"] for row in found]

    newest_first = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert walk() == [f"v{number}" for number in newest_first]
    assert walk(world_id="w1") == [f"v{number}" for number in newest_first if number % 2 == 1]
    assert walk(stage="s2") == [f"v{number}" for number in newest_first if number % 3 == 2]
    assert walk(world_id="w0", stage="s0") == ["v6", "v0"]
    assert walk(world_id="nobody") == []


def test_retention_takes_a_snapshot_out_of_the_quarantine(pair: Store) -> None:
    judge(pair, bad=False)
    later = NOW + timedelta(days=2)

    assert pair.remove_snapshots({"paper": later}, later) == 2

    assert pair.quarantined(limit=9).rows == []
    with pair.engine.connect() as connection:
        assert connection.execute(sa.select(quarantine)).all() == []


# --- reading a few at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["landed_on", "accepted_on"])
def test_days_can_be_read_a_few_snapshots_at_a_time(filled: Store, name: str) -> None:
    read: Callable[..., Any] = getattr(filled, name)
    first, last = date(2020, 2, 1), date(2020, 2, 10)
    whole = read(first, last)
    assert len(whole) == 80

    found, batches = [], []
    while batch := read(first, last, after=found[-1].position if found else 0, limit=32):
        batches.append(len(batch))
        found += batch

    assert batches == [32, 32, 16]
    assert found == whole
    assert (
        read(first, last, worlds=["w1"], limit=3)
        == [row for row in whole if row.world_id == "w1"][:3]
    )


@pytest.mark.parametrize("name", ["landed_on", "accepted_on"])
def test_the_first_few_of_some_days_are_found_by_day(filled: Store, name: str) -> None:
    day = date(2021, 5, 1)
    with plans_of(filled) as plans:
        assert len(getattr(filled, name)(day, day, limit=2)) == 2
    (plan,) = plans
    assert "ix_snapshots_as_of" in plan or "ix_validated_snapshots_day" in plan, plan
    assert "Seq Scan on snapshots" not in plan, plan
    assert "SCAN snapshots" not in plan, plan
