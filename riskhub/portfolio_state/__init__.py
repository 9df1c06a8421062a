"""The continuous portfolio state: what the governor reads as `quantum:state:portfolio`.

`state` makes it, from positions, equity and a high-water mark (pure); `sources` reads them;
`updater` publishes it, beat by beat.
"""

from riskhub.portfolio_state.sources import EquityHash, EquitySource, SnapshotEquity
from riskhub.portfolio_state.state import (
    Book,
    Equity,
    HighWater,
    NoPortfolioState,
    PortfolioUpdate,
    update_of,
)
from riskhub.portfolio_state.updater import (
    HIGH_WATER_KEY,
    AnotherPublishes,
    Updater,
    fields_of,
    kept_high_water,
    reset_high_water,
    run,
)

__all__ = [
    "HIGH_WATER_KEY",
    "AnotherPublishes",
    "Book",
    "Equity",
    "EquityHash",
    "EquitySource",
    "HighWater",
    "NoPortfolioState",
    "PortfolioUpdate",
    "SnapshotEquity",
    "Updater",
    "fields_of",
    "kept_high_water",
    "reset_high_water",
    "run",
    "update_of",
]
