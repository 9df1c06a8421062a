"""What guides a person through the UI: groups in the order of the flow, cadences, and links.

Only words and links; what an asset computes is its own business.
"""

from collections.abc import Mapping

from riskhub.settings import load_settings

# The UI sorts groups by name: the numbers make the list read as the lineage does, left to right.
LANDING = "1_landing"
SNAPSHOTS = "2_snapshots"
PRICES = "3_prices"
RISK = "4_risk"
BACKTESTS = "5_backtests"
DECISIONS = "6_decisions"
OPERATIONS = "7_operations"

GROUPS = (LANDING, SNAPSHOTS, PRICES, RISK, BACKTESTS, DECISIONS, OPERATIONS)

CADENCE = "riskhub/cadence"
"""The tag that says what starts an asset: search for ``tag:"riskhub/cadence"=nightly``."""


def cadence(name: str) -> dict[str, str]:
    """The tag of an asset that is computed then."""
    return {CADENCE: name}


def about(text: str, *, doc: str, pages: Mapping[str, str] | None = None) -> str:
    """A description that ends in where to read on.

    Args:
        text: what it is.
        doc: a file of `docs/`.
        pages: name to path of what this hub's own API serves.
    """
    links = [f"[{name}]({load_settings().api_url}{path})" for name, path in (pages or {}).items()]
    return f"{text}\n\nMore: {', '.join([*links, f'`docs/{doc}`'])}."
