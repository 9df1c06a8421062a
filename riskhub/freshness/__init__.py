"""How old is each world, and is that too old: by the snapshots' own time, in open hours.

`states` is the assessment, a pure function; `policies` says by the settings what holds for which
world; `calendars` knows when a market is open.
"""

from riskhub.freshness.policies import Policies
from riskhub.freshness.states import (
    ALWAYS_OPEN,
    Freshness,
    Newest,
    Policy,
    Severity,
    WorldFreshness,
    age_seconds,
    assess,
    judge,
    worst_first,
)

__all__ = [
    "ALWAYS_OPEN",
    "Freshness",
    "Newest",
    "Policies",
    "Policy",
    "Severity",
    "WorldFreshness",
    "age_seconds",
    "assess",
    "judge",
    "worst_first",
]
