"""The settings in force, what they lead to, and the tokens that they name."""

import json
import logging
from dataclasses import asdict
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from riskhub.auth import Scope, new_token
from riskhub.cli.frame import console
from riskhub.doctor import Finding, examine
from riskhub.effective import Effective, effective
from riskhub.settings import config_file, load_settings

app = typer.Typer()
config = typer.Typer(
    help="The settings: from defaults, file and environment.", no_args_is_help=True
)
token = typer.Typer(help="Bearer tokens of the API.", no_args_is_help=True)
app.add_typer(config, name="config")
app.add_typer(token, name="token")

JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]

_MARKS = {
    "ok": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "bold red"),
    "skipped": ("–", "dim"),
}
_ORIGIN_STYLES = {
    "default": "dim",
    "file": "cyan",
    "environment": "magenta",
    "named file": "magenta",
}


@config.command("show")
def show_command(as_json: JsonOption = False) -> None:
    """Print every setting in force and where it comes from; secrets are masked."""
    settings, file = effective(load_settings()), config_file()
    if as_json:
        _print_json(
            {
                "file": str(file.resolve()) if file else None,
                "settings": {
                    one.key: {"value": one.value, "origin": one.origin} for one in settings
                },
            }
        )
        return
    console.print(_settings_table(settings))
    console.print(f"file: {file.resolve()}" if file else "no file", style="dim", soft_wrap=True)


@token.command("new")
def token_command(
    name: Annotated[str, typer.Option(help="What people call it.")] = "token",
    scopes: Annotated[list[Scope] | None, typer.Option("--scope", help="Without one, all.")] = None,
    actors: Annotated[
        list[str] | None,
        typer.Option("--actor", help="An X-Actor that it may post as; without one, any."),
    ] = None,
) -> None:
    """Print a fresh random token, and the entry for the tokens file that lets it in."""
    try:
        fresh, spec = new_token(name, scopes or Scope, actors or None)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint="--name") from None
    entry: dict[str, Any] = {
        "name": spec.name,
        "sha256": spec.sha256,
        "scopes": sorted(spec.scopes),
    }
    if spec.actors is not None:
        entry["actors"] = sorted(spec.actors)
    typer.echo(f"# The token; it is shown this once.\n{fresh}\n\n# Its entry in the tokens file:")
    typer.echo(yaml.safe_dump(json.loads(json.dumps([entry])), sort_keys=False), nl=False)


@app.command("doctor")
def doctor_command(as_json: JsonOption = False) -> None:
    """Ask every dependency for a sign of life, and say how to mend what is wrong."""
    # What a client library logs of a dependency that is down stands in the table already.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    findings = examine(load_settings())
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        console.print(_findings_table(findings))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)


def _settings_table(settings: list[Effective]) -> Table:
    table = Table("setting", "value", "from", title="risk_hub", title_justify="left")
    for one in settings:
        table.add_row(
            Text(one.key),
            Text(shown(one.key, one.value), overflow="fold"),
            Text(one.origin, style=_ORIGIN_STYLES[one.origin]),
        )
    return table


def shown(key: str, value: Any) -> str:
    """A value as people read it."""
    match value:
        case bool():
            text = "yes" if value else "no"
        case int() | float():
            text = _number(key, value)
        case str():
            text = value
        case [str(), *_]:
            text = ", ".join(value)
        case _:
            text = json.dumps(value, ensure_ascii=False) if value else "–"
    return text


def _number(key: str, value: float) -> str:
    if key.endswith("_port"):
        return str(value)
    if key.endswith("_bytes"):
        return _bytes(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def _bytes(value: float) -> str:
    for exponent, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 2**exponent:
            return f"{value / 2**exponent:,.4g} {unit}"
    return f"{value:,} bytes"


def _findings_table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        mark, style = _MARKS[finding.status]
        sentence = Text(finding.sentence, overflow="fold")
        if finding.mend and finding.status != "ok":
            sentence.append(f"\n→ {finding.mend}", style="dim")
        table.add_row(Text(mark, style), Text(finding.name, style), sentence)
    return table


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
