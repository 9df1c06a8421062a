"""What the history says, a row per world: the last VaR and ES, the worst day, the exceedances."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

import numpy as np
from rich.table import Table

from riskhub.demo.history import STAGE
from riskhub.demo.worlds import worlds_of
from riskhub.outcomes import Outcomes, outcomes
from riskhub.prices import PricePanel
from riskhub.risk import exceedances, format_level
from riskhub.store import Store

LEVEL = Fraction(99, 100)
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
    for world in worlds_of(panel):
        known = outcomes(store, world.world_id, stage=STAGE, method="historical", level=LEVEL)
        if not known.days:
            continue
        newest = store.tail_history(
            world.world_id, stage=STAGE, method="historical", level=format_level(LEVEL)
        )[-1]
        worst = int(np.argmax(known.losses))
        reports.append(
            WorldReport(
                world_id=world.world_id,
                last_day=newest["day"],
                var99=newest["var"],
                es99=newest["es"],
                worst_day=known.days[worst],
                worst_return=-float(known.losses[worst]),
                exceeded={year: _exceeded(known, year) for year in YEARS},
            )
        )
    return reports


def _exceeded(known: Outcomes, year: int) -> tuple[int, int]:
    of_year = known.between(date(year, 1, 1), date(year, 12, 31))
    return int(exceedances(of_year.var, of_year.losses).sum()), len(of_year.days)


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
