"""The middleware that gives each request an id, says what its log lines are about, and tells it."""

from collections.abc import Iterator
from http import HTTPStatus
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import request_ids
from api.problems import CLIENT_CLOSED_REQUEST
from riskhub import logs
from riskhub.settings import Settings

_LONGEST = 128
_FROM_HEADERS = {b"x-actor": "actor", b"x-stage": "stage"}


def lines_of(settings: Settings) -> bool:
    """Whether each request is told."""
    if settings.access_log is None:
        return settings.profile == "prod"
    return settings.access_log


class RequestLog:
    """ASGI middleware around all others; see the module."""

    def __init__(self, app: ASGIApp, *, lines: bool) -> None:
        self._app = app
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, whose answer has its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_ids.id_of(scope["headers"])
        header = (request_ids.NAME, request_id.encode("ascii"))
        status = sent = 0

        async def noting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        current = request_ids.current.set(request_id)
        # Asked when a line is logged: routing finds world and route, and most requests log none.
        bound = logs.bind(lambda: dict(_about(scope, request_id)))
        started = perf_counter()
        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED_REQUEST
            raise
        finally:
            if self._lines:
                _tell(scope, status or 500, perf_counter() - started, sent)
            logs.unbind(bound)
            request_ids.current.reset(current)


def _tell(scope: Scope, status: int, seconds: float, sent: int) -> None:
    tell = logs.tell if status < HTTPStatus.INTERNAL_SERVER_ERROR else logs.tell_error
    duration_ms = round(seconds * 1000, 3)
    tell("request", method=scope["method"], status=status, duration_ms=duration_ms, bytes=sent)


def _about(scope: Scope, request_id: str) -> Iterator[tuple[str, str]]:
    """What is known of a request by now."""
    yield "request_id", request_id
    # The template: a path is of anybody's choosing, and may hold anything.
    yield "route", getattr(scope.get("route"), "path", "_unmatched")
    if world := scope.get("path_params", {}).get("world_id"):
        yield "world", world[:_LONGEST]
    for name, value in scope["headers"]:
        if field := _FROM_HEADERS.get(name):
            yield field, value[:_LONGEST].decode("latin-1")
