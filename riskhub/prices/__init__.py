"""Daily prices: the panel that returns are cut from, and where it comes from.

`open_prices` gives the source that the settings name: a file (CSV or Parquet), an object in S3, or
a table. A panel is complete or it is refused: a price that is missing is never filled in.

What is computed from the returns belongs in `riskhub.risk`.
"""

from riskhub.prices.files import load_panel
from riskhub.prices.opening import open_prices
from riskhub.prices.panel import (
    LONGEST_CLOSURE,
    PanelEnded,
    PriceFileCorrupt,
    PriceFileError,
    PriceFileMissing,
    PricePanel,
    PricesCorrupt,
    PricesMissing,
    PriceSource,
    PricesUnavailable,
    UnknownSymbol,
)
from riskhub.prices.settings import PriceSettings

__all__ = [
    "LONGEST_CLOSURE",
    "PanelEnded",
    "PriceFileCorrupt",
    "PriceFileError",
    "PriceFileMissing",
    "PricePanel",
    "PriceSettings",
    "PriceSource",
    "PricesCorrupt",
    "PricesMissing",
    "PricesUnavailable",
    "UnknownSymbol",
    "load_panel",
    "open_prices",
]
