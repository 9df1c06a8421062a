"""Whether everything is there, as a table, and as an exit code for a job that asks each night."""

import asyncio
import json
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from aiokafka.errors import KafkaError
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.audit.findings import Ledger
from riskhub.audit.look import Auditor, Scope
from riskhub.audit.topic import TopicReader
from riskhub.blobs import open_blobs
from riskhub.cli.frame import console, errors, progress_bar
from riskhub.errors import RiskHubError
from riskhub.hub import utc_now
from riskhub.settings import Settings, load_settings
from riskhub.snapshot import parse_instant
from riskhub.store.scratch import seen_events

FOUND, COULD_NOT_LOOK = 1, 2

app = typer.Typer()


class TopicUnreadable(RiskHubError):
    """The topic could not be read to its end."""


@app.command("audit")
def audit_command(
    world: Annotated[str | None, typer.Option(help="Only its landings and their events.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Only what was received since then.")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Bodies of one landing, budgets of one cycle in N."),
    ] = 1,
    settle: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="What is younger may still be on its way."),
    ] = 120.0,
    topic: Annotated[
        bool, typer.Option("--topic", help="Whether the Kafka topic has the events, too.")
    ] = False,
    replayed: Annotated[
        bool, typer.Option("--replayed", help="Landings were told again by `events replay`.")
    ] = False,
    acknowledged: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Lines of JSON, world, version and hash: each must be there.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Hold landings, events, tables, blobs and budgets against each other; tell what is wrong.

    It reads and changes nothing, and may run while all the rest does. Exit code 0: all is there and
    as it was; 1: something is missing, doubled or altered; 2: it could not look.
    """
    try:
        settings = load_settings()
        scope = Scope(
            now=utc_now(),
            world_id=world,
            since=_instant(since),
            sample=sample,
            settle_sec=settle,
            told_again=replayed,
            parameters=settings.governor.parameters,
        )
        ledger = _audit(settings, scope, topic=topic, acknowledged=acknowledged)
    except RiskHubError as error:
        errors.print(
            Text.assemble(("riskhub: ", "bold red"), str(error)), highlight=False, soft_wrap=True
        )
        sys.exit(COULD_NOT_LOOK)
    if as_json:
        typer.echo(json.dumps(_as_json(ledger)))
    else:
        _show(ledger)
    sys.exit(0 if ledger.is_clean else FOUND)


def _audit(settings: Settings, scope: Scope, *, topic: bool, acknowledged: Path | None) -> Ledger:
    with closing(bootstrap.store(settings)) as store, progress_bar() as progress:
        auditor = Auditor(store, open_blobs(settings), scope, progress)
        auditor.run()
        if acknowledged is not None:
            auditor.acknowledged(acknowledged)
        if topic:
            with seen_events() as seen:
                reader = TopicReader(seen, auditor.ledger, progress)
                try:
                    should_have = asyncio.run(reader.read(settings))
                except (KafkaError, OSError) as error:
                    raise TopicUnreadable(f"Kafka: {error}") from error
                auditor.topic(seen, should_have)
        return auditor.ledger


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error


def _show(ledger: Ledger) -> None:
    looked_at = ", ".join(f"{count:,} {what}" for what, count in ledger.looked_at.items())
    if not ledger.is_clean:
        table = Table("what", "is", "count", "such as")
        table.columns[2].justify = "right"
        for (what, fault), counted in ledger.findings.items():
            examples = Text("\n".join(counted.examples))
            table.add_row(what, Text(fault, style="bold red"), f"{counted.count:,}", examples)
        console.print(table)
    for note in ledger.notes:
        console.print(note, style="dim", highlight=False)
    verdict = "all is there" if ledger.is_clean else "not all is there"
    console.print(f"{verdict}: looked at {looked_at}", highlight=False, soft_wrap=True)


def _as_json(ledger: Ledger) -> dict[str, Any]:
    return {
        "clean": ledger.is_clean,
        "looked_at": ledger.looked_at,
        "findings": [
            {"what": what, "fault": fault, "count": each.count, "examples": each.examples}
            for (what, fault), each in ledger.findings.items()
        ],
        "notes": ledger.notes,
    }
