"""What is made from landings: whole days, replaced at once."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
from builders import NOW, WORLD
from stored import (
    DAY,
    body_of,
    compute,
    land_days,
    metrics,
    stressed,
    tail,
    together,
    verdict,
    weight,
)

from riskhub.store import Store
from riskhub.store.engine import writing
from riskhub.store.tables import risk_metrics


def test_pending_is_what_has_no_verdict_or_lacks_numbers_by_day(store: Store) -> None:
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
    assert store.pending_days().done_up_to == two  # measured and not stressed, too

    store.write_days({"snapshot_stress": [stressed(three, day=tenth)]}, [tenth], replace=False)
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
