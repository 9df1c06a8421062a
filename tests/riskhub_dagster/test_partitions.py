"""How the days of a range are cut into runs, and into what one transaction writes."""

from datetime import date, timedelta

import dagster as dg
import pytest

from riskhub_dagster.partitions import backfill_policy, in_chunks

FIRST = date(2020, 1, 1)


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=number) for number in range(count)]


def test_quiet_days_are_written_a_month_at_a_time() -> None:
    assert [len(chunk) for chunk in in_chunks(days(70), {})] == [32, 32, 6]


def test_crowded_days_are_written_a_few_at_a_time_and_a_day_is_never_split() -> None:
    sizes = dict.fromkeys(days(5), 900) | {FIRST: 5_000}
    assert [len(chunk) for chunk in in_chunks(days(5), sizes)] == [1, 2, 2]


def test_a_chunk_has_no_gaps_and_every_day_is_in_one() -> None:
    with_gap = [*days(3), *days(8)[5:]]
    chunks = list(in_chunks(with_gap, {}))
    assert chunks == [with_gap[:3], with_gap[3:]]


def test_no_days_are_no_chunks() -> None:
    assert list(in_chunks([], {})) == []


def test_a_backfill_is_one_run_a_range_until_the_settings_cut_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert backfill_policy() == dg.BackfillPolicy.single_run()

    monkeypatch.setenv("RISKHUB_BACKFILL_DAYS_PER_RUN", "250")

    assert backfill_policy() == dg.BackfillPolicy.multi_run(max_partitions_per_run=250)
