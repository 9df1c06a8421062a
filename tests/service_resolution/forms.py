"""What a way to have a service is, and the two ways that need no server of ours: given, missing."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import make_url

REQUIRE_REAL = "RISKHUB_TEST_REQUIRE_REAL"
STAND_INS = "RISKHUB_TEST_STAND_INS"


@dataclass(frozen=True)
class Form:
    """One way to have a service: what to call it, whether it is the real one, how to start it."""

    label: str
    real: bool
    serve: Callable[[], AbstractContextManager[str]]


def requires_real(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the run asked for real services."""
    return environ.get(REQUIRE_REAL, "0") not in {"", "0"}


def given(variable: str, url: str) -> str:
    parsed = make_url(url)  # not the URL itself: it may hold a password
    return f"{variable} ({parsed.host or 'local socket'}:{parsed.port or 'default port'})"


def missing(service: str, variable: str, package: str) -> Form:
    @contextmanager
    def serve() -> Iterator[str]:
        pytest.fail(
            f"no {service} for the tests: install {package} or set {variable}", pytrace=False
        )
        yield ""

    return Form("missing", False, serve)


@contextmanager
def at(url: str) -> Iterator[str]:
    yield url
