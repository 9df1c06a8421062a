"""The database and the blobs, kept elsewhere and brought back."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from riskhub import backup
from riskhub.blobs import open_blobs
from riskhub.cli.frame import console, progress_bar
from riskhub.errors import RiskHubError
from riskhub.hub import utc_now
from riskhub.settings import load_settings
from riskhub.store import Store, create_engine, grant

app = typer.Typer()

Directory = Annotated[Path, typer.Argument(help="Where backups are, on another disk.")]
Name = Annotated[str | None, typer.Option("--at", help="Its name.", show_default="the newest")]


class Lacking(RiskHubError):
    """The backup was made, and is not all of what there should be."""


@app.command("backup")
def backup_command(
    directory: Directory,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; read a backup and verify all of it.")
    ] = False,
    list_them: Annotated[bool, typer.Option("--list", help="Write nothing; show them.")] = False,
    at: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Write the database as of now, and each blob that it refers to, into a directory.

    The hub goes on meanwhile. A blob that the directory has is not copied again. To read is enough:
    the role riskhub_reader may do it. Dagster's own database is not part of it.
    """
    if list_them:
        console.print(_table(backup.backups(directory)))
        return
    if check:
        _check(directory, backup.choose(directory, at))
        return
    settings = load_settings()
    with (
        closing(Store(create_engine(settings.effective_database_url))) as store,
        progress_bar() as progress,
    ):
        made = backup.back_up(
            store.engine, open_blobs(settings), directory, now=utc_now(), progress=progress
        )
    if as_json:
        typer.echo(json.dumps(asdict(made)))
    else:
        console.print(_table([made]))
    if made.lacking:
        raise Lacking(
            f"{len(made.lacking)} blobs are missing or altered in the blob store, such as "
            f"{made.lacking[0]}; the rest is backed up"
        )


@app.command("restore")
def restore_command(directory: Directory, at: Name = None) -> None:
    """Fill an empty database, and the blob store of the settings, from a backup.

    As the owner of the tables. Every digest is verified on the way; `riskhub audit` says afterwards
    whether all fits together. Stop everything else before.
    """
    settings = load_settings()
    chosen = backup.choose(directory, at)
    with (
        closing(Store(create_engine(settings.effective_database_url))) as store,
        progress_bar() as progress,
    ):
        figures = backup.restore(
            store.engine, open_blobs(settings), directory, chosen, progress=progress
        )
        grant(store.engine)
    blobs = chosen.blobs - len(chosen.lacking)
    console.print(
        f"{figures.snapshots:,} snapshots and {blobs:,} blobs as of {chosen.name}, at revision "
        f"{figures.revision}: next `riskhub migrate`, then `riskhub audit`",
        highlight=False,
        soft_wrap=True,
    )


def _check(directory: Path, chosen: backup.Backup) -> None:
    with progress_bar() as progress:
        found = list(backup.damages(directory, chosen, progress))
    if found:
        raise Lacking("; ".join(found[:5]) + (f"; and {len(found) - 5} more" if found[5:] else ""))
    console.print(f"{chosen.name} is whole: {chosen.blobs:,} blobs", highlight=False)


def _table(made: list[backup.Backup]) -> Table:
    table = Table("backup", "snapshots", "position", "blobs", "lacking", "revision")
    table.columns[0].no_wrap = True  # it is what --at takes
    for column in table.columns[1:5]:
        column.justify = "right"
    for each in made:
        table.add_row(
            each.name,
            f"{each.figures.snapshots:,}",
            f"{each.figures.newest_position:,}",
            f"{each.blobs:,}",
            f"{len(each.lacking):,}",
            each.figures.revision or "–",
        )
    return table
