"""Episodes and states as rows of the store, and back. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from riskhub.exits.engine import Episode, Signal, State

Row = dict[str, Any]
Key = tuple[str, str]
"""A world and a stage."""

_EPISODE = tuple(field.name for field in fields(Episode))
_STATE = tuple(field.name for field in fields(State) if field.name != "episode")


def episode_row(episode: Episode) -> Row:
    """A row of `exit_episodes`, without what consumers add to it."""
    return asdict(episode) | {"held": list(episode.held), "evidence": dict(episode.evidence)}


def episode_of(row: Mapping[str, Any]) -> Episode:
    """The episode of a row."""
    values = {name: row[name] for name in _EPISODE}
    return Episode(**values | {"held": tuple(row["held"])})


def state_row(rule: str, key: Key, state: State) -> Row:
    """A row of `exit_states`."""
    world_id, stage = key
    remembered = {name: getattr(state, name) for name in _STATE}
    episode_id = state.episode.id if state.episode else None
    named = {"rule": rule, "world_id": world_id, "stage": stage, "episode_id": episode_id}
    return named | remembered


def states_of(
    states: Iterable[Mapping[str, Any]], episodes: Iterable[Mapping[str, Any]]
) -> dict[Key, dict[str, State]]:
    """The states by world and stage, and by rule.

    Args:
        states: rows of `exit_states`.
        episodes: the rows of `exit_episodes` that they name.
    """
    opened = {row["id"]: episode_of(row) for row in episodes}
    found: dict[Key, dict[str, State]] = {}
    for row in states:
        remembered = {name: row[name] for name in _STATE}
        episode = opened[row["episode_id"]] if row["episode_id"] else None
        of_key = found.setdefault((row["world_id"], row["stage"]), {})
        of_key[row["rule"]] = State(episode, **remembered)
    return found


def signal_row(signal: Signal) -> Row:
    """A row of `exit_signals`."""
    return {
        "signal_id": signal.id,
        "episode_id": signal.episode.id,
        "signal": signal.signal,
        "why": signal.why,
        "at": signal.at,
        "data": signal.data(),
        "streamed_at": None,
    }
