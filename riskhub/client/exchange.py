"""One request and its answer, without I/O: what is sent, tried again, and given up.

A `Flow` is a generator that yields what it wants done (`Step`) and is handed what came of it, or
the exception that it failed with. The sync and the async client are two small loops that do the
steps; everything decided is decided here and in `flows`, once.
"""

import json
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from riskhub import __version__
from riskhub.client.errors import REFUSALS, HubError, HubRefused, HubUnavailable, UnexpectedAnswer
from riskhub.client.retry import RetryPolicy, Runtime, is_transient, retry_after_sec
from riskhub.errors import (
    BlobAltered,
    BlobMissing,
    BlobUnusable,
    ContractViolation,
    FieldError,
    RiskHubError,
    VersionConflict,
)

_log = logging.getLogger("riskhub.client")
_T = TypeVar("_T")
_BLOB_ERRORS: dict[str, type[BlobUnusable]] = {
    "blob_missing": BlobMissing,
    "blob_altered": BlobAltered,
    "blob_unusable": BlobUnusable,
}


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Call this: it reads or writes disks or blobs, or takes the processor for long."""

    call: Callable[[], Any]


Step = httpx.Request | Pause | Work
Flow = Generator[Step, Any, _T]
EXPECTED = (httpx.RequestError, RiskHubError, OSError, ValueError)
"""What a step may fail with and a flow decides on. Anything else is a bug, and goes through."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to send, as often as it takes."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Exchange:
    """How a hub is spoken to. The token stays in here: no error and no spool shows it."""

    base_url: httpx.URL
    token: str | None = field(repr=False)
    timeout: httpx.Timeout
    retry: RetryPolicy
    runtime: Runtime

    def send(
        self,
        outgoing: Outgoing,
        *,
        attempts: int | None = None,
        wanting: Callable[[httpx.Response], bool] = lambda _: False,
    ) -> Flow[httpx.Response]:
        """The hub's answer, be it a refusal; asked again while there is hope.

        Args:
            attempts: other than the policy's.
            wanting: whether an answer is to be asked for again though its status is not transient.

        Raises:
            HubUnavailable: attempts or time ran out.
            HubError: the request can't be sent at all: a base URL without a scheme, say.
        """
        deadline = self.runtime.monotonic() + self.retry.deadline_sec
        failures = 0
        while True:
            try:
                response: httpx.Response = yield self._request(
                    outgoing, deadline - self.runtime.monotonic()
                )
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
                raise HubError(f"the request can't be sent: {error}") from error
            except httpx.RequestError as error:
                why, asked_sec = f"{type(error).__name__}: {error}".rstrip(": "), 0.0
            else:
                final = not is_transient(response.status_code) or _names_a_blob(response)
                if final and not wanting(response):
                    return response
                why = f"answered {response.status_code}: {detail(response)}"
                asked_sec = retry_after_sec(response.headers.get("Retry-After"), self.runtime.now())
            failures += 1
            wait_sec = max(asked_sec, self.retry.wait_sec(failures, self.runtime.chance()))
            too_late = self.runtime.monotonic() + wait_sec >= deadline
            if failures >= (attempts or self.retry.attempts) or too_late:
                tried = "once" if failures == 1 else f"{failures} times"
                raise HubUnavailable(f"{self.base_url} can't be used, tried {tried}: {why}")
            _log.warning(
                "%s %s: %s; again in %.2f s", outgoing.method, outgoing.path, why, wait_sec
            )
            yield Pause(wait_sec)

    def _request(self, outgoing: Outgoing, left_sec: float) -> httpx.Request:
        timeouts = {
            phase: left_sec if limit is None else min(limit, left_sec)
            for phase, limit in self.timeout.as_dict().items()
        }
        headers = {"User-Agent": f"riskhub-client/{__version__}", **outgoing.headers}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        base = self.base_url
        path = base.raw_path.partition(b"?")[0].decode().rstrip("/") + outgoing.path
        return httpx.Request(
            outgoing.method,
            base.copy_with(raw_path=path.encode()),
            params=outgoing.params or None,
            # As the hub reads them: it takes the token's bytes, and a header's text as Latin-1.
            headers=[
                (name.encode(), value.encode("utf-8" if name == "Authorization" else "latin-1"))
                for name, value in headers.items()
            ],
            content=outgoing.body or None,
            extensions={"timeout": timeouts},
        )


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem details of a refusal; made up from its status when it carries none."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "detail" in document:
        return document
    return {
        "type": "about:blank",
        "title": response.reason_phrase,
        "status": response.status_code,
        "detail": response.text[:300] or response.reason_phrase,
    }


def detail(response: httpx.Response) -> str:
    """What a refusal says, in a sentence."""
    return str(problem_of(response)["detail"])


def fields_of(problem: Mapping[str, Any]) -> list[FieldError]:
    """The offending fields that a problem names."""
    errors = problem.get("errors")
    return [
        FieldError(str(error.get("field")), str(error.get("message")))
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]


def refusal(response: httpx.Response, world_id: str = "", version: str = "") -> RiskHubError:
    """The named error of an answer that is no success."""
    problem, status = problem_of(response), response.status_code
    if status == HTTPStatus.CONFLICT and "stored" in problem:
        stored, offered = str(problem["stored"]), str(problem.get("offered"))
        return VersionConflict(world_id, version, stored, offered)
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return ContractViolation(*fields_of(problem) or [FieldError("body", detail(response))])
    if kind := _BLOB_ERRORS.get(str(problem.get("error"))):
        ref = str(problem.get("ref"))
        return kind(ref, detail(response).removeprefix(f"{ref}: "))
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return REFUSALS.get(status, HubRefused)(
            status, f"the hub refused with {status}: {detail(response)}"
        )
    return UnexpectedAnswer(f"{response.request.url} answered {status}, which no hub does")


def _names_a_blob(response: httpx.Response) -> bool:
    """Whether what is stored refers to something that is gone: that is so again next time."""
    return (
        response.status_code == HTTPStatus.BAD_GATEWAY
        and problem_of(response).get("error") in _BLOB_ERRORS
    )


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The body of a success.

    Raises:
        UnexpectedAnswer: it isn't a JSON object.
    """
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UnexpectedAnswer(f"{response.request.url} answered something that is no JSON object")
    return document
