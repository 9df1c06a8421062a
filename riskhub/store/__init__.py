"""What is kept, in SQLite or Postgres from one definition. No SQL statement stands elsewhere.

`tables` says what there is, `engine` how to reach it, `migrations` how it came about; `Store`
is what the rest of riskhub talks to. Knows the domain's values, decides nothing about risk.
"""

from riskhub.store.engine import create_engine
from riskhub.store.landing import Landing, Page, Position
from riskhub.store.schema import migrate
from riskhub.store.store import Store, open_store

__all__ = ["Landing", "Page", "Position", "Store", "create_engine", "migrate", "open_store"]
