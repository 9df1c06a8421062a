"""Dead letters: what workers (and the relay) gave up on."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant
from riskhub.store.derived import Row

_LONGEST_REASON = 300
_MOST_REASONS = 3

app = typer.Typer()
group = typer.Typer(help="Dead letters: events that were given up on.", no_args_is_help=True)
app.add_typer(group, name="dlq")


@group.command("list")
def list_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were sent again.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show dead letters, newest first."""
    store = bootstrap.store(load_settings())
    try:
        letters = store.dead_letters(limit=limit, redriven=None if everything else False)
        waiting = store.count_dead_letters()
    finally:
        store.close()
    if as_json:
        for letter in letters:
            typer.echo(json.dumps(_told(letter), default=format_instant))
        return
    if not letters:
        console.print("There are no dead letters.")
        return
    console.print(_table(letters))
    console.print(
        f"{waiting} wait to be seen to: `riskhub dlq redrive` sends them again, `riskhub dlq drop` "
        "removes them.",
        style="dim",
        soft_wrap=True,
    )


@group.command("show")
def show_command(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")],
) -> None:
    """Show one: why it was given up on, and its event."""
    store = bootstrap.store(load_settings())
    try:
        letter = store.dead_letter(letter_id)
    finally:
        store.close()
    if letter is None:
        raise RiskHubError(f"there is no dead letter {letter_id}")
    for name, value in _told(letter).items():
        shown = format_instant(value) if name.endswith("_at") and value else value
        console.print(Text(f"{name:<12} {'' if shown is None else shown}"), soft_wrap=True)
    try:
        event = json.dumps(json.loads(letter["raw"]), indent=2, ensure_ascii=False)
    except ValueError:
        event = repr(letter["raw"])
    console.print(Text(event), soft_wrap=True)


@group.command("redrive")
def redrive_command(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", help="As `list` shows them.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Each that was not sent again yet.")
    ] = False,
) -> None:
    """Send dead letters again; a handler that is done with the event passes it over."""
    from riskhub.controlbus.dead_letters import redrive, waiting  # noqa: PLC0415 - slow

    if bool(ids) == everything:
        raise typer.BadParameter("give the ids of dead letters, or --all")
    settings = load_settings()
    store = bootstrap.store(settings)
    try:
        named = {letter_id: store.dead_letter(letter_id) for letter_id in ids or ()}
        if missing := [str(letter_id) for letter_id, letter in named.items() if letter is None]:
            raise RiskHubError(f"there is no dead letter {', '.join(missing)}")
        letters = waiting(store) if everything else filter(None, named.values())
        done = redrive(settings, store, letters)
    finally:
        store.close()
    console.print(f"sent again: {done.sent}")
    if done.reasons:
        more = len(done.reasons) - _MOST_REASONS
        rest = f"; and {more} more" if more > 0 else ""
        raise RiskHubError("; ".join(done.reasons[:_MOST_REASONS]) + rest)


@group.command("drop")
def drop_command(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="As `list` shows them.")],
) -> None:
    """Remove dead letters that nothing is to be done about, such as bytes that are no event."""
    store = bootstrap.store(load_settings())
    try:
        missing = [str(letter_id) for letter_id in ids if not store.drop_dead_letter(letter_id)]
    finally:
        store.close()
    console.print(f"removed: {len(ids) - len(missing)}")
    if missing:
        raise RiskHubError(f"there is no dead letter {', '.join(missing)}")


def _told(letter: Row) -> dict[str, Any]:
    return {name: value for name, value in letter.items() if name != "raw"}


def _table(letters: list[Row]) -> Table:
    table = Table("id", "died", "handler", "type", "key", "tries", "reason")
    table.columns[-1].overflow = "fold"  # a reference has no blanks to break it at
    for letter in letters:
        reason = letter["reason"]
        short = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
        table.add_row(
            # As text: a name in square brackets is no markup.
            *map(
                Text,
                (
                    str(letter["id"]),
                    f"{letter['died_at']:%Y-%m-%d %H:%M:%S}Z",
                    letter["handler"] or "(no event)",
                    letter["type"],
                    letter["key"],
                    str(letter["attempts"]),
                    short + (" (sent again)" if letter["redriven_at"] else ""),
                ),
            )
        )
    return table
