"""The table of contents of `riskhub --help`: what belongs together, and a line for each command.

Besides, the module that has the command: it is imported when the command is asked for.
"""

from collections.abc import Mapping

CONTENTS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Run": {
        "up": ("processes", "Start everything in this terminal; Ctrl-C ends it."),
        "api": ("processes", "Serve the HTTP API."),
        "dagster": ("processes", "Dagster's processes, one by one."),
        "redis": ("processes", "Serve a stand-in for Redis, in memory."),
        "demo": ("processes", "Feed a running hub with six portfolios on real prices."),
    },
    "Snapshots": {
        "publish": ("producer", "Send snapshots to the hub."),
        "lint": ("producer", "Check snapshot files without a hub."),
        "get": ("producer", "Show the latest snapshot of a world, or another."),
        "backfill": ("producer", "Send a file of history; go on where it stopped."),
        "quarantine": ("quarantine", "Show which snapshots were rejected, and why."),
    },
    "Risk numbers": {
        "risk": ("numbers", "Compute the risk numbers of a file, without a hub."),
        "compute": ("compute", "Compute the stored numbers of some days again."),
        "var-backtest": ("risk", "Hold each stored VaR against the next day's loss."),
    },
    "Events": {
        "events": ("events", "What happened; tell it again."),
        "relay": ("relay", "Bring events to Kafka, until Ctrl-C."),
        "worker": ("worker", "Judge and measure what lands, until Ctrl-C."),
        "dlq": ("dlq", "Events that could not be handled."),
    },
    "Budgets and exits": {
        "governor": ("governor", "Write a budget for each symbol, until Ctrl-C."),
        "budget": ("budget", "What each symbol may risk now, and why."),
        "portfolio-state": (
            "portfolio_state",
            "Publish the equity that budgets are made of, until Ctrl-C.",
        ),
        "exit-engine": ("exit_engine", "Signal when to get out, by rules; until Ctrl-C."),
    },
    "Operate": {
        "doctor": ("config", "Check everything that the hub needs, and say what to do."),
        "audit": ("audit", "Say whether everything is there, and as it was."),
        "monitor": ("monitor", "Say whether worlds are fresh, as monitoring plugins do."),
        "alerts": ("alerts", "Tell what is wrong, until Ctrl-C; list and silence it."),
        "config": ("config", "Show the settings and where each comes from."),
        "token": ("config", "Make bearer tokens."),
        "migrate": ("processes", "Make or upgrade the tables of the database."),
        "backup": ("backup", "Keep database and blobs elsewhere; check what is kept."),
        "restore": ("backup", "Fill an empty database and blob store from a backup."),
        "retention": ("retention", "Show what is old enough to be removed, or remove it."),
    },
}
