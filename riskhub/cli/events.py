"""The outbox: what happened, as it happens, and told again."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from riskhub import bootstrap
from riskhub.cli.frame import console, errors, refuse
from riskhub.controlbus.events import (
    BUDGET_VIOLATION,
    EXIT_SIGNAL,
    SNAPSHOT_QUARANTINED,
    TYPES,
    OutboxEvent,
)
from riskhub.settings import load_settings
from riskhub.store import Store

_PAGE = 500
_LOOK_SEC = 0.25
_MOST_DEAD = 3

# What a line tells of an event besides its subject.
_TOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    SNAPSHOT_QUARANTINED: lambda data: "; ".join(data["reasons"]),
    BUDGET_VIOLATION: lambda data: f"{data['over_budget']:,.2f} USD over, {data['mode']}",
    EXIT_SIGNAL: lambda data: f"{data['signal']}, {data['action']}, {data['mode']}: {data['why']}",
}

app = typer.Typer()
group = typer.Typer(help="Events: what happened, and telling it again.", no_args_is_help=True)
app.add_typer(group, name="events")


@group.command("tail")
def tail_command(
    after: Annotated[
        int | None, typer.Option(min=0, help="All behind this sequence, not the newest alone.")
    ] = None,
    world: Annotated[str | None, typer.Option(help="Only of this world.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only of this type. May be given again.")
    ] = None,
    last: Annotated[int, typer.Option(min=0, help="How many of the newest to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="CloudEvents, one a line.")] = False,
) -> None:
    """Show events from the store, oldest first."""
    if unknown := sorted(set(types or ()) - set(TYPES)):
        raise typer.BadParameter(
            f"{unknown[0]} is none; there are {', '.join(TYPES)}", param_hint="--type"
        )
    store = bootstrap.store(load_settings())
    try:
        if after is None:
            after = store.behind_newest(last, types=types, key=world)
        for event in _events(store, after, types, world, follow=follow):
            if as_json:
                typer.echo(event.cloud_event())
            else:
                console.print(_line(event), soft_wrap=True)
    finally:
        store.close()


@group.command("show")
def show_command(
    sequence: Annotated[int, typer.Argument(min=1, help="As `tail` shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="The bytes as they are told.")] = False,
) -> None:
    """Show one event as a CloudEvent."""
    store = bootstrap.store(load_settings())
    try:
        found = store.events_after(sequence - 1, limit=1, up_to=sequence)
    finally:
        store.close()
    if not found:
        refuse(f"there is no event {sequence}")
    raw = found[0].cloud_event()
    typer.echo(raw if as_json else json.dumps(json.loads(raw), indent=2, ensure_ascii=False))


@group.command("replay")
def replay_command(
    world: Annotated[str, typer.Option(help="Whose landings.")],
    first: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First as_of day.")
    ],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last as_of day.")],
    topic: Annotated[
        str | None, typer.Option(help="Where to.", show_default="the one of the settings")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check; tell nothing.")] = False,
) -> None:
    """Tell a world's landings again, with the ids they had, after checking each.

    With brokers configured they go straight to the topic, else into the outbox once more.
    What does not verify becomes a dead letter: see `riskhub dlq`.
    """
    from riskhub.controlbus import replay  # noqa: PLC0415 - slow

    begin, end = first.date(), last.date()
    if end < begin:
        raise typer.BadParameter(f"{end} is before {begin}", param_hint="--to")
    settings = load_settings()
    hub = bootstrap.hub(settings)
    try:
        count = len(hub.store.landed_on(begin, end, worlds=[world]))
        if not count:
            refuse(f"world {world} has no landing with an as_of from {begin} to {end}")
        where = topic or settings.controlbus_topic
        to_kafka = bool(settings.controlbus_brokers or topic) and not dry_run
        into_outbox = nullcontext(replay.into_outbox(hub.store))
        with (
            _progress_bar(world, count) as advanced,
            replay.onto_topic(settings, where) if to_kafka else into_outbox as emit,
        ):
            done = replay.replay(hub, world, begin, end, emit, dry_run=dry_run, advanced=advanced)
    finally:
        hub.store.close()
    place = f"on topic {where}" if to_kafka else "into the outbox"
    told = "would be told again" if dry_run else f"told again, {place}"
    console.print(f"{done.told} of {count} landings {told}", highlight=False, soft_wrap=True)
    for letter in done.dead[:_MOST_DEAD]:
        errors.print(Text(f"  {letter.record.origin}: {letter.reason}"), soft_wrap=True)
    if done.dead:
        see = "" if dry_run else "; see `riskhub dlq list`"
        refuse(f"{len(done.dead)} did not verify and were not told{see}")


def _events(
    store: Store,
    after: int,
    types: Sequence[str] | None,
    world: str | None,
    *,
    follow: bool,
) -> Iterator[OutboxEvent]:
    """Events behind a sequence; without an end when they are followed."""
    while True:
        head = store.events_head()  # asked before: what is committed after that may be missed
        page = store.events_after(after, limit=_PAGE, types=types, key=world)
        yield from page
        if page:
            after = page[-1].sequence
        elif follow:
            after = max(after, head)
            time.sleep(_LOOK_SEC)
        else:
            return


def _line(event: OutboxEvent) -> Text:
    told = _TOLD.get(event.type)
    return Text.assemble(
        (f"{event.sequence:>8}", "dim"),
        f"  {event.occurred_at:%Y-%m-%d %H:%M:%S}Z  {event.type:<21}  {event.subject}",
        (f"  {told(json.loads(event.data))}" if told else "", "dim"),
    )


@contextmanager
def _progress_bar(name: str, length: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=errors, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task(escape(name), total=length)
        yield lambda done: bar.update(task, completed=done)
