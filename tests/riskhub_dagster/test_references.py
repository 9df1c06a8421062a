"""Snapshots with fields in the blob store: measured like others or not at all, never wrong."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from waiting import Waits

from riskhub.blobs import BlobStore, open_blobs, refs_of
from riskhub.settings import Settings
from riskhub.store import Store

DAY = date(2020, 3, 16)
PAIR = {"AAPL": 0.5, "JPM": 0.5}
REALIZED = {"portfolio": [-0.001 * n for n in range(1, 301)]}

Row = Mapping[str, Any]


@pytest.fixture(autouse=True)
def _offloading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever has more than one number goes to the blob store."""
    monkeypatch.setenv("RISKHUB_BLOBS__KIND", "file")
    monkeypatch.setenv("RISKHUB_BLOBS__DIRECTORY", str(tmp_path / "blobs"))
    monkeypatch.setenv("RISKHUB_INLINE_COV_THRESHOLD", "1")


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    opened = open_blobs(settings)
    assert opened is not None
    return opened


@pytest.fixture
def outage(tmp_path: Path) -> Callable[[], Callable[[], None]]:
    """Takes the blob store down, and gives what brings it back."""
    directory, aside = tmp_path / "blobs", tmp_path / "aside"

    def down() -> Callable[[], None]:
        directory.mkdir(exist_ok=True)
        directory.rename(aside)
        directory.touch()

        def up() -> None:
            directory.unlink()
            aside.rename(directory)

        return up

    return down


@pytest.fixture
def ref_of(store: Store, blobs: BlobStore) -> Callable[[int], str]:
    """The one reference in a stored snapshot."""

    def read(position: int) -> str:
        (landed,) = (one for one in store.landed_on(DAY, DAY) if one.position == position)
        (ref,) = refs_of(json.loads(landed.body))
        assert blobs.exists(ref)
        return ref

    return read


def only_metrics(store: Store) -> Row:
    (row,) = store.metrics_on(DAY, DAY)
    return row


def var99(store: Store, position: int) -> list[float]:
    return [
        row["var"]
        for row in store.tails_on(DAY, DAY)
        if (row["position"], row["method"], row["level"]) == (position, "historical", "0.99")
    ]


# -- there ----------------------------------------------------------------------------------------


def test_offloaded_returns_give_the_numbers_and_the_digest_of_the_same_returns_inline(
    land, compute, checks, store: Store, settings: Settings, ref_of
) -> None:
    offloaded = land(DAY, weights=PAIR, realized_returns=REALIZED)
    assert ref_of(offloaded)
    land.settings = settings.model_copy(update={"inline_cov_threshold": 1_000})
    inline = land(DAY, weights=PAIR, realized_returns=REALIZED)

    result = compute(DAY)

    behind, plain = store.metrics_on(DAY, DAY)
    differing = {name for name in behind if behind[name] != plain[name]}
    assert differing == {"position", "version", "snapshot_digest"}
    assert (behind["returns_source"], behind["n"]) == ("realized_returns", 300)
    assert var99(store, offloaded) == var99(store, inline) == [0.298]
    assert all(check.passed for check in checks(result).values())


def test_the_digest_is_that_of_the_numbers_however_a_client_wrote_them(
    land, compute, store: Store, blobs: BlobStore
) -> None:
    points = [-1e-3, 0, 1e-3] * 100
    as_floats = land(DAY, weights=PAIR, realized_returns={"portfolio": points})
    ref = blobs.put(json.dumps({"portfolio": points}).encode())
    as_written = land(DAY, weights=PAIR, realized_returns_ref=ref)

    compute(DAY)

    digests = {row["position"]: row["returns_digest"] for row in store.metrics_on(DAY, DAY)}
    assert digests[as_floats] == digests[as_written]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (
            {"covariance": {"AAPL,AAPL": 1e-4, "JPM,JPM": 1e-4, "AAPL,JPM": 2e-4}},
            "the covariance is not positive semidefinite",
        ),
        ({"realized_returns": {"x": [0.1, -1.0]}}, "a realized return is -100 % or worse"),
    ],
)
def test_what_is_behind_a_reference_is_judged_as_if_it_were_inline(
    land, compute, store: Store, ref_of, field: dict[str, Any], reason: str
) -> None:
    position = land(DAY, weights=PAIR, **field)
    assert ref_of(position)

    compute(DAY)

    assert [row["reasons"] for row in store.verdicts_on(DAY, DAY)] == [[reason]]


def test_a_snapshot_without_references_needs_no_blob_store(
    land, compute, store: Store, outage
) -> None:
    land(DAY, weights=PAIR)
    outage()

    assert compute(DAY).success

    assert only_metrics(store)["returns_source"] == "prices"


# -- gone or altered ------------------------------------------------------------------------------


def lose(blobs: BlobStore, ref: str) -> None:
    blobs.delete(ref)


def alter(_blobs: BlobStore, ref: str) -> None:
    path = Path(ref.removeprefix("file://"))
    path.write_bytes(path.read_bytes().replace(b"0.298", b"0.299"))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lose, "the blob store has nothing under this reference"),
        (alter, "the blob's content does not have this digest"),
    ],
)
def test_without_its_blob_a_number_is_unavailable_and_the_others_are_computed(
    land, compute, checks, store: Store, blobs: BlobStore, ref_of, records, harm, why: str
) -> None:
    harmed = land(DAY, weights=PAIR, realized_returns=REALIZED)
    other = {"portfolio": [-0.002 * n for n in range(1, 301)]}
    whole = land(DAY, world_id="credit", weights=PAIR, realized_returns=other)
    ref = ref_of(harmed)
    harm(blobs, ref)

    result = compute(DAY)

    assert result.success
    first, second = store.metrics_on(DAY, DAY)
    assert first["unavailable"] == f"realized_returns_ref {ref}: {why}"
    assert (first["n"], first["volatility"], first["returns_source"]) == (0, None, None)
    assert var99(store, harmed) == []
    assert second["unavailable"] is None
    assert var99(store, whole) == [0.596]
    check = checks(result)["numbers_available"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    (told,) = records(check.metadata["without"])
    assert told["unavailable"] == first["unavailable"]
    assert checks(result)["nothing_quarantined"].passed


def test_a_covariance_that_is_gone_does_not_speak_against_its_snapshot(
    land, compute, store: Store, blobs: BlobStore, ref_of
) -> None:
    position = land(DAY, weights=PAIR, covariance={"AAPL,AAPL": 1e-4, "JPM,JPM": 1e-4})
    blobs.delete(ref_of(position))

    compute(DAY)

    assert [row["accepted"] for row in store.verdicts_on(DAY, DAY)] == [True]
    assert only_metrics(store)["unavailable"] is None


def test_without_the_blob_store_that_has_it_a_number_is_unavailable(
    land, compute, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(DAY, weights=PAIR, realized_returns=REALIZED)
    monkeypatch.setenv("RISKHUB_BLOBS__KIND", "inline")

    assert compute(DAY).success

    assert only_metrics(store)["unavailable"].endswith("no blob store is configured any more")


def test_a_backfill_mends_what_was_unavailable_once_the_blob_is_back(
    land, compute, checks, store: Store, blobs: BlobStore, ref_of
) -> None:
    position = land(DAY, weights=PAIR, realized_returns=REALIZED)
    ref = ref_of(position)
    content = blobs.get(ref)
    blobs.delete(ref)
    compute(DAY)
    assert blobs.put(content) == ref

    compute(DAY, only_new=True)
    assert only_metrics(store)["unavailable"]  # nothing new landed
    result = compute(DAY)

    assert only_metrics(store)["unavailable"] is None
    assert var99(store, position) == [0.298]
    assert checks(result)["numbers_available"].passed


# -- down -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("computed_before", [False, True])
def test_a_blob_store_that_stays_down_fails_the_run_and_no_number_changes(
    land, compute, tables, outage, waits: Waits, computed_before: bool
) -> None:
    land(DAY, weights=PAIR, realized_returns=REALIZED)
    if computed_before:
        compute(DAY)
    before = tables()
    outage()

    result = compute(DAY, raise_on_error=False)

    assert not result.success
    assert result.get_asset_materialization_events() == []
    assert tables() == before
    assert waits.passed > 0


def test_measuring_fails_as_well_rather_than_taking_prices(
    land, compute, tables, outage, waits: Waits
) -> None:
    land(DAY, weights=PAIR, realized_returns=REALIZED)
    compute(DAY)
    before = tables()
    outage()

    result = compute(DAY, selection=["risk_metrics", "risk_contributions"], raise_on_error=False)

    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "BlobsUnavailable" in str(failure.step_failure_data.error)
    assert tables() == before


def test_a_blob_store_that_comes_back_is_asked_again_by_the_same_run(
    land, compute, store: Store, outage, waits: Waits
) -> None:
    position = land(DAY, weights=PAIR, realized_returns=REALIZED)
    waits.meanwhile.append(outage())

    assert compute(DAY).success

    assert waits.passed > 0
    assert var99(store, position) == [0.298]
