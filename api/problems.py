"""Failures as RFC 9457 problem details: what went wrong, and at which field."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.request_ids import request_id
from riskhub.errors import (
    BlobAltered,
    BlobMissing,
    BlobsUnavailable,
    BlobUnusable,
    ContractViolation,
    FieldError,
    StoreNotMigrated,
    StoreUnavailable,
    VersionConflict,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SEC = "1"
# As nginx has it: the client was gone before there was anything to tell it.
CLIENT_CLOSED_REQUEST = 499
_BLOB_ERRORS: dict[type[BlobUnusable], str] = {
    BlobMissing: "blob_missing",
    BlobAltered: "blob_altered",
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ProblemField(BaseModel):
    """One offending field."""

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = []
    request_id: str | None = None  # of a 5xx: the log's lines of the request have it, too


class ApiError(Exception):
    """A refusal that the edge itself decides on: status, sentence, and the field it is about."""

    def __init__(self, status: HTTPStatus, detail: str, *errors: FieldError) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors


def problem(status: HTTPStatus, detail: str, errors: Sequence[FieldError] = ()) -> dict[str, Any]:
    """Problem details as a JSON object."""
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "errors": [{"field": error.field, "message": error.message} for error in errors],
    }


def describe(error: Exception) -> dict[str, Any] | None:
    """The problem details of an expected failure; None for one that is not expected."""
    match error:
        case ContractViolation():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), error.errors)
        case VersionConflict():
            return problem(HTTPStatus.CONFLICT, str(error), [FieldError("version", "is taken")]) | {
                "stored": error.stored,
                "offered": error.offered,
            }
        case StoreUnavailable() | StoreNotMigrated() | BlobsUnavailable():
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        case BlobUnusable():
            # Ours, and no use to try again: what is stored refers to something that is gone.
            return problem(HTTPStatus.BAD_GATEWAY, str(error)) | {
                "error": _BLOB_ERRORS.get(type(error), "blob_unusable"),
                "ref": error.ref,
            }
        case ApiError():
            return problem(error.status, error.detail, error.errors)
    return None


def respond(document: dict[str, Any]) -> Response:
    """Problem details as a response."""
    headers = {}
    if document["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR and (found := request_id()):
        document = document | {"request_id": found}
    if document["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER_SEC
    if document["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if document["status"] == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # the rest of the body is still under way
    return Response(
        json.dumps(document), status_code=document["status"], media_type=MEDIA_TYPE, headers=headers
    )


def _allowed(request: Request) -> list[str]:
    """The methods of this path. The framework's own header names those of one route only."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


EXPECTED = (
    ContractViolation,
    VersionConflict,
    StoreUnavailable,
    StoreNotMigrated,
    BlobUnusable,
    BlobsUnavailable,
    ApiError,
)


def install(app: FastAPI) -> None:
    """Answer every expected failure, and FastAPI's own, with problem details."""

    async def expected(_request: Request, error: Exception) -> Response:
        document = describe(error)
        if document is None:
            raise error
        return respond(document)

    for kind in EXPECTED:
        app.add_exception_handler(kind, expected)

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # for the metrics: nobody reads it

    app.add_exception_handler(ClientDisconnect, gone)

    async def bad_parameter(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        fields = [FieldError(str(item["loc"][-1]), str(item["msg"])) for item in error.errors()]
        detail = "; ".join(f"{item.field}: {item.message}" for item in fields)
        in_header = any(item["loc"][0] == "header" for item in error.errors())
        status = HTTPStatus.BAD_REQUEST if in_header else HTTPStatus.UNPROCESSABLE_ENTITY
        return respond(problem(status, detail, fields))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        response = respond(problem(HTTPStatus(error.status_code), str(error.detail)))
        response.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    app.add_exception_handler(RequestValidationError, bad_parameter)
    app.add_exception_handler(HTTPException, http_error)
