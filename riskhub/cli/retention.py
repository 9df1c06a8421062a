"""What the hub forgets, shown first and done on request."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap, retention
from riskhub.blobs import open_blobs
from riskhub.cli.frame import console, progress_bar
from riskhub.hub import utc_now
from riskhub.retention import Figures
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant

app = typer.Typer()


@app.command("retention")
def retention_command(
    do_it: Annotated[bool, typer.Option("--apply", help="Do it; else it is only shown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show which expired snapshots and unreferenced blobs would be removed, or remove them."""
    settings = load_settings()
    store = bootstrap.store(settings)
    try:
        what = (store, open_blobs(settings), settings.retention, utc_now())
        if do_it:
            with progress_bar() as progress:
                figures = retention.apply(*what, progress)
        else:
            figures = retention.plan(*what)
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps({"applied": do_it, **asdict(figures)}, default=format_instant))
        return
    console.print(_table(figures, applied=do_it))
    if not do_it:
        console.print("Nothing was changed; --apply does it.", style="dim")


def _table(figures: Figures, *, applied: bool) -> Table:
    table = Table("what", "removed" if applied else "to remove", "as_of")
    table.columns[1].justify = "right"
    for stage in figures.snapshots:
        ends = f"{stage.oldest_as_of:%Y-%m-%d} – {stage.newest_as_of:%Y-%m-%d}"
        table.add_row(Text(f"snapshots of {stage.stage}"), f"{stage.count:,}", ends)
    if not figures.snapshots:
        table.add_row("snapshots", "0")
    table.add_row("unreferenced blobs", f"{figures.blobs_removed:,}")
    condemned = "blobs condemned" if applied else "blobs to condemn"
    table.add_row(f"{condemned}, to be removed after their grace", f"{figures.blobs_condemned:,}")
    return table
