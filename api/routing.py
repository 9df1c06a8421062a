"""Routes that FastAPI describes and Starlette serves.

FastAPI's own way through routers, dependencies and exit stacks to an endpoint takes several times
as long as reading a snapshot from memory. The hub's routes are few and all ask the same things of
a request: an endpoint takes the request as it is, checks it with `api.requests`, and says in
`openapi_extra` what it takes.
"""

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope

from api import openapi


class _Named(Route):
    """A route that says in the scope that it is the one, as FastAPI's do: metrics ask."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Serve the routers' endpoints, each of which takes a request and gives a response."""
    described = [
        route for router in routers for route in router.routes if isinstance(route, APIRoute)
    ]
    app.router.routes += [
        _Named(route.path, route.endpoint, methods=list(route.methods or ())) for route in described
    ]
    openapi.install(app, described)
