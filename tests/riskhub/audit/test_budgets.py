"""The governor's history against itself: cycles, and budgets computed anew from their receipts."""

from dataclasses import replace
from typing import Any

import pytest
from auditing import INPUTS, Break, add_cycle, audit, found, sql
from tampering.history import ALTERED, BREAKS, CASES, of

from riskhub.audit.findings import Ledger
from riskhub.blobs import BlobStore
from riskhub.governor import BudgetParameters, GovernorSettings
from riskhub.store import Store


@pytest.mark.parametrize(("do", "expected"), BREAKS.values(), ids=BREAKS)
def test_that_and_nothing_else_is_found(
    store: Store, blobs: BlobStore, do: Break, expected: tuple[str, str]
) -> None:
    do(store, blobs)
    ledger = audit(store, blobs)
    assert found(ledger) == {expected}
    assert ledger.notes == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_the_governor_makes_comes_out_bit_for_bit(
    store: Store, blobs: BlobStore, case: dict[str, Any]
) -> None:
    add_cycle(store, 2, **case)
    ledger = audit(store, blobs)
    assert found(ledger) == set()
    assert ledger.notes == []


OTHERS = BudgetParameters(vol_weight=0.3, max_usd=1_200.0)


def test_with_other_settings_than_the_writer_s_nothing_is_claimed(
    store: Store, blobs: BlobStore
) -> None:
    ledger = audit(store, blobs, parameters=OTHERS)
    assert found(ledger) == set()
    assert ledger.notes == [
        "4 budgets come out otherwise, and nothing says that their writer had the weights and "
        "bounds that are set here"
    ]


def test_what_another_process_had_set_says_nothing_of_this_one(
    store: Store, blobs: BlobStore
) -> None:
    add_cycle(store, 2, writer="before", settings=GovernorSettings(parameters=OTHERS))
    ledger = audit(store, blobs)
    assert found(ledger) == set()
    assert ledger.notes[0].startswith("3 budgets come out otherwise")


@pytest.mark.parametrize(
    ("equity", "claimed"), [(100_000.0, 1_900.0), (10_000.0, 600.0), (10**7, 9_000.0)]
)
def test_of_a_single_symbol_the_cycles_before_tell(
    store: Store, blobs: BlobStore, equity: float, claimed: float
) -> None:
    """Within the bounds, and at each of them."""
    state = replace(INPUTS.portfolio, value=replace(INPUTS.portfolio.value, equity_usd=equity))  # type: ignore[type-var]
    alone = {"symbols": ("NVDA",), "writer": "alone", "portfolio": state}
    for number in (2, 3):
        add_cycle(store, number, **alone)  # type: ignore[arg-type]
    of("NVDA", 3, budget_usd=claimed)(store)
    assert found(audit(store, blobs)) == {ALTERED}


def test_other_formulas_are_counted_and_not_computed(store: Store, blobs: BlobStore) -> None:
    sql(
        "UPDATE symbol_budgets SET formula_version = 'p28/1', budget_usd = 1",
        "UPDATE budget_cycles SET formula_version = 'p28/1'",
    )(store, blobs)
    ledger = audit(store, blobs)
    assert found(ledger) == set()
    assert ledger.notes == ["4 budgets of other formulas were not computed anew"]


def test_a_sample_of_cycles(store: Store, blobs: BlobStore) -> None:
    assert _anew(audit(store, blobs, sample=2)) == 3


def _anew(ledger: Ledger) -> int:
    return ledger.looked_at["budgets computed anew"]
