"""The verdict on snapshots: what the frames reject, what is flagged, what was measured."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from riskhub.blobs import BLOB_FIELDS, BlobStore
from riskhub.errors import BlobUnusable
from riskhub.portfolio import field_of
from riskhub.prices import PriceFileError, PricePanel
from riskhub.settings import Settings
from riskhub.store.landing import Landed
from riskhub.strict_json import Document
from riskhub_dagster.frames.facts import (
    Facts,
    covariance_facts,
    returns_facts,
    stress_facts,
    symbol_facts,
)
from riskhub_dagster.frames.schemas import (
    COVARIANCE,
    RETURNS,
    SCHEMA_VERSION,
    STRESS,
    WEIGHTS,
    frame_of,
)

_FRAMES = {
    "weights": WEIGHTS,
    "realized_returns": RETURNS,
    "covariance": COVARIANCE,
    "stress": STRESS,
}


@dataclass(slots=True)
class Verdict:
    """What is said of a snapshot.

    `reasons`: what speaks against it; without any it is accepted. `flags`: what is worth knowing.
    `evidence`: what was measured, by field.
    """

    reasons: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


@dataclass(frozen=True)
class Judge:
    """Who says what is to be said of snapshots.

    `known_symbols` gives those that there are prices of, or why that can't be said; it is asked
    when a snapshot needs prices.
    `min_returns`: with fewer realized returns there are no numbers.
    """

    min_returns: int
    known_symbols: Callable[[], Collection[str] | PriceFileError]
    blobs: BlobStore | None = None

    @classmethod
    def on(
        cls, settings: Settings, panel: Callable[[], PricePanel], blobs: BlobStore | None
    ) -> "Judge":
        """As the settings say; the panel is asked for once, when a snapshot needs prices first.

        Prices that can't be read are no reason to judge nothing: a quarantine must not wait.
        """

        @cache
        def symbols() -> Collection[str] | PriceFileError:
            try:
                return frozenset(panel().symbols)
            except PriceFileError as error:
                return error

        return cls(settings.risk_min_returns, symbols, blobs)

    def verdicts(self, landed: Sequence[Landed]) -> dict[int, Verdict]:
        """The verdict on each of these snapshots, by landing position.

        What lies behind a reference is judged as if it were inline. When it is missing or altered,
        that does not speak against the snapshot and is flagged: the number made from it will be
        unavailable.

        Raises:
            BlobsUnavailable: safe to try again.
        """
        verdicts = {snapshot.position: Verdict() for snapshot in landed}
        rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _FRAMES}
        for snapshot in landed:  # one at a time: what is behind references may be large
            verdict = verdicts[snapshot.position]
            for name, facts in self._facts(json.loads(snapshot.body), verdict.flags).items():
                rows.get(name, []).extend((snapshot.position, *row) for row in facts.rows)
                verdict.flags += facts.flags
                if facts.evidence is not None:
                    verdict.evidence[name] = facts.evidence
        for name, schema in _FRAMES.items():
            for position, found in _violations(schema, frame_of(schema, rows[name])).items():
                verdicts[position].reasons += found
        return verdicts

    def _facts(self, body: Document, flags: list[str]) -> dict[str, Facts]:
        """What is measured of a snapshot, by field; adds to `flags` what could not be had."""
        weights = body["weights"]
        facts = {"weights": Facts([(name, float(each)) for name, each in weights.items()])}
        if series := self._had(body, "realized_returns", flags):
            facts["realized_returns"] = returns_facts(series, weights, self.min_returns)
        if pairs := self._had(body, "covariance", flags):
            facts["covariance"] = covariance_facts(pairs, sorted(weights))
        if stress := self._had(body, "stress", flags):
            facts["stress"] = stress_facts(stress)
        if not any(_names(body, field) for field in ("realized_returns", "covariance")):
            facts["symbols"] = symbol_facts(weights, self.known_symbols())
        return facts

    def _had(self, body: Document, field: str, flags: list[str]) -> Any:
        try:
            return field_of(body, field, self.blobs)
        except BlobUnusable as error:
            flags.append(f"{BLOB_FIELDS[field]} {error}")
            return None


def verdict_row(snapshot: Landed, verdict: Verdict) -> dict[str, Any]:
    """A verdict as a row of `validated_snapshots`."""
    return {
        "position": snapshot.position,
        "day": snapshot.day,
        "world_id": snapshot.world_id,
        "version": snapshot.version,
        "as_of": snapshot.as_of,
        "stage": snapshot.stage,
        "digest": snapshot.digest,
        "accepted": verdict.accepted,
        "reasons": verdict.reasons,
        "flags": verdict.flags,
        "evidence": verdict.evidence or None,
        "schema_version": SCHEMA_VERSION,
    }


def _names(body: Document, field: str) -> bool:
    return bool(body.get(field)) or BLOB_FIELDS[field] in body


def _violations(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> dict[int, list[str]]:
    """The errors that a schema finds, once each, by the position of the rows they are about."""
    if frame.empty:
        return {}
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        found: dict[int, list[str]] = defaultdict(list)
        for case in errors.failure_cases.itertuples():
            # A case without an index is about the whole frame: a bug of ours, not bad data.
            if pd.isna(case.index):
                raise
            position = int(frame["position"].iloc[int(case.index)])
            if case.check not in found[position]:
                found[position].append(str(case.check))
        return found
    return {}
