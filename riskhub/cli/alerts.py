"""Alerts: the loop that tells them, what is wrong now, and who has seen it."""

import json
import re
from contextlib import closing
from datetime import datetime, timedelta
from typing import Annotated, Any

import httpx
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.alerts.deliver import DeliveryFailed, receivers_of
from riskhub.alerts.process import watch
from riskhub.alerts.reconcile import Alert, Condition, Notice, Severity, State, What
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.hub import utc_now
from riskhub.logs import configure, tell
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant
from riskhub.store.alerts import Row

_STYLES = {"critical": "red", "warning": "yellow", "info": "cyan"}
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer()
group = typer.Typer(
    help=(
        "What is wrong: told once, repeated while it lasts, resolved once.\n\n"
        "Without a command it watches and tells, until Ctrl-C."
    ),
    invoke_without_command=True,
)
app.add_typer(group, name="alerts")

ByOption = Annotated[str, typer.Option(envvar="USER", help="Who.", show_default="$USER")]


class NoSuchAlert(RiskHubError):
    """No alert of this key is open."""


class NotTold(RiskHubError):
    """A receiver did not take a test; the text says which and why."""


@group.callback()
def alerts(context: typer.Context) -> None:
    """Tell what is wrong while no other process does, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    configure(settings)
    watch(settings, tell)


@group.command("list")
def list_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is resolved, what opened last first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show what is wrong now."""
    now = utc_now()
    with closing(bootstrap.store(load_settings())) as store:
        page = store.alerts(is_open=None if everything else True, limit=limit)
        watched = store.alert_watch()
    # The watchdog is always there: what is to be seen is whether somebody watches.
    rows = [row for row in page.rows if row["source"] != "watchdog"]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=format_instant, allow_nan=False))
        return
    console.print(_table(rows, now) if rows else "Nothing is wrong that anybody knows of.")
    if page.next_key:
        console.print("There are more; --limit shows them.", style="dim")
    console.print(_watched(watched, now), soft_wrap=True)


@group.command("ack")
def ack_command(
    key: Annotated[str, typer.Argument(help="Its key, as `list` shows it.")],
    by: ByOption = "",
) -> None:
    """Note that somebody has seen an alert: it is not repeated, unless it gets worse."""
    _check_name(by, "--by")
    with closing(bootstrap.store(load_settings())) as store:
        row = store.acknowledge_alert(key, by=by, now=utc_now())
    if row is None:
        raise NoSuchAlert(f"no alert {key} is open: `riskhub alerts list` shows them")
    at = f"{row['acknowledged_at']:%Y-%m-%d %H:%M:%S}Z"
    console.print(Text(f"{key}: seen by {row['acknowledged_by']} at {at}"))


@group.command("silence")
def silence_command(
    pattern: Annotated[
        str, typer.Argument(help="Of keys: late:equities/live, late:equities/*, or *.")
    ],
    lasts: Annotated[str, typer.Option("--for", help="How long, such as 30m, 2h or 1d.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: ByOption = "",
) -> None:
    """Tell nothing of alerts with such keys for a while; what is still wrong then is told then."""
    _check_name(by, "--by")
    _check_name(pattern, "PATTERN", longest=400)
    now = utc_now()
    until = now + _duration(lasts)
    with closing(bootstrap.store(load_settings())) as store:
        number = store.add_silence(pattern, since=now, until=until, by=by, reason=reason)
    console.print(Text(f"silence {number}: {pattern} until {until:%Y-%m-%d %H:%M:%S}Z"))


@group.command("unsilence")
def unsilence_command(number: Annotated[int, typer.Argument(help="Of the silence.")]) -> None:
    """End a silence now."""
    with closing(bootstrap.store(load_settings())) as store:
        if not store.end_silence(number, utc_now()):
            raise NoSuchAlert(f"there is no silence {number}: `riskhub alerts silences` shows them")
    console.print(f"silence {number} has ended")


@group.command("silences")
def silences_command(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show which silences have not ended."""
    with closing(bootstrap.store(load_settings())) as store:
        rows = store.silences(utc_now())
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=format_instant))
        return
    if not rows:
        console.print("Nothing is silenced.")
        return
    table = Table("id", "pattern", "until", "by", "reason", box=box.SIMPLE_HEAD)
    for row in rows:
        until = f"{row['until']:%Y-%m-%d %H:%M:%S}Z"
        texts = (row["id"], row["pattern"], until, row["created_by"], row["reason"])
        table.add_row(*(Text(str(text)) for text in texts))
    console.print(table)


@group.command("test")
def test_command() -> None:
    """Send each receiver an alert that is none, and its end; say who took it."""
    settings = load_settings()
    now = utc_now()
    alert = Alert(
        Condition(
            "test", "test", "RiskHubTest", Severity.INFO, "This is a test", "Nobody need act."
        ),
        State.OPEN,
        *(now, now, now),
        opened_at=now,
    )
    refused = []
    with httpx.Client(timeout=settings.alerts.timeout_sec) as client:
        for receiver in receivers_of(settings.alerts, client, tell):
            name = receiver.terms.name
            try:
                receiver.send([Notice(name, What.OPENED, alert)], now)
                receiver.send([Notice(name, What.RESOLVED, _ended(alert, now))], now)
            except DeliveryFailed as error:
                refused.append(f"{name}: {error}")
            else:
                console.print(Text(f"{name}: took it"))
    if refused:
        raise NotTold("; ".join(refused))


def _ended(alert: Alert, now: datetime) -> Alert:
    return Alert(alert.condition, State.RESOLVED, now, now, now, opened_at=now, resolved_at=now)


def _check_name(text: str, hint: str, longest: int = 128) -> None:
    if not (1 <= len(text) <= longest and text.isprintable()):
        raise typer.BadParameter(f"must be 1 to {longest} printable characters", param_hint=hint)


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter("must be such as 30m, 2h or 1d", param_hint="--for")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _table(rows: list[Row], now: datetime) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("severity", "since", "what", "key", "seen by"):
        table.add_column(title, overflow="fold")
    for row in rows:
        ended = row["resolved_at"]
        since = f"{row['first_seen']:%Y-%m-%d %H:%M:%S}Z"
        lasted = _span((ended or now) - row["first_seen"])
        what = Text(row["summary"])
        if row["detail"]:
            what.append(f"\n{row['detail']}", style="dim")
        table.add_row(
            Text("resolved" if ended else row["severity"], style=_style(row)),
            Text(f"{since}\n{'for' if ended else ''} {lasted}".strip()),
            what,
            Text(row["key"]),
            Text(row["acknowledged_by"] or ""),
        )
    return table


def _style(row: Row) -> str:
    return "green" if row["resolved_at"] else _STYLES[row["severity"]]


def _span(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _watched(row: dict[str, Any] | None, now: datetime) -> Text:
    if row is None:
        return Text("Nobody has ever watched here: `riskhub alerts`.", style="bold yellow")
    ago = (now - row["at"]).total_seconds()
    text = Text(f"{row['writer']} last looked {ago:.0f} s ago.", style="dim")
    for name, bad in row["receivers"].items():
        if bad:
            text.append(f"\n{name} takes nothing since {bad['since']}: {bad['why']}", "bold yellow")
    return text
