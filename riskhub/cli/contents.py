"""The table of contents of `riskhub --help`: what belongs together, and a line for each command."""

from collections.abc import Mapping

CONTENTS: Mapping[str, Mapping[str, str]] = {
    "Run": {
        "up": "Start everything in this terminal; Ctrl-C ends it.",
        "api": "Serve the HTTP API.",
        "dagster": "Dagster's processes, one by one.",
        "redis": "Serve a stand-in for Redis, in memory.",
        "demo": "Feed a running hub with six portfolios on real prices.",
    },
    "Snapshots": {
        "publish": "Send snapshots to the hub.",
        "lint": "Check snapshot files without a hub.",
        "get": "Show the latest snapshot of a world, or another.",
        "backfill": "Send a file of history; go on where it stopped.",
        "quarantine": "Show which snapshots were rejected, and why.",
    },
    "Risk numbers": {
        "risk": "Compute the risk numbers of a file, without a hub.",
        "compute": "Compute the stored numbers of some days again.",
        "var-backtest": "Hold each stored VaR against the next day's loss.",
    },
    "Events": {
        "events": "What happened; tell it again.",
        "relay": "Bring events to Kafka, until Ctrl-C.",
        "worker": "Judge and measure what lands, until Ctrl-C.",
        "dlq": "Events that could not be handled.",
    },
    "Budgets and exits": {
        "governor": "Write a budget for each symbol, until Ctrl-C.",
        "budget": "What each symbol may risk now, and why.",
        "portfolio-state": "Publish the equity that budgets are made of, until Ctrl-C.",
        "exit-engine": "Signal when to get out, by rules; until Ctrl-C.",
    },
    "Operate": {
        "doctor": "Check everything that the hub needs, and say what to do.",
        "audit": "Say whether everything is there, and as it was.",
        "monitor": "Say whether worlds are fresh, as monitoring plugins do.",
        "alerts": "Tell what is wrong, until Ctrl-C; list and silence it.",
        "config": "Show the settings and where each comes from.",
        "token": "Make bearer tokens.",
        "migrate": "Make or upgrade the tables of the database.",
        "backup": "Keep database and blobs elsewhere; check what is kept.",
        "restore": "Fill an empty database and blob store from a backup.",
        "retention": "Show what is old enough to be removed, or remove it.",
    },
}
