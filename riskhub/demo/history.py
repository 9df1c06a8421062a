"""History: one snapshot per world and trading day through the bulk door, then one backfill."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any, TypeVar

import httpx

from riskhub.dagster_graphql import DAY_ASSETS, LAUNCH_BACKFILL, LOOKING_BACK
from riskhub.days import each_day, stretches
from riskhub.demo.worlds import weights_by_day, worlds_of
from riskhub.errors import RiskHubError
from riskhub.prices import PricePanel
from riskhub.settings import Settings

STAGE = "backtest"
ACTOR = "riskhub-demo"
LINES_PER_REQUEST = 2_000
# A process that was killed is back in seconds, on a busy machine too.
PATIENCE_SEC = 60.0
_POLL_SEC = 0.5
# An exchange that stays shut for a week doesn't make two runs of one.
_LONGEST_GAP = timedelta(days=31)

_STATUS = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status error { message } }
    ... on PythonError { message }
    ... on BackfillNotFoundError { message }
  }
}"""
_UNDER_WAY = {"REQUESTED"}
_SUCCEEDED = {"COMPLETED", "COMPLETED_SUCCESS"}


Alive = Callable[[], None]
_T = TypeVar("_T")


class DemoFailed(RiskHubError):
    """A step of the demo did not do what it should; the text says which, and what it heard."""


class BackfillFailed(DemoFailed):
    """The backfill ended without success: what it has computed stays, what it left is pending."""


@dataclass(frozen=True, slots=True)
class Period:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last


def parse_periods(text: str) -> tuple[Period, ...]:
    """Periods from text such as ``2007-2009,2019-2022``. Raises ValueError."""
    periods = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()):
            raise ValueError(f"{part!r} is not a year or two years with a dash between")
        period = Period(date(int(first), 1, 1), date(int(last), 12, 31))
        if period.first > period.last:
            raise ValueError(f"{part!r} ends before it begins")
        periods.append(period)
    return tuple(periods)


def check_periods(panel: PricePanel, periods: Sequence[Period]) -> None:
    """Say so when there is nothing to post.

    Raises:
        DemoFailed: no trading day of the panel lies in the periods.
    """
    if not any(day in period for period in periods for day in panel.days):
        raise DemoFailed(
            f"no prices for the years asked for: they go from {panel.days[0]} to {panel.days[-1]}"
        )


def patiently(ask: Callable[[], _T], alive: Alive) -> _T:
    """What `ask` gives; asked again while a process that was killed is being started again.

    Args:
        alive: raises when a process is gone for good.

    Raises:
        DemoFailed: no answer for too long.
    """
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        try:
            return ask()
        except httpx.TransportError as error:
            alive()
            if time.monotonic() > deadline:
                raise DemoFailed(f"no answer from {error.request.url}: {error}") from error
            time.sleep(_POLL_SEC)


def documents(panel: PricePanel, periods: Sequence[Period]) -> list[dict[str, Any]]:
    """The snapshots of every world on every trading day of the periods, oldest first."""
    found = []
    for world in worlds_of(panel):
        for day, weights in weights_by_day(world, panel):
            if any(day in period for period in periods):
                found.append(
                    {
                        "world_id": world.world_id,
                        "as_of": f"{day}T21:00:00Z",
                        "version": f"backtest-{day}",
                        "weights": dict(zip(world.symbols, weights.tolist(), strict=True)),
                        "ttl_sec": 86_400,
                        "provenance": {"prices": panel.digest},
                    }
                )
    return sorted(found, key=lambda document: document["as_of"])


def post(
    client: httpx.Client,
    settings: Settings,
    snapshots: Sequence[dict[str, Any]],
    advanced: Callable[[int], None],
    alive: Alive,
) -> dict[int, int]:
    """Post snapshots through the bulk door; how often each status was answered.

    Args:
        advanced: told how many lines each request carried.
        alive: see `patiently`. Posting a snapshot twice stores it once.

    Raises:
        DemoFailed: the hub refused one, with its reason, or doesn't answer.
    """
    statuses: dict[int, int] = {}
    for start in range(0, len(snapshots), LINES_PER_REQUEST):
        lines = snapshots[start : start + LINES_PER_REQUEST]
        send = partial(
            client.post,
            f"{settings.api_url}/risk-hub/snapshots:batch",
            content="".join(f"{json.dumps(line)}\n" for line in lines).encode(),
            headers=headers(settings, STAGE) | {"Content-Type": "application/x-ndjson"},
        )
        answer = patiently(send, alive)
        if answer.status_code != httpx.codes.OK:
            raise DemoFailed(f"the bulk door answered {answer.status_code}: {_detail(answer)}")
        for result in map(json.loads, answer.text.splitlines()):
            status = result["status"]
            if status >= httpx.codes.BAD_REQUEST:
                named = lines[result["line"] - 1]
                raise DemoFailed(
                    f"the hub refused {named['version']} of {named['world_id']} "
                    f"with {status}: {result['detail']}"
                )
            statuses[status] = statuses.get(status, 0) + 1
        advanced(len(lines))
    return statuses


def launch_backfill(
    client: httpx.Client, settings: Settings, days: Sequence[date], alive: Alive
) -> str:
    """Ask Dagster, as its UI does, to compute days; gives the backfill's id.

    The days are filled up to ranges, of which Dagster makes as few runs as it is told to. Should an
    answer get lost, it is asked twice: the days are then computed twice, with the same result.
    """
    ranges = stretches(days, longest_gap=_LONGEST_GAP)
    keys = [str(day) for first, last in ranges for day in each_day(first, last)]
    params = {
        "partitionNames": keys,
        "assetSelection": [{"path": [asset]} for asset in (*DAY_ASSETS, *LOOKING_BACK)],
        "title": "demo: history",
        "tags": [{"key": "riskhub/demo", "value": "history"}],
    }
    launch = partial(_ask, client, settings, LAUNCH_BACKFILL, {"params": params})
    answer = patiently(launch, alive)["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise DemoFailed(f"Dagster did not launch the backfill: {_said(answer)}")
    return str(answer["backfillId"])


def follow_backfill(
    client: httpx.Client, settings: Settings, backfill_id: str, alive: Alive
) -> Iterator[None]:
    """Yield whenever the backfill was found still under way; return when it has succeeded.

    Raises:
        DemoFailed: it failed or was cancelled.
    """
    look = partial(_ask, client, settings, _STATUS, {"id": backfill_id})
    while True:
        alive()
        answer = patiently(look, alive)["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise DemoFailed(f"Dagster lost the backfill {backfill_id}: {_said(answer)}")
        if answer["status"] in _SUCCEEDED:
            return
        if answer["status"] not in _UNDER_WAY:
            why = _said(answer["error"]) if answer["error"] else "see its runs in the Dagster UI"
            raise BackfillFailed(f"the backfill {backfill_id} ended as {answer['status']}: {why}")
        yield


def headers(settings: Settings, stage: str) -> dict[str, str]:
    """What a producer says of itself in each request."""
    token = settings.token.get_secret_value() if settings.token else None
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return {"X-Actor": ACTOR, "X-Stage": stage} | authorization


def _ask(
    client: httpx.Client, settings: Settings, query: str, variables: dict[str, Any]
) -> dict[str, Any]:
    answer = client.post(
        f"{settings.dagster_url}/graphql", json={"query": query, "variables": variables}
    )
    body = answer.json()
    if body.get("errors"):
        raise DemoFailed(f"Dagster answered: {_said(body['errors'][0])}")
    data: dict[str, Any] = body["data"]
    return data


def _said(answer: dict[str, Any]) -> str:
    # Of an SQL error the first line says what happened, the rest what was asked.
    return str(answer.get("message") or answer["__typename"]).splitlines()[0]


def _detail(answer: httpx.Response) -> str:
    """What a problem document says, or the start of anything else."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]
