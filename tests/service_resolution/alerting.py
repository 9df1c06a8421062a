"""Prometheus and Alertmanager for the tests: local binaries, or given; there is no stand-in.

What they read is the test's, so "given" is a binary, not a server: ``RISKHUB_TEST_PROMETHEUS`` and
``RISKHUB_TEST_ALERTMANAGER`` name one that is not on the PATH.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from .forms import requires_real
from .processes import running, scratch_directory

PROMETHEUS, ALERTMANAGER = "RISKHUB_TEST_PROMETHEUS", "RISKHUB_TEST_ALERTMANAGER"
# Debian's names come first; elsewhere `alertmanager` may be another program's.
_BINARIES = {
    PROMETHEUS: ("prometheus",),
    ALERTMANAGER: ("prometheus-alertmanager", "alertmanager"),
}


class NoAlerting(Exception):
    """There is no Prometheus or Alertmanager here; the text says how to have one."""


def resolve(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The path of one of the two, or None. Starts nothing."""
    if named := environ.get(variable):
        return named
    return next((path for name in _BINARIES[variable] if (path := shutil.which(name))), None)


def label(variable: str, environ: Mapping[str, str] = os.environ) -> str:
    """What to call it in the header of a run."""
    path = resolve(variable, environ)
    return f"local binary ({path})" if path else "missing"


@contextmanager
def prometheus(configure: Callable[[Path], Path]) -> Iterator[str]:
    """A Prometheus of the test's own, ready; gives its URL.

    Args:
        configure: writes its configuration into a directory, and gives the file.

    Raises:
        NoAlerting: there is none.
    """
    binary = _binary(PROMETHEUS, "prometheus")
    with scratch_directory("prometheus") as scratch:
        file = configure(scratch)

        def command(port: int) -> Sequence[str]:
            return [
                binary, f"--config.file={file}", f"--storage.tsdb.path={scratch / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                # It finds its Alertmanager seconds after it has the first alert to tell.
                "--rules.alert.resend-delay=1s",
            ]  # fmt: skip

        with running(lambda port: list(command(port)), _ready, scratch, signal.SIGTERM) as port:
            yield f"http://127.0.0.1:{port}"


@contextmanager
def alertmanager(configure: Callable[[Path], Path]) -> Iterator[str]:
    """An Alertmanager of the test's own, ready; see `prometheus`."""
    binary = _binary(ALERTMANAGER, "prometheus-alertmanager")
    with scratch_directory("alertmanager") as scratch:
        file = configure(scratch)

        def command(port: int) -> Sequence[str]:
            return [
                binary, f"--config.file={file}", f"--storage.path={scratch / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            ]  # fmt: skip

        with running(lambda port: list(command(port)), _ready, scratch, signal.SIGTERM) as port:
            yield f"http://127.0.0.1:{port}"


def missing(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What to install so that there are both."""
    return [
        f"install {_BINARIES[variable][0]} or name its binary in {variable}"
        for variable in (PROMETHEUS, ALERTMANAGER)
        if resolve(variable, environ) is None
    ]


def _binary(variable: str, package: str) -> str:
    path = resolve(variable)
    if path is None:
        required = " (this run asked for real services)" if requires_real() else ""
        raise NoAlerting(f"install {package}, or name its binary in {variable}{required}")
    return path


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).is_success
    except httpx.TransportError:
        return False
