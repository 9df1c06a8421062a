"""What a monitoring system runs, and who watches: are the worlds of a hub fresh?"""

import json
import sys
import time
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.freshness import Severity
from riskhub.monitor import UNKNOWN, HubUnknown, Seen, Verdict, client_of, look
from riskhub.settings import load_settings

app = typer.Typer()

# click's UsageError, from wherever this typer has its click.
_WRONG_USE: tuple[type[Exception], ...] = typer.BadParameter.__bases__
_COLOURS = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}


class _Plugin(TyperCommand):
    """A command whose wrong use is unknown, 3: the 2 of other commands is an alarm here."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """What is typed, read."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except _WRONG_USE as error:
            error.exit_code = UNKNOWN  # type: ignore[attr-defined]
            raise


@app.command("monitor", cls=_Plugin)
def monitor_command(
    world: Annotated[
        list[str] | None, typer.Option(help="Only this world. May be given again.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    warn_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Older is a warning.", show_default="as the hub has it, 600"),
    ] = None,
    crit_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Older is critical.", show_default="as the hub has it, 1800"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="A live table, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="With --watch: seconds from look to look.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    base_url: Annotated[
        str | None, typer.Option(help="Where the hub is.", show_default="by settings")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Bearer token.", show_default="by settings")
    ] = None,
) -> None:
    """Say whether the worlds of a hub are fresh, as monitoring systems want it said.

    Exit code 0: all are. 1: one is late. 2: one is too late, or missing. 3: it can't be known.
    """
    try:
        if warn_seconds is not None and crit_seconds is not None and warn_seconds > crit_seconds:
            raise HubUnknown("--warn-seconds is beyond --crit-seconds")
        if watch and as_json:
            raise HubUnknown("--watch and --json don't go together")
        settings = load_settings()
        if token is None and settings.token is not None:
            token = settings.token.get_secret_value()
        asked: dict[str, Any] = {
            **{"worlds": world or (), "stage": stage},
            **{"warn_seconds": warn_seconds, "crit_seconds": crit_seconds},
        }
        with client_of(base_url or settings.api_url, token) as client:
            if watch:
                _watch(client, asked, interval)
            verdict = look(client, **asked)
    except RiskHubError as error:
        _unknown(str(error), as_json=as_json)
    for line in [verdict.as_json()] if as_json else verdict.lines():
        console.file.write(f"{line}\n")
    sys.exit(verdict.severity.rank)


def _unknown(sentence: str, *, as_json: bool) -> NoReturn:
    told = {"status": "unknown", "exit_code": UNKNOWN, "summary": sentence, "worlds": []}
    line = json.dumps(told) if as_json else f"UNKNOWN - {sentence.replace('|', '_')}"
    console.file.write(f"{line}\n")
    sys.exit(UNKNOWN)


def _watch(client: httpx.Client, asked: dict[str, Any], interval: float) -> NoReturn:
    """Look again and again; a hub that is away is told and looked for."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                seen: Group | Text = _shown(look(client, **asked))
            except HubUnknown as error:
                seen = Text(f"UNKNOWN - {error}", style="bold red")
            live.update(seen, refresh=True)
            time.sleep(interval)


def _shown(verdict: Verdict) -> Group:
    table = Table("world", "stage", "state", "age", "warns", "critical", "newest as of", "")
    for column in (3, 4, 5):
        table.columns[column].justify = "right"
    for world in verdict.worlds:
        table.add_row(
            Text(world.world_id),
            Text(world.stage or ""),
            Text(world.state, style=_COLOURS[world.severity]),
            _seconds(world.open_age_seconds),
            _seconds(world.stale_after_sec),
            _seconds(world.critical_after_sec),
            f"{world.newest_as_of:%Y-%m-%d %H:%M:%S}" if world.newest_as_of else "",
            Text(_remark(world)),
        )
    status = Text(f"{verdict.severity.upper()} - ", style=_COLOURS[verdict.severity])
    return Group(table, Text.assemble(status, verdict.summary))


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.0f} s"


def _remark(world: Seen) -> str:
    remarks = [] if world.served else ["nothing served"]
    if world.calendar != "24/7":
        remarks.append(world.note or f"{world.calendar} hours")
    return "; ".join(remarks)
