"""What somebody wants to know in the morning: how the hub stands, and what the last day brought.

Facts gathered from the store, and the one page of words that they make. What is not known is said
to be unknown: a zero here has been counted. Losses are positive, fractions of equity.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import redis

from riskhub.hub import Hub
from riskhub.status import LEVEL, HubStatus, WorldStatus, hub_status, remembered_days
from riskhub.store.daybook import Happened
from riskhub.store.exits import EpisodeFilter

Row = Mapping[str, Any]

PERIOD = timedelta(days=1)
UNKNOWN = "not known"
_MOST = 200
_MOST_ALERTS = 10


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A loss beyond the VaR that was forecast for its day."""

    world_id: str
    stage: str
    day: date
    method: str
    loss: float
    var: float


@dataclass(frozen=True, slots=True)
class Briefing:
    """One morning.

    Attributes:
        status: of the whole hub, at the end of the period.
        since: when the period began.
        happened: in the period.
        newest_outcome: the last day of which a forecast's outcome is known, if any is.
        exceeded: of the days in the period, by the method that a world is shown by.
        quarantined: rows of what entered the quarantine in the period and is still there.
        opened, closed, still_open: rows of exit episodes; the first two in the period.
        rows: how many the tables that grow have.
        hub_bytes: how large the database is.
    """

    status: HubStatus
    since: datetime
    happened: Happened
    newest_outcome: date | None
    exceeded: tuple[Exceeded, ...]
    quarantined: tuple[Row, ...]
    opened: tuple[Row, ...]
    closed: tuple[Row, ...]
    still_open: tuple[Row, ...]
    rows: Mapping[str, int]
    hub_bytes: int

    @property
    def states(self) -> Counter[str]:
        """How many worlds are in which state."""
        return Counter(str(world.freshness.state) for world in self.status.worlds)

    @property
    def zones(self) -> Counter[str]:
        """How many worlds have which traffic light; those without one are not counted."""
        return Counter(world.light.zone for world in self.status.worlds if world.light)


def briefing(hub: Hub, client: redis.Redis | None) -> Briefing:
    """Gather what there is to tell of the last day.

    Args:
        client: that budgets are read from; see `riskhub.governor.published.client_of`.

    Raises:
        StoreUnavailable, StoreNotMigrated.
    """
    store, status = hub.store, hub_status(hub, client, remembered_days(hub.store))
    since = status.at - PERIOD
    episodes = store.exit_episodes(EpisodeFilter(since=since), limit=_MOST).rows
    still_open = store.exit_episodes(EpisodeFilter(is_open=True), limit=_MOST).rows
    entered = store.quarantined(limit=_MOST).rows
    return Briefing(
        status=status,
        since=since,
        happened=store.happened_since(since),
        newest_outcome=store.newest_outcome_day(),
        exceeded=tuple(_exceeded(hub, status, since)),
        quarantined=tuple(row for row in entered if row["since"] >= since),
        opened=tuple(row for row in episodes if row["opened_at"] >= since),
        closed=tuple(row for row in episodes if row["closed_at"] and row["closed_at"] >= since),
        still_open=tuple(still_open),
        rows=store.row_counts(),
        hub_bytes=store.size_bytes(),
    )


def _exceeded(hub: Hub, status: HubStatus, since: datetime) -> Iterator[Exceeded]:
    shown_by = {(world.world_id, world.stage): world.method for world in status.worlds}
    for met in hub.store.met_on(since.date(), status.at.date(), level=LEVEL):
        world_id, stage, day, method, loss, var, _ = met
        if shown_by.get((world_id, stage)) == method and loss > var:
            yield Exceeded(world_id, stage, day, method, loss, var)


def change(world: WorldStatus) -> tuple[float, date] | None:
    """How much the VaR has changed since the day before the newest, and which day that is.

    None where either has none: a first day has not changed by 0.
    """
    if world.newest is None or len(world.tails) < 2:
        return None
    before = world.tails[-2]
    return world.newest.var - before.var, before.as_of.date()


# -- in words --------------------------------------------------------------------------------------


def markdown(found: Briefing, *, api_url: str, sizes: Mapping[str, int | None]) -> str:
    """The briefing as one page.

    Args:
        api_url: where the pages of worlds are served.
        sizes: bytes of what else takes room, by name; None where that is not known.
    """
    status = found.status
    parts = [
        f"# {status.at:%A, %d %B %Y}, {status.at:%H:%M} UTC",
        _summary(found),
        "## Worlds",
        _worlds(status.worlds, api_url),
        "## What is wrong now",
        _alerts(found),
        "## Since yesterday",
        _list(_period(found)),
        "## Budgets",
        _list(_budgets(status)),
        "## Pipeline",
        _list(_pipeline(found)),
        "## Room",
        _list(_room(found, sizes)),
        f"Counted from {found.since:%Y-%m-%d %H:%M} UTC. [The page of now]({api_url}/).",
    ]
    return "\n\n".join(parts)


def _summary(found: Briefing) -> str:
    worlds = len(found.status.worlds)
    return (
        f"**{_many(worlds, 'world')}**: {_counted(found.states) or 'none has landed yet'}. "
        f"Models: {_counted(found.zones) or 'no backtest yet'}. "
        f"**{_many(len(found.status.alerts), 'alert')}**, "
        f"{_many(len(found.still_open), 'exit')} open."
    )


def _worlds(worlds: Sequence[WorldStatus], api_url: str) -> str:
    if not worlds:
        return "None has landed yet."
    lines = [
        "| world | stage | state | as of | VaR 99 % | ES 99 % | VaR change | light | exceeded |",
        "|---|---|---|---|--:|--:|--:|---|--:|",
    ]
    for world in worlds[:_MOST]:
        newest, light, fresh = world.newest, world.light, world.freshness
        link = f"{api_url}/worlds/{quote(world.world_id)}?{urlencode({'stage': world.stage})}"
        cells = (
            f"[{_cell(world.world_id)}]({link})",
            _cell(world.stage),
            str(fresh.state),
            f"{fresh.newest_as_of:%Y-%m-%d %H:%M}" if fresh.newest_as_of else "never",
            percent(newest.var) if newest else UNKNOWN,
            percent(newest.es) if newest else UNKNOWN,
            _change(world),
            light.zone if light else "no backtest",
            f"{light.exceedances} of {light.observations}" if light else UNKNOWN,
        )
        lines.append(f"| {' | '.join(cells)} |")
    if len(worlds) > _MOST:
        lines.append(f"\n{len(worlds) - _MOST} more are not shown.")
    return "\n".join(lines)


def _change(world: WorldStatus) -> str:
    changed = change(world)
    return UNKNOWN if changed is None else f"{percent(changed[0], sign=True)} ({changed[1]:%m-%d})"


def _alerts(found: Briefing) -> str:
    alerts = found.status.alerts
    if not alerts:
        return "Nothing that the hub looks at."
    lines = [
        f"**{each.severity}** {' '.join(filter(None, (each.world_id, each.stage)))}: "
        f"{each.what}, {each.why}"
        for each in alerts[:_MOST_ALERTS]
    ]
    if len(alerts) > _MOST_ALERTS:
        lines.append(f"and {len(alerts) - _MOST_ALERTS} more")
    return _list(lines)


def _period(found: Briefing) -> Iterator[str]:
    happened = found.happened
    landed = sum(happened.landings.values())
    yield f"{landed:,} snapshots landed{_among(happened.landings)}; {happened.events:,} events"
    yield f"{happened.quarantined:,} quarantined; {happened.in_quarantine:,} are there now"
    if found.exceeded:
        for each in found.exceeded:
            yield (
                f"{_cell(each.world_id)} {_cell(each.stage)} lost {percent(each.loss)} on "
                f"{each.day}, more than its {each.method} VaR of {percent(each.var)}"
            )
    elif found.newest_outcome is None or found.newest_outcome < found.since.date():
        last = f"the last is of {found.newest_outcome}" if found.newest_outcome else "there is none"
        yield f"Exceedances are {UNKNOWN}: no outcome of these days, {last}"
    else:
        yield "No loss exceeded its VaR"
    yield f"{len(found.opened)} exits opened, {len(found.closed)} closed"


def _budgets(status: HubStatus) -> Iterator[str]:
    budgets, governor = status.budgets, status.governor
    if budgets.problem is not None:
        yield f"{UNKNOWN}: {budgets.problem}"
    elif not budgets.count:
        yield "There are none"
    else:
        modes = " and ".join(budgets.modes)
        yield f"{_many(budgets.count, 'symbol')}, {budgets.total_usd:,.0f} USD in all, {modes}"
        smallest = ", ".join(f"{each.symbol} {each.budget_usd:,.0f}" for each in budgets.smallest)
        yield f"Least room: {smallest}; {budgets.stale} too old to be held against anybody"
    if governor is None:
        yield "The governor has no cycle on record"
    else:
        why = governor.no_budget_reason
        yield f"Last cycle on record {governor.at:%Y-%m-%d %H:%M:%S} UTC{f': {why}' if why else ''}"


def _pipeline(found: Briefing) -> Iterator[str]:
    pipeline = found.status.pipeline
    yield (
        f"{pipeline.waiting:,} of the newest {_many(pipeline.looked_at, 'landing')} wait for "
        "numbers"
    )
    for reader in pipeline.readers:
        yield f"{_cell(reader.name)} is {_many(reader.behind, 'event')} behind"
    if not pipeline.readers:
        yield "Nobody has read the outbox"
    yield f"{_many(pipeline.dead_letters, 'dead letter')} to be seen to"


def _room(found: Briefing, sizes: Mapping[str, int | None]) -> Iterator[str]:
    for name, size in {"Database of the hub": found.hub_bytes, **sizes}.items():
        yield f"{name}: {UNKNOWN if size is None else f'{size / 1e6:,.1f} MB'}"
    yield "Rows: " + ", ".join(f"{count:,} {name}" for name, count in found.rows.items())


def percent(fraction: float, *, sign: bool = False) -> str:
    """A fraction as people read it; what rounds to nothing has no sign."""
    rounded = round(100 * fraction, 2)
    return f"{rounded:{'+' if sign and rounded else ''}.2f} %" if rounded else "0.00 %"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _among(landings: Mapping[str, int]) -> str:
    parts = ", ".join(f"{count:,} {_cell(stage)}" for stage, count in landings.items())
    return f" ({parts})" if parts else ""


def _list(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cell(text: str) -> str:
    """A producer's word inside Markdown: it must neither end a cell nor begin a link."""
    return "".join(f"\\{letter}" if letter in "\\|[]*_`<>" else letter for letter in text)
