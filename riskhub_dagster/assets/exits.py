"""When to get out: what the exit engine has told, and what its rules say to all of history."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from riskhub import bootstrap
from riskhub.exits.engine import Episode
from riskhub.exits.replay import Replayed, by_year, days_of, history, replay
from riskhub.hub import utc_now
from riskhub.store.exits import EpisodeFilter
from riskhub_dagster import signposts
from riskhub_dagster.assets.daily import OWNER, Step
from riskhub_dagster.columns import of_table
from riskhub_dagster.metadata import MAX_TABLE_ROWS, plain, table
from riskhub_dagster.resources import RiskHub

EXITS_ACKNOWLEDGED = "exits_acknowledged"

_EPISODE = ("world_id", "stage", "rule", "action", "mode", "opened", "closed", "worst")
_LIVE = (*_EPISODE, "value", "acknowledged_by", "episode")
_REPLAYED = (*_EPISODE, "days", "worst_on")
_MOST_OPEN = 1_000


class ReplayDays(dg.Config):
    """Which days are replayed; all that have numbers, where nothing is said."""

    first: str | None = None
    last: str | None = None


@dg.multi_asset(
    name="exit_signals",
    specs=[
        dg.AssetSpec(
            "exit_signals",
            deps=["risk_metrics", "stress_results", "var_backtests"],
            group_name=signposts.DECISIONS,
            description=signposts.about(
                "Episodes in which a rule of `exit_rules_path` asks to freeze, drain or reduce: "
                "those that `riskhub exit-engine` has told of, and beside them those that the "
                "rules as they are now would have made of all numbers on record.",
                pages={"all episodes": "/risk-hub/exit-signals"},
                doc="exit-engine.md",
            ),
            kinds={"redis", "table"},
            owners=[OWNER],
            tags=signposts.cadence("nightly"),
            metadata=of_table("exit_episodes"),
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            EXITS_ACKNOWLEDGED,
            asset="exit_signals",
            description=(
                "Warns when an episode that is to be obeyed is open, and nobody has acknowledged "
                "it."
            ),
        )
    ],
)
def exit_signals(config: ReplayDays, hub: RiskHub) -> Step:
    """Read the episodes, and replay the days."""
    live = hub.store.exit_episodes(limit=MAX_TABLE_ROWS).rows
    opened = hub.store.exit_episodes(EpisodeFilter(is_open=True), limit=_MOST_OPEN).rows
    unseen = [row for row in opened if row["mode"] == "enforce" and not row["acknowledged_at"]]
    yield dg.AssetCheckResult(
        check_name=EXITS_ACKNOWLEDGED,
        passed=not unseen,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(_named, unseen[:5])) or "nobody is waited for",
        metadata={"unacknowledged": len(unseen)},
    )
    engine = hub.store.exit_engine()
    yield dg.MaterializeResult(
        metadata={
            "open_now": len(opened),
            "engine": "none has ever run" if engine is None else engine["writer"],
            **({"engine_last_wrote": plain(engine["at"])} if engine else {}),
            "episodes": table([_shown_live(row) for row in live], _LIVE),
            **_replay(config, hub),
        }
    )


def _replay(config: ReplayDays, hub: RiskHub) -> dict[str, Any]:
    there_are = hub.store.measured_days()
    if there_are is None:
        return {"replayed_episodes": 0}
    first = date.fromisoformat(config.first) if config.first else there_are[0]
    last = date.fromisoformat(config.last) if config.last else there_are[1]
    book = bootstrap.exit_rules(hub.settings)
    timeless = hub.settings.timeless_stages
    moments = history(hub.store, book, first, last, now=utc_now(), timeless_stages=timeless)
    found = replay(book, moments)
    return _told(found) | {
        "replayed": f"{first} to {last}",
        "rules_digest": book.digest,
    }


def _told(found: Replayed) -> dict[str, Any]:
    newest_first = sorted(found.episodes, key=lambda each: each.opened_at, reverse=True)
    years = by_year(found.episodes)[::-1]
    return {
        "replayed_observations": found.observed,
        "replayed_episodes": len(found.episodes),
        "replay_by_year": table(years, ("year", "rule", "worlds", "episodes", "days")),
        "replay_newest": table([_shown_replayed(each) for each in newest_first], _REPLAYED),
    }


def _shown_live(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "opened": row["opened_at"],
        "closed": row["closed_at"],
        "episode": row["id"],
    }


def _shown_replayed(episode: Episode) -> dict[str, Any]:
    shared: Sequence[str] = ("world_id", "stage", "rule", "action", "mode", "worst")
    return {name: getattr(episode, name) for name in shared} | {
        "opened": episode.opened_at.date(),
        "closed": episode.closed_at and episode.closed_at.date(),
        "days": days_of(episode),
        "worst_on": episode.evidence["worst"]["of"][:10],
    }


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['world_id']}: {row['action']} ({row['rule']}, episode {row['id']})"
