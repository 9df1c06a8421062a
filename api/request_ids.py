"""The id of the request in hand: who asks names it in ``X-Request-Id``, or it is given one."""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

NAME = b"x-request-id"
# What stands in a log and in an answer's header as it is; more than a UUID, or a load balancer's.
_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")

current: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str | None:
    """That of the request in hand, if there is one."""
    return current.get()


def id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The one that was sent, if it is sane; else a new one."""
    for name, value in headers:
        if name == NAME and _SANE.fullmatch(value):
            return value.decode("ascii")
    return secrets.token_hex(8)
