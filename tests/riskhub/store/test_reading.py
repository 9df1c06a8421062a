"""Latest, list and lookup, as consumers ask for them."""

import itertools
import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from builders import NOW, WORLD, accept
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import ALL, DAY, latest, versions

import riskhub.store
from riskhub.snapshot import Snapshot
from riskhub.store import Filter, Store
from riskhub.store.reading import Lookup


def test_latest_is_the_greatest_instant_however_written_and_whenever_arrived(store: Store) -> None:
    store.land([accept(version="newest", as_of="2026-01-31T15:59:00-05:00")])  # 20:59 UTC
    store.land([accept(version="greatest text", as_of="2026-02-01T02:00:00+05:30")])  # 20:30
    store.land([accept(version="last to arrive", as_of="2026-01-31T20:58:59.999999Z")])
    assert latest(store) == "newest"


def test_of_one_instant_the_later_receipt_is_the_latest(store: Store) -> None:
    store.land([accept(version="z first", as_of="2026-01-31T21:00:00Z")])
    store.land([accept(version="a second", as_of="2026-01-31T22:00:00+01:00")])
    assert latest(store) == "a second"


def test_what_has_expired_is_left_out_unless_asked_for(store: Store) -> None:
    store.land([accept(version="short", ttl_sec=60, as_of="2026-01-31T21:01:00Z"), accept()])
    end = NOW + timedelta(seconds=60)
    before, microsecond = end - timedelta(microseconds=1), timedelta(microseconds=1)

    assert latest(store, before) == "short"
    assert latest(store, end) == "v1"
    assert latest(store, end, include_expired=True) == "short"
    assert store.by_version(WORLD, "short", now=before) is not None
    assert store.by_version(WORLD, "short", now=end) is None
    assert store.by_version(WORLD, "short", ALL, now=end) is not None
    assert versions(store.newest_first(WORLD, now=end, limit=9).bodies) == ["v1"]
    everything = store.newest_first(WORLD, ALL, now=end, limit=9)
    assert versions(everything.bodies) == ["short", "v1"]
    assert latest(store, NOW + timedelta(seconds=900) - microsecond) == "v1"
    assert latest(store, NOW + timedelta(seconds=900)) is None


def test_stage_actor_and_world_choose(store: Store) -> None:
    store.land(
        [
            accept(version="1", stage="live", actor="a"),
            accept(version="2", stage="paper", actor="a"),
            accept(version="3", stage="live", actor="b"),
            accept(version="4", stage="live", actor="a", world_id="fx"),
        ]
    )
    assert latest(store, stage="live", actor="a") == "1"
    assert latest(store, stage="live") == "3"
    assert latest(store, actor="a") == "2"
    assert latest(store, stage="LIVE") is None
    assert store.latest("rates", now=NOW) is None
    live = store.newest_first(WORLD, Filter(stage="live"), now=NOW, limit=9)
    assert versions(live.bodies) == ["3", "1"]


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_paging_walks_everything_exactly_once_newest_first(store: Store, size: int) -> None:
    instants = ["2026-01-31T20:00:00Z", "2026-01-31T19:00:00Z", "2026-01-31T19:30:00+00:30"]
    store.land([accept(version=str(n), as_of=instants[n % 3]) for n in range(10)])
    walked: list[str] = []
    key = None
    while True:
        page = store.newest_first(WORLD, now=NOW, limit=size, after=key)
        walked += versions(page.bodies)
        assert len(page.bodies) <= size
        if (key := page.next_key) is None:
            break
        store.land([accept(version=f"late {key[2]}", as_of="2026-01-31T20:30:00Z")])
    assert walked == ["9", "6", "3", "0", "8", "7", "5", "4", "2", "1"]


def test_a_list_that_ends_with_its_page_has_no_next(store: Store) -> None:
    store.land([accept(version="1"), accept(version="2")])
    assert store.newest_first(WORLD, now=NOW, limit=2).next_key is None
    assert store.newest_first(WORLD, now=NOW, limit=1).next_key is not None
    assert store.newest_first("fx", now=NOW, limit=1) == riskhub.store.Page([], None)


def test_as_of_looks_up_to_and_including_an_instant(store: Store) -> None:
    store.land([accept(version=str(h), as_of=f"2026-01-31T{h}:00:00Z") for h in (19, 21, 20)])

    def at(instant: datetime) -> list[str]:
        return versions(store.newest_first(WORLD, Filter(up_to=instant), now=NOW, limit=1).bodies)

    eight = datetime(2026, 1, 31, 20, tzinfo=UTC)
    assert at(eight) == ["20"]
    assert at(eight - timedelta(microseconds=1)) == ["19"]
    assert at(eight - timedelta(hours=2)) == []


def test_instants_come_back_to_the_microsecond_from_any_age(store: Store) -> None:
    instants = ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2026-01-31T21:00:00.1Z"]
    offered = [accept(version=str(n), as_of=text) for n, text in enumerate(instants)]
    store.land(offered)
    landed = store.landed_on(date.min, DAY)
    assert [row.as_of for row in landed] == [snapshot.as_of for snapshot in offered]
    assert [row.day for row in landed] == [date(1, 1, 1), date(1969, 12, 31), DAY]


def test_a_day_is_utc_and_holds_both_its_ends(store: Store) -> None:
    store.land(
        [
            accept(version="before", as_of="2026-01-29T23:59:59.999999Z"),
            accept(version="end", as_of="2026-01-30T23:59:59.999999Z"),
            accept(version="start", as_of="2026-01-30T00:00:00Z"),
            accept(version="offset", as_of="2026-01-31T01:00:00+02:00"),
            accept(version="after", as_of="2026-01-31T00:00:00Z"),
        ]
    )
    day = date(2026, 1, 30)
    assert [row.version for row in store.landed_on(day, day)] == ["end", "start", "offset"]
    pending = {day.day: day.count for day in store.pending_days().days}
    assert pending == {date(2026, 1, 29): 1, day: 3, date(2026, 1, 31): 1}


def test_newest_per_world_never_moves_back(store: Store) -> None:
    def newest() -> dict[tuple[str, str], datetime]:
        return {(world, stage): as_of for world, stage, as_of, _ in store.newest_per_world()}

    eight, nine = (datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (20, 21))
    store.land([accept(version="1"), accept(version="0", as_of="2026-01-31T20:00:00Z")])
    assert newest() == {(WORLD, "paper"): nine}
    store.land([accept(version="2", as_of="2026-01-31T19:00:00Z")])
    store.land([accept(version="3", as_of="2026-01-31T20:00:00Z", stage="live")])
    store.land([accept(version="1", as_of="2026-01-31T21:04:00Z")])  # a conflict moves nothing
    assert newest() == {(WORLD, "paper"): nine, (WORLD, "live"): eight}
    store.land([accept(version="4", as_of="2026-01-31T21:00:00.000001Z")])
    assert newest()[WORLD, "paper"] == nine + timedelta(microseconds=1)


# -- filters, time travel and paging, against a model ---------------------------------------------

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 31, tzinfo=UTC)
FAR_AHEAD = 3 * 24 * 60
"""In minutes: the receipt of a machine whose clock is days ahead."""


@dataclass(frozen=True)
class Given:
    """A row of the model: minutes after `START`, and the place it landed at."""

    as_of: int
    received: int
    ttl_sec: int
    stage: str
    actor: str

    def offer(self, world: str, version: str) -> Snapshot:
        return accept(
            world_id=world,
            version=version,
            as_of=(START + self.as_of * MINUTE).isoformat(),
            received_at=START + self.received * MINUTE,
            ttl_sec=self.ttl_sec,
            stage=self.stage,
            actor=self.actor,
        )


@dataclass(frozen=True)
class Asked:
    which: Filter
    now: datetime
    limit: int


minutes = st.integers(0, 12).map(lambda number: START + number * MINUTE)
rows = st.lists(
    st.builds(
        Given,
        as_of=st.integers(0, 4),
        received=st.sampled_from([4, 5, 6, 7, 8, FAR_AHEAD]),
        ttl_sec=st.sampled_from([60, 120, 180, 86_400]),
        stage=st.sampled_from(["paper", "live"]),
        actor=st.sampled_from(["a", "b"]),
    ),
    min_size=3,
    max_size=14,
)
questions = st.builds(
    Asked,
    which=st.builds(
        Filter,
        stage=st.none() | st.sampled_from(["paper", "live"]),
        actor=st.none() | st.sampled_from(["a", "b"]),
        include_expired=st.booleans(),
        since=st.none() | minutes,
        up_to=st.none() | minutes,
        known_at=st.none() | minutes,
    ),
    now=minutes,
    limit=st.integers(1, 4),
)


def expected(snapshots: list[Snapshot], asked: Asked) -> list[str]:
    """The model: every row looked at, with the promise of each filter as one line."""
    which, moment = asked.which, asked.which.known_at or asked.now
    found = [
        (snapshot.as_of, snapshot.received_at, place, snapshot.body)
        for place, snapshot in enumerate(snapshots)
        if which.stage in (None, snapshot.stage)
        and which.actor in (None, snapshot.actor)
        and (which.since is None or which.since <= snapshot.as_of)
        and (which.up_to is None or snapshot.as_of <= which.up_to)
        and (which.known_at is None or snapshot.received_at <= which.known_at)
        and (which.include_expired or moment < snapshot.expires_at)
    ]
    return [body for *_, body in sorted(found, reverse=True)]


def test_every_question_is_answered_as_by_looking_at_every_row(store: Store) -> None:
    worlds = (f"w{number}" for number in itertools.count())
    examples = 25 if store.engine.dialect.name == "postgresql" else 80

    @settings(max_examples=examples)
    @given(landed=rows, asked=st.lists(questions, min_size=4, max_size=8))
    def holds(landed: list[Given], asked: list[Asked]) -> None:
        world = next(worlds)
        offered = [row.offer(world, f"v{place}") for place, row in enumerate(landed)]
        store.land(offered)
        for question in asked:
            bodies = expected(offered, question)
            first = store.latest(world, question.which, now=question.now)
            assert (first.body if first else None) == next(iter(bodies), None)
            assert walk(store, world, question) == bodies
        lookups = [Lookup(world, None, question.which) for question in asked]
        found = store.look_up(lookups, now=asked[0].now)
        assert [stored.body if stored else None for stored in found] == [
            next(iter(expected(offered, replace(question, now=asked[0].now))), None)
            for question in asked
        ]

    holds()


def walk(store: Store, world: str, asked: Asked) -> list[str]:
    bodies: list[str] = []
    key = None
    while True:
        page = store.newest_first(world, asked.which, now=asked.now, limit=asked.limit, after=key)
        assert len(page.bodies) <= asked.limit
        bodies += page.bodies
        if (key := page.next_key) is None:
            return bodies


def test_a_version_is_known_from_its_receipt_and_alive_until_its_expiry(store: Store) -> None:
    store.land([accept(ttl_sec=60)])
    end, microsecond = NOW + timedelta(seconds=60), timedelta(microseconds=1)

    def known(moment: datetime, **which: Any) -> bool:
        asked = Filter(known_at=moment, **which)
        return store.by_version(WORLD, "v1", asked, now=NOW + timedelta(days=9)) is not None

    assert not known(NOW - microsecond)
    assert not known(NOW - microsecond, include_expired=True)
    assert known(NOW)
    assert known(end - microsecond)
    assert not known(end)
    assert known(end, include_expired=True)


def test_many_lookups_are_answered_each_for_itself_in_their_order(store: Store) -> None:
    store.land([accept(), accept(version="v2", as_of="2026-01-31T20:00:00Z", ttl_sec=60)])
    store.land([accept(world_id="fx", version="v1", stage="live")])
    later = NOW + timedelta(seconds=60)
    asked = [
        Lookup("fx", None, Filter(stage="live")),
        Lookup(WORLD, "v2", Filter()),
        Lookup(WORLD, "v2", ALL),
        Lookup(WORLD, "v3", ALL),
        Lookup(WORLD, None, Filter(up_to=datetime(2026, 1, 31, 20, tzinfo=UTC))),
        Lookup(WORLD, None, Filter()),
        Lookup("fx", None, Filter(stage="paper")),
        Lookup(WORLD, "v2", Filter(known_at=NOW)),
        Lookup("rates", None, ALL),
        Lookup(WORLD, None, Filter(since=later)),
    ]
    found = [stored.body if stored else None for stored in store.look_up(asked, now=later)]
    fx = accept(world_id="fx", version="v1", stage="live").body
    one = accept().body
    two = accept(version="v2", as_of="2026-01-31T20:00:00Z", ttl_sec=60).body
    assert found == [fx, None, two, None, None, one, None, two, None, None]
    assert store.look_up([], now=NOW) == []


def test_of_one_instant_and_one_receipt_the_later_to_land_is_the_latest(store: Store) -> None:
    store.land([accept(version="received later", received_at=NOW + MINUTE)])
    store.land([accept(version="b first"), accept(version="a second")])
    assert latest(store) == "received later"
    listed = versions(store.newest_first(WORLD, now=NOW, limit=9).bodies)
    assert listed == ["received later", "a second", "b first"]


def test_a_receipt_in_the_future_is_served_but_was_not_known_yet(store: Store) -> None:
    """Another machine's clock runs ahead; its producers' snapshots must not wait for ours."""
    ahead = NOW + timedelta(days=30)
    store.land([accept(version="behind", as_of="2026-01-31T20:00:00Z")])
    store.land([accept(version="ahead", received_at=ahead, ttl_sec=60)])
    assert latest(store) == "ahead"
    assert latest(store, known_at=NOW) == "behind"
    assert latest(store, known_at=ahead) == "ahead"

    # What has expired in front of it must not hide it either.
    short = accept(version="short", as_of="2026-01-31T21:04:00Z", ttl_sec=1)
    store.land([short])
    assert latest(store, NOW + timedelta(seconds=1)) == "ahead"


@pytest.mark.parametrize("year", [1, 9999])
def test_any_moment_that_can_be_written_can_be_asked_for(store: Store, year: int) -> None:
    store.land([accept(), accept(version="v2", as_of="2026-01-31T20:00:00Z")])
    moment = datetime.max.replace(tzinfo=UTC) if year == 9999 else datetime.min.replace(tzinfo=UTC)
    for include_expired in (True, False):
        found = latest(store, known_at=moment, include_expired=include_expired)
        assert found == ("v1" if year == 9999 and include_expired else None)
        latest(store, since=moment, up_to=moment, include_expired=include_expired)


@pytest.fixture
def worn(store: Store) -> Store:
    """Three alive ones among thousands that have expired: behind, in front and between."""
    template = accept(ttl_sec=60)

    def expired(version: str, as_of: datetime) -> Snapshot:
        past = template.received_at - timedelta(hours=1)
        body = json.dumps({"version": version})
        return replace(template, version=version, as_of=as_of, received_at=past, body=body)

    def alive(version: str, as_of: datetime) -> Snapshot:
        return replace(expired(version, as_of), received_at=NOW)

    store.land([expired(f"old {n}", START - n * MINUTE) for n in range(1_500)])
    store.land([alive(f"alive {n}", START + n * 1_000 * MINUTE) for n in range(3)])
    store.land([expired(f"new {n}", START + n * MINUTE) for n in range(1, 1_999)])
    store.land([expired(f"newest {n}", START + (3_000 + n) * MINUTE) for n in range(1_500)])
    return store


def test_thousands_of_expired_ones_hide_no_alive_one(worn: Store) -> None:
    assert latest(worn) == "alive 2"
    assert walked(worn, limit=1) == walked(worn, limit=3) == ["alive 2", "alive 1", "alive 0"]
    assert latest(worn, up_to=START + 1_999 * MINUTE) == "alive 1"
    assert latest(worn, since=START + 2_001 * MINUTE) is None
    assert latest(worn, include_expired=True) == "newest 1499"
    assert latest(worn, NOW + MINUTE) is None
    then = NOW - timedelta(hours=1)
    assert latest(worn, known_at=then) == "newest 1499"
    assert len(walked(worn, limit=1_000, known_at=then)) == 4_998


def walked(store: Store, limit: int, **which: Any) -> list[str]:
    return versions(walk(store, WORLD, Asked(Filter(**which), NOW, limit)))


def test_a_few_expired_ones_among_thousands_of_alive_are_left_out(store: Store) -> None:
    template = accept()
    store.land(
        [
            replace(
                template,
                version=str(n),
                as_of=START + n * MINUTE,
                ttl_sec=60 if n % 700 == 699 else 900,
                body=json.dumps({"version": str(n)}),
            )
            for n in range(2_100)
        ]
    )
    now = NOW + timedelta(seconds=60)
    left = [str(n) for n in reversed(range(2_100)) if n % 700 != 699]
    for limit in (100, 1_000):
        assert versions(walk(store, WORLD, Asked(Filter(), now, limit))) == left


def test_paging_with_every_filter_goes_on_where_it_was_while_rows_land(store: Store) -> None:
    def row(number: int, **overrides: Any) -> Snapshot:
        as_of = (START + (number // 2) * MINUTE).isoformat()  # pairs share an instant
        given = {"stage": "live", "actor": "a", "ttl_sec": 60} | overrides
        return accept(version=f"v{number}", as_of=as_of, **given)

    wanted = [row(number) for number in range(4, 16)]
    store.land([row(number) for number in range(4)])  # before `since`
    store.land(wanted)
    others = [{"stage": "paper"}, {"actor": "b"}, {"received_at": NOW + MINUTE}]
    store.land([row(20 + n, **other) for n, other in enumerate(others)])
    asked = Filter(
        stage="live",
        actor="a",
        since=START + 2 * MINUTE,
        up_to=START + 11 * MINUTE,
        known_at=NOW,
    )
    seen: list[str] = []
    key, landed = None, 100
    while True:
        page = store.newest_first(WORLD, asked, now=NOW, limit=5, after=key)
        seen += versions(page.bodies)
        if (key := page.next_key) is None:
            break
        # Received after the moment that is asked about, on either side of the cursor.
        moment = NOW + MINUTE
        store.land([replace(row(n), version=f"late {landed + n}", received_at=moment)
                    for n in (4, 9, 15)])  # fmt: skip
        landed += 100
    assert seen == [f"v{number}" for number in reversed(range(4, 16))]
