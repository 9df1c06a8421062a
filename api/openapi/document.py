"""The OpenAPI document of an app whose routes are served in the hub's own way."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.openapi.parts import Json


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have the app describe these routes, and the way to authorize."""

    def document() -> Json:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=routes,
            )
            schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["bearer"] = {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of the hub, when one is configured.",
            }
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
