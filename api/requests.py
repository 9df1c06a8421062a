"""What every request is asked first: who are you, for whom do you speak, how much do you send."""

import hmac
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import ApiError
from riskhub.errors import FieldError
from riskhub.group_commit import GroupCommit
from riskhub.hub import Hub
from riskhub.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="The hub's token, when one is configured.")


def hub_of(request: Request) -> Hub:
    """The hub that this app serves."""
    return cast(Hub, request.app.state.hub)


def group_commit_of(request: Request) -> GroupCommit:
    """The landing queue that this app's requests share."""
    return cast(GroupCommit, request.app.state.group_commit)


def settings_of(request: Request) -> Settings:
    """The settings that this app was made with."""
    return cast(Settings, request.app.state.settings)


def authorize(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    settings: Annotated[Settings, Depends(settings_of)],
) -> None:
    """401 unless the bearer token is the configured one; without one, nobody is refused."""
    if settings.token is None:
        return
    offered = credentials.credentials if credentials else ""
    # Header text is Latin-1 of what was sent; back to those bytes, so that any token can match.
    if not hmac.compare_digest(
        offered.encode("latin-1"), settings.token.get_secret_value().encode()
    ):
        raise ApiError(HTTPStatus.UNAUTHORIZED, "the bearer token is missing or wrong")


class Producer:
    """Who posts: the headers ``X-Actor`` and ``X-Stage``, both required (else 400)."""

    def __init__(
        self,
        actor: Annotated[
            str, Header(alias="X-Actor", min_length=1, description="Who produced the snapshot.")
        ],
        stage: Annotated[
            str,
            Header(alias="X-Stage", min_length=1, description="Such as backtest, paper or live."),
        ],
    ) -> None:
        self.actor = actor
        self.stage = stage


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, refused with 413 before more than `limit` bytes are held."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {limit} bytes",
        FieldError("body", f"is larger than {limit} bytes"),
    )
