"""What the store knows of the table of returns; `DerivedStore.write_days` writes it."""

from datetime import date

import sqlalchemy as sa

from riskhub.store.engine import reading
from riskhub.store.tables import asset_returns


class ReturnsStore:
    """The table of returns of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def returns_per_day(self, first: date, last: date) -> dict[date, int]:
        """How many returns each of the days `first` to `last` has; a day without is missing."""
        query = (
            sa.select(asset_returns.c.day, sa.func.count().label("returns"))
            .where(asset_returns.c.day.between(first, last))
            .group_by(asset_returns.c.day)
        )
        with reading(self.engine) as connection:
            return {row.day: row.returns for row in connection.execute(query)}
