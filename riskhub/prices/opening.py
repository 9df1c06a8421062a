"""From the settings to the source of prices that they name."""

from typing import TYPE_CHECKING

from riskhub.prices.files import PriceFile
from riskhub.prices.panel import PriceSource

if TYPE_CHECKING:  # it imports this package for the settings of prices
    from riskhub.settings import Settings


def open_prices(settings: "Settings") -> PriceSource:
    """The source of prices; opens no connection and reads nothing."""
    prices = settings.prices
    match prices.kind:
        case "file":
            return PriceFile(settings.prices_path, prices)
        case "s3":
            from riskhub.prices.s3 import PriceObject  # noqa: PLC0415 - boto3 is slow to import

            return PriceObject(prices)
        case "table":
            # They need pyarrow and the store, which are slow to import.
            from riskhub.prices.table import PricesInTable  # noqa: PLC0415
            from riskhub.store.prices import PriceTable  # noqa: PLC0415

            columns = (prices.day_column, prices.symbol_column, prices.price_column)
            url = prices.database_url or settings.effective_database_url
            return PricesInTable(url, PriceTable(str(prices.table), *columns))
