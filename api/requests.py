"""What every request is asked first: who are you, for whom do you speak, what do you want."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from datetime import date, datetime
from http import HTTPStatus
from typing import NamedTuple

from starlette.requests import Request

from api.edge import Edge, edge_of
from api.problems import ApiError
from riskhub.auth import Grant, Scope
from riskhub.errors import FieldError
from riskhub.hub import MAX_LIMIT
from riskhub.snapshot import is_world_id, parse_instant
from riskhub.store import Filter
from riskhub.strict_json import violation

MAX_LABEL = 128
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Producer(NamedTuple):
    """Who posts: the headers ``X-Actor`` and ``X-Stage``."""

    actor: str
    stage: str


def authorize(request: Request, scope: Scope) -> Edge:
    """The app's edge, for who may use it.

    Raises:
        ApiError: 401 without a valid bearer token, 403 when it lacks the scope. Where no token is
            configured, or for reads that are not guarded, nobody is refused.
    """
    edge = edge_of(request)
    if not edge.tokens.is_open and (scope is Scope.WRITE or edge.settings.read_auth):
        _granted(request, edge, scope)
    return edge


def authorize_producer(request: Request) -> tuple[Edge, Producer]:
    """The app's edge and who posts, if they may post under that name.

    Raises:
        ApiError: as `authorize`; 400 when a header is missing; 403 when the token is not for this
            actor.
    """
    edge = edge_of(request)
    grant = None if edge.tokens.is_open else _granted(request, edge, Scope.WRITE)
    actor, stage = request.headers.get("x-actor"), request.headers.get("x-stage")
    if not actor or not stage:
        missing = [
            FieldError(name, "is required")
            for name, value in (("X-Actor", actor), ("X-Stage", stage))
            if not value
        ]
        detail = "; ".join(f"{error.field} {error.message}" for error in missing)
        raise ApiError(HTTPStatus.BAD_REQUEST, detail, *missing)
    _refuse_others(edge, grant, actor)
    return edge, Producer(actor, stage)


def authorize_actor(request: Request) -> tuple[Edge, str]:
    """The app's edge and who writes, where no stage is written for; else as `authorize_producer`.

    Raises:
        ContractViolation: the name is none.
    """
    edge = edge_of(request)
    grant = None if edge.tokens.is_open else _granted(request, edge, Scope.WRITE)
    actor = request.headers.get("x-actor")
    if not actor:
        problem = FieldError("X-Actor", "is required")
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{problem.field} {problem.message}", problem)
    if not (len(actor) <= MAX_LABEL and actor.isprintable()):
        raise violation("X-Actor", f"must be 1 to {MAX_LABEL} printable characters")
    _refuse_others(edge, grant, actor)
    return edge, actor


def _refuse_others(edge: Edge, grant: Grant | None, actor: str) -> None:
    if grant is not None and not grant.may_post_as(actor):
        edge.hub.telemetry.auth_failed("actor")
        problem = FieldError("X-Actor", "is not one that this token may post as")
        raise ApiError(HTTPStatus.FORBIDDEN, f"{problem.field} {problem.message}", problem)


def _granted(request: Request, edge: Edge, scope: Scope) -> Grant:
    scheme, _, offered = request.headers.get("authorization", "").partition(" ")
    grant = edge.tokens.grant_of(offered) if scheme.lower() == "bearer" else None
    if grant is None:
        edge.hub.telemetry.auth_failed("token")
        raise ApiError(HTTPStatus.UNAUTHORIZED, "the bearer token is missing or wrong")
    if not grant.allows(scope):
        edge.hub.telemetry.auth_failed("scope")
        raise ApiError(HTTPStatus.FORBIDDEN, f"this token does not allow to {scope}")
    return grant


def world_of(request: Request) -> str:
    """The world of the path."""
    return _checked_world("world_id", request.path_params["world_id"])


def _checked_world(name: str, world_id: str) -> str:
    if not is_world_id(world_id):
        raise violation(name, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return world_id


class Query:
    """The query parameters of a request, each checked as it is taken.

    Raises:
        ContractViolation: a parameter that isn't one, is given twice, or has an impossible value.
    """

    def __init__(self, request: Request, known: Collection[str]) -> None:
        self._given: dict[str, str] = {}
        if not request.scope["query_string"]:
            return
        for name, value in request.query_params.multi_items():
            if name not in known:
                # A filter that is misspelt must not be a filter that is left out.
                there_are = ", ".join(sorted(known)) or "none"
                raise violation(name[:64], f"is not a parameter; there are {there_are}")
            if name in self._given:
                raise violation(name, "is given twice")
            self._given[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def world(self, name: str) -> str | None:
        """The id of a world."""
        text = self._given.get(name)
        return None if text is None else _checked_world(name, text)

    def label(self, name: str, longest: int = MAX_LABEL) -> str | None:
        """A version, stage, actor or another name."""
        text = self._given.get(name)
        if text is not None and not (1 <= len(text) <= longest and text.isprintable()):
            raise violation(name, f"must be 1 to {longest} printable characters")
        return text

    def flag(self, name: str) -> bool:
        """True or false; false when it isn't given."""
        text = self._given.get(name, "false").lower()
        if text not in _BOOLEANS:
            raise violation(name, "must be true or false")
        return _BOOLEANS[text]

    def number(self, name: str, default: int, largest: int, smallest: int = 1) -> int:
        """An integer from `smallest` to `largest`."""
        text = self._given.get(name)
        if text is None:
            return default
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else -1
        if not smallest <= number <= largest:
            raise violation(name, f"must be an integer from {smallest} to {largest}")
        return number

    def instant(self, name: str) -> datetime | None:
        """An instant, as UTC."""
        text = self._given.get(name)
        if text is None:
            return None
        try:
            return parse_instant(text)
        except ValueError as error:
            hint = " (in a query, + is written %2B)" if " " in text else ""
            raise violation(name, f"{error}{hint}") from error

    def day(self, name: str) -> date | None:
        """A day of the calendar."""
        text = self._given.get(name)
        if text is None:
            return None
        try:
            if not _DAY.fullmatch(text):  # ISO 8601 has other forms, too
                raise ValueError("no year, month and day")
            return date.fromisoformat(text)
        except ValueError as error:
            raise violation(name, "must be a day such as 2026-01-31") from error

    def text(self, name: str) -> str | None:
        """Whatever was given."""
        return self._given.get(name)

    def filter(self) -> Filter:
        """Stage, actor and whether expired ones are wanted."""
        return Filter(self.label("stage"), self.label("actor"), self.flag("include_expired"))

    def limit(self, largest: int = MAX_LIMIT) -> int:
        """How long a page is."""
        return self.number("limit", min(50, largest), largest)


async def read_body(request: Request, limit: int, patience_sec: float) -> bytes:
    """The whole body, refused before more than `limit` bytes are held.

    Raises:
        ApiError: 413 when it is larger; 408 when it has not arrived after `patience_sec`.
        ClientDisconnect: the client has gone.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(patience_sec):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise _too_slow(f"the body did not arrive within {patience_sec:g} s") from error
    return bytes(body)


async def chunks(request: Request, patience_sec: float) -> AsyncIterator[bytes]:
    """A body of any length as it arrives.

    Raises:
        ApiError: 408 when nothing more of it arrives for `patience_sec`.
        ClientDisconnect: the client has gone.
    """
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(patience_sec):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            detail = f"nothing more of the body arrived for {patience_sec:g} s"
            raise _too_slow(detail) from error
        if chunk is None:
            return
        yield chunk


def _too_slow(detail: str) -> ApiError:
    problem = FieldError("body", "is not complete")
    return ApiError(HTTPStatus.REQUEST_TIMEOUT, detail, problem)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {limit} bytes",
        FieldError("body", f"is larger than {limit} bytes"),
    )
