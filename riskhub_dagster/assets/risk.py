"""From weights to risk numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from math import fsum, isclose
from typing import Any

import dagster as dg

from riskhub.controlbus.events import metrics_updated
from riskhub.hub import utc_now
from riskhub.metrics import CODE_VERSION, NumbersRows, Row, numbers_of, numbers_tables
from riskhub.portfolio import FALLBACK, Sources
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import (
    Step,
    accepted_batches,
    chunks_to_write,
    daily_assets,
    daily_spec,
    newest_position,
    scope_of,
)
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import MAX_TABLE_ROWS, attach, table
from riskhub_dagster.partitions import days_of
from riskhub_dagster.resources import RiskHub

NUMBERS_AVAILABLE = "numbers_available"
NOTHING_GUESSED = "nothing_guessed"
ES_COVERS_VAR = "es_covers_var"
ADD_UP = "components_add_up"
# A line of the UI's charts each.
MAX_CHARTED = 20
_MOST_SHOWN = 12

_OF_WEIGHTS = [("snapshot_weights", "weight")]
# Returns and covariances come beside them from prices or the snapshot itself: each row says which.
_MADE_FROM_WEIGHTS = {
    "risk_metrics": dict.fromkeys(
        (
            *("gross", "net", "largest", "herfindahl", "effective_names"),
            *("mean", "volatility", "annualised_volatility", "max_drawdown", "current_drawdown"),
            *("diversification_ratio", "effective_bets"),
        ),
        _OF_WEIGHTS,
    ),
    "risk_contributions": {
        "symbol": [("snapshot_weights", "symbol")],
        **dict.fromkeys(
            (
                *("weight", "marginal_var", "marginal_es", "var", "es"),
                *("historical_var", "historical_es"),
            ),
            _OF_WEIGHTS,
        ),
    },
}

_Order = tuple[datetime, int]


@daily_assets(
    "risk_metrics",
    specs=[
        daily_spec(
            "risk_metrics",
            deps=["snapshot_weights", "prices"],
            group=signposts.RISK,
            description=signposts.about(
                "Risk of every accepted snapshot: VaR and ES by seven methods at 95, 97.5 and "
                "99 %, volatility, drawdown, concentration. Losses are positive, as a fraction of "
                "equity, over one day. Each number names its source, its window and the digests "
                "of what it was made from; of one that can't be had it says why. VaR and ES stand "
                "in the table `risk_tails`, a row for each method and level.",
                pages={"all worlds": "/"},
                doc="risk.md",
            ),
            kinds={"numpy", "table"},
            tags=signposts.cadence("when_it_landed"),
            metadata=of_table("risk_metrics", made_from=_MADE_FROM_WEIGHTS["risk_metrics"]),
        ),
        daily_spec(
            "risk_contributions",
            deps=["snapshot_weights", "prices"],
            group=signposts.RISK,
            description=signposts.about(
                "Which positions the VaR and ES at 99 % come from, by Euler: normal and "
                "historical components that add up to the total; and what a candidate of the "
                "snapshot's constraints would add.",
                doc="risk.md",
            ),
            kinds={"numpy", "table"},
            tags=signposts.cadence("when_it_landed"),
            metadata=of_table(
                "risk_contributions", made_from=_MADE_FROM_WEIGHTS["risk_contributions"]
            ),
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            NUMBERS_AVAILABLE,
            asset="risk_metrics",
            description="Fails when a snapshot can't be measured on any source.",
        ),
        dg.AssetCheckSpec(
            NOTHING_GUESSED,
            asset="risk_metrics",
            description="Fails when a snapshot is measured on the fallback, a sigma by setting.",
        ),
        dg.AssetCheckSpec(
            ES_COVERS_VAR,
            asset="risk_metrics",
            description="The mean loss beyond VaR can't be smaller than VaR: fails on a bug.",
        ),
        dg.AssetCheckSpec(
            ADD_UP,
            asset="risk_contributions",
            description="Components add up to the total they were split from: fails on a bug.",
        ),
    ],
)
def risk_metrics(context: dg.AssetExecutionContext, hub: RiskHub) -> Step:
    """Measure each accepted snapshot."""
    days, scope = days_of(context.partition_keys), scope_of(context)
    settings = hub.settings
    sources = Sources.of(settings, hub.panel, hub.blobs)
    findings = _Findings()
    per_day: dict[date, _Day] = {}  # of a run that is tried again, what it writes itself
    with chunks_to_write(hub, scope, "risk_metrics", days) as chunks:
        for chunk in chunks:
            made: list[NumbersRows] = []
            read_up_to = 0
            per_day |= {day: _Day(detailed=len(days) == 1) for day in chunk}
            for batch, weights in accepted_batches(hub, scope, "risk_metrics", chunk):
                made += numbers_of(batch, weights, sources, settings.risk)
                read_up_to = max(read_up_to, newest_position(batch))
            hub.store.write_days(
                numbers_tables(made),
                chunk,
                replace=scope.anew,
                read_up_to=read_up_to,
                worlds=scope.worlds,
                run_id=scope.run_id,
                told=[metrics_updated(rows.metrics, rows.tails, utc_now()) for rows in made],
            )
            for rows in made:
                findings.add(rows)
                per_day[rows.metrics["day"]].add(rows)

    attach(context, {day: of_day.metadata() for day, of_day in per_day.items()}, "risk_metrics")
    attach(
        context,
        {day: {"dagster/row_count": of_day.contributions} for day, of_day in per_day.items()},
        "risk_contributions",
    )
    yield from findings.results()
    stamped: dict[str, Any] = {"window": sources.window, "code_version": CODE_VERSION}
    if len(days) > 1:  # what is said here is said of each day of a range
        yield dg.MaterializeResult("risk_metrics", metadata=stamped)
        yield dg.MaterializeResult("risk_contributions", metadata=stamped)
        return
    of_day = per_day.get(days[0], _Day(detailed=True))
    yield dg.MaterializeResult("risk_metrics", metadata={"newest": of_day.newest()} | stamped)
    yield dg.MaterializeResult(
        "risk_contributions", metadata={"largest": of_day.largest()} | stamped
    )


@dataclass(slots=True)
class _Found:
    """How many rows a check has found, and the first of them."""

    count: int = 0
    first: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take one more into account."""
        self.count += 1
        if len(self.first) < MAX_TABLE_ROWS:
            self.first.append(row)


@dataclass(slots=True)
class _Findings:
    """What the checks have to say of a whole run, in bounded memory."""

    snapshots: int = 0
    unavailable: _Found = field(default_factory=_Found)
    guessed: _Found = field(default_factory=_Found)
    es_below_var: _Found = field(default_factory=_Found)
    do_not_add_up: _Found = field(default_factory=_Found)

    def add(self, rows: NumbersRows) -> None:
        """Take one snapshot into account."""
        metrics = rows.metrics
        self.snapshots += 1
        if metrics["unavailable"]:
            self.unavailable.add(metrics)
        if metrics["covariance_source"] == FALLBACK:
            self.guessed.add(metrics | {"why": "; ".join(metrics["passed_over"].values())})
        for tail in rows.tails:
            if tail["es"] < tail["var"]:
                self.es_below_var.add(tail)
        for differing in _sums_that_differ(rows):
            self.do_not_add_up.add(differing)

    def results(self) -> Iterator[dg.AssetCheckResult]:
        """The checks' results."""
        yield dg.AssetCheckResult(
            asset_key="risk_metrics",
            check_name=NUMBERS_AVAILABLE,
            passed=not self.unavailable.count,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{self.unavailable.count} of {self.snapshots} snapshots have no risk numbers"
            ),
            metadata={
                "without": table(
                    self.unavailable.first, ["world_id", "version", "stage", "unavailable"]
                )
            },
        )
        yield dg.AssetCheckResult(
            asset_key="risk_metrics",
            check_name=NOTHING_GUESSED,
            passed=not self.guessed.count,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{self.guessed.count} of {self.snapshots} snapshots are measured on the fallback"
            ),
            metadata={
                "guessed": table(self.guessed.first, ["world_id", "version", "stage", "why"])
            },
        )
        yield dg.AssetCheckResult(
            asset_key="risk_metrics",
            check_name=ES_COVERS_VAR,
            passed=not self.es_below_var.count,
            metadata={
                "wrong": table(
                    self.es_below_var.first, ["position", "method", "level", "var", "es"]
                )
            },
        )
        yield dg.AssetCheckResult(
            asset_key="risk_contributions",
            check_name=ADD_UP,
            passed=not self.do_not_add_up.count,
            metadata={
                "wrong": table(self.do_not_add_up.first, ["position", "method", "sum", "total"])
            },
        )


def _sums_that_differ(rows: NumbersRows) -> Iterator[Row]:
    """Totals at 99 % that are not the sum of their components, where both are of one source."""
    total = {
        tail["method"]: tail
        for tail in rows.tails
        if tail["level"] == rows.metrics["contributions_level"]
    }
    for method, number, column, source in (
        ("normal", "var", "var", "covariance_source"),
        ("normal", "es", "es", "covariance_source"),
        ("historical", "var", "historical_var", "returns_source"),
        ("historical", "es", "historical_es", "returns_source"),
    ):
        parts = [row[column] for row in rows.contributions if row[column] is not None]
        if not parts or method not in total:
            continue
        if total[method]["source"] != rows.metrics[source]:
            continue
        of_tail, summed = total[method][number], fsum(parts)
        if not isclose(of_tail, summed, rel_tol=1e-9, abs_tol=1e-9 * fsum(map(abs, parts))):
            yield {
                "position": rows.metrics["position"],
                "method": f"{method} {number}",
                "sum": summed,
                "total": of_tail,
            }


@dataclass(slots=True)
class _Day:
    """What is told of a day.

    `var99_of`: of the newest snapshot of each world, with what makes it the newest. `rows`: those
    of the newest snapshots, kept only where they are shown.
    """

    detailed: bool
    measured: int = 0
    without_numbers: int = 0
    contributions: int = 0
    var99_of: dict[str, tuple[_Order, float | None]] = field(default_factory=dict)
    rows: list[NumbersRows] = field(default_factory=list)

    def add(self, rows: NumbersRows) -> None:
        """Take one snapshot into account."""
        world, order = rows.metrics["world_id"], _order(rows)
        self.measured += 1
        self.without_numbers += rows.metrics["unavailable"] is not None
        self.contributions += len(rows.contributions)
        if world not in self.var99_of or self.var99_of[world][0] <= order:
            self.var99_of[world] = (order, _var99(rows))
        if self.detailed:
            self.rows = sorted([*self.rows, rows], key=_order, reverse=True)[:_MOST_SHOWN]

    def metadata(self) -> dict[str, Any]:
        """Numbers that the UI charts over days; the VaR99 of so many worlds as can be read."""
        worlds = sorted(self.var99_of)[:MAX_CHARTED]
        var99 = {world: self.var99_of[world][1] for world in worlds}
        return {
            "dagster/row_count": self.measured,
            "without_numbers": self.without_numbers,
            **{f"var99_{world}": var for world, var in var99.items() if var is not None},
        }

    def newest(self) -> dg.TableMetadataValue:
        """The newest numbers of the day."""
        return table(
            [_shown(rows) for rows in self.rows],
            [
                *("world_id", "stage", "at", "var99", "es99", "normal_var99", "t_var99"),
                *("volatility", "returns_source"),
            ],
        )

    def largest(self) -> dg.TableMetadataValue:
        """The positions that contribute most to the ES of their snapshot, of the newest ones."""
        rows = [
            {name: made.metrics[name] for name in ("world_id", "version")} | row
            for made in self.rows
            for row in made.contributions
        ]
        rows.sort(key=lambda row: row["es"], reverse=True)
        columns = ["world_id", "version", "symbol", "weight", "var", "es", "historical_es"]
        return table(rows[:20], columns)


def _order(rows: NumbersRows) -> _Order:
    return rows.metrics["as_of"], rows.metrics["position"]


def _var99(rows: NumbersRows) -> float | None:
    """The historical one; where there is none, the normal one."""
    found = {row["method"]: float(row["var"]) for row in rows.tails if row["level"] == "0.99"}
    return found.get("historical", found.get("normal"))


def _shown(rows: NumbersRows) -> Row:
    by_name = {(tail["method"], tail["level"]): tail for tail in rows.tails}
    # The day is the partition's; the whole instant would make each row three lines high.
    shown = rows.metrics | {"at": f"{rows.metrics['as_of']:%H:%M}Z"}
    for name, method, number in (
        ("var99", "historical", "var"),
        ("es99", "historical", "es"),
        ("normal_var99", "normal", "var"),
        ("t_var99", "student_t", "var"),
    ):
        tail = by_name.get((method, "0.99"))
        shown[name] = tail and tail[number]
    return shown
