"""Values as Dagster can keep them."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from riskhub_dagster.metadata import MAX_TABLE_ROWS, plain, table


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float64(0.25), 0.25),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("AAPL"), "AAPL"),
        (None, None),
        (False, False),
        ("text", "text"),
        (date(2020, 3, 16), "2020-03-16"),
        (Decimal("1.5"), "1.5"),
    ],
)
def test_a_value_is_kept_as_plain_python(value: Any, kept: Any) -> None:
    assert plain(value) == kept
    assert type(plain(value)) is type(kept)


def test_an_instant_is_kept_as_utc() -> None:
    tokyo = datetime(2020, 3, 17, 6, tzinfo=timezone(timedelta(hours=9)))

    assert datetime.fromisoformat(str(plain(tokyo))) == datetime(2020, 3, 16, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), np.float64("nan"), np.float32("inf")]
)
def test_a_number_that_is_not_finite_is_refused_for_dagster_would_make_it_null(value: Any) -> None:
    with pytest.raises(ValueError, match="can't be metadata"):
        plain(value)


def test_a_table_keeps_the_first_50_rows_and_the_columns_asked_for() -> None:
    rows = [{"day": date(2020, 1, 1), "n": np.int64(n), "other": object()} for n in range(60)]

    kept = table(rows, ["n", "day"])

    assert MAX_TABLE_ROWS == len(kept.records) == 50
    assert kept.records[49].data == {"n": 49, "day": "2020-01-01"}
    assert [column.name for column in kept.schema.columns] == ["n", "day"]


def test_a_table_without_rows_still_has_its_columns() -> None:
    assert [column.name for column in table([], ["n"]).schema.columns] == ["n"]
