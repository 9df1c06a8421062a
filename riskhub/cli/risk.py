"""Risk numbers and how good they were."""

import json
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from riskhub import bootstrap
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.outcomes import Outcomes, outcomes
from riskhub.risk import Level, parse_level
from riskhub.risk.backtest import Backtest, backtest
from riskhub.settings import load_settings

_ZONES = {"green": "green", "yellow": "yellow", "red": "bold red"}
_METHODS = ("historical", "normal")

app = typer.Typer()


class NothingToTest(RiskHubError):
    """There are no forecasts whose outcome is known."""


@app.command("var-backtest")
def var_backtest(
    worlds: Annotated[
        list[str] | None, typer.Option("--world", help="One world, or more; all, by default.")
    ] = None,
    stage: Annotated[str, typer.Option(help="Of the snapshots.")] = "backtest",
    level: Annotated[str, typer.Option(help="Such as 0.99 or 0.975.")] = "0.99",
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First outcome.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last outcome.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Hold each stored VaR against the next day's loss: are there too many exceedances?"""
    settings, parsed = load_settings(), parse_level(level)
    store = bootstrap.store(settings)
    try:
        panel = bootstrap.price_panel(settings.prices_path)
        known = worlds or sorted(
            {world for world, of_stage, _ in store.newest_per_world() if of_stage == stage}
        )
        rows = []
        for world in known:
            for method in _METHODS:
                found = outcomes(store, panel, world, stage=stage, method=method, level=parsed)
                found = found.between(
                    first.date() if first else date.min, last.date() if last else date.max
                )
                if len(found.days) >= 2:
                    rows.append((world, method, found, _tested(found, parsed)))
    finally:
        store.close()
    if not rows:
        raise NothingToTest(
            f"no forecasts of stage {stage} have a known outcome; "
            "a day needs numbers, and prices of the day after"
        )
    if as_json:
        for world, method, found, tested in rows:
            typer.echo(json.dumps(_as_json(world, method, found, tested)))
    else:
        console.print(_as_table(rows, parsed))


def _tested(found: Outcomes, level: Level) -> Backtest:
    return backtest(found.var, found.es, found.losses, level)


def _as_table(rows: list[tuple[str, str, Outcomes, Backtest]], level: Level) -> Table:
    days = [day for _, _, found, _ in rows for day in found.days]
    table = Table(
        title=f"VaR at {float(level):.1%} against the next day's loss, {min(days)} to {max(days)}",
        title_justify="left",
        caption="p: Kupiec (exact), Christoffersen's independence, Acerbi-Szekely's Z2. The light "
        "is Basel's, of the last 250 days; red: of how many 250-day windows.",
        caption_justify="left",
    )
    for name in ("world", "method"):
        table.add_column(name, style="bold" if name == "world" else "")
    for name in ("days", "> VaR", "expected", "p count", "p clusters", "p ES", "red"):
        table.add_column(name, justify="right")
    table.add_column("light")
    for world, method, found, tested in rows:
        zone = tested.traffic_light.zone
        shortfall = tested.acerbi_szekely
        windows = tested.rolling.zones
        table.add_row(
            world,
            method,
            str(len(found.days)),
            str(tested.exceedances),
            f"{float(len(found.days) * (1 - level)):.1f}",
            f"{tested.kupiec.p_value_exact:.3f}",
            f"{tested.christoffersen.p_value:.3f}",
            f"{shortfall.z2.p_value:.3f}" if shortfall else "–",
            f"{sum(each == 'red' for each in windows) / len(windows):.0%}" if len(windows) else "–",
            f"[{_ZONES[zone]}]{zone}[/]",
        )
    return table


def _as_json(world: str, method: str, found: Outcomes, tested: Backtest) -> dict[str, Any]:
    shortfall = tested.acerbi_szekely
    return {
        "world_id": world,
        "method": method,
        "level": float(tested.level),
        "from": found.days[0].isoformat(),
        "to": found.days[-1].isoformat(),
        "days": tested.observations,
        "exceedances": tested.exceedances,
        "left_out": found.left_out,
        "kupiec": {
            "statistic": tested.kupiec.statistic,
            "p_value": tested.kupiec.p_value,
            "p_value_exact": tested.kupiec.p_value_exact,
        },
        "christoffersen": {
            "statistic": tested.christoffersen.statistic,
            "p_value": tested.christoffersen.p_value,
        },
        "acerbi_szekely": None
        if shortfall is None
        else {"z2": shortfall.z2.statistic, "p_value": shortfall.z2.p_value},
        "traffic_light": {
            "zone": tested.traffic_light.zone,
            "observations": tested.traffic_light.observations,
            "exceedances": tested.traffic_light.exceedances,
            "multiplier": tested.traffic_light.multiplier,
        },
        "untested": list(tested.untested),
    }
