"""A world's risk numbers: newest first, with their tails, and through an index."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from builders import NOW, WORLD, accept
from sqlalchemy import event
from stored import (
    DAY,
    candidate,
    contribution,
    land_days,
    metrics,
    plans_of,
    tail,
    verdict,
)

from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.numbers import NumbersFilter

HOUR = timedelta(hours=1)
LEVELS = ("0.99", "0.95", "0.975")


def measure(
    store: Store, position: int, *, levels: tuple[str, ...] = ("0.99",), **row: Any
) -> None:
    rows = {
        "risk_metrics": [metrics(position, **row)],
        "risk_tails": [tail(position, level) for level in levels],
    }
    store.write_days(rows, [DAY], replace=False)


def write_contributions(
    store: Store,
    position: int,
    book: list[dict[str, Any]],
    candidates: list[dict[str, Any]] | None = None,
    **row: Any,
) -> None:
    rows = {
        "risk_metrics": [metrics(position, **row)],
        "risk_contributions": book,
        "candidate_risk": candidates or [],
    }
    store.write_days(rows, [DAY], replace=False)


def positions(store: Store, **which: Any) -> list[int]:
    found = store.numbers(WORLD, NumbersFilter(**which), limit=100).rows
    return [row["position"] for row in found]


def test_numbers_are_the_stored_rows_each_with_its_tails(store: Store) -> None:
    measure(store, 1, levels=("0.99", "0.95"))
    measure(store, 2, levels=(), as_of=NOW - HOUR, unavailable="no prices", mean=None)
    page = store.numbers(WORLD, limit=2)
    assert page.next_key is None
    for position, row in zip((1, 2), page.rows, strict=True):
        (held,) = (each for each in store.metrics_on(DAY, DAY) if each["position"] == position)
        tails = [each for each in store.tails_on(DAY, DAY) if each["position"] == position]
        left_out = ("day", "position")
        assert row == {name: value for name, value in held.items() if name != "day"} | {
            "tails": [
                {name: value for name, value in each.items() if name not in left_out}
                for each in tails
            ]
        }
    assert [len(row["tails"]) for row in page.rows] == [2, 0]


def test_the_greatest_as_of_comes_first_then_the_later_landing(store: Store) -> None:
    for position, hours in ((1, 0), (2, 2), (3, 1), (4, 1), (5, 0)):
        measure(store, position, as_of=NOW - hours * HOUR)
    assert positions(store) == [5, 1, 4, 3, 2]
    measure(store, 6, as_of=NOW + HOUR, world_id="fx")
    assert positions(store)[0] == 5


def test_numbers_are_filtered_by_stage_and_bounded_by_as_of_both_ends_included(
    store: Store,
) -> None:
    for position in range(1, 7):
        stage = "live" if position % 2 else "paper"
        measure(store, position, as_of=NOW + position * HOUR, stage=stage)
    assert positions(store, stage="live") == [5, 3, 1]
    assert positions(store, since=NOW + 5 * HOUR) == [6, 5]
    assert positions(store, up_to=NOW + 2 * HOUR) == [2, 1]
    assert positions(store, since=NOW + 2 * HOUR, up_to=NOW + 4 * HOUR, stage="paper") == [4, 2]
    assert positions(store, since=NOW + 2 * HOUR, up_to=NOW) == []


def test_a_version_is_found_by_its_landing(store: Store) -> None:
    first, second = land_days(store, 10, 11)
    for position in (first, second):
        measure(store, position)
    assert positions(store, version="1") == [second]
    assert positions(store, version="1", stage="live") == []
    assert positions(store, version="9") == []


def test_method_and_level_choose_tails_and_leave_out_no_snapshot(store: Store) -> None:
    measure(store, 1, levels=("0.95", "0.99"))
    store.write_days({"risk_tails": [tail(2, method="normal")]}, [DAY], replace=False)
    store.write_days({"risk_metrics": [metrics(2)]}, [DAY], replace=False)

    def kinds(**which: Any) -> list[list[tuple[str, str]]]:
        rows = store.numbers(WORLD, NumbersFilter(**which), limit=9).rows
        return [[(each["method"], each["level"]) for each in row["tails"]] for row in rows]

    normal, low, high = ("normal", "0.99"), ("historical", "0.95"), ("historical", "0.99")
    assert kinds() == [[normal], [low, high]]
    assert kinds(method="normal") == [[normal], []]
    assert kinds(level="0.99") == [[normal], [high]]
    assert kinds(method="historical", level="0.95") == [[], [low]]
    assert sorted(store.tail_kinds([1, 2])) == [low, high, normal]
    assert store.tail_kinds([2, 3]) == [normal]
    assert store.tail_kinds([]) == []


def test_pages_lead_through_everything_once_also_within_one_as_of(store: Store) -> None:
    for position in range(1, 8):
        measure(store, position, as_of=NOW + position // 4 * HOUR, levels=("0.95", "0.99"))
    walked, after = [], None
    while True:
        page = store.numbers(WORLD, limit=2, after=after)
        walked += [row["position"] for row in page.rows]
        assert all(len(row["tails"]) == 2 for row in page.rows)
        after = page.next_key
        if after is None:
            break
    assert walked == [7, 6, 5, 4, 3, 2, 1]


def test_why_a_version_was_rejected(store: Store) -> None:
    accepted, rejected, _pending = land_days(store, 10, 11, 12)
    verdicts = [
        verdict(accepted),
        verdict(rejected, accepted=False, reasons=["the sum", "the pairs"]),
    ]
    store.write_days({"validated_snapshots": verdicts}, [DAY], replace=True)
    assert store.rejection_of(WORLD, "1") == ["the sum", "the pairs"]
    for version in ("0", "2", "none"):
        assert store.rejection_of(WORLD, version) is None
    assert store.rejection_of("fx", "1") is None


def test_contributions_are_the_stored_rows_by_symbol_and_the_candidates_by_method_and_level(
    store: Store,
) -> None:
    book = [contribution(1, symbol, 0.01) for symbol in ("_", "b", "B", "a", "10", "9")]
    asked = [candidate(1, level, method) for method in ("normal", "ewma") for level in LEVELS]
    write_contributions(store, 1, book, asked)
    write_contributions(store, 2, [contribution(2, "A", 0.02)], as_of=NOW - HOUR)
    write_contributions(store, 3, [], as_of=NOW - 2 * HOUR, absent={"contributions": "no risk"})
    first, second, third = store.contributions(WORLD, limit=3).rows
    left_out = ("position", "day")
    assert first["contributions"] == [
        {name: value for name, value in row.items() if name not in left_out}
        for row in sorted(book, key=lambda row: row["symbol"])  # the same from every database
    ]
    assert [(row["method"], row["level"]) for row in first["candidate"]] == [
        (method, level) for method in ("ewma", "normal") for level in sorted(LEVELS)
    ]
    assert first["candidate"][0]["var_with"] == 0.25
    assert [each["symbol"] for each in second["contributions"]] == ["A"]
    assert (third["contributions"], third["candidate"]) == ([], [])
    assert third["absent"] == {"contributions": "no risk"}


def test_contributions_are_chosen_and_paged_as_numbers_are(store: Store) -> None:
    for position in range(1, 6):
        stage = "live" if position == 4 else "paper"
        write_contributions(store, position, [], as_of=NOW + position * HOUR, stage=stage)
    which = NumbersFilter(stage="paper", since=NOW + 2 * HOUR)
    page = store.contributions(WORLD, which, limit=2)
    assert [row["position"] for row in page.rows] == [5, 3]
    page = store.contributions(WORLD, which, limit=2, after=page.next_key)
    assert ([row["position"] for row in page.rows], page.next_key) == ([2], None)


@pytest.mark.parametrize("read", ["numbers", "contributions"])
def test_parts_are_those_of_the_row_though_it_is_computed_again_meanwhile(
    store: Store, open_another: Callable[[], Store], read: str
) -> None:
    def write(into: Store, n: int, number: float) -> None:
        rows = {
            "risk_metrics": [metrics(1, n=n)],
            "risk_tails": [tail(1, var=number)],
            "risk_contributions": [contribution(1, "A", number)],
        }
        into.write_days(rows, [DAY], replace=True)

    write(store, 500, 0.5)
    other, statements = open_another(), []

    @event.listens_for(store.engine, "after_cursor_execute")
    def compute_again(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)
        if len(statements) == 1:
            write(other, 250, 0.25)

    for n, number in ((500, 0.5), (250, 0.25)):
        (row,) = getattr(store, read)(WORLD, limit=1).rows
        (part,) = row["tails" if read == "numbers" else "contributions"]
        assert (row.get("n", n), part["var"]) == (n, number)
    assert len(statements) > 2


# -- through an index -----------------------------------------------------------------------------


@pytest.fixture
def years(store: Store) -> Store:
    """Four worlds of two stages, a thousand measured snapshots each."""
    template = accept()
    start = NOW - 1_000 * HOUR
    store.land(
        [
            accept(
                world_id=f"w{number % 4}", version=f"v{number}", as_of=template.as_of.isoformat()
            )
            for number in range(4_000)
        ]
    )
    days = sorted({(start + number * HOUR).date() for number in range(1_000)})
    rows = []
    for number, landed in enumerate(store.landed_on(date.min, DAY)):
        as_of = start + number // 4 * HOUR
        rows.append(
            metrics(
                landed.position,
                day=as_of.date(),
                world_id=landed.world_id,
                version=landed.version,
                as_of=as_of,
                stage=f"s{number // 4 % 2}",
            )
        )
    made = {
        "risk_metrics": rows,
        "risk_tails": [
            tail(row["position"], level, day=row["day"])
            for row in rows
            for level in ("0.95", "0.975", "0.99")
        ],
        "risk_contributions": [
            contribution(row["position"], "A", 0.01, day=row["day"]) for row in rows
        ],
        "candidate_risk": [candidate(row["position"], "0.99", day=row["day"]) for row in rows],
        "validated_snapshots": [
            verdict(row["position"], day=row["day"], accepted=False) for row in rows
        ],
    }
    store.write_days(made, days, replace=True)
    with writing(store.engine) as connection:
        connection.exec_driver_sql("ANALYZE")
    return store


@pytest.mark.parametrize(
    ("index", "which"),
    [
        ("ix_risk_metrics_world_id_as_of", {}),
        ("ix_risk_metrics_world_id_stage_as_of", {"stage": "s1"}),
    ],
)
def test_the_newest_and_every_page_read_their_index(
    years: Store, index: str, which: dict[str, Any]
) -> None:
    past = NOW - 500 * HOUR
    asked = [
        NumbersFilter(**which),
        NumbersFilter(**which, method="historical", level="0.99"),
        NumbersFilter(**which, since=past - 50 * HOUR, up_to=past),
    ]
    with plans_of(years) as plans:
        for filter_ in asked:
            assert years.numbers("w1", filter_, limit=1).rows
            page = years.numbers("w1", filter_, limit=5)
            assert years.numbers("w1", filter_, limit=5, after=page.next_key).rows
    assert len(plans) == 2 * 3 * len(asked)  # a page, and then its tails
    for number, plan in enumerate(plans):
        read = index if number % 2 == 0 else "(pk|sqlite_autoindex)_risk_tails"
        assert re.search(rf"\b{read}", plan), plan
        scans_nothing(plan)


def test_contributions_are_found_by_their_keys(years: Store) -> None:
    with plans_of(years) as plans:
        assert years.contributions("w1", limit=5).rows
    assert len(plans) == 3
    for plan in plans:
        scans_nothing(plan)


def test_a_version_its_rejection_and_kinds_are_found_by_their_keys(years: Store) -> None:
    with plans_of(years) as plans:
        assert years.numbers("w1", NumbersFilter(version="v1"), limit=1).rows
        assert years.rejection_of("w1", "v1") is not None
        assert years.tail_kinds([1, 2, 3])
    assert len(plans) == 4
    for plan in plans:
        scans_nothing(plan)


def scans_nothing(plan: str) -> None:
    assert not re.search(r"Seq Scan|SCAN (risk|candidate|snapshots|validated)", plan), plan
