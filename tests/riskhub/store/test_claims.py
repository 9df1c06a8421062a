"""Claims: one run at a time computes a day of a table, and one that is tried again goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
from stored import metrics, verdict

from riskhub.store import Store, create_engine
from riskhub.store.engine import CUT_OFF_SESSION_ENDS_SEC, reading

DAY = date(2026, 1, 30)
NEXT = DAY + timedelta(days=1)
OpenAnother = Callable[[], Store]


def test_a_day_that_is_claimed_is_waited_for(store: Store, open_another: OpenAnother) -> None:
    other, held, order = open_another(), threading.Event(), list[str]()

    def second() -> None:
        held.wait()
        with other.claim("risk_metrics", [DAY, NEXT]):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with store.claim("risk_metrics", [DAY]):
            waiting = pool.submit(second)
            held.set()
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)  # it has everything but the claim
            order.append("first")
        waiting.result(timeout=10)
    assert order == ["first", "second"]


def test_another_table_is_another_claim(store: Store, open_another: OpenAnother) -> None:
    other = open_another()
    with store.claim("risk_metrics", [DAY]), other.claim("snapshot_stress", [DAY]):
        pass  # would never get here


def test_a_claim_ends_with_an_error(store: Store, open_another: OpenAnother) -> None:
    other = open_another()
    with pytest.raises(RuntimeError, match="stumbled"), store.claim("risk_metrics", [DAY]):
        raise RuntimeError("stumbled")
    with other.claim("risk_metrics", [DAY]):
        pass


def test_claims_in_any_order_do_not_wait_for_each_other(
    store: Store, open_another: OpenAnother
) -> None:
    other, days = open_another(), [DAY + timedelta(days=n) for n in range(20)]

    def claim(mine: Store, order: list[date]) -> int:
        for _ in range(20):
            with mine.claim("risk_metrics", order):
                pass
        return 20

    with ThreadPoolExecutor(2) as pool:
        rounds = [pool.submit(claim, store, days), pool.submit(claim, other, days[::-1])]
        assert [each.result(timeout=60) for each in rounds] == [20, 20]


def test_what_a_run_has_written_is_known_until_it_is_done_with_the_table(store: Store) -> None:
    store.write_days({"risk_metrics": [metrics(1, day=DAY)]}, [DAY], replace=True, run_id="a")
    store.write_days({"risk_metrics": []}, [NEXT], replace=True, run_id="a")
    store.write_days({"risk_metrics": []}, [NEXT], replace=True, run_id="b")
    assert store.written_by("a", "risk_metrics") == {DAY, NEXT}
    assert store.written_by("b", "risk_metrics") == {NEXT}
    assert store.written_by("a", "snapshot_stress") == set()
    assert store.days_noted("a") == 2
    store.forget_progress("a", "risk_metrics")
    assert store.written_by("a", "risk_metrics") == set()
    assert store.written_by("b", "risk_metrics") == {NEXT}


def test_a_write_that_fails_leaves_no_note(store: Store) -> None:
    with pytest.raises(KeyError):
        store.write_days({"risk_metrics": [{}]}, [DAY], replace=True, run_id="a")
    assert store.written_by("a", "risk_metrics") == set()


def test_writing_for_some_worlds_leaves_the_others(store: Store) -> None:
    positions = {"one": 1, "two": 2}
    verdicts = [verdict(n, day=DAY, world_id=world) for world, n in positions.items()]
    rows = [metrics(n, day=DAY, world_id=world) for world, n in positions.items()]
    store.write_days({"validated_snapshots": verdicts, "risk_metrics": rows}, [DAY], replace=True)
    store.write_days({"risk_metrics": []}, [DAY], replace=True, worlds={"two"})
    assert [row["world_id"] for row in store.metrics_on(DAY, DAY)] == ["one"]


def test_postgres_asks_a_silent_client_so_often_that_a_cut_off_one_holds_its_days_for_25_s(
    postgres_url: str,
) -> None:
    engine = create_engine(postgres_url)

    def asked(name: str) -> int:
        return int(connection.execute(sa.text(f"SHOW {name}")).scalar_one().removesuffix("s"))

    with reading(engine) as connection:
        idle, interval, count, unsent = (
            asked(f"tcp_{name}")
            for name in (
                "keepalives_idle",
                "keepalives_interval",
                "keepalives_count",
                "user_timeout",
            )
        )
    engine.dispose()

    assert idle + interval * count == CUT_OFF_SESSION_ENDS_SEC == 25
    assert 0 < unsent <= CUT_OFF_SESSION_ENDS_SEC * 1000
