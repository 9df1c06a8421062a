"""`riskhub risk FILE`: every number of one snapshot file, without a hub."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from riskhub import bootstrap
from riskhub.blobs import open_blobs
from riskhub.cli.frame import console
from riskhub.metrics import NumbersRows, Row, numbers_of
from riskhub.portfolio import Sources, portfolio_of
from riskhub.scenarios import load_scenarios
from riskhub.settings import load_settings
from riskhub.snapshot import format_instant, validate
from riskhub.store.landing import Landed
from riskhub.stressing import StressRows, StressRunner
from riskhub.strict_json import parse_json

_UNSAID = "unknown"
_MOST_SHOWN = 20
_METHODS = {
    "historical": "historical",
    "normal": "normal",
    "cornish_fisher": "Cornish-Fisher",
    "student_t": "Student t",
    "ewma": "EWMA",
    "filtered_historical": "filtered hist.",
    "monte_carlo": "Monte Carlo",
}

app = typer.Typer()


@app.command("risk")
def risk(
    file: Annotated[str, typer.Argument(help="JSON file of a snapshot, or - for stdin.")],
    world: Annotated[str | None, typer.Option(help="Where the file names none.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who will post it, for its hash.")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage it is for, for its hash.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON document.")] = False,
) -> None:
    """Show every risk number of a snapshot file, offline: as the hub would compute it."""
    settings = load_settings()
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    document = parse_json(raw)
    given = document.get("provenance")
    provenance = given if isinstance(given, dict) else {}
    snapshot = validate(
        document,
        world_id=world or (None if "world_id" in document else _UNSAID),
        actor=actor or str(provenance.get("actor", _UNSAID)),
        stage=stage or str(provenance.get("stage", _UNSAID)),
        received_at=datetime.now(UTC),
        future_tolerance=timedelta(seconds=settings.future_tolerance_sec),
        resolved={},  # what a reference stands for is asked for below, by what needs it
    )
    landed = Landed(
        position=0,
        world_id=snapshot.world_id,
        version=snapshot.version,
        as_of=snapshot.as_of,
        stage=snapshot.stage,
        digest=snapshot.digest,
        body=snapshot.body,
    )
    weights = {symbol: float(weight) for symbol, weight in document["weights"].items()}
    panel = bootstrap.price_panel(settings)
    sources = Sources.of(settings, panel, open_blobs(settings))
    (numbers,) = numbers_of([landed], {0: weights}, sources, settings.risk)
    book = load_scenarios(settings.scenarios_path)
    runner = StressRunner(book, panel, settings.risk)
    stress = runner.rows_of(landed, portfolio_of(landed, weights, sources), sources.blobs)
    labels = {scenario.id: scenario.label for scenario in book.scenarios}
    if as_json:
        answer = _as_json(numbers, stress, labels)
        typer.echo(json.dumps(answer, default=format_instant, allow_nan=False))
    else:
        _show(numbers, stress, labels)


def _as_json(numbers: NumbersRows, stress: StressRows, labels: Mapping[str, str]) -> Row:
    """One document; without what places rows in a hub."""

    def bare(row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in ("position", "day")}

    results = [
        bare(row) | {"label": labels.get(row["scenario"], row["scenario"])}
        for row in stress.results
    ]
    return bare(numbers.metrics) | {
        "tails": [bare(row) for row in numbers.tails],
        "contributions": [bare(row) for row in numbers.contributions],
        "candidate": [bare(row) for row in numbers.candidate],
        "stress": bare(stress.snapshot) | {"results": results},
    }


def _show(numbers: NumbersRows, stress: StressRows, labels: Mapping[str, str]) -> None:
    metrics = numbers.metrics
    console.print(
        f"[bold]{escape(metrics['world_id'])}[/]  {escape(metrics['version'])}  "
        f"as of {format_instant(metrics['as_of'])}",
        highlight=False,
        soft_wrap=True,
    )
    facts = {
        "snapshot": metrics["snapshot_digest"],
        "returns": _source(metrics, "returns", f", {metrics['n']} of {metrics['window']} days"),
        "covariance": _source(metrics, "covariance", ""),
        "volatility": f"{_percent(metrics['volatility'])} a day, "
        f"{_percent(metrics['annualised_volatility'])} a year",
        "drawdown": f"{_percent(metrics['max_drawdown'])} at most, "
        f"{_percent(metrics['current_drawdown'])} now",
        "exposure": f"{metrics['gross']:.4g} gross, {metrics['net']:.4g} net, "
        f"{metrics['effective_names']:.3g} effective names",
    }
    for name, fact in facts.items():
        console.print(f"  {name:<12}{escape(fact)}", highlight=False, soft_wrap=True)
    for source, why in metrics["passed_over"].items():
        console.print(f"  [yellow]{source} not used[/]: {escape(why)}", soft_wrap=True)
    if metrics["unavailable"]:
        console.print(f"[bold red]no risk numbers[/]: {escape(metrics['unavailable'])}")
    else:
        console.print(_tails_table(numbers))
    if numbers.contributions:
        console.print(_contributions_table(numbers))
    if numbers.candidate:
        console.print(_candidate_table(numbers.candidate))
    console.print(_stress_table(stress, labels))
    for name, why in metrics["absent"].items():
        console.print(f"  [yellow]no {name}[/]: {escape(why)}", highlight=False, soft_wrap=True)


def _source(metrics: Row, name: str, more: str) -> str:
    source = metrics[f"{name}_source"]
    return f"{source}{more}  {metrics[f'{name}_digest']}" if source else "none"


def _tails_table(numbers: NumbersRows) -> Table:
    levels = sorted({row["level"] for row in numbers.tails})
    sources = {row["source"] for row in numbers.tails}
    table = _table("VaR and ES over one day, % of equity; losses are positive", "method")
    table.columns[0].no_wrap = True
    for level in levels:
        for name in ("VaR", "ES"):
            table.add_column(f"{name} {float(level):.1%}", justify="right")
    if len(sources) > 1:
        table.add_column("of")
    by_method: dict[str, dict[str, Row]] = {}
    for row in numbers.tails:
        by_method.setdefault(row["method"], {})[row["level"]] = row
    for method, label in _METHODS.items():
        rows = by_method.get(method)
        if rows:
            cells = [_percent(rows[level][name]) for level in levels for name in ("var", "es")]
            of = [rows[levels[0]]["source"]] if len(sources) > 1 else []
            table.add_row(label, *cells, *of)
    return table


def _contributions_table(numbers: NumbersRows) -> Table:
    rows = sorted(numbers.contributions, key=lambda row: -abs(row["es"]))
    level = float(numbers.metrics["contributions_level"])
    table = _table(f"Contributions at {level:.0%}, % of equity", "symbol")
    for name in ("weight", "VaR", "ES", "historical VaR", "historical ES"):
        table.add_column(name, justify="right")
    for row in rows[:_MOST_SHOWN]:
        names = ("weight", "var", "es", "historical_var", "historical_es")
        table.add_row(escape(row["symbol"]), *(_percent(row[name]) for name in names))
    if len(rows) > _MOST_SHOWN:
        table.add_row(f"… {len(rows) - _MOST_SHOWN} more", style="dim")
    return table


def _candidate_table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    title = (
        f"With {first['candidate_weight']:.1%} of {escape(first['candidate_id'])}, "
        f"bought {first['funding']}, % of equity"
    )
    table = _table(title, "method")
    for name in ("level", "VaR", "with it", "ES", "with it "):
        table.add_column(name, justify="right")
    for row in rows:
        names = ("var_without", "var_with", "es_without", "es_with")
        numbers = (_percent(row[name]) for name in names)
        table.add_row(_METHODS[row["method"]], row["level"], *numbers)
    return table


def _stress_table(stress: StressRows, labels: Mapping[str, str]) -> Table:
    table = _table("Stress, % of equity; P&L is signed, VaR at 99 %", "scenario")
    for name in ("P&L", "worst", "VaR"):
        table.add_column(name, justify="right")
    for row in stress.results:
        label = escape(labels.get(row["scenario"]) or row["scenario"])
        if row["unavailable"]:
            table.add_row(f"{label}  [dim]{escape(row['unavailable'])}[/]", "–", "–", "–")
        elif row["measures"] is not None:
            said = ", ".join(f"{name} {value:g}" for name, value in row["measures"].items())
            table.add_row(f"{label}  [dim]the producer's: {escape(said)}[/]", "", "", "")
        else:
            table.add_row(label, *(_percent(row[name], "") for name in ("pnl", "worst", "var")))
    limit, against, market = (stress.snapshot[name] for name in ("loss_limit", "against", "market"))
    table.caption = (
        f"A loss of {limit:.0%} takes {_percent(against, 'no move')} against every position, "
        f"or {_percent(market, 'no common move')} of all prices."
    )
    table.caption_justify = "left"
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    return table


def _percent(value: float | None, otherwise: str = "–") -> str:
    return otherwise if value is None else f"{value:.2%}"
