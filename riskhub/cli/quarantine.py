"""What was rejected, and why."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.cli.frame import console
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant
from riskhub.store import Store
from riskhub.store.derived import Row

_SHOWN = (
    *("world_id", "version", "stage", "as_of", "position", "since"),
    *("reasons", "flags", "evidence"),
)
_ROWS_OF_A_TABLE = 50
_PAGE = 500

app = typer.Typer()


@app.command("quarantine")
def quarantine_command(
    world: Annotated[str | None, typer.Option(help="Only of this world.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many at most; 50, or all with --json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show which snapshots were rejected, and why: they are not served as latest."""
    store = bootstrap.store(load_settings())
    try:
        found = _quarantined(store, world, stage)
        if as_json:
            for row in islice(found, limit):
                shown = {name: row[name] for name in _SHOWN}
                typer.echo(json.dumps(shown, default=format_instant))
            return
        rows = list(islice(found, limit or _ROWS_OF_A_TABLE))
        if not rows:
            console.print(_why_none(store, world, stage))
            return
        console.print(_table(rows))
        if next(found, None):
            console.print("There are more; --limit shows them, --json gives all.", style="dim")
    finally:
        store.close()


def _quarantined(store: Store, world: str | None, stage: str | None) -> Iterator[Row]:
    """All of them, what was rejected last first."""
    page = store.quarantined(world_id=world, stage=stage, limit=_PAGE)
    yield from page.rows
    while page.next_key:
        page = store.quarantined(world_id=world, stage=stage, limit=_PAGE, after=page.next_key)
        yield from page.rows


def _table(rows: list[Row]) -> Table:
    table = Table("world", "version", "stage", "as_of", "since", "reasons")
    for row in rows:
        texts = (row["world_id"], row["version"], row["stage"])
        instants = (f"{row[name]:%Y-%m-%d %H:%M:%S}Z" for name in ("as_of", "since"))
        # As text: a name in square brackets is no markup.
        table.add_row(*map(Text, (*texts, *instants, "\n".join(row["reasons"]))))
    return table


def _why_none(store: Store, world: str | None, stage: str | None) -> Text:
    asked = [f"world {world}"] * bool(world) + [f"stage {stage}"] * bool(stage)
    if not asked:
        return Text("Nothing is in the quarantine: whatever was judged was accepted.")
    others = store.quarantined(limit=1).rows
    return Text(
        f"Nothing of {' and '.join(asked)} is in the quarantine; "
        + ("there are others in it." if others else "it is empty.")
    )
