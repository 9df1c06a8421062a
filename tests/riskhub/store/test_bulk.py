"""Many rows at once are the rows that were given, in whichever way they go in."""

from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from builders import NOW
from stored import DAY

from riskhub.errors import StoreUnavailable
from riskhub.store import Store
from riskhub.store.bulk import add_rows
from riskhub.store.engine import reading, writing
from riskhub.store.tables import dead_letters, events, stress_results, validated_snapshots

MANY = 40


def verdict(position: int, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "day": DAY + timedelta(days=position),
        "world_id": "w\t\\N \n'\"ü",
        "version": "",
        "as_of": NOW + timedelta(microseconds=position),
        "stage": "paper",
        "digest": "sha256:0",
        "accepted": position % 2 == 0,
        "reasons": [],
        "flags": [{"what": "a\\b", "n": position / 7}],
        "evidence": None,
        "schema_version": "1",
    } | row


def result(position: int, **row: Any) -> dict[str, Any]:
    return {
        "position": position,
        "origin": "riskhub",
        "scenario": "s",
        "day": date(2026, 1, 1),
        "pnl": 0.1 + position,
        "ruined": None,
        "unavailable": None,
        "measures": {"tail": [1, None]} if position % 2 else None,
    } | row


def stored(store: Store, table: sa.Table) -> list[dict[str, Any]]:
    with reading(store.engine) as connection:
        rows = connection.execute(sa.select(table).order_by(*table.primary_key.columns))
        return [dict(row._mapping) for row in rows]


@pytest.mark.parametrize("count", [0, 1, MANY])
def test_what_is_read_is_what_was_given(store: Store, count: int) -> None:
    verdicts = [verdict(position) for position in range(count)]
    results = [result(position) for position in range(count)]
    with writing(store.engine) as connection:
        add_rows(connection, validated_snapshots, verdicts)
        add_rows(connection, stress_results, results)
    assert stored(store, validated_snapshots) == verdicts
    kept = [{name: row[name] for name in result(0)} for row in stored(store, stress_results)]
    assert kept == results


def test_json_without_a_value_is_what_its_column_says(store: Store) -> None:
    with writing(store.engine) as connection:
        add_rows(connection, validated_snapshots, [verdict(n) for n in range(MANY)])
        add_rows(connection, stress_results, [result(n, measures=None) for n in range(MANY)])
    with reading(store.engine) as connection:
        for column, nulls in (
            (validated_snapshots.c.evidence, 0),
            (stress_results.c.measures, MANY),
        ):
            as_sql = sa.select(sa.func.count()).where(column.is_(sa.null()))
            assert connection.execute(as_sql).scalar_one() == nulls


def test_rows_are_numbered_in_the_order_in_which_they_were_given(store: Store) -> None:
    rows = [
        {"type": "t", "key": str(n), "position": None, "event_id": f"e{n}", "subject": None,
         "occurred_at": NOW, "correlation_id": None, "data": "{}"}
        for n in range(MANY)
    ]  # fmt: skip
    with writing(store.engine) as connection:
        add_rows(connection, events, rows)
    read = stored(store, events)
    assert [row["key"] for row in read] == [str(n) for n in range(MANY)]
    assert [row["sequence"] for row in read] == list(range(1, MANY + 1))


def test_bytes_go_in_as_they_are(store: Store) -> None:
    raw = bytes(range(256))
    rows = [
        {"handler": "h", "event_id": f"e{n}", "type": "t", "key": "k", "origin": "o",
         "reason": "r", "attempts": 1, "raw": raw, "died_at": NOW}
        for n in range(MANY)
    ]  # fmt: skip
    with writing(store.engine) as connection:
        add_rows(connection, dead_letters, rows)
    assert {row["raw"] for row in stored(store, dead_letters)} == {raw}


@pytest.mark.parametrize(
    "bad", [verdict(0), verdict(MANY, digest=None)], ids=["there already", "not complete"]
)
def test_a_row_that_can_not_be_takes_all_of_them_with_it(store: Store, bad: dict[str, Any]) -> None:
    rows = [*(verdict(position) for position in range(MANY)), bad]
    with pytest.raises(sa.exc.IntegrityError), writing(store.engine) as connection:
        add_rows(connection, validated_snapshots, rows)
    assert stored(store, validated_snapshots) == []
    with writing(store.engine) as connection:
        add_rows(connection, validated_snapshots, rows[:-1])
    assert len(stored(store, validated_snapshots)) == MANY


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_connection_that_was_lost_is_unavailable_once(store: Store, open_another: Any) -> None:
    other, rows = open_another(), [verdict(position) for position in range(MANY)]

    def lost() -> None:
        with writing(store.engine) as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            with reading(other.engine) as killer:
                killer.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
            add_rows(connection, validated_snapshots, rows)

    with pytest.raises(StoreUnavailable):
        lost()
    with writing(store.engine) as connection:
        add_rows(connection, validated_snapshots, rows)
    assert len(stored(store, validated_snapshots)) == MANY
