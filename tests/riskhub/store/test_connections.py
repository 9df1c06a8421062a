"""How many connections to Postgres a process opens, however many want one."""

import threading

import pytest
import sqlalchemy as sa
from stored import together

from riskhub.store import Store, create_engine
from riskhub.store.engine import reading

_OURS = sa.text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'riskhub'"
)


@pytest.mark.parametrize("most", [2, 8])
def test_no_more_are_open_than_may_be_and_who_waits_gets_one(postgres_url: str, most: int) -> None:
    store = Store(create_engine(postgres_url, most_connections=most))
    gate, seen = threading.Barrier(most), list[int]()

    def ask() -> None:
        with reading(store.engine) as connection:
            gate.wait(30)  # as many as may be are open at once: the rest wait for one
            seen.append(connection.execute(_OURS).scalar_one())
            gate.wait(30)

    together(*[ask] * (3 * most))

    assert max(seen) == most
    store.close()


def test_what_needs_one_opens_one(postgres_url: str) -> None:
    store = Store(create_engine(postgres_url))
    for _ in range(3):
        with reading(store.engine) as connection:
            assert connection.execute(_OURS).scalar_one() == 1
    store.close()
