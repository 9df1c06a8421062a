"""What a person types: `riskhub ...`. One module a subject, each command a few lines."""

import typer

from riskhub.cli import (
    alerts,
    audit,
    backup,
    budget,
    compute,
    config,
    dlq,
    events,
    exit_engine,
    governor,
    monitor,
    numbers,
    portfolio_state,
    processes,
    producer,
    quarantine,
    relay,
    retention,
    risk,
    worker,
)
from riskhub.cli.frame import Commands

app = typer.Typer(
    cls=Commands,
    help="riskhub: the single source of truth for portfolio risk snapshots.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(processes.app)
app.add_typer(config.app)
app.add_typer(producer.app)
app.add_typer(monitor.app)
app.add_typer(quarantine.app)
app.add_typer(retention.app)
app.add_typer(backup.app)
app.add_typer(audit.app)
app.add_typer(numbers.app)
app.add_typer(compute.app)
app.add_typer(risk.app)
app.add_typer(governor.app)
app.add_typer(relay.app)
app.add_typer(worker.app)
app.add_typer(dlq.app, name="dlq")
app.add_typer(events.app, name="events")
app.add_typer(budget.app, name="budget")
app.add_typer(portfolio_state.app)
app.add_typer(exit_engine.app, name="exit-engine")
app.add_typer(alerts.app, name="alerts")


def main() -> None:
    """The `riskhub` command."""
    app()
