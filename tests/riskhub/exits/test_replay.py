"""The engine over what the store has: in order, without looking ahead, writing nothing."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, WORLD
from databases import migrate
from exiting import STAGE, START, compute_world, load, rule, write_rules

from riskhub.exits.book import RuleBook
from riskhub.exits.replay import Moment, Replayed, history, replay
from riskhub.exits.replay import days_of as days_open
from riskhub.store import Store, create_engine

FIRST, LAST = START.date(), date(2026, 2, 28)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}"))
    migrate(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def book_of(tmp_path: Path) -> Any:
    return lambda *rules: load(write_rules(tmp_path / "rules.yaml", *rules))


def compute(store: Store, *es: float | None, first: int = 0, **of: Any) -> None:
    for number, value in enumerate(es, first):
        at = START + timedelta(days=number)
        compute_world(store, value, **{"as_of": at, "version": f"v{number}"} | of)


def replayed(store: Store, book: RuleBook, first: date = FIRST, **asked: Any) -> Replayed:
    last, now = asked.pop("last", LAST), asked.pop("now", NOW)
    return replay(book, history(store, book, first, last, now=now, **asked))


def days_of(found: Replayed) -> list[tuple[int, int | None]]:
    """Of each episode the days of January that it opened and closed on."""
    return [
        (each.opened_at.day, each.closed_at.day if each.closed_at else None)
        for each in found.episodes
    ]


def test_each_snapshot_is_observed_at_its_as_of(store: Store, book_of: Any) -> None:
    compute(store, 0.03, 0.1, None, 0.06, 0.04, 0.2)
    found = replayed(store, book_of(rule()))
    assert days_of(found) == [(6, 9), (10, None)]
    assert found.observed == 6
    assert [each.signal for each in found.signals] == ["opened", "closed", "opened"]


def test_it_begins_with_nothing_open_and_ends_with_its_days(store: Store, book_of: Any) -> None:
    compute(store, 0.1, 0.1, 0.1, 0.04)
    book = book_of(rule())
    assert days_of(replayed(store, book, date(2026, 1, 6))) == [(6, 8)]
    assert days_of(replayed(store, book, last=date(2026, 1, 7))) == [(5, None)]


def test_worlds_and_stages_go_their_own_ways(store: Store, book_of: Any) -> None:
    compute(store, 0.1, 0.04)
    compute(store, 0.04, 0.1, world_id="fx")
    compute(store, 0.04, 0.1, stage="backtest", version="b")
    found = replayed(store, book_of(rule()))
    keys = [(each.world_id, each.stage) for each in found.episodes]
    assert sorted(keys) == [(WORLD, "backtest"), (WORLD, STAGE), ("fx", STAGE)]
    only = replayed(store, book_of(rule()), worlds=["fx"])
    assert [each.world_id for each in only.episodes] == ["fx"]


def test_a_correction_stands_for_what_it_corrects(store: Store, book_of: Any) -> None:
    compute(store, 0.03, 0.1)
    compute_world(store, 0.03, as_of=START + timedelta(days=1), version="corrected")
    assert days_of(replayed(store, book_of(rule()))) == []


def test_a_rejected_snapshot_is_no_evidence(store: Store, book_of: Any) -> None:
    compute(store, 0.03)
    compute(store, 0.1, first=1, accepted=False)
    assert days_of(replayed(store, book_of(rule()))) == []


def test_a_light_counts_from_the_close_of_its_day(store: Store, book_of: Any) -> None:
    lights = {5: "green", 6: "red", 7: "green"}
    row = {
        **dict.fromkeys(("multiplier", "z2")),
        **dict.fromkeys(("kupiec_p", "christoffersen_p"), 0.5),
        **dict.fromkeys(("window", "observations"), 250),
        "world_id": WORLD,
        "stage": STAGE,
        "method": "ewma",
        "level": "0.99",
        "exceedances": 3,
        "exceeded": False,
        "code_version": "riskhub/0",
    }
    days = [date(2026, 1, day) for day in lights]
    rows = [row | {"day": day, "zone": lights[day.day]} for day in days]
    store.write_days({"var_backtests": rows}, days, replace=True)
    model = {"kind": "model_zone", "method": "ewma", "level": 0.99}
    book = book_of(rule(**model, enter="red", leave="green"))
    compute_world(store, 0.01, as_of=START, version="a")
    early = START + timedelta(hours=23)  # of the 6th, before its close
    compute_world(store, 0.01, as_of=early, version="b")
    assert days_of(replayed(store, book)) == []
    compute_world(store, 0.01, as_of=START + timedelta(days=1), version="c")
    assert days_of(replayed(store, book)) == [(6, None)]
    compute_world(store, 0.01, as_of=START + timedelta(days=9), version="d")
    assert days_of(replayed(store, book)) == [(6, 14)]
    # A light of before the first day is known on it.
    assert replayed(store, book, date(2026, 1, 14)).episodes == ()


def test_what_grew_stale_is_found_at_the_moment_it_did(store: Store, book_of: Any) -> None:
    book = book_of(
        rule(id="stale", kind="stale", enter="critical", leave="stale"),
        rule(id="expired", kind="expired", enter=1.0, leave=0.5),
    )
    for minutes in (0, 10, 70, 75):
        at = START + timedelta(minutes=minutes)
        compute_world(store, 0.01, as_of=at, version=f"v{minutes}")
    found = replayed(store, book)
    opened = {
        (each.rule, int((each.opened_at - START).total_seconds() / 60)): each.closed_at
        for each in found.episodes
    }
    back = START + timedelta(minutes=70)
    assert opened == {
        ("expired", 25): back,
        ("stale", 40): back,
        ("expired", 90): None,
        ("stale", 105): None,
    }
    timeless = replayed(store, book, timeless_stages={STAGE})
    assert timeless.episodes == ()
    by_then = replayed(store, book, now=START + timedelta(minutes=104))
    assert len(by_then.episodes) == 3  # the last has yet to grow so old
    assert [days_open(each) for each in found.episodes] == [0] * 4


def test_ages_and_numbers_are_seen_together(store: Store, book_of: Any) -> None:
    compute(store, 0.1, 0.04)
    stale = rule(id="stale", kind="stale", enter="critical", leave="stale")
    both = replayed(store, book_of(rule(), stale))
    assert sorted((each.rule, each.opened_at.day) for each in both.episodes) == [
        *(("es-limit", 5), ("stale", 5)),
        ("stale", 6),
    ]


def test_time_does_not_go_back(store: Store, book_of: Any) -> None:
    compute(store, *[0.04] * 5)
    compute(store, *[0.04] * 5, world_id="fx")
    stale = rule(id="stale", kind="stale", enter="critical", leave="stale")
    moments: list[Moment] = list(history(store, book_of(rule(), stale), FIRST, LAST, now=NOW))
    times = [moment.at for moment in moments]
    assert times == sorted(times)
    assert len(times) == 30  # each snapshot landed, measured, and grown stale


def test_nothing_is_written(store: Store, book_of: Any) -> None:
    compute(store, 0.1)
    before = store.events_head()
    replayed(store, book_of(rule()))
    assert store.exit_episodes(limit=1).rows == []
    assert (store.exit_engine(), store.events_head()) == (None, before)
