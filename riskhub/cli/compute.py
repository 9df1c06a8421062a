"""`riskhub compute`: the numbers of a range of days made anew, as one run that the UI shows.

Where the settings cut long ranges it is a backfill, whose runs go side by side, and then one run
of what looks back on them.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Annotated

import httpx
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from riskhub import bootstrap
from riskhub.cli.frame import console, errors
from riskhub.dagster_graphql import DAY_ASSETS, DagsterGraphql
from riskhub.days import each_day
from riskhub.errors import RiskHubError
from riskhub.settings import Settings, load_settings

JOB = "compute_days"
LOOKING_BACK_JOB = "compute_backtests"
# As riskhub_dagster reads it.
WORLDS_TAG = "riskhub/worlds"
_POLL_SEC = 0.5

app = typer.Typer()


class DaysBusy(RiskHubError):
    """Another run is computing some of these days."""


class RunFailed(RiskHubError):
    """The run or backfill ended without success: what it has written stays, and is whole days."""


class NoDagster(RiskHubError):
    """There is no Dagster where the settings say."""


@app.command("compute")
def compute(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last day.", show_default="the first"),
    ] = None,
    worlds: Annotated[
        list[str] | None, typer.Option("--world", help="One world, or more; all, by default.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Come after a run that computes these days now.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start it, and don't follow it.")
    ] = False,
) -> None:
    """Make everything of a range of days anew: verdicts, numbers, stress, backtests."""
    settings = load_settings()
    begin, end = first.date(), (last or first).date()
    today = datetime.now(UTC).date()
    if end < begin:
        raise typer.BadParameter(f"{end} is before {begin}", param_hint="--to")
    if begin < settings.partitions_start or end > today:
        raise typer.BadParameter(
            f"there are partitions from {settings.partitions_start} to {today}",
            param_hint="--from, --to",
        )
    days = len(each_day(begin, end))
    tags = {"riskhub/by": "riskhub compute"}
    if worlds:
        tags[WORLDS_TAG] = ",".join(sorted(set(worlds)))
    with httpx.Client(timeout=60.0) as client:
        dagster = DagsterGraphql(client, settings.dagster_url)
        try:
            _await_others(dagster, begin, end, wait=wait)
            if days > (settings.backfill_days_per_run or days):
                _backfill(dagster, settings, each_day(begin, end), tags, detach=detach)
                return
            run_id = dagster.launch(JOB, begin, end, tags)
            console.print(f"{settings.dagster_url}/runs/{run_id}", highlight=False, soft_wrap=True)
            if not detach:
                _follow(dagster, settings, run_id, days)
        except httpx.TransportError as error:
            raise NoDagster(
                f"no Dagster at {settings.dagster_url} ({error}); `riskhub up` starts one"
            ) from error


def _await_others(dagster: DagsterGraphql, first: date, last: date, *, wait: bool) -> None:
    with console.status("another run computes some of these days…") as status:
        status.stop()
        while others := dagster.unfinished_runs(first, last):
            if not wait:
                raise DaysBusy(
                    f"run {others[0]} is computing some of these days; --wait comes after it"
                )
            status.start()
            time.sleep(_POLL_SEC)


def _backfill(
    dagster: DagsterGraphql,
    settings: Settings,
    days: Sequence[date],
    tags: Mapping[str, str],
    *,
    detach: bool,
) -> None:
    title = f"riskhub compute {days[0]} to {days[-1]}"
    backfill_id = dagster.launch_backfill(days, tags, title=title)
    url = f"{settings.dagster_url}/runs/b/{backfill_id}"
    console.print(url, highlight=False, soft_wrap=True)
    if detach:
        console.print("outcomes and backtests follow by themselves when it has ended")
        return
    with _progress() as bar:
        tasks = {
            asset: bar.add_task(asset.replace("_", " "), total=len(days)) for asset in DAY_ASSETS
        }
        while not (state := dagster.backfill(backfill_id)).is_finished:
            for asset, done in state.days_done.items():
                bar.update(tasks[asset], completed=done)
            time.sleep(_POLL_SEC)
    if not state.has_succeeded:
        raise RunFailed(f"the backfill ended as {state.status}: {url} says why")
    run_id = dagster.launch(LOOKING_BACK_JOB, days[0], days[-1], tags)
    _follow(dagster, settings, run_id, len(days))


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=errors, disable=not errors.is_terminal)


def _follow(dagster: DagsterGraphql, settings: Settings, run_id: str, days: int) -> None:
    with closing(bootstrap.store(settings)) as store, _progress() as bar:
        tasks: dict[str, TaskID] = {}
        while True:
            state = dagster.run(run_id)
            for step in sorted(state.steps_done | state.steps_under_way):
                if step not in tasks:
                    tasks[step] = bar.add_task(step.replace("_", " "), total=days)
                # Steps come one after the other, and only the one under way has noted days.
                done = days if step in state.steps_done else store.days_noted(run_id)
                bar.update(tasks[step], completed=done)
            if state.is_finished:
                break
            time.sleep(_POLL_SEC)
    if state.status != "SUCCESS":
        raise RunFailed(
            f"the run ended as {state.status}: {settings.dagster_url}/runs/{run_id} says why"
        )
    console.print(f"{days} days computed", highlight=False)
