"""The exit engine: its loop, what it has told, and what its rules would have told."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich import box
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.exits.book import RuleBook, RuleFileInvalid
from riskhub.exits.live import ExitEngine, run, run_once
from riskhub.exits.records import episode_of, episode_row
from riskhub.exits.replay import Replayed, days_of, history, replay
from riskhub.exits.rules import show_seconds
from riskhub.heartbeat import Stop
from riskhub.hub import utc_now
from riskhub.logs import configure, tell
from riskhub.settings import Settings, load_settings
from riskhub.snapshot import format_instant
from riskhub.store import Store
from riskhub.store.exits import EpisodeFilter

_DAY = ["%Y-%m-%d"]

app = typer.Typer()
group = typer.Typer(
    help=(
        "When to get out: rules on risk numbers, and the signals that follow.\n\n"
        "Without a command it looks and signals, until Ctrl-C."
    ),
    invoke_without_command=True,
)
app.add_typer(group, name="exit-engine")


class NothingToReplay(RiskHubError):
    """There are no risk numbers on the days asked for."""


class NoSuchEpisode(RiskHubError):
    """Nobody has opened it here."""


@group.callback()
def exit_engine(
    context: typer.Context,
    only_once: Annotated[
        bool, typer.Option("--once", help="Look at every world once, and end.")
    ] = False,
) -> None:
    """Turn risk numbers into exit signals while no other process does, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    configure(settings)
    book = bootstrap.exit_rules(settings)
    with (
        bootstrap.redis_client(settings) as client,
        closing(bootstrap.store(settings)) as store,
    ):
        client.set_retry(Retry(NoBackoff(), 0))  # the next beat is the retry
        engine = ExitEngine(
            store,
            book,
            client,
            writer=f"exit engine on {socket.gethostname()}, process {os.getpid()}",
            look_sec=settings.exits.look_sec,
            timeless_stages=settings.timeless_stages,
            clock=utc_now,
            tell=tell,
        )
        if only_once:
            run_once(engine, store.reading_alone, tell=tell)
            return
        stop = Stop(settings.heartbeat_file)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        run(
            engine,
            store.reading_alone,
            interval_sec=settings.exits.interval_sec,
            wait=stop.wait,
            tell=tell,
        )


@group.command("replay")
def replay_command(
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=_DAY, help="First day.", show_default="of all there are"),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=_DAY, help="Last day.", show_default="of all there are"),
    ] = None,
    worlds: Annotated[
        list[str] | None, typer.Option("--world", help="One world, or more; all, by default.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", help="Rules to try.", show_default="exit_rules_path"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--rule", help="Only these of the rules, by id.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Episodes as JSON lines.")] = False,
) -> None:
    """Tell which episodes the rules would have made of the numbers on record. Writes nothing."""
    settings = load_settings()
    book = _only(bootstrap.exit_rules(settings, rules), only)
    with closing(bootstrap.store(settings)) as store:
        begin, end = _days(store, first, last)
        moments = history(
            store,
            book,
            begin,
            end,
            now=utc_now(),
            worlds=worlds,
            timeless_stages=settings.timeless_stages,
        )
        found = replay(book, moments)
    if not found.observed:
        raise NothingToReplay(f"there are no risk numbers from {begin} to {end}")
    rows = [episode_row(episode) for episode in found.episodes]
    rows.sort(key=lambda row: (row["world_id"], row["stage"], row["opened_at"], row["rule"]))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=format_instant, allow_nan=False))
        return
    console.print(_replayed(rows, book, f"{begin} to {end}"))
    console.print(_summary(found), style="dim")


@group.command("list")
def list_command(
    world: Annotated[str | None, typer.Option(help="Only of this world.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show what the engine has told: its episodes, what opened last first."""
    settings = load_settings()
    which = EpisodeFilter(world_id=world, is_open=True if only_open else None)
    with closing(bootstrap.store(settings)) as store:
        page, engine = store.exit_episodes(which, limit=limit), store.exit_engine()
    if as_json:
        for row in page.rows:
            typer.echo(json.dumps(row, default=format_instant, allow_nan=False))
        return
    if page.rows:
        console.print(_listed(page.rows, _Shown(_rules_or_none(settings))))
    else:
        console.print("There are no such episodes.")
    if page.next_key:
        console.print("There are more; --limit shows them.", style="dim")
    if engine is None:
        console.print("No exit engine has ever run here: `riskhub exit-engine`.", style="dim")
        return
    ago = (utc_now() - engine["at"]).total_seconds()
    console.print(f"{engine['writer']} last wrote {ago:.0f} s ago", style="dim", soft_wrap=True)


@group.command("ack")
def ack_command(
    episode: Annotated[str, typer.Argument(help="Its id, as `list` shows it.")],
    by: Annotated[
        str, typer.Option(envvar="USER", help="Who has seen it.", show_default="$USER")
    ] = "",
) -> None:
    """Note that somebody has seen an episode, and sees to it. It closes nothing."""
    if not (1 <= len(by) <= 128 and by.isprintable()):
        raise typer.BadParameter("must be 1 to 128 printable characters", param_hint="--by")
    with closing(bootstrap.store(load_settings())) as store:
        found = store.acknowledge(episode, by=by, now=utc_now())
    if found is None:
        raise NoSuchEpisode(f"there is no episode {episode}: `riskhub exit-engine list` shows them")
    at = f"{found['acknowledged_at']:%Y-%m-%d %H:%M:%S}Z"
    console.print(
        Text(f"{found['rule']} in {found['world_id']}: seen by {found['acknowledged_by']} at {at}")
    )


@group.command("rules")
def rules_command(
    file: Annotated[
        Path | None, typer.Argument(help="A file to check.", show_default="exit_rules_path")
    ] = None,
) -> None:
    """Check the rules, and show them."""
    book = bootstrap.exit_rules(load_settings(), file)
    table = _table("rule", "measures", ">enter", ">leave", "confirm", "cools", "action", "mode")
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    for rule in book.rules:
        enter, leave = map(rule.shown, rule.thresholds)
        confirm = f"{rule.confirm.count} {'days' if rule.confirm.days else 'snapshots'}"
        table.add_row(
            rule.id,
            rule.measure_text,
            enter,
            leave,
            confirm if rule.confirm.count > 1 else "",
            show_seconds(rule.cool_down) if rule.cool_down else "",
            Text(rule.action, style="red" if rule.severity == "critical" else ""),
            rule.mode,
        )
    console.print(table)
    console.print(f"{len(book.rules)} rules, {book.digest}", style="dim", soft_wrap=True)


def _rules_or_none(settings: Settings) -> RuleBook:
    """The rules as words for numbers; what was told can be read whatever has become of them."""
    try:
        return bootstrap.exit_rules(settings)
    except RuleFileInvalid:
        return RuleBook((), "")


def _only(book: RuleBook, ids: Sequence[str] | None) -> RuleBook:
    if not ids:
        return book
    there_are = book.by_id()
    if unknown := [each for each in ids if each not in there_are]:
        raise typer.BadParameter(
            f"there is no {unknown[0]}, but {', '.join(there_are)}", param_hint="--rule"
        )
    return RuleBook(tuple(rule for rule in book.rules if rule.id in ids), book.digest)


def _days(store: Store, first: datetime | None, last: datetime | None) -> tuple[date, date]:
    there_are = store.measured_days()
    if there_are is None:
        raise NothingToReplay("there are no risk numbers at all")
    begin = first.date() if first else there_are[0]
    end = last.date() if last else there_are[1]
    if end < begin:
        raise typer.BadParameter(f"{end} is before {begin}", param_hint="--to")
    return begin, end


# -- for people -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """Values in the words of their rule; of a rule that is gone, as plain numbers."""

    book: RuleBook

    def __call__(self, row: Mapping[str, Any], value: float) -> str:
        rule = self.book.by_id().get(row["rule"])
        return rule.shown(value) if rule and rule.kind == row["kind"] else f"{value:.4g}"


def _replayed(rows: Iterable[Mapping[str, Any]], book: RuleBook, when: str) -> Table:
    shown = _Shown(book)
    table = _table("world", "rule", "action", "opened", "closed", ">days", ">worst", "on")
    table.title, table.title_justify = f"Episodes of {when}", "left"
    before = None
    for row in rows:
        world = row["world_id"]
        closed = row["closed_at"]
        table.add_row(
            Text(world if world != before else ""),
            row["rule"],
            row["action"],
            f"{row['opened_at']:%Y-%m-%d}",
            f"{closed:%Y-%m-%d}" if closed else Text("open", style="red"),
            str(days_of(episode_of(row))),
            shown(row, row["worst"]),
            row["evidence"]["worst"]["of"][:10],
        )
        before = world
    return table


def _listed(rows: Iterable[Mapping[str, Any]], shown: Callable[..., str]) -> Table:
    """Two lines an episode: more than a terminal has room for in one."""
    table = _table("episode", "world", "rule", "opened", ">now")
    for row in rows:
        closed, seen_by = row["closed_at"], row["acknowledged_by"]
        missing = None if closed else row["evidence"].get("missing")
        table.add_row(
            Text.assemble(row["id"], "\n", (f"seen by {seen_by}" if seen_by else "", "dim")),
            Text.assemble(row["world_id"], "\n", (row["stage"], "dim")),
            Text.assemble(row["rule"], "\n", _acts(row)),
            Text.assemble(
                f"{row['opened_at']:%Y-%m-%d %H:%M}Z\n",
                f"{closed:%Y-%m-%d %H:%M}Z" if closed else ("still open", "red"),
            ),
            Text.assemble(
                ("missing", "red") if missing else shown(row, row["value"]),
                f"\nworst {shown(row, row['worst'])}",
            ),
        )
    return table


def _table(*headers: str) -> Table:
    """Narrow, so that ids and days have room; ``>`` is for numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _acts(row: Mapping[str, Any]) -> Text:
    """Such as ``reduce to 45%``; in shadow mode it is not to be obeyed, and dim."""
    to = f" to {row['target_fraction']:.0%}" if row["target_fraction"] is not None else ""
    return Text(f"{row['action']}{to}", style="dim" if row["mode"] == "shadow" else "bold")


def _summary(found: Replayed) -> str:
    still_open = sum(episode.closed_at is None for episode in found.episodes)
    return (
        f"{len(found.episodes)} episodes, {still_open} of them open at the end; "
        f"{len(found.signals)} signals of {found.observed:,} observations"
    )
