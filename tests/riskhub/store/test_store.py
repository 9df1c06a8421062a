"""What the store promises, asked alike of SQLite and of Postgres."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from builders import NOW, WORLD, accept, wait_until
from sqlalchemy import event

import riskhub.store
from riskhub.errors import StoreNotMigrated, StoreUnavailable
from riskhub.snapshot import Snapshot, digest
from riskhub.store import Filter, Store, create_engine, migrate, open_store
from riskhub.store.engine import reading, writing
from riskhub.store.landing import Outcome, land
from riskhub.store.schema import check_migrated
from riskhub.store.tables import metadata, risk_metrics, snapshots

CREATED, DUPLICATE, CONFLICT = Outcome.CREATED, Outcome.DUPLICATE, Outcome.CONFLICT
DAY = date(2026, 1, 31)
THREADS = 8
ALL = Filter(include_expired=True)


class Stumbled(Exception):
    """What goes wrong in the middle of a transaction."""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that nobody has touched."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def open_another(url: str) -> Iterator[Callable[[], Store]]:
    """Opens the database as one more process would: with an engine of its own."""
    opened: list[Store] = []

    def another() -> Store:
        opened.append(Store(create_engine(url)))
        return opened[-1]

    yield another
    for store in opened:
        store.close()


@pytest.fixture
def store(open_another: Callable[[], Store]) -> Store:
    store = open_another()
    migrate(store.engine)
    return store


def outcomes(store: Store, *offered: Snapshot) -> list[Outcome]:
    return [landing.outcome for landing in store.land(offered)]


def versions(bodies: list[str]) -> list[str]:
    return [json.loads(body)["version"] for body in bodies]


def latest(store: Store, now: datetime = NOW, **which: Any) -> str | None:
    found = store.latest(WORLD, Filter(**which), now=now)
    return versions([found.body])[0] if found else None


def body_of(store: Store, version: str) -> str | None:
    found = store.by_version(WORLD, version, now=NOW)
    return found.body if found else None


def row_count(store: Store) -> int:
    with reading(store.engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(snapshots)).scalar_one()


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """Run the tasks in threads that all set off at once."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


# -- landing --------------------------------------------------------------------------------------


def test_lands_once_then_recognises_the_same_and_refuses_the_other(store: Store) -> None:
    first = accept()
    assert outcomes(store, first) == [CREATED]

    again, other = store.land([accept(received_at=NOW + timedelta(1)), accept(ttl_sec=60)])

    assert (again.outcome, other.outcome) == (DUPLICATE, CONFLICT)
    assert (again.body, again.digest) == (first.body, first.digest)
    assert (other.body, other.digest) == (first.body, first.digest)
    assert body_of(store, "v1") == first.body
    assert row_count(store) == 1


def test_tells_duplicates_and_conflicts_apart_inside_one_batch(store: Store) -> None:
    first, elsewhere = accept(), accept(world_id="fx")
    landings = store.land([first, accept(), accept(ttl_sec=60), elsewhere, accept(version="v2")])
    assert [landing.outcome for landing in landings] == [
        CREATED, DUPLICATE, CONFLICT, CREATED, CREATED,
    ]  # fmt: skip
    assert [landing.body for landing in landings[:4]] == [first.body] * 3 + [elsewhere.body]
    assert row_count(store) == 3


@pytest.mark.parametrize("batched", [True, False], ids=["one batch", "two calls"])
@pytest.mark.parametrize("stored_as", ["sha256", "blake3"])
def test_the_same_content_is_the_same_under_either_algorithm(
    store: Store, stored_as: str, batched: bool
) -> None:
    offered_as = {"sha256": "blake3", "blake3": "sha256"}[stored_as]
    first = accept(hash=digest(accept().payload, stored_as))
    again = accept(hash=digest(accept().payload, offered_as))
    other = accept(ttl_sec=60, hash=digest(accept(ttl_sec=60).payload, offered_as))

    landings = (
        store.land([first, again, other])
        if batched
        else store.land([first]) + store.land([again]) + store.land([other])
    )

    assert [landing.outcome for landing in landings] == [CREATED, DUPLICATE, CONFLICT]
    assert {landing.digest for landing in landings} == {first.digest}
    assert first.digest.startswith(stored_as)


def test_nothing_offered_lands_nothing(store: Store) -> None:
    assert store.land([]) == []
    assert (store.head(), row_count(store)) == (0, 0)


def test_a_batch_longer_than_one_statement_keeps_its_order(store: Store) -> None:
    offered = [accept(version=f"v{number}") for number in range(2_500)]
    assert set(outcomes(store, *offered)) == {CREATED}
    landed = store.landed_on(DAY, DAY)
    assert [row.version for row in landed] == [snapshot.version for snapshot in offered]
    assert set(outcomes(store, *offered)) == {DUPLICATE}


def test_a_batch_that_fails_lands_nothing(store: Store) -> None:
    def stumble() -> None:
        with writing(store.engine) as connection:
            land(connection, [accept()])
            raise Stumbled

    with pytest.raises(Stumbled):
        stumble()
    assert (row_count(store), store.newest_per_world()) == (0, [])


def test_many_at_once_with_the_same_content_make_one_row(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    offered = [accept(version=f"v{number}") for number in range(5)]
    answers = together(*(lambda store=store: outcomes(store, *offered) for store in stores))
    for of_one_version in zip(*answers, strict=True):
        assert sorted(of_one_version, key=str) == [CREATED] + [DUPLICATE] * (THREADS - 1)
    assert row_count(store) == 5


def test_many_at_once_with_different_content_have_one_winner(
    store: Store, open_another: Callable[[], Store]
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    offered = [accept(ttl_sec=60 + number) for number in range(THREADS)]
    answers = together(
        *(
            lambda store=store, snapshot=snapshot: store.land([snapshot])[0]
            for store, snapshot in zip(stores, offered, strict=True)
        )
    )
    (winner,) = [n for n, landing in enumerate(answers) if landing.outcome is CREATED]
    assert [landing.outcome for landing in answers].count(CONFLICT) == THREADS - 1
    assert {landing.body for landing in answers} == {offered[winner].body}
    assert body_of(store, "v1") == offered[winner].body


# -- landing order --------------------------------------------------------------------------------


def about_to_land(store: Store) -> threading.Event:
    """Set once the store has taken a connection to begin on; SQLite waits in that beginning."""
    begun = threading.Event()
    event.listen(store.engine, "checkout", lambda *_: begun.set())
    return begun


def waits_for_a_lock(store: Store) -> bool:
    """Whether some connection of the database waits for another's advisory lock."""
    if store.engine.dialect.name != "postgresql":
        return True  # seen in `about_to_land`
    with reading(store.engine) as connection:
        waiting = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND "
            "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return bool(waiting.scalar_one())


def test_nothing_becomes_visible_before_what_took_its_position_earlier(
    store: Store, open_another: Callable[[], Store]
) -> None:
    late, reader = open_another(), open_another()
    store.land([accept(version="v0")])
    remembered = reader.head()
    begun = about_to_land(late)

    with ThreadPoolExecutor(1) as pool:
        with writing(store.engine) as held_open:
            land(held_open, [accept(version="v1")])
            second = pool.submit(late.land, [accept(version="v2")])
            begun.wait(30)
            wait_until(lambda: second.done() or waits_for_a_lock(reader))

            assert reader.head() == remembered
            assert [row.version for row in reader.landed_on(DAY, DAY)] == ["v0"]
        second.result(30)

    new = [row for row in reader.landed_on(DAY, DAY) if row.position > remembered]
    assert [row.version for row in new] == ["v1", "v2"]
    assert [day.count for day in reader.pending_days(after=remembered).days] == [2]


def test_a_transaction_that_gives_up_frees_the_way_and_leaves_nothing(
    store: Store, open_another: Callable[[], Store]
) -> None:
    late = open_another()
    begun = about_to_land(late)
    with ThreadPoolExecutor(1) as pool:

        def stumble() -> None:
            with writing(store.engine) as held_open:
                land(held_open, [accept(version="v1")])
                waiting.append(pool.submit(late.land, [accept(version="v2")]))
                begun.wait(30)
                raise Stumbled

        waiting: list[Future[Any]] = []
        with pytest.raises(Stumbled):
            stumble()
        waiting[0].result(30)
    assert [row.version for row in store.landed_on(DAY, DAY)] == ["v2"]


def test_positions_grow_also_under_load(store: Store, open_another: Callable[[], Store]) -> None:
    stores = [open_another() for _ in range(4)]
    done = threading.Event()

    def produce(number: int) -> None:
        for round_ in range(10):
            stores[number].land([accept(version=f"{number}-{round_}-{i}") for i in range(3)])

    def consume() -> list[str]:
        seen, position = [], 0
        while True:
            last_look = done.is_set()
            for row in store.landed_on(DAY, DAY):
                if row.position > position:
                    seen.append(row.version)
                    position = row.position
            if last_look:
                return seen

    with ThreadPoolExecutor(1) as pool:
        consumer = pool.submit(consume)
        together(*(lambda number=number: produce(number) for number in range(4)))
        done.set()
        seen = consumer.result(60)
    assert len(seen) == len(set(seen)) == row_count(store) == 120


# -- latest, list, lookup -------------------------------------------------------------------------


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
        return {(world, stage): as_of for world, stage, as_of in store.newest_per_world()}

    eight, nine = (datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (20, 21))
    store.land([accept(version="1"), accept(version="0", as_of="2026-01-31T20:00:00Z")])
    assert newest() == {(WORLD, "paper"): nine}
    store.land([accept(version="2", as_of="2026-01-31T19:00:00Z")])
    store.land([accept(version="3", as_of="2026-01-31T20:00:00Z", stage="live")])
    store.land([accept(version="1", as_of="2026-01-31T21:04:00Z")])  # a conflict moves nothing
    assert newest() == {(WORLD, "paper"): nine, (WORLD, "live"): eight}
    store.land([accept(version="4", as_of="2026-01-31T21:00:00.000001Z")])
    assert newest()[WORLD, "paper"] == nine + timedelta(microseconds=1)


# -- what is made from landings -------------------------------------------------------------------


def verdict(position: int, *, day: date = DAY, accepted: bool = True, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "digest": "sha256:0",
        "accepted": accepted,
        "reasons": [],
        "schema_version": "1",
    } | row


def metrics(position: int, *, day: date = DAY, **row: Any) -> dict[str, Any]:
    numbers = ["mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown"]
    return {
        "position": position,
        "day": day,
        "world_id": WORLD,
        "version": f"v{position}",
        "as_of": NOW,
        "stage": "paper",
        "unavailable": None,
        "horizon_days": 1,
        "window": 500,
        "n": 500,
        **dict.fromkeys(numbers, 0.01),
        **dict.fromkeys(["gross", "net", "largest", "herfindahl", "effective_names"], 1.0),
        "snapshot_digest": "sha256:0",
        "returns_source": "prices",
        "returns_digest": "sha256:1",
        "code_version": "riskhub/0",
    } | row


def tail(position: int, level: str = "0.99", *, day: date = DAY, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "method": "historical",
        "level": level,
        "day": day,
        "var": 0.02,
        "es": 0.03,
        "rank": 5,
        "var_next": 0.021,
    } | row


def weight(position: int, symbol: str, value: float, *, day: date = DAY) -> dict[str, Any]:
    return {
        "position": position,
        "symbol": symbol,
        "day": day,
        "world_id": WORLD,
        "weight": value,
    }


def compute(store: Store, position: int, *, day: date = DAY) -> None:
    """Everything that the pipeline makes of one landing."""
    made = {"validated_snapshots": [verdict(position, day=day)]}
    store.write_days(made | {"risk_metrics": [metrics(position, day=day)]}, [day], replace=False)


def land_days(store: Store, *days: int, **kwargs: Any) -> list[int]:
    """Land a snapshot for each January day; their positions."""
    before = store.head()
    store.land(
        [
            accept(version=f"{before + n}", as_of=f"2026-01-{day:02}T12:00:00Z", **kwargs)
            for n, day in enumerate(days)
        ]
    )
    return [row.position for row in store.landed_on(date(2026, 1, 1), DAY)][-len(days) :]


def test_pending_is_what_has_no_verdict_or_no_metrics_by_day(store: Store) -> None:
    assert (store.pending_days().days, store.pending_days().done_up_to) == ((), 0)
    one, two, three, four = land_days(store, 10, 11, 10, 12)
    tenth, eleventh, twelfth = (date(2026, 1, day) for day in (10, 11, 12))

    pending = store.pending_days()
    assert [(day.day, day.count, day.first_position) for day in pending.days] == [
        (tenth, 2, one),
        (eleventh, 1, two),
        (twelfth, 1, four),
    ]
    assert {day.newest_receipt for day in pending.days} == {NOW}
    assert (pending.head, pending.done_up_to) == (four, one - 1)

    compute(store, one, day=tenth)
    compute(store, four, day=twelfth)
    pending = store.pending_days()
    assert [(day.day, day.count, day.first_position) for day in pending.days] == [
        (tenth, 1, three),
        (eleventh, 1, two),
    ]
    assert pending.done_up_to == one

    rejected = verdict(two, day=eleventh, accepted=False, reasons=["the sum"])
    store.write_days({"validated_snapshots": [rejected]}, [eleventh], replace=True)
    assert store.pending_days().done_up_to == two  # rejected is done

    store.write_days({"validated_snapshots": [verdict(three, day=tenth)]}, [tenth], replace=False)
    assert store.pending_days().done_up_to == two  # accepted and not measured is half done

    store.write_days({"risk_metrics": [metrics(three, day=tenth)]}, [tenth], replace=False)
    assert (store.pending_days().days, store.pending_days().done_up_to) == ((), four)


def test_what_failed_keeps_done_back_while_later_work_is_done(store: Store) -> None:
    first, *later = land_days(store, 10, 11, 12, 13)
    for position, day in zip(later, (11, 12, 13), strict=True):
        compute(store, position, day=date(2026, 1, day))
    assert store.pending_days().done_up_to == first - 1
    assert store.pending_days(after=first - 1).done_up_to == first - 1


def test_pending_looks_after_a_position_and_at_one_stage(store: Store) -> None:
    (paper,) = land_days(store, 10, stage="paper")
    (live,) = land_days(store, 11, stage="live")
    assert [day.first_position for day in store.pending_days(after=paper).days] == [live]
    assert store.pending_days(after=live).days == ()
    assert store.pending_days(after=live).done_up_to == live
    assert [day.first_position for day in store.pending_days(stage="live").days] == [live]
    assert store.pending_days(stage="live").done_up_to == paper
    assert store.pending_days(stage="backtest").done_up_to == live


def test_replace_makes_the_day_hold_these_rows_and_no_others(store: Store) -> None:
    other = date(2026, 1, 30)
    both = {"risk_metrics": [metrics(1), metrics(2), metrics(3, day=other)]}
    store.write_days(both, [DAY, other], replace=True)

    store.write_days({"risk_metrics": [metrics(2, n=250)]}, [DAY], replace=True)

    rows = {row["position"]: row["n"] for row in store.metrics_on(other, DAY)}
    assert rows == {2: 250, 3: 500}
    store.write_days({"risk_metrics": []}, [DAY], replace=True)
    assert [row["position"] for row in store.metrics_on(other, DAY)] == [3]


def test_replacing_a_day_keeps_what_landed_after_its_rows_were_read(store: Store) -> None:
    store.write_days({"risk_metrics": [metrics(1), metrics(2)]}, [DAY], replace=True)
    # Another run adds landing 9 while this one, which has read up to 2, still computes.
    store.write_days({"risk_metrics": [metrics(9)]}, [DAY], replace=False)
    store.write_days({"risk_metrics": [metrics(2, n=250)]}, [DAY], replace=True, read_up_to=2)
    assert [row["position"] for row in store.metrics_on(DAY, DAY)] == [2, 9]


def test_a_rejected_snapshot_loses_all_that_was_made_from_it(store: Store) -> None:
    made = {
        "snapshot_weights": [weight(1, "BAC", 1.0), weight(2, "BAC", 1.0)],
        "risk_metrics": [metrics(1), metrics(2)],
        "risk_tails": [tail(1), tail(2)],
    }
    store.write_days(made, [DAY], replace=True)
    verdicts = [verdict(1, accepted=False, reasons=["the sum"]), verdict(2)]
    store.write_days({"validated_snapshots": verdicts}, [DAY], replace=True, rejected=[1])
    assert store.weights_of(DAY, DAY) == {2: {"BAC": 1.0}}
    assert store.metrics_on(DAY, DAY) == [metrics(2)]
    assert store.tails_on(DAY, DAY) == [tail(2)]
    assert [row["position"] for row in store.quarantined_on(DAY, DAY)] == [1]


def test_adding_replaces_only_the_rows_of_the_same_landings(store: Store) -> None:
    first = [tail(1, "0.95"), tail(1, "0.99"), tail(2)]
    store.write_days({"risk_tails": first}, [DAY], replace=False)
    store.write_days({"risk_tails": [tail(1, var=0.5), tail(3)]}, [DAY], replace=False)
    rows = [(row["position"], row["level"], row["var"]) for row in store.tails_on(DAY, DAY)]
    assert rows == [(1, "0.99", 0.5), (2, "0.99", 0.02), (3, "0.99", 0.02)]


def test_writing_twice_gives_the_same_rows(store: Store) -> None:
    tables = {
        "validated_snapshots": [verdict(1, reasons=["é", {"a": 1}])],
        "snapshot_weights": [weight(1, "BAC", 0.1), weight(1, "JPM", 0.9)],
        "risk_metrics": [metrics(1)],
        "risk_tails": [tail(1), tail(1, "0.95", rank=None, var_next=None)],
    }
    for replace in (True, True, False, False):
        store.write_days(tables, [DAY], replace=replace)
        assert store.verdicts_on(DAY, DAY) == tables["validated_snapshots"]
        assert store.metrics_on(DAY, DAY) == tables["risk_metrics"]
        assert store.tails_on(DAY, DAY) == tables["risk_tails"][::-1]
        assert store.weights_of(DAY, DAY) == {1: {"BAC": 0.1, "JPM": 0.9}}


def test_a_write_of_more_rows_than_a_statement_holds_is_whole(store: Store) -> None:
    rows = [weight(number, f"S{n}", 0.1) for number in range(1, 1_201) for n in range(10)]
    for replace in (True, False):
        store.write_days({"snapshot_weights": rows}, [DAY], replace=replace)
        held = store.weights_of(DAY, DAY)
        assert (len(held), {len(weights) for weights in held.values()}) == (1_200, {10})


@pytest.mark.parametrize("replace", [True, False])
def test_a_write_that_fails_in_the_middle_leaves_the_old_rows(store: Store, replace: bool) -> None:
    old = {"risk_metrics": [metrics(1)], "risk_tails": [tail(1)]}
    store.write_days(old, [DAY], replace=True)
    broken = {"risk_metrics": [metrics(1, n=1), metrics(2)], "risk_tails": [tail(1, var=None)]}
    with pytest.raises(sa.exc.IntegrityError):
        store.write_days(broken, [DAY], replace=replace)
    assert store.metrics_on(DAY, DAY) == old["risk_metrics"]
    assert store.tails_on(DAY, DAY) == old["risk_tails"]


@pytest.mark.parametrize("replace", [True, False])
def test_writers_of_one_day_leave_one_writers_rows_never_a_mixture(
    store: Store, open_another: Callable[[], Store], replace: bool
) -> None:
    other, writers = date(2026, 1, 30), [open_another() for _ in range(4)]

    def write(number: int) -> None:
        day_order = [DAY, other] if number % 2 else [other, DAY]  # no order may deadlock
        rows = [metrics(1, n=number), metrics(2, n=number), metrics(3, n=number, day=other)]
        tails = [tail(1, rank=number), tail(3, rank=number, day=other)]
        for _ in range(5):
            writers[number].write_days(
                {"risk_metrics": rows, "risk_tails": tails}, day_order, replace=replace
            )

    together(*(lambda number=number: write(number) for number in range(4)))
    written = [row["n"] for row in store.metrics_on(other, DAY)]
    ranks = [row["rank"] for row in store.tails_on(other, DAY)]
    assert (len(written), len(ranks)) == (3, 2)
    assert len({*written, *ranks}) == 1


def test_a_reader_sees_the_day_before_or_after_a_write_never_between(
    store: Store, open_another: Callable[[], Store]
) -> None:
    reader = open_another()
    store.write_days({"risk_metrics": [metrics(1)]}, [DAY], replace=True)
    with writing(store.engine) as held_open:
        held_open.execute(sa.delete(risk_metrics))
        assert [row["position"] for row in reader.metrics_on(DAY, DAY)] == [1]


def test_accepted_are_read_in_landing_order_with_their_bodies(store: Store) -> None:
    one, two, three = land_days(store, 10, 10, 10)
    day = date(2026, 1, 10)
    verdicts = [verdict(three, day=day), verdict(two, day=day, accepted=False)]
    store.write_days(
        {"validated_snapshots": [*verdicts, verdict(one, day=day)]}, [day], replace=True
    )
    store.write_days({"risk_metrics": [metrics(one, day=day)]}, [day], replace=True)

    found = store.accepted_on(day, day)
    assert [row.position for row in found] == [one, three]
    assert found[0].body == body_of(store, "0")
    missing = store.accepted_on(day, day, missing_from="risk_metrics")
    assert [row.position for row in missing] == [three]
    assert store.accepted_on(DAY, DAY) == []


def test_only_what_has_no_verdict_is_left_to_validate(store: Store) -> None:
    one, two = land_days(store, 10, 10)
    day = date(2026, 1, 10)
    rejected = verdict(one, day=day, accepted=False)
    store.write_days({"validated_snapshots": [rejected]}, [day], replace=True)
    assert [row.position for row in store.landed_on(day, day, only_unvalidated=True)] == [two]


def test_history_is_by_as_of_of_one_world_stage_method_and_level(store: Store) -> None:
    rows = [
        metrics(1, as_of=NOW),
        metrics(2, as_of=NOW - timedelta(hours=1)),
        metrics(3, as_of=NOW, stage="live"),
        metrics(4, as_of=NOW, world_id="fx"),
    ]
    tails = [tail(n) for n in (1, 2, 3, 4)] + [tail(1, "0.95"), tail(1, method="normal")]
    weights = [weight(n, "BAC", n / 10) for n in (1, 2, 3)]
    verdicts = [verdict(1), verdict(2), verdict(3, stage="live")]
    store.write_days(
        {
            "risk_metrics": rows,
            "risk_tails": tails,
            "snapshot_weights": weights,
            "validated_snapshots": verdicts,
        },
        [DAY],
        replace=True,
    )
    history = store.tail_history(WORLD, stage="paper", method="historical", level="0.99")
    assert [(row["position"], row["day"], row["var"]) for row in history] == [
        (2, DAY, 0.02),
        (1, DAY, 0.02),
    ]
    assert store.weights_history(WORLD, stage="paper") == {1: {"BAC": 0.1}, 2: {"BAC": 0.2}}


def budget(symbol: str, computed_at: datetime, **row: Any) -> dict[str, Any]:
    numbers = ["stress_factor", "portfolio_heat", "cluster_stress", "vol_regime", "base_risk_pct"]
    return {
        "computed_at": computed_at,
        "symbol": symbol,
        "budget_usd": 1000.0,
        "equity_usd": 100_000.0,
        **dict.fromkeys(numbers, 0.25),
        "mode": "shadow",
        "policies": {"heat": "fresh"},
        "formula_version": "p28/1",
    } | row


def test_budgets_are_kept_by_cycle_and_the_newest_cycle_is_read(store: Store) -> None:
    assert store.newest_budgets() == []
    store.add_budgets([])
    later = NOW + timedelta(seconds=10)
    newest = [budget("ETHUSDT", later), budget("BTCUSDT", later, budget_usd=500.0)]
    store.add_budgets(newest)
    store.add_budgets([budget("BTCUSDT", NOW), budget("SOLUSDT", NOW)])
    assert store.newest_budgets() == newest[::-1]


# -- schema ---------------------------------------------------------------------------------------


def tables_of(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def alembic_config(connection: sa.Connection) -> Config:
    config = Config()
    scripts = Path(riskhub.store.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    return config


def test_a_database_that_nobody_migrated_says_so(url: str, open_another: Any) -> None:
    fresh = open_another()
    with pytest.raises(StoreNotMigrated, match=r"revision None.*riskhub migrate"):
        open_store(url)
    for call in (lambda: fresh.land([accept()]), lambda: fresh.latest(WORLD, now=NOW)):
        with pytest.raises(StoreNotMigrated, match="riskhub migrate"):
            call()
    fresh.ping()


def test_a_database_of_another_revision_is_not_opened(store: Store, url: str) -> None:
    with writing(store.engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    with pytest.raises(StoreNotMigrated, match="revision older"):
        open_store(url)


def test_migrating_again_changes_nothing(store: Store, url: str) -> None:
    store.land([accept()])
    migrate(store.engine)
    check_migrated(store.engine)
    assert row_count(store) == 1
    open_store(url).close()


def test_processes_that_migrate_at_once_wait_for_each_other(
    open_another: Callable[[], Store],
) -> None:
    stores = [open_another() for _ in range(THREADS)]
    together(*(lambda store=store: migrate(store.engine) for store in stores))
    check_migrated(stores[0].engine)
    assert outcomes(stores[0], accept()) == [CREATED]


def test_the_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    with reading(store.engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert tables_of(store.engine) == {*metadata.tables, "alembic_version"}


def test_the_schema_goes_down_to_nothing_and_up_again(store: Store) -> None:
    store.land([accept()])
    with writing(store.engine) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert tables_of(store.engine) == {"alembic_version"}
    with pytest.raises(StoreNotMigrated):
        check_migrated(store.engine)
    migrate(store.engine)
    assert outcomes(store, accept()) == [CREATED]


# -- indices --------------------------------------------------------------------------------------


@contextmanager
def plans_of(store: Store) -> Iterator[list[str]]:
    """The plans of the SELECTs that the store issues inside the block."""
    issued: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            issued.append((statement, parameters))

    plans: list[str] = []
    event.listen(store.engine, "before_cursor_execute", note)
    yield plans
    event.remove(store.engine, "before_cursor_execute", note)
    explain = "EXPLAIN " if store.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    with reading(store.engine) as connection:
        for statement, parameters in issued:
            rows = connection.exec_driver_sql(explain + statement, parameters)
            plans.append("\n".join(str(row[-1]) for row in rows))


@pytest.fixture
def filled(store: Store) -> Store:
    """Enough rows, in worlds and days enough, for an index to be worth its while."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    store.land(
        [
            accept(
                version=f"v{number}",
                world_id=f"w{number % 20}",
                as_of=(start + timedelta(days=number % 500)).isoformat(),
            )
            for number in range(4_000)
        ]
    )
    landed = store.landed_on(date(2020, 1, 1), DAY)
    days = sorted({row.day for row in landed})
    tables = {
        "validated_snapshots": [verdict(row.position, day=row.day) for row in landed],
        "risk_metrics": [metrics(row.position, day=row.day) for row in landed],
        "risk_tails": [tail(row.position, day=row.day) for row in landed],
        "snapshot_weights": [weight(row.position, "BAC", 1.0, day=row.day) for row in landed],
    }
    store.write_days(tables, days, replace=True)
    with writing(store.engine) as connection:
        connection.exec_driver_sql("ANALYZE")
    return store


def test_latest_and_lookup_read_an_index_and_sort_nothing(filled: Store) -> None:
    with plans_of(filled) as plans:
        assert filled.latest("w7", now=NOW)
        assert filled.newest_first("w7", Filter(up_to=NOW - timedelta(days=2000)), now=NOW, limit=1)
    assert len(plans) == 2
    for plan in plans:
        assert "ix_snapshots_world" in plan, plan
        assert "sort" not in plan.lower(), plan
        assert "temp b-tree" not in plan.lower(), plan
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


# -- when the database can't ----------------------------------------------------------------------


def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'hub.db'}")
    store = Store(engine)
    migrate(engine)

    def limit_to(pages: int) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    store.land([accept(version="before")])
    with reading(engine) as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit_to(used + 2)
    padding = {"padding": "x" * 10_000}
    batch = [accept(version=f"v{n}", constraints=padding, stage="live") for n in range(20)]
    with pytest.raises(StoreUnavailable, match="full"):
        store.land(batch)
    with pytest.raises(StoreUnavailable, match="full"):
        store.write_days({"risk_metrics": [metrics(n) for n in range(1_000)]}, [DAY], replace=True)

    assert (row_count(store), store.metrics_on(DAY, DAY)) == (1, [])
    assert [stage for _, stage, _ in store.newest_per_world()] == ["paper"]
    limit_to(used + 10_000)
    assert set(outcomes(store, *batch)) == {CREATED}
    store.close()


def test_a_database_that_stays_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riskhub.store.engine.SQLITE_BUSY_TIMEOUT_SEC", 0.01)
    holder, store = (Store(create_engine(f"sqlite:///{tmp_path / 'hub.db'}")) for _ in "ab")
    migrate(holder.engine)
    with writing(holder.engine):
        with pytest.raises(StoreUnavailable, match="locked"):
            store.land([accept()])
        assert store.head() == 0  # readers never wait for a writer
    assert outcomes(store, accept()) == [CREATED]
    holder.close()
    store.close()


def test_a_server_that_is_not_there_is_unavailable(free_port: Callable[[], int]) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with pytest.raises(StoreUnavailable, match="can't be used now"):
        open_store(url)


def test_a_connection_that_the_server_ended_costs_one_error_at_most(postgres_url: str) -> None:
    store, other = Store(create_engine(postgres_url)), Store(create_engine(postgres_url))
    migrate(store.engine)
    end_the_others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def land_and_lose_the_connection() -> None:
        with writing(store.engine) as connection:
            land(connection, [accept()])
            with reading(other.engine) as killer:
                killer.exec_driver_sql(end_the_others)
            connection.execute(sa.select(1))

    with pytest.raises(StoreUnavailable):
        land_and_lose_the_connection()
    assert outcomes(store, accept()) == [CREATED]
    store.close()
    other.close()


def test_too_many_at_once_are_told_so_not_left_hanging(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(create_engine(postgres_url))
    pool: Any = store.engine.pool
    monkeypatch.setattr(pool, "_timeout", 0.01)
    held = [store.engine.connect() for _ in range(16)]
    with pytest.raises(StoreUnavailable, match="every database connection is busy"):
        store.ping()
    for connection in held:
        connection.close()
    store.ping()
    store.close()
