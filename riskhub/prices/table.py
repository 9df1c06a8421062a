"""A panel as a table in a database, a row per day and symbol."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from riskhub.errors import DatabaseUrlInvalid, StoreNotMigrated, StoreUnavailable
from riskhub.prices.as_arrow import panel_of_rows
from riskhub.prices.panel import (
    NotAPanel,
    PricePanel,
    PricesCorrupt,
    PricesMissing,
    PricesUnavailable,
)
from riskhub.store.prices import PriceTable, TableUnreadable, price_fingerprint, price_rows


@dataclass(frozen=True, slots=True)
class PricesInTable:
    """A `PriceSource` in a database that SQLAlchemy has a driver for; it is only read."""

    url: str = field(repr=False)
    table: PriceTable

    @property
    def label(self) -> str:
        """See `PriceSource`."""
        return f"price table {self.table.name}"

    def fingerprint(self) -> str:
        """See `PriceSource`."""
        with self._named():
            return price_fingerprint(self.url, self.table)

    def load(self) -> PricePanel:
        """See `PriceSource`."""
        with self._named():
            return panel_of_rows(price_rows(self.url, self.table))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except NotAPanel as refusal:
            raise PricesCorrupt(self.label, str(refusal)) from refusal
        except StoreNotMigrated as error:
            raise PricesMissing(self.label) from error
        except (StoreUnavailable, TableUnreadable, DatabaseUrlInvalid) as error:
            raise PricesUnavailable(self.label, str(error)) from error
