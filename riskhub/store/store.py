"""`Store`: the hub's database as the rest of riskhub knows it."""

import sqlalchemy as sa

from riskhub.store.alerts import AlertStore
from riskhub.store.audit import AuditStore
from riskhub.store.audit_budgets import AuditBudgetStore
from riskhub.store.audit_told import AuditToldStore
from riskhub.store.backtests import BacktestStore
from riskhub.store.budgets import BudgetStore
from riskhub.store.claims import ClaimStore
from riskhub.store.consumers import ConsumerStore
from riskhub.store.daybook import DaybookStore
from riskhub.store.derived import DerivedStore
from riskhub.store.engine import MOST_CONNECTIONS, create_engine, reading
from riskhub.store.events import EventStore
from riskhub.store.exits import ExitStore
from riskhub.store.lacking import LackingStore
from riskhub.store.landing import LandingStore
from riskhub.store.news import NewsStore
from riskhub.store.numbers import NumbersStore
from riskhub.store.observed import ObservedStore
from riskhub.store.overview import OverviewStore
from riskhub.store.retention import RetentionStore
from riskhub.store.returns import ReturnsStore
from riskhub.store.schema import check_migrated
from riskhub.store.standing import StandingStore
from riskhub.store.stress import StressStore
from riskhub.store.verdicts import VerdictStore


class Store(
    LandingStore,
    NewsStore,
    EventStore,
    ConsumerStore,
    ClaimStore,
    VerdictStore,
    DerivedStore,
    LackingStore,
    NumbersStore,
    StressStore,
    BacktestStore,
    BudgetStore,
    ObservedStore,
    OverviewStore,
    ExitStore,
    RetentionStore,
    ReturnsStore,
    DaybookStore,
    AlertStore,
    StandingStore,
    AuditStore,
    AuditBudgetStore,
    AuditToldStore,
):
    """The hub's database. Every call may raise `StoreUnavailable`, which is safe to try again."""

    def ping(self) -> None:
        """Ask the database for a sign of life."""
        with reading(self.engine) as connection:
            connection.execute(sa.select(1))

    def check(self) -> None:
        """Whether the database is there, and still at this code's schema; else raises."""
        check_migrated(self.engine)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def open_store(url: str, *, most_connections: int = MOST_CONNECTIONS) -> Store:
    """A store on a database that is migrated; see `create_engine`.

    Raises:
        StoreUnavailable: it can't be reached.
        StoreNotMigrated: it has another schema.
    """
    store = Store(create_engine(url, most_connections=most_connections))
    try:
        check_migrated(store.engine)
    except BaseException:
        store.close()
        raise
    return store
