"""What is kept, in SQLite or Postgres from one definition. No SQL statement stands elsewhere.

`tables` says what there is, `engine` how to reach it, `migrations` how it came about; `Store`
is what the rest of riskhub talks to. Knows the domain's values, decides nothing about risk.
"""

from riskhub.store.engine import create_engine
from riskhub.store.grants import grant
from riskhub.store.landing import Landing
from riskhub.store.reading import Filter, Page, Position, Stored
from riskhub.store.schema import NEWEST, migrate
from riskhub.store.store import Store, open_store

__all__ = [
    "NEWEST",
    "Filter",
    "Landing",
    "Page",
    "Position",
    "Store",
    "Stored",
    "create_engine",
    "grant",
    "migrate",
    "open_store",
]
