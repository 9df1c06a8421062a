"""What a producer types: publish, lint, get, backfill."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from riskhub.cli.frame import console, errors, refuse
from riskhub.client import RiskHubClient
from riskhub.client import backfill as backfills
from riskhub.client.lint import lint
from riskhub.client.sources import Source
from riskhub.errors import ContractViolation, VersionConflict
from riskhub.settings import Settings, load_settings
from riskhub.snapshot import parse_instant
from riskhub.strict_json import Document, parse_json

app = typer.Typer()

BaseUrl = Annotated[str | None, typer.Option(help="Where the hub is.", show_default="by settings")]
Token = Annotated[str | None, typer.Option(help="Bearer token.", show_default="by settings")]
Actor = Annotated[str, typer.Option(help="Who produces: X-Actor.")]
Stage = Annotated[str, typer.Option(help="Such as backtest, paper or live: X-Stage.")]
World = Annotated[str | None, typer.Option(help="The world; may be left out where files name it.")]


@app.command("publish")
def publish_command(
    snapshot: Annotated[
        list[str], typer.Option(help="JSON file, or - for stdin. May be given again.")
    ],
    actor: Actor,
    stage: Stage,
    world: World = None,
    base_url: BaseUrl = None,
    token: Token = None,
    spool: Annotated[
        Path | None, typer.Option(help="Directory to keep what can't be sent now.")
    ] = None,
) -> None:
    """Land snapshots in the hub, in the order given."""
    failed = False
    with _client(load_settings(), base_url, token, actor, stage, spool=spool) as hub:
        for name in snapshot:
            try:
                published = hub.publish(parse_json(_read(name)), world_id=world)
            except (ContractViolation, VersionConflict) as error:
                failed = True
                errors.print(f"[bold red]refused[/]  {escape(f'{name}: {error}')}", soft_wrap=True)
            else:
                console.print(
                    f"{published.status}  {published.world_id}  {published.version}  "
                    f"{published.digest}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
    if failed:
        sys.exit(1)


@app.command("lint")
def lint_command(
    files: Annotated[list[str], typer.Argument(help="JSON files, or - for stdin.")],
    world: World = None,
    actor: Annotated[str | None, typer.Option(help="Who will post it.")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage it is for.")] = None,
) -> None:
    """Check snapshot files against the contract, without a hub."""
    settings = load_settings()
    failed = False
    for name in files:
        finding = lint(
            _read(name),
            world_id=world,
            actor=actor,
            stage=stage,
            now=datetime.now(UTC),
            stale_after=timedelta(seconds=settings.stale_after_sec),
            future_tolerance=timedelta(seconds=settings.future_tolerance_sec),
        )
        failed |= bool(finding.problems)
        lines = [
            f"{name}: {'refused' if finding.problems else 'ok'}  {finding.digest or ''}".strip()
        ]
        lines += [f"  {problem.field}: {problem.message}" for problem in finding.problems]
        lines += [f"  hint: {hint}" for hint in finding.hints]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    if failed:
        sys.exit(1)


@app.command("get")
def get_command(
    world: Annotated[str, typer.Argument(help="The world.")],
    version: Annotated[str | None, typer.Option(help="This version.")] = None,
    as_of: Annotated[str | None, typer.Option(help="At or before this instant.")] = None,
    known_at: Annotated[
        str | None, typer.Option(help="As the hub knew it at this instant.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this producer.")] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Large fields instead of references.")
    ] = False,
    include_expired: Annotated[
        bool, typer.Option("--include-expired", help="Also those whose ttl has run out.")
    ] = False,
    several: Annotated[bool, typer.Option("--list", help="All, newest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --list: at most so many.")] = 20,
    as_json: Annotated[
        bool | None,
        typer.Option(
            "--json/--pretty", help="JSON, one snapshot a line.", show_default="on a pipe"
        ),
    ] = None,
    base_url: BaseUrl = None,
    token: Token = None,
) -> None:
    """Show the latest snapshot of a world, or the one that is asked for."""
    if sum(map(bool, (version, as_of, several))) > 1:
        raise typer.BadParameter("only one of --version, --as-of and --list")
    if known_at and not as_of:
        raise typer.BadParameter("--known-at goes with --as-of")
    if version and (stage or actor):
        raise typer.BadParameter("--stage and --actor choose nothing next to --version")
    found: list[Document | None]
    which: dict[str, Any] = {"stage": stage, "actor": actor}
    which |= {"expand": expand, "include_expired": include_expired}
    with _client(load_settings(), base_url, token, "riskhub-cli", "any", blobs=None) as hub:
        if several:
            pages = hub.list(world, **which, page_size=min(limit, 100))
            found = list(islice(pages, limit))
        elif version or as_of:
            which |= {"version": version, "as_of": as_of, "known_at": known_at}
            found = [hub.lookup(world, **which)]
        else:
            found = [hub.latest(world, **which)]
    if found == [None]:
        expired = "" if include_expired else "; --include-expired also shows what has expired"
        refuse(f"world {world} has no such snapshot{expired}")
    pretty = console.is_terminal if as_json is None else not as_json
    for document in found:
        if document and pretty:
            _show(document)
        elif document:
            console.file.write(f"{json.dumps(document)}\n")


@app.command("backfill")
def backfill_command(
    source: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON, or Parquet in long form.")
    ],
    actor: Actor,
    stage: Stage,
    world: Annotated[
        list[str] | None, typer.Option(help="Only this world. May be given again.")
    ] = None,
    at: Annotated[str, typer.Option(help="Time of day of a date without one.")] = "21:00:00Z",
    state: Annotated[
        Path | None, typer.Option(help="Where progress is kept.", show_default="beside SOURCE")
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Gets what was refused.", show_default="beside SOURCE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check each snapshot here, post none.")
    ] = False,
    base_url: BaseUrl = None,
    token: Token = None,
) -> None:
    """Post history through the bulk door. An interrupted run goes on where it was.

    NDJSON: each line a snapshot, or {"world_id", "as_of", "weights"}. Parquet: a row a weight, with
    world_id, as_of or date, symbol, weight [, version]; the rows of a snapshot together, those of a
    world sorted by time. Without a version, it is the as_of: to run it again changes nothing.
    """
    try:
        parse_instant(f"2000-01-01T{at}")
    except ValueError as error:
        raise typer.BadParameter(f"{at!r} is not such as 21:00Z", param_hint="--at") from error
    weights = Source(source, frozenset(world or ()), at)
    settings = load_settings()
    blobs = {"blobs": None} if dry_run else {}
    state = state or source.with_name(f"{source.name}.progress.json")
    kind = "dry-run-refused" if dry_run else "refused"
    refused = refused or source.with_name(f"{source.name}.{kind}.ndjson")
    with (
        _client(settings, base_url, token, actor, stage, **blobs) as hub,
        _progress_bar(source.name, weights.length()) as show,
    ):
        key = backfills.key_of(weights, actor=actor, stage=stage, hub=base_url or settings.api_url)
        before = backfills.Progress(key) if dry_run else backfills.read_progress(state, key)
        if before.done:
            console.print(f"going on after {before.done} snapshots")
            show(before)
        done = backfills.run(
            hub,
            weights,
            progress=before,
            state=state,
            refused=refused,
            dry_run=dry_run,
            advanced=show,
        )
    counts = done.counts or {}
    told = ", ".join(f"{counts[name]} {name}" for name in backfills.OUTCOMES if name in counts)
    console.print(f"{done.done} snapshots: {told or 'nothing to do'}", highlight=False)
    if done.failed:
        refuse(f"{done.failed} did not land; see {refused}")


@contextmanager
def _progress_bar(name: str, length: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    counted = TextColumn("{task.fields[done]} snapshots")
    with Progress(
        *columns, counted, TimeRemainingColumn(), console=errors, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task(escape(name), total=length, done=0)
        yield lambda progress: bar.update(task, completed=progress.position, done=progress.done)


def _client(
    settings: Settings,
    base_url: str | None,
    token: str | None,
    actor: str,
    stage: str,
    **others: Any,
) -> RiskHubClient:
    given = {"base_url": base_url, "token": token}
    mine = {name: value for name, value in given.items() if value is not None}
    return RiskHubClient.from_settings(settings, actor=actor, stage=stage, **mine, **others)


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _show(document: Document) -> None:
    provenance = document.get("provenance", {})
    console.print(
        f"[bold]{escape(str(document['world_id']))}[/]  {escape(str(document['version']))}  "
        f"as of {escape(str(document['as_of']))}",
        highlight=False,
        soft_wrap=True,
    )
    facts = {
        "received": document.get("created_at"),
        "ttl": f"{document.get('ttl_sec')} s",
        "by": f"{provenance.get('actor')}, {provenance.get('stage')}",
        "hash": document.get("hash"),
    }
    for name, value in facts.items():
        console.print(f"  {name:<9}{escape(str(value))}", highlight=False, soft_wrap=True)
    table = Table("symbol", "weight")
    table.columns[1].justify = "right"
    for symbol, weight in sorted(document["weights"].items(), key=lambda item: -abs(item[1])):
        table.add_row(escape(symbol), f"{weight:.4%}")
    console.print(table)
    for name in ("covariance", "realized_returns", "stress"):
        if name in document:
            console.print(f"  {name}: {len(document[name])} entries", highlight=False)
        elif f"{name}_ref" in document:
            console.print(f"  {name}: {escape(document[f'{name}_ref'])}", soft_wrap=True)
