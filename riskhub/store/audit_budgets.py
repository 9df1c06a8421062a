"""What an audit reads of the governor's history: cycles, and the receipts of their budgets.

As `riskhub.store.audit`: by keys, a page at a time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from riskhub.store.engine import one_state, reading
from riskhub.store.tables import budget_cycles, symbol_budgets

Row = Mapping[str, Any]

_PAGE = 1_000
_DIFFERS = sa.or_(
    symbol_budgets.c.equity_usd != budget_cycles.c.equity_usd,
    symbol_budgets.c.portfolio_heat != budget_cycles.c.heat,
    symbol_budgets.c.mode != budget_cycles.c.mode,
    symbol_budgets.c.formula_version != budget_cycles.c.formula_version,
)
_NUMBERS = (
    *("symbol", "budget_usd", "stress_factor", "equity_usd", "portfolio_heat"),
    *("cluster_stress", "vol_regime", "base_risk_pct", "haircut", "share"),
)


@dataclass(frozen=True, slots=True)
class AuditedBudgets:
    """Budgets of one cycle, as columns: each as long as `symbol`, which they are sorted by.

    `policies` is JSON, as text: of thousands of budgets few differ in it.
    """

    symbol: tuple[str, ...]
    budget_usd: tuple[float, ...]
    stress_factor: tuple[float, ...]
    equity_usd: tuple[float, ...]
    portfolio_heat: tuple[float, ...]
    cluster_stress: tuple[float, ...]
    vol_regime: tuple[float, ...]
    base_risk_pct: tuple[float, ...]
    haircut: tuple[float | None, ...]
    share: tuple[float | None, ...]
    policies: tuple[str, ...]


class AuditBudgetStore:
    """What an audit reads of one database: the governor's history."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def audited_cycles(self, since: datetime | None) -> Iterator[Row]:
        """Each cycle of the governor's history, with what `symbol_budgets` has of it.

        `rows`: how many; `differing`: how many of them say another equity, heat, mode or formula.
        """
        cycles, budgets = budget_cycles.c, symbol_budgets.c
        after: datetime | None = None
        while True:
            page = sa.select(budget_cycles).order_by(cycles.computed_at).limit(_PAGE)
            if since is not None:
                page = page.where(cycles.computed_at >= since)
            if after is not None:
                page = page.where(cycles.computed_at > after)
            with one_state(self.engine) as connection:
                found = [dict(row._mapping) for row in connection.execute(page)]
                if not found:
                    return
                counted = (
                    sa.select(
                        budgets.computed_at,
                        sa.func.count(),
                        sa.func.sum(sa.case((_DIFFERS, 1), else_=0)),
                    )
                    .join(budget_cycles, cycles.computed_at == budgets.computed_at)
                    .where(budgets.computed_at >= found[0]["computed_at"])
                    .where(budgets.computed_at <= found[-1]["computed_at"])
                    .group_by(budgets.computed_at)
                )
                of_cycle = {at: (rows, wrong) for at, rows, wrong in connection.execute(counted)}
            for cycle in found:
                rows, differing = of_cycle.get(cycle["computed_at"], (0, 0))
                yield cycle | {"rows": rows, "differing": differing}
            after = found[-1]["computed_at"]

    def audited_budgets(self, computed_at: datetime) -> AuditedBudgets | None:
        """The budgets of a cycle, but for those that differ from it; None: there are none."""
        budgets, cycles = symbol_budgets.c, budget_cycles.c
        query = (
            sa.select(*(budgets[name] for name in _NUMBERS), sa.cast(budgets.policies, sa.Text))
            .join(budget_cycles, cycles.computed_at == budgets.computed_at)
            .where(budgets.computed_at == computed_at, ~_DIFFERS)
            .order_by(budgets.symbol)
        )
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        return AuditedBudgets(*zip(*rows, strict=True)) if rows else None

    def budgets_without_cycle(self) -> Iterator[tuple[datetime, int]]:
        """When budgets were computed that no cycle has, and how many."""
        of_cycle = budget_cycles.c.computed_at == symbol_budgets.c.computed_at
        query = (
            sa.select(symbol_budgets.c.computed_at, sa.func.count())
            .where(~sa.exists().where(of_cycle))
            .group_by(symbol_budgets.c.computed_at)
            .order_by(symbol_budgets.c.computed_at)
        )
        with one_state(self.engine) as connection:  # a cursor needs a transaction
            rows = connection.execution_options(yield_per=_PAGE).execute(query)
            yield from ((at, count) for at, count in rows)
