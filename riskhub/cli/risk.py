"""How good the stored risk numbers were."""

import json
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from riskhub import bootstrap
from riskhub.backtesting import Backtested, backtests_of
from riskhub.cli.frame import console
from riskhub.errors import RiskHubError
from riskhub.risk import Level, parse_level
from riskhub.settings import load_settings

_ZONES = {"green": "green", "yellow": "yellow", "red": "bold red"}

app = typer.Typer()


class NothingToTest(RiskHubError):
    """There are no forecasts whose outcome is known."""


@app.command("var-backtest")
def var_backtest(
    worlds: Annotated[
        list[str] | None, typer.Option("--world", help="One world, or more; all, by default.")
    ] = None,
    stage: Annotated[str, typer.Option(help="Of the snapshots.")] = "backtest",
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="One method, or more; all, by default.")
    ] = None,
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
        known = worlds or [world.world_id for world in store.newest_per_world(stage=stage)]
        found = [
            of_method
            for world in known
            for of_method in backtests_of(
                store,
                world,
                stage=stage,
                methods=methods,
                level=parsed,
                first=first.date() if first else date.min,
                last=last.date() if last else date.max,
            ).values()
        ]
    finally:
        store.close()
    if not found:
        raise NothingToTest(
            f"no forecasts of stage {stage} have met an outcome that is stored; materialize the "
            "asset var_outcomes: a day needs risk numbers from before it, and its own prices"
        )
    if as_json:
        for each in found:
            typer.echo(json.dumps(_as_json(each)))
    else:
        console.print(_as_table(found, parsed))


def _as_table(found: list[Backtested], level: Level) -> Table:
    days = [day for each in found for day in each.outcomes.days]
    late = sum(int(each.outcomes.hindsight.sum()) for each in found) / len(days)
    table = Table(
        title=f"VaR at {float(level):.1%} against the next day's loss, {min(days)} to {max(days)}",
        title_justify="left",
        caption=f"> VaR: days that exceeded it; {float(1 - level):.1%} of them should. p: Kupiec "
        "(exact), Christoffersen's independence (exact), Acerbi-Szekely's Z2, Nass over 95, 97.5 "
        "and 99 %. red: of how many 250-day windows. light: Basel's, of the last. "
        f"{late:.0%} of the forecasts landed after their outcome.",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,  # with the longest names it fits a terminal of 80 columns
    )
    table.add_column("world", style="bold", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for name in ("days", "> VaR", "p count", "p clus-\nters", "p ES", "p levels", "red"):
        table.add_column(name, justify="right")
    table.add_column("light", no_wrap=True)
    for each in found:
        tests = each.tests
        zone = tests.traffic_light.zone
        shortfall, several, windows = tests.acerbi_szekely, tests.multinomial, tests.rolling.zones
        table.add_row(
            each.world_id,
            each.method,
            str(tests.observations),
            str(tests.exceedances),
            f"{tests.kupiec.p_value_exact:.3f}",
            f"{tests.christoffersen.p_value_exact:.3f}",
            f"{shortfall.z2.p_value:.3f}" if shortfall else "–",
            f"{several.nass.p_value:.3f}" if several else "–",
            f"{sum(one == 'red' for one in windows) / len(windows):.0%}" if len(windows) else "–",
            f"[{_ZONES[zone]}]{zone}[/]",
        )
    return table


def _as_json(each: Backtested) -> dict[str, Any]:
    outcomes, tests = each.outcomes, each.tests
    shortfall, several = tests.acerbi_szekely, tests.multinomial
    return {
        "world_id": each.world_id,
        "stage": each.stage,
        "method": each.method,
        "level": float(tests.level),
        "from": outcomes.days[0].isoformat(),
        "to": outcomes.days[-1].isoformat(),
        "days": tests.observations,
        "exceedances": tests.exceedances,
        "hindsight": int(outcomes.hindsight.sum()),
        "kupiec": {
            "statistic": tests.kupiec.statistic,
            "p_value": tests.kupiec.p_value,
            "p_value_exact": tests.kupiec.p_value_exact,
        },
        "christoffersen": {
            "statistic": tests.christoffersen.statistic,
            "p_value": tests.christoffersen.p_value,
            "p_value_exact": tests.christoffersen.p_value_exact,
        },
        "acerbi_szekely": None
        if shortfall is None
        else {"z2": shortfall.z2.statistic, "p_value": shortfall.z2.p_value},
        "multinomial": None
        if several is None
        else {
            "statistic": several.nass.statistic,
            "p_value": several.nass.p_value,
            "p_value_simulated": several.nass.p_value_simulated,
        },
        "traffic_light": {
            "zone": tests.traffic_light.zone,
            "observations": tests.traffic_light.observations,
            "exceedances": tests.traffic_light.exceedances,
            "multiplier": tests.traffic_light.multiplier,
        },
        "untested": list(tests.untested),
    }
