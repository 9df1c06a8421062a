"""What tests ask of the HTTP edge over and over, and what every one of its refusals holds."""

from typing import Any

import httpx
from asgi import Api
from builders import WORLD, raw_document

SNAPSHOTS = f"/risk-hub/worlds/{WORLD}/snapshots"
BATCH = "/risk-hub/snapshots:batch"
READS = [f"{SNAPSHOTS}/latest", SNAPSHOTS, f"{SNAPSHOTS}/lookup?version=v1"]


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem details of a refusal, checked for what every one of them holds."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "errors"} <= problem.keys()
    return problem


def fields_of(response: httpx.Response, status: int) -> list[str]:
    """The fields that a refusal names."""
    return [error["field"] for error in problem_of(response, status)["errors"]]


def refuses_for_now(response: httpx.Response) -> str:
    """Why a request was told to come again."""
    detail = str(problem_of(response, 503)["detail"])
    assert response.headers["retry-after"].isdecimal()
    return detail


def post(api: Api, *, to: str = SNAPSHOTS, **overrides: Any) -> httpx.Response:
    """The answer to a valid snapshot with some fields overridden."""
    return api.post(to, content=raw_document(**overrides))
