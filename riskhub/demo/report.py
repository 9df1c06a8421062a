"""What the history says, a row per world: the last VaR and ES, the worst day, the exceedances."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from rich.table import Table

from riskhub.demo.history import STAGE
from riskhub.demo.worlds import worlds_of
from riskhub.prices import PricePanel
from riskhub.risk import exceedances
from riskhub.store import Store

LEVEL = "0.99"
YEARS = (2008, 2020)


@dataclass(frozen=True, slots=True)
class WorldReport:
    """One world's history; fractions of equity, losses positive.

    `exceeded`: by year, on how many of how many days the loss was larger than the VaR that was
    known the day before.
    """

    world_id: str
    last_day: date
    var99: float
    es99: float
    worst_day: date
    worst_return: float
    exceeded: dict[int, tuple[int, int]]


def report(store: Store, panel: PricePanel) -> list[WorldReport]:
    """The history of every world that has one, from the tables that the backfill wrote.

    A world has one when a VaR of it can be held against a next day's loss.
    """
    reports = []
    row_of = {day: row for row, day in enumerate(panel.return_days)}
    for world in worlds_of(panel):
        history = store.tail_history(world.world_id, stage=STAGE, method="historical", level=LEVEL)
        weights = store.weights_history(world.world_id, stage=STAGE)
        columns = panel.columns(world.symbols)
        days, var, losses = [], [], []
        for known in history:
            # The VaR known at this close is held against the next day's loss.
            day = panel.next_trading_day(known["day"])
            if day is None:
                continue
            held = weights[known["position"]]
            returns = panel.returns[row_of[day], columns]
            days.append(day)
            var.append(known["var"])
            losses.append(-float(np.dot([held[symbol] for symbol in world.symbols], returns)))
        if not losses:
            continue
        beyond = exceedances(var, losses)
        worst = int(np.argmax(losses))
        reports.append(
            WorldReport(
                world_id=world.world_id,
                last_day=history[-1]["day"],
                var99=history[-1]["var"],
                es99=history[-1]["es"],
                worst_day=days[worst],
                worst_return=-losses[worst],
                exceeded={
                    year: (
                        sum(
                            bool(hit)
                            for day, hit in zip(days, beyond, strict=True)
                            if day.year == year
                        ),
                        sum(day.year == year for day in days),
                    )
                    for year in YEARS
                },
            )
        )
    return reports


def as_table(reports: Sequence[WorldReport]) -> Table:
    """The reports as a table for a terminal of 80 columns."""
    last_day = max((str(row.last_day) for row in reports), default="–")
    table = Table(
        title=f"VaR and ES at 99 %, historical, one day, 500 returns, as of {last_day}",
        title_justify="left",
        # No wider than the table, or it is wrapped.
        caption="> VaR: days that lost more than the VaR of the day before; 1 % expected",
        caption_justify="left",
    )
    table.add_column("world", style="bold")
    for name in ("VaR 99", "ES 99", "worst"):
        table.add_column(name, justify="right")
    table.add_column("on")
    for year in YEARS:
        table.add_column(f"> VaR\n{year}", justify="right")
    for row in reports:
        table.add_row(
            row.world_id,
            f"{row.var99:.2%}",
            f"{row.es99:.2%}",
            f"{row.worst_return:.2%}",
            str(row.worst_day),
            *(f"{hits}/{days}" if days else "–" for hits, days in row.exceeded.values()),
        )
    return table
