"""History: one snapshot per world and trading day through the bulk door, then one backfill."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx

from riskhub.days import each_day, stretches
from riskhub.demo.worlds import weights_by_day, worlds_of
from riskhub.errors import RiskHubError
from riskhub.prices import PricePanel
from riskhub.settings import Settings

STAGE = "backtest"
ACTOR = "riskhub-demo"
LINES_PER_REQUEST = 2_000
ASSETS = ("validated_snapshots", "snapshot_weights", "risk_metrics")

_LAUNCH = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on InvalidSubsetError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}"""
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


class DemoFailed(RiskHubError):
    """A step of the demo did not do what it should; the text says which, and what it heard."""


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
        first, _, last = part.strip().partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise ValueError(f"{part!r} is not a year or two years with a dash between")
        period = Period(date(int(first), 1, 1), date(int(last or first), 12, 31))
        if period.first > period.last:
            raise ValueError(f"{part!r} ends before it begins")
        periods.append(period)
    return tuple(periods)


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
) -> dict[int, int]:
    """Post snapshots through the bulk door; how often each status was answered.

    Args:
        advanced: told how many lines each request carried.

    Raises:
        DemoFailed: the hub refused one, with its reason.
    """
    statuses: dict[int, int] = {}
    for start in range(0, len(snapshots), LINES_PER_REQUEST):
        lines = snapshots[start : start + LINES_PER_REQUEST]
        answer = client.post(
            f"{settings.api_url}/risk-hub/snapshots:batch",
            content="".join(f"{json.dumps(line)}\n" for line in lines).encode(),
            headers=headers(settings, STAGE) | {"Content-Type": "application/x-ndjson"},
        )
        if answer.status_code != httpx.codes.OK:
            raise DemoFailed(f"the bulk door answered {answer.status_code}: {answer.text[:300]}")
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


def launch_backfill(client: httpx.Client, settings: Settings, days: Sequence[date]) -> str:
    """Ask Dagster, as its UI does, to compute days; gives the backfill's id.

    The days are filled up to ranges, each of which Dagster computes in one run.
    """
    keys = [str(day) for first, last in stretches(days) for day in each_day(first, last)]
    params = {
        "partitionNames": keys,
        "assetSelection": [{"path": [asset]} for asset in ASSETS],
        "title": "demo: history",
        "tags": [{"key": "riskhub/demo", "value": "history"}],
    }
    answer = _ask(client, settings, _LAUNCH, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise DemoFailed(f"Dagster did not launch the backfill: {_said(answer)}")
    return str(answer["backfillId"])


def follow_backfill(client: httpx.Client, settings: Settings, backfill_id: str) -> Iterator[None]:
    """Yield whenever the backfill was found still under way; return when it has succeeded.

    Raises:
        DemoFailed: it failed or was cancelled.
    """
    while True:
        answer = _ask(client, settings, _STATUS, {"id": backfill_id})["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise DemoFailed(f"Dagster lost the backfill {backfill_id}: {_said(answer)}")
        if answer["status"] in _SUCCEEDED:
            return
        if answer["status"] not in _UNDER_WAY:
            why = (answer["error"] or {}).get("message", "see its runs in the Dagster UI")
            raise DemoFailed(f"the backfill {backfill_id} ended as {answer['status']}: {why}")
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
        raise DemoFailed(f"Dagster answered: {body['errors'][0]['message']}")
    data: dict[str, Any] = body["data"]
    return data


def _said(answer: dict[str, Any]) -> str:
    return str(answer.get("message", answer["__typename"]))
