"""What each symbol may risk now, and why."""

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import redis
import typer
from rich.table import Table
from rich.text import Text

from riskhub import bootstrap
from riskhub.cli.frame import console, errors
from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.governor.explain import POLICIES, Evidence, Explanation, Row, explain
from riskhub.governor.inputs import CLUSTER_MARK, MEMORY_KEY, POSITION_PREFIXES
from riskhub.governor.lease import holder
from riskhub.governor.memory import remembered
from riskhub.governor.publish import BUDGET_PREFIX
from riskhub.governor.published import (
    Published,
    client_of,
    is_no_hash,
    parse_budget,
    read_published,
)
from riskhub.settings import Settings, load_settings

_LIST_WITHIN_SEC = 10.0

app = typer.Typer()
group = typer.Typer(help="What each symbol may risk now, and why.", no_args_is_help=True)
app.add_typer(group, name="budget")


class RedisAway(RiskHubError):
    """Redis, where the budgets are, can't be reached."""


@group.command("explain")
def explain_command(
    symbol: Annotated[
        str, typer.Argument(help="Such as BTCUSDT; cluster:majors is the budget of a cluster.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say why a budget is what it is, or why there is none."""
    settings = load_settings()
    now = time.time()
    receipt, cycle = _on_record(settings, symbol)
    found = _evidence(settings, symbol, receipt, cycle, now)
    explanation = explain(symbol, found, settings.governor, now)
    if as_json:
        typer.echo(json.dumps(asdict(explanation), allow_nan=False))
        return
    _print(explanation, settings)


@group.command("list")
def list_command(
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Those of the clusters instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Show the budgets as gates find them in Redis."""
    settings = load_settings()
    now = time.time()
    with client_of(settings.effective_redis_url) as client:
        try:
            found = read_published(client, now, within_sec=_LIST_WITHIN_SEC)
        except (redis.RedisError, OSError, ValueError) as error:
            raise RedisAway(f"the budgets can't be read from Redis: {error}") from error
    stale_sec = settings.governor.gate_stale_sec
    budgets = [each for name, each in found.items() if name.startswith(CLUSTER_MARK) == clusters]
    if as_json:
        for budget in budgets:
            age = budget.age_sec(now)
            told = {"age_sec": age, "stale": age >= stale_sec}
            typer.echo(json.dumps(_flat(budget) | told, allow_nan=False))
        return
    if not budgets:
        console.print("There are no budgets: gates let every position pass.")
        return
    table = Table("symbol", "budget USD", "stress", "mode", "age s")
    for name in ("budget USD", "stress", "age s"):
        column = next(each for each in table.columns if each.header == name)
        column.justify = "right"
    for budget in budgets:
        age = budget.age_sec(now)
        table.add_row(
            Text(budget.symbol),
            f"{budget.budget_usd:,.2f}",
            _number(budget.told["stress_factor"]),
            budget.mode,
            Text(f"{age:.0f} stale", style="red") if age >= stale_sec else f"{age:.0f}",
        )
    console.print(table)


def _on_record(settings: Settings, symbol: str) -> tuple[Row | None, Row | None]:
    """The newest receipt of a symbol, and the newest cycle; without a database neither."""
    try:
        store = bootstrap.store(settings)
    except (StoreUnavailable, StoreNotMigrated) as error:
        errors.print(Text(f"the history can't be read: {error}"))
        return None, None
    try:
        receipts = store.budget_history(symbol, limit=1)
        cycles = store.budget_cycles(limit=1)
    except StoreUnavailable as error:
        errors.print(Text(f"the history can't be read: {error}"))
        return None, None
    finally:
        store.close()
    return (receipts[0] if receipts else None), (cycles[0] if cycles else None)


def _evidence(
    settings: Settings, symbol: str, receipt: Row | None, cycle: Row | None, now: float
) -> Evidence:
    with client_of(settings.effective_redis_url) as client:
        try:
            pipeline = client.pipeline(transaction=False)
            pipeline.hgetall(BUDGET_PREFIX + symbol)
            pipeline.hgetall(MEMORY_KEY)
            pipeline.exists(*(prefix + symbol for prefix in POSITION_PREFIXES))
            fields, memory, positions = pipeline.execute(raise_on_error=False)
            for reply in (memory, positions):
                if isinstance(reply, Exception):
                    raise reply
            writer = holder(client)
        except (redis.RedisError, OSError, ValueError) as error:
            raise RedisAway(f"the budget can't be read from Redis: {error}") from error
    return Evidence(
        _judged(symbol, fields, now), receipt, cycle, remembered(memory), writer, bool(positions)
    )


def _judged(symbol: str, fields: Any, now: float) -> Published | str:
    if isinstance(fields, Exception):
        if not is_no_hash(fields):
            raise RedisAway(f"the budget can't be read from Redis: {fields}")
        return "budget_malformed"
    if not fields:
        return "no_budget"
    return parse_budget(symbol, fields, now) or "budget_malformed"


def _flat(budget: Published) -> dict[str, Any]:
    told = asdict(budget)
    return {**told.pop("told"), **told}


# -- for people -----------------------------------------------------------------------------------


def _print(found: Explanation, settings: Settings) -> None:
    budget = found.budget
    if budget is None:
        console.print(Text.assemble((found.symbol, "bold"), f" has no budget: {found.why_none}."))
    else:
        console.print(
            Text.assemble(
                (found.symbol, "bold"),
                " may risk ",
                (f"{budget.budget_usd:,.2f} USD", "bold"),
                f" ({budget.mode}, {found.age_sec:.0f} s old",
                f", written by {found.wrote})" if found.wrote else ")",
            )
        )
        console.print(_formula(found, budget, settings), highlight=False, soft_wrap=True)
        console.print(_inputs(found))
        if found.changes:
            console.print(_changes(found, budget))
    for remark in found.remarks:
        console.print(Text(remark), soft_wrap=True)
    if found.receipt_age_sec:
        console.print(
            f"The newest receipt is from {found.receipt_age_sec:.0f} s before this budget"
            + (
                "; had a policy changed since, there would be another."
                if found.wrote
                else ": too long to tell how its inputs came about. Is the history written?"
            ),
            style="dim",
            soft_wrap=True,
        )


def _formula(found: Explanation, budget: Published, settings: Settings) -> str:
    if found.stress is None or found.unbounded_usd is None:
        return f"  {found.differs}"
    parameters, told = settings.governor.parameters, budget.told
    haircut = found.haircut or 0.0
    lines = [
        "  stress = "
        f"{parameters.heat_weight:g} × {told['portfolio_heat']:g} heat"
        f" + {parameters.cluster_weight:g} × {told['cluster_stress']:g} cluster"
        f" + {parameters.vol_weight:g} × {told['vol_regime']:g} vol = {found.stress:.4g}",
        "  budget = "
        f"{told['equity_usd']:,.2f} × {told['base_risk_pct']:g} × (1 − {found.stress:.4g})"
        + (f" × (1 − {haircut:.4g} haircut)" if haircut else "")
        + f" = {found.unbounded_usd:,.2f}",
    ]
    if found.bound:
        limit = getattr(parameters, found.bound)
        which = "at least" if found.bound == "min_usd" else "at most"
        lines.append(f"  and it is {which} {limit:,.2f} ({found.bound})")
    if found.share is not None:
        lines.append(f"  it carries {found.share:.1%} of the expected shortfall of its world")
    if found.differs:
        lines.append(f"  but {found.differs}")
    return "\n".join(lines)


def _inputs(found: Explanation) -> Table:
    table = Table("input", "value", "policy", "age when used", "last fresh", "")
    for term in found.terms:
        table.add_row(
            term.name.replace("_", " "),
            _number(term.value),
            term.policy or "unknown",
            "unknown" if term.used_age_sec is None else f"{term.used_age_sec:.0f} s",
            "unknown" if term.age_sec is None else f"{term.age_sec:.0f} s ago",
            POLICIES.get(term.policy or "", "no receipt of it is on record"),
        )
    return table


def _changes(found: Explanation, budget: Published) -> Table:
    table = Table("what would change it", "budget USD", "by")
    table.columns[1].justify = table.columns[2].justify = "right"
    for change in found.changes:
        by = change.budget_usd - budget.budget_usd
        table.add_row(
            change.what,
            f"{change.budget_usd:,.2f}",
            "nothing" if abs(by) < 0.005 else f"{by:+,.2f}",
        )
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}" if abs(value) < 10 else f"{value:,.2f}"
