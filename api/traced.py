"""The middleware that makes a server span of each request, and a span of what it lands."""

import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riskhub.controlbus.events import landing_id
from riskhub.snapshot import Snapshot
from riskhub.store import Landing
from riskhub.store.landing import Outcome
from riskhub.traces import traces

if TYPE_CHECKING:
    from riskhub.otel import Request

_request: "ContextVar[Request | None]" = ContextVar("traced", default=None)
_OF_A_TRACE = (b"traceparent", b"tracestate")


class Traced:
    """ASGI middleware; see the module. Passes everything on where no spans are collected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        otel = traces()
        if scope["type"] != "http" or otel is None:
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _OF_A_TRACE
        }
        request = otel.request(headers)
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        bound = _request.set(request)
        failure: BaseException | None = None
        try:
            await self._app(scope, receive, noting)
        except BaseException as error:
            failure = error
            raise
        finally:
            _request.reset(bound)
            route = getattr(scope.get("route"), "path", "_unmatched")
            attributes: dict[str, str | int] = {
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
            }
            if world := scope.get("path_params", {}).get("world_id"):
                attributes["risk.world"] = world[:128]
            otel.answered(request, f"{scope['method']} {route}", attributes, failure)


def note_landings(landed: Iterable[tuple[Snapshot, Landing]], started_ns: int) -> None:
    """Tell spans of landings in the request in hand.

    Args:
        started_ns: of the clock `now_ns`, when they were given to the store.
    """
    otel, request = traces(), _request.get()
    if otel is None or request is None:
        return
    for snapshot, landing in landed:
        if landing.outcome is not Outcome.CONFLICT:
            event_id = landing_id(snapshot.world_id, snapshot.version, landing.digest)
            attributes: dict[str, str | int] = {
                "risk.world": snapshot.world_id,
                "risk.version": snapshot.version,
            }
            new = landing.outcome is Outcome.CREATED
            otel.landed(request, event_id, started_ns, attributes, new=new)


now_ns = time.time_ns
