"""What is kept of the governor's cycles, and how often."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from riskhub.errors import RiskHubError, StoreNotMigrated, StoreUnavailable
from riskhub.governor import (
    FORMULA_VERSION,
    BudgetCycle,
    GovernorInputs,
    GovernorSettings,
    Input,
    PortfolioState,
    compute_budgets,
)
from riskhub.governor.history import History, Row, receipt

NOW = 1_738_000_000.75
INPUTS = GovernorInputs(
    portfolio=Input(PortfolioState(100_000.0, 0.1, NOW - 45), "last_known_good", 45.0),
    symbols=("BTCUSDT", "ETHUSDT"),
    heat=Input(0.5, "held", 70.0, 70.0),
    clusters={"default": Input(0.0, "missing")},
    regimes={"BTCUSDT": Input(0.33, "fresh"), "ETHUSDT": Input(0.67, "fresh")},
)


def cycle(**inputs: Any) -> BudgetCycle:
    return compute_budgets(replace(INPUTS, **inputs), GovernorSettings(), NOW)


HELD = {"regimes": {**INPUTS.regimes, "ETHUSDT": Input(0.67, "held")}}
TOO_OLD = {"portfolio": Input(None, "too_old", 901.0)}


class AtOnce(Executor):
    """Does what it is given, unless it is busy: then it has it to do."""

    def __init__(self) -> None:
        self.busy = False
        self.waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def do() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except RiskHubError as error:
                future.set_exception(error)

        self.waiting.append(do)
        if not self.busy:
            self.finish()
        return future

    def finish(self) -> None:
        while self.waiting:
            self.waiting.pop()()


@dataclass
class Kept:
    """A history whose clock and database are the test's."""

    seconds: float = 0.0
    failing: Exception | None = None
    rows: list[tuple[Row, list[str]]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    aside: AtOnce = field(default_factory=AtOnce)

    def __post_init__(self) -> None:
        self.history = History(
            self.record,
            mode="shadow",
            every_sec=60.0,
            aside=self.aside,
            monotonic=lambda: self.seconds,
            failed=lambda error: self.lost.append(str(error)),
            back=self.back.append,
        )

    def record(self, row: Row, budgets: Any) -> None:
        if self.failing is not None:
            raise self.failing
        self.rows.append((row, [budget["symbol"] for budget in budgets]))

    def offer(self, at: float, of: BudgetCycle) -> None:
        self.seconds = at
        self.history.offer(of, writer="governor", now=NOW + at)

    @property
    def shapes(self) -> list[tuple[bool, list[str]]]:
        return [(row["complete"], symbols) for row, symbols in self.rows]


@pytest.fixture
def kept() -> Kept:
    return Kept()


WHOLE = (True, ["BTCUSDT", "ETHUSDT"])


def test_a_receipt_says_what_a_cycle_came_from_and_who_wrote_it() -> None:
    row, budgets = receipt(cycle(), writer="governor", mode="shadow", now=NOW)

    assert row["computed_at"].timestamp() == NOW
    del row["computed_at"]
    assert row == {
        "writer": "governor",
        "no_budget_reason": None,
        "symbols": 2,
        "complete": True,
        "equity_usd": 100_000.0,
        "portfolio_policy": "last_known_good",
        "portfolio_age_sec": 45.0,
        "heat": 0.5,
        "heat_policy": "held",
        "heat_age_sec": 70.0,
        "mode": "shadow",
        "formula_version": FORMULA_VERSION,
    }
    bitcoin, ether = budgets
    assert bitcoin["computed_at"].timestamp() == NOW
    # stress 0.4 * 0.5 + 0.2 * 0.33; budget 2,000 * (1 - stress)
    assert bitcoin["budget_usd"] == pytest.approx(1_468.0)
    assert (bitcoin["symbol"], bitcoin["haircut"], bitcoin["share"]) == ("BTCUSDT", 0.0, None)
    assert bitcoin["portfolio_age_sec"] == 45.0
    assert ether["policies"]["cluster_stress"] == "missing"
    assert ether["ages"] == {
        "portfolio_state": 45.0,
        "portfolio_heat": 70.0,
        "cluster_stress": None,
        "vol_regime": None,
    }


def test_a_receipt_has_an_age_for_each_policy() -> None:
    settings = GovernorSettings(drawdown_haircut=0.5)
    inputs = replace(
        INPUTS,
        drawdown=Input(0.1, "held", 45.0, 45.0),
        shares=Input({"BTCUSDT": 1.0}, "fresh", 300.0),
        regimes={**INPUTS.regimes, "BTCUSDT": Input(0.33, "held", 20.0, 20.0)},
    )
    of_all = compute_budgets(inputs, settings, NOW)
    _, (bitcoin, ether) = receipt(of_all, writer="governor", mode="shadow", now=NOW)

    for row in (bitcoin, ether):
        assert row["ages"].keys() == row["policies"].keys()
        assert (row["ages"]["drawdown"], row["ages"]["contribution"]) == (45.0, 300.0)
    assert (bitcoin["ages"]["vol_regime"], ether["ages"]["vol_regime"]) == (20.0, None)
    for cluster in of_all.cluster_budgets:
        assert cluster.ages.keys() == cluster.policies.keys()


def test_a_receipt_of_no_budgets_says_why() -> None:
    row, budgets = receipt(cycle(**TOO_OLD), writer="governor", mode="enforce", now=NOW)
    assert budgets == []
    assert (row["no_budget_reason"], row["symbols"]) == ("portfolio_too_old", 0)
    assert (row["equity_usd"], row["portfolio_age_sec"], row["mode"]) == (None, 901.0, "enforce")


def test_the_first_cycle_is_kept_whole_and_then_one_a_minute(kept: Kept) -> None:
    for beat in range(13):
        kept.offer(beat * 9.999, cycle())  # no beat is exact
    assert kept.shapes == [WHOLE, WHOLE, WHOLE]
    kept_at = [row["computed_at"].timestamp() - NOW for row, _ in kept.rows]
    assert kept_at == pytest.approx([0, 60, 120], abs=0.1)


def test_numbers_alone_are_no_change(kept: Kept) -> None:
    kept.offer(0, cycle())
    kept.offer(10, cycle(heat=Input(0.75, "held")))
    assert kept.shapes == [WHOLE]


def test_nor_are_ages(kept: Kept) -> None:
    older = {
        "portfolio": replace(INPUTS.portfolio, age_sec=55.0, unfresh_sec=10.0),
        "heat": Input(0.5, "held", 80.0, 80.0),
        "clusters": {"default": Input(0.0, "missing", 10.0)},
    }
    kept.offer(0, cycle())
    kept.offer(10, cycle(**older))
    assert kept.shapes == [WHOLE]


def test_of_a_symbol_whose_policy_changes_the_change_is_kept_at_once(kept: Kept) -> None:
    kept.offer(0, cycle())
    kept.offer(10, cycle(**HELD))
    kept.offer(20, cycle(**HELD))
    kept.offer(30, cycle())
    kept.offer(60, cycle())
    assert kept.shapes == [WHOLE, (False, ["ETHUSDT"]), (False, ["ETHUSDT"]), WHOLE]
    row, _ = kept.rows[1]
    assert (row["symbols"], row["computed_at"].timestamp()) == (2, NOW + 10)


def test_a_new_symbol_is_kept_at_once(kept: Kept) -> None:
    kept.offer(0, cycle(symbols=("BTCUSDT",)))
    kept.offer(10, cycle())
    assert kept.shapes == [(True, ["BTCUSDT"]), (False, ["ETHUSDT"])]


@pytest.mark.parametrize(
    "change",
    [
        {"heat": Input(0.5, "held_careful")},
        {"portfolio": replace(INPUTS.portfolio, policy="fresh")},
    ],
    ids=["heat", "portfolio"],
)
def test_what_changes_about_all_symbols_makes_a_whole_cycle(
    kept: Kept, change: dict[str, Any]
) -> None:
    kept.offer(0, cycle())
    kept.offer(10, cycle(**change))
    kept.offer(60, cycle(**change))
    kept.offer(70, cycle(**change))
    assert kept.shapes == [WHOLE, WHOLE, WHOLE]
    assert [row["computed_at"].timestamp() - NOW for row, _ in kept.rows] == [0, 10, 70]


def test_that_there_are_no_budgets_is_kept_at_once_and_when_they_are_back(kept: Kept) -> None:
    kept.offer(0, cycle())
    kept.offer(10, cycle(**TOO_OLD))
    kept.offer(20, cycle(**TOO_OLD))
    kept.offer(30, cycle())
    assert kept.shapes == [WHOLE, (True, []), WHOLE]


def test_a_busy_database_keeps_nobody_waiting_and_what_changed_is_kept_after_it(
    kept: Kept,
) -> None:
    kept.aside.busy = True
    kept.offer(0, cycle())
    kept.offer(10, cycle(**HELD))
    kept.offer(70, cycle(**HELD))
    assert kept.rows == []
    kept.aside.finish()
    kept.aside.busy = False
    kept.offer(75, cycle(**HELD))
    assert kept.shapes == [WHOLE, WHOLE]
    assert kept.rows[1][0]["computed_at"].timestamp() == NOW + 75


def test_what_could_not_be_written_is_told_once_and_the_next_cycle_is_kept_whole(
    kept: Kept,
) -> None:
    kept.failing = StoreUnavailable("the database is away")
    kept.offer(0, cycle())
    kept.offer(10, cycle())
    kept.failing = None
    kept.offer(20, cycle())
    assert (kept.lost, kept.back) == (["the database is away"], [])
    kept.offer(30, cycle())
    assert (kept.lost, kept.back) == (["the database is away"], [2])
    assert kept.shapes == [WHOLE]
    assert kept.rows[0][0]["computed_at"].timestamp() == NOW + 20


def test_another_reason_is_told_and_so_is_the_same_one_the_next_time(kept: Kept) -> None:
    for at, failing in enumerate((StoreUnavailable("a"), StoreNotMigrated("b"), None, None)):
        kept.failing = failing
        kept.offer(60 * at, cycle())
    kept.failing = StoreNotMigrated("c")
    kept.offer(240, cycle())
    kept.history.close()
    assert (kept.lost, kept.back) == (["a", "b", "c"], [2])


def test_at_the_end_the_last_one_is_waited_for_and_its_failure_told(kept: Kept) -> None:
    kept.history.close()
    kept.failing = StoreUnavailable("the database is away")
    kept.offer(0, cycle())
    kept.history.close()
    assert kept.lost == ["the database is away"]
