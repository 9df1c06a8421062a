"""Servers that tests start: on free ports, with a scratch directory, gone when the run is."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

READY_WITHIN = 30.0
STOPPED_WITHIN = 10.0
ATTEMPTS = 3  # a free port can be taken between finding it and binding it

_ROOT = Path(__file__).resolve().parents[2]

# Outlives a test run that is killed outright: end of file on stdin means that the run is gone.
_REAPER = """
read -r _
kill -"$2" "$1"; sleep 5; kill -KILL -- "-$1"
rm -rf -- "$3"
"""


@contextmanager
def running(
    command: Callable[[int], list[str]],
    answers: Callable[[int], bool],
    scratch: Path,
    stop: signal.Signals,
    **options: Any,
) -> Iterator[int]:
    """Run ``command(port)`` until the block is left; gives the port once ``answers(port)``."""
    for _ in range(ATTEMPTS):
        port = free_port()
        with running_process(command(port), scratch, stop, **options) as process:
            if comes_up(partial(answers, port), process):
                yield port
                return
    log = (scratch / "log").read_text(errors="replace")
    raise RuntimeError(f"{command(0)[0]} does not come up; its log:\n{log[-4000:]}")


def comes_up(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], within: float = READY_WITHIN
) -> bool:
    """Wait until what the process serves is ready; False if it ended or `within` seconds did."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return process.poll() is None  # or it was another's server on the same port
        time.sleep(0.05)
    return False


@contextmanager
def running_process(
    command: list[str], scratch: Path, stop: signal.Signals, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block is left; what it says goes to the log in `scratch`."""
    # A session of its own: Ctrl-C in the terminal must reach pytest first, which then stops us.
    with (scratch / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=_ROOT if command[0] == sys.executable else scratch,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **options,
        )
    reaper = subprocess.Popen(
        ["/bin/sh", "-c", _REAPER, "sh", str(process.pid), str(int(stop)), str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPPED_WITHIN)
        with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reaper.kill()
        reaper.communicate()


@contextmanager
def scratch_directory(service: str) -> Iterator[Path]:
    """A directory until the block is left."""
    directory = Path(tempfile.mkdtemp(prefix=f"riskhub-test-{service}-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
