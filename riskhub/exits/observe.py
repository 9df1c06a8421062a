"""From rows of the store to observations, the same way for what is known now and for history."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from riskhub.exits.book import RuleBook
from riskhub.exits.observation import Landed, Measured, Observation
from riskhub.exits.records import Key
from riskhub.store import Store
from riskhub.store.observed import Numbers


def observe(
    store: Store,
    book: RuleBook,
    *,
    worlds: Collection[str] | None = None,
    without_stages: Collection[str] = (),
    evidence: Collection[int] = (),
) -> dict[Key, Observation]:
    """What is known now of each world and stage that has ever landed.

    Args:
        book: says which numbers are wanted.
        worlds: only of these; None is all.
        without_stages: not of these.
        evidence: positions of snapshots that open episodes go back to.
    """
    found = store.observed(
        worlds=worlds,
        tails=book.tail_kinds(),
        zones=book.zone_kinds(),
        without_stages=without_stages,
        positions=evidence,
    )
    numbers = {key_of(each.metrics): measured_of(each) for each in found.numbers}
    landed = {key_of(row): landed_of(row) for row in found.landed}
    zones: dict[Key, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for row in found.backtests:
        zones.setdefault(key_of(row), {})[row["method"], row["level"]] = row
    return {
        key: Observation(
            *key,
            measured=numbers.get(key),
            landed=landed.get(key),
            zones=zones.get(key, {}),
            rejected=found.rejected,
        )
        for key in found.worlds
    }


def evidence_of(episodes: Iterable[Mapping[str, Any]]) -> set[int]:
    """The positions of the snapshots that the evidence of episodes names."""
    return {
        row["evidence"][moment]["position"] for row in episodes for moment in ("opened", "newest")
    }


def key_of(row: Mapping[str, Any]) -> Key:
    """The world and the stage of a row."""
    return row["world_id"], row["stage"]


def measured_of(numbers: Numbers) -> Measured:
    """A snapshot's numbers as rules read them."""
    return Measured(
        numbers.metrics,
        {(tail["method"], tail["level"]): tail for tail in numbers.tails},
        # A loss of 0 is none of -0.0.
        {name: 0.0 - pnl for name, pnl, _ in numbers.stress if pnl is not None},
        {name: why for name, pnl, why in numbers.stress if pnl is None and why is not None},
        numbers.stressed,
    )


def landed_of(row: Mapping[str, Any]) -> Landed:
    """A snapshot as rules read its age."""
    names = ("position", "version", "as_of", "digest", "received_at", "expires_at")
    return Landed(**{name: row[name] for name in names})
