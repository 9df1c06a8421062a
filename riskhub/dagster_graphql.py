"""Dagster as its UI asks it, over GraphQL: runs over days, started and followed; and how it is.

What belongs here: the queries, and answers as plain values. riskhub imports no Dagster: whoever
types a command need not have the code location in the process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx

from riskhub.errors import RiskHubError

LOCATION, REPOSITORY = "riskhub", "__repository__"
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
BACKFILL_TAG, ROOT_RUN_TAG = "dagster/backfill", "dagster/root_run_id"
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")

_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on PipelineNotFoundError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_RUN = """
query($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Run { status stepStats { stepKey status } }
    ... on PythonError { message }
    ... on RunNotFoundError { message }
  }
}"""
_RUNS = """
query($filter: RunsFilter!) {
  runsOrError(filter: $filter, limit: 1000) {
    __typename
    ... on Runs { results { runId status tags { key value } } }
    ... on PythonError { message }
    ... on InvalidPipelineRunsFilterError { message }
  }
}"""
# Of a backfill, as the UI asks for one; Dagster cuts it into runs as the assets say.
LAUNCH_BACKFILL = """
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
_BACKFILL = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      status
      assetBackfillData {
        assetBackfillStatuses {
          ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsMaterialized }
        }
      }
    }
    ... on PythonError { message }
    ... on BackfillNotFoundError { message }
  }
}"""
# What is made of a day's snapshots from that day, and what looks back on the days before.
DAY_ASSETS = (
    "validated_snapshots",
    "snapshot_weights",
    "risk_metrics",
    "risk_contributions",
    "stress_results",
)
LOOKING_BACK = ("var_outcomes", "var_backtests")

_HEALTH = """
query($after: Float!) {
  ended: runsOrError(filter: {statuses: [SUCCESS, FAILURE], updatedAfter: $after}, limit: 500) {
    ... on Runs { results { runId jobName status endTime } }
  }
  queued: runsOrError(filter: {statuses: [QUEUED]}, limit: 500) {
    ... on Runs { results { creationTime } }
  }
  started: runsOrError(filter: {statuses: [STARTING, STARTED, CANCELING]}, limit: 500) {
    ... on Runs { results { creationTime } }
  }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""
_CHECKS = """
query {
  assetNodes {
    assetKey { path }
    assetChecksOrError {
      ... on AssetChecks {
        checks { name executionForLatestMaterialization { status evaluation { severity } } }
      }
    }
  }
}"""


class DagsterRefused(RiskHubError):
    """Dagster answered that it can't or won't; the text says what it heard."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A run: its status in Dagster's words, and which of its steps are done or under way."""

    status: str
    steps_done: frozenset[str]
    steps_under_way: frozenset[str]

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status not in UNFINISHED


@dataclass(frozen=True, slots=True)
class BackfillState:
    """A backfill: its status in Dagster's words, and of each asset how many days are done."""

    status: str
    days_done: Mapping[str, int]

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status not in ("REQUESTED", "CANCELING", "FAILING")

    @property
    def has_succeeded(self) -> bool:
        """Whether all of its days are done."""
        return self.status in ("COMPLETED", "COMPLETED_SUCCESS")


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended: of which job, whether it failed, and when (unix seconds)."""

    run_id: str
    job: str
    failed: bool
    ended_at: float


@dataclass(frozen=True, slots=True)
class Health:
    """How Dagster is.

    Attributes:
        ended: the runs that ended of late, newest first.
        queued: when each run that waits was made (unix seconds).
        started: how many runs are under way.
        daemons: those that must run, and whether they do.
    """

    ended: Sequence[EndedRun]
    queued: Sequence[float]
    started: int
    daemons: Mapping[str, bool]

    def failed_jobs(self) -> list[EndedRun]:
        """Of each job the newest run that has ended, if it failed."""
        newest: dict[str, EndedRun] = {}
        for run in self.ended:
            newest.setdefault(run.job, run)
        return [run for run in newest.values() if run.failed]


class DagsterGraphql:
    """One Dagster webserver. Every call may raise `httpx.TransportError` when it isn't there."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client = client
        self._url = url

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of an answer.

        Raises:
            DagsterRefused: it answered with errors, or with something else.
        """
        answer = self._client.post(
            f"{self._url}/graphql", json={"query": query, "variables": variables}
        )
        try:
            body = answer.json()
        except ValueError:
            raise DagsterRefused(f"{self._url} is no Dagster: it answered no JSON") from None
        if body.get("errors"):
            raise DagsterRefused(f"Dagster answered: {said(body['errors'][0])}")
        data: dict[str, Any] = body["data"]
        return data

    def launch(self, job: str, first: date, last: date, tags: Mapping[str, str]) -> str:
        """Start one run of a job over the days `first` to `last`; gives its id."""
        ends = {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
        if first == last:
            ends = {PARTITION_TAG: first.isoformat()}
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": REPOSITORY,
                "jobName": job,
            },
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in (ends | dict(tags)).items()]
            },
        }
        answer = self.ask(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DagsterRefused(f"Dagster did not start the run: {said(answer)}")
        return str(answer["run"]["runId"])

    def run(self, run_id: str) -> RunState:
        """How far a run is."""
        answer = self.ask(_RUN, {"id": run_id})["runOrError"]
        if answer["__typename"] != "Run":
            raise DagsterRefused(f"Dagster lost the run {run_id}: {said(answer)}")
        by_status: dict[str | None, set[str]] = {}
        for step in answer["stepStats"]:
            by_status.setdefault(step["status"], set()).add(step["stepKey"])
        return RunState(
            answer["status"],
            frozenset(by_status.get("SUCCESS", ())),
            frozenset(by_status.get("IN_PROGRESS", ())),
        )

    def launch_backfill(self, days: Iterable[date], tags: Mapping[str, str], *, title: str) -> str:
        """Have all that is made of some days made anew, by as many runs as Dagster is told to.

        Gives the backfill's id. Its daemon looks for new ones every 30 s.
        """
        params = {
            "partitionNames": [day.isoformat() for day in days],
            "assetSelection": [{"path": [asset]} for asset in DAY_ASSETS],
            "title": title,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        answer = self.ask(LAUNCH_BACKFILL, {"params": params})["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise DagsterRefused(f"Dagster did not launch the backfill: {said(answer)}")
        return str(answer["backfillId"])

    def backfill(self, backfill_id: str) -> BackfillState:
        """How far a backfill is."""
        answer = self.ask(_BACKFILL, {"id": backfill_id})["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise DagsterRefused(f"Dagster lost the backfill {backfill_id}: {said(answer)}")
        counts = (answer["assetBackfillData"] or {}).get("assetBackfillStatuses", ())
        status = answer["status"]
        # Dagster looks first at what is materialized and then whether a run is left: one that was
        # retried with success in between it still calls failed.
        if status == "COMPLETED_FAILED" and self._all_made_good(backfill_id):
            status = "COMPLETED_SUCCESS"
        return BackfillState(
            status,
            {"/".join(c["assetKey"]["path"]): c["numPartitionsMaterialized"] for c in counts if c},
        )

    def _all_made_good(self, backfill_id: str) -> bool:
        """Whether of each run of a backfill a try has succeeded."""
        of_backfill = {"tags": [{"key": BACKFILL_TAG, "value": backfill_id}]}
        answer = self.ask(_RUNS, {"filter": of_backfill})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise DagsterRefused(f"Dagster does not tell of its runs: {said(answer)}")
        tries: dict[str, set[str]] = {}
        for run in answer["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            tries.setdefault(tags.get(ROOT_RUN_TAG, run["runId"]), set()).add(run["status"])
        return bool(tries) and all("SUCCESS" in each for each in tries.values())

    def unfinished_runs(self, first: date, last: date) -> list[str]:
        """The runs that have not ended and write a day from `first` to `last`, newest first."""
        answer = self.ask(_RUNS, {"filter": {"statuses": list(UNFINISHED)}})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise DagsterRefused(f"Dagster does not tell of its runs: {said(answer)}")
        return [run["runId"] for run in answer["results"] if _writes_some(run["tags"], first, last)]

    def health(self, ended_after: float) -> Health:
        """How it is, and which runs have ended since (unix seconds), 500 of them at most."""
        data = self.ask(_HEALTH, {"after": ended_after})
        try:
            ended = [
                EndedRun(run["runId"], run["jobName"], run["status"] == "FAILURE", run["endTime"])
                for run in data["ended"]["results"]
                if run["endTime"] is not None
            ]
            daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
            return Health(
                ended,
                [run["creationTime"] for run in data["queued"]["results"]],
                len(data["started"]["results"]),
                {each["daemonType"]: bool(each["healthy"]) for each in daemons if each["required"]},
            )
        except (KeyError, TypeError):
            raise DagsterRefused("Dagster does not tell how it is") from None

    def failed_checks(self) -> list[tuple[str, str, str]]:
        """Asset, check and severity of what did not pass when it was last evaluated."""
        failed = []
        try:
            for node in self.ask(_CHECKS, {})["assetNodes"]:
                for check in node["assetChecksOrError"].get("checks", ()):
                    last = check["executionForLatestMaterialization"]
                    if last is not None and last["status"] == "FAILED":
                        asset = "/".join(node["assetKey"]["path"])
                        failed.append((asset, check["name"], last["evaluation"]["severity"]))
        except (KeyError, TypeError):
            raise DagsterRefused("Dagster does not tell of its checks") from None
        return failed


def said(answer: Mapping[str, Any]) -> str:
    """What an answer that is no success says of itself."""
    message = answer.get("message") or _joined(answer.get("errors") or ())
    # Of an SQL error the first line says what happened, the rest what was asked.
    return str(message or answer["__typename"]).splitlines()[0]


def _joined(errors: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(str(error.get("message")) for error in errors)


def _writes_some(tags: Sequence[Mapping[str, str]], first: date, last: date) -> bool:
    by_key = {tag["key"]: tag["value"] for tag in tags}
    day = by_key.get(PARTITION_TAG)
    start, end = by_key.get(RANGE_START_TAG, day), by_key.get(RANGE_END_TAG, day)
    if not (start and end):
        return False
    return date.fromisoformat(start) <= last and first <= date.fromisoformat(end)
