"""Child processes, kept alive: started when ready, logged by name, ended together.

What belongs here: processes. Which ones is said by `riskhub.cast`.
"""

import contextlib
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console
from rich.text import Text

from riskhub.errors import RiskHubError

_POLL_SEC = 0.1
_LAST_LINES_SEC = 2.0
_PR_SET_PDEATHSIG = 1
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")
# Of a traceback the terminal gets the error, its log the rest.
_DETAIL = re.compile(
    r"\s|\W*$|Traceback \(most recent|Stack Trace:|During handling|The above exception|\(Background"
)


class ChildFailed(RiskHubError):
    """A child process did not come up, or would not stay up."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How patient a supervisor is with its children.

    Args:
        restarts: so often within `window_sec` a child is started again when it has ended by itself;
            once more, and all is given up. None: never.
        first_pause_sec: before the second start within the window; it doubles from one to the next.
            The first start is always at once.
        longest_pause_sec: it grows no further.
        stop_sec: from asking all to end to ending them.
    """

    restarts: int | None
    window_sec: float
    first_pause_sec: float = 0.0
    longest_pause_sec: float = 0.0
    stop_sec: float = 5.0

    def pause_sec(self, starts: int) -> float:
        """How long to wait before a child is started that was so often within the window."""
        if not starts:
            return 0.0
        return min(self.first_pause_sec * 2.0 ** min(starts - 1, 30), self.longest_pause_sec)


# What is killed at the end is a run at work: its day is not written, and computed the next time.
ON_A_LAPTOP = Manner(restarts=3, window_sec=300.0)
FOR_EVER = Manner(
    restarts=None, window_sec=60.0, first_pause_sec=0.5, longest_pause_sec=15.0, stop_sec=30.0
)


@dataclass(frozen=True)
class Child:
    """A process to keep: its command, and how to tell that it serves.

    Args:
        about: what to say of it once it is ready, such as its address.
        chatter: a pattern of lines that are kept in its log, but aren't worth the terminal.
        after_revival: a command to run, when it ended by itself and has been started again, once
            it is ready; the unix time of its end is added as the last argument.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    ready_timeout_sec: float = 60.0
    about: str = ""
    chatter: str | None = None
    after_revival: Sequence[str] = ()


@dataclass
class _Running:
    child: Child
    colour: str
    log: logging.Logger
    process: subprocess.Popen[str]
    pump: threading.Thread
    restarts: list[float] = field(default_factory=list)
    due: float | None = None  # when it is started again, after it has ended
    died_at: float = 0.0
    follow_ups: list[threading.Thread] = field(default_factory=list)


class Supervisor:
    """Keeps children running until `stop`. Not to be started twice."""

    def __init__(
        self,
        console: Console,
        logs: Path,
        environment: Mapping[str, str],
        manner: Manner = ON_A_LAPTOP,
    ) -> None:
        """Start nothing yet.

        Args:
            logs: a directory; beside each child's log lies its process id, ``<name>.pid``.
        """
        self._console = console
        self._logs = logs
        self._manner = manner
        self._environment = dict(environment)
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.failure: ChildFailed | None = None

    def start(self, children: Sequence[Child]) -> None:
        """Start children side by side and return when all are ready.

        Raises:
            ChildFailed: one ended, or wasn't ready in its time; the text names its log.
        """
        started = []
        for child in children:
            colour = _COLOURS[len(self._running) % len(_COLOURS)]
            log = _file_log(child.name, self._logs)
            running = _Running(child, colour, log, *self._spawn(child, colour, log))
            self._running.append(running)
            started.append(running)
        for running in started:
            self._await_ready(running)
            name = f"{running.child.name:<8}"
            self._console.print(f"  [green]✓[/] {name} {running.child.about}".rstrip())

    def watch(self) -> None:
        """From now on start again, in the background, whatever ends by itself."""
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def raise_failure(self) -> None:
        """Raise `ChildFailed` when a child is lost for good."""
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End every child, the last one started first, with all that it started itself."""
        self._stopping.set()
        with self._lock:
            for running in reversed(self._running):
                _signal_group(running.process, signal.SIGTERM)
            deadline = time.monotonic() + self._manner.stop_sec
            for running in reversed(self._running):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(0.0, deadline - time.monotonic()))
                # Also what outlived its parent, such as a run's worker.
                _signal_group(running.process, signal.SIGKILL)
                running.process.wait()
                running.pump.join(_LAST_LINES_SEC)
                for follow_up in running.follow_ups:
                    follow_up.join()
                for handler in running.log.handlers:
                    with contextlib.suppress(OSError):  # a full disk
                        handler.close()

    def _await_ready(self, running: _Running) -> None:
        child = running.child
        deadline = time.monotonic() + child.ready_timeout_sec
        while not child.is_ready():
            code = running.process.poll()
            if code is not None:
                raise ChildFailed(f"{child.name} {_ended(code)}; see {self._log_of(child)}")
            if time.monotonic() > deadline:
                raise ChildFailed(
                    f"{child.name} was not ready after {child.ready_timeout_sec:.0f} s; "
                    f"see {self._log_of(child)}"
                )
            time.sleep(_POLL_SEC)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_SEC):
            with self._lock:
                for running in self._running:
                    if self._stopping.is_set():
                        return
                    code = running.process.poll()
                    if code is not None and running.due is None:
                        self._bury(running, code)
                    if self.failure is not None:
                        return
                    if running.due is not None and time.monotonic() >= running.due:
                        self._revive(running)

    def _bury(self, running: _Running, code: int) -> None:
        """Decide when a child that has ended is started again, if it is; and say so."""
        child, manner, now = running.child, self._manner, time.monotonic()
        running.restarts = [at for at in running.restarts if now - at < manner.window_sec]
        starts = len(running.restarts)
        if manner.restarts is not None and starts >= manner.restarts:
            self.failure = ChildFailed(
                f"{child.name} {_ended(code)} and would not stay up; see {self._log_of(child)}"
            )
            return
        _signal_group(running.process, signal.SIGKILL)  # what it had started, and has its ports
        running.died_at = time.time()
        running.due = now + (pause := manner.pause_sec(starts))
        when = f" in {pause:g} s" if pause else ""
        attempt = f" ({starts + 1} of {manner.restarts})" if manner.restarts is not None else ""
        self._console.print(
            f"[bold yellow]{child.name} {_ended(code)}; starting it again{when}{attempt}[/]"
        )

    def _revive(self, running: _Running) -> None:
        child = running.child
        running.due = None
        running.restarts.append(time.monotonic())
        running.process, running.pump = self._spawn(child, running.colour, running.log)
        if child.after_revival:
            follow_up = threading.Thread(
                target=self._follow_up,
                args=(running, running.died_at),
                daemon=True,
                name="follow-up",
            )
            follow_up.start()
            running.follow_ups.append(follow_up)

    def _follow_up(self, running: _Running, died_at: float) -> None:
        while not running.child.is_ready():
            if self._stopping.wait(_POLL_SEC):
                return
        done = subprocess.run(
            [*running.child.after_revival, str(died_at)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        running.log.info(done.stdout.strip())

    def _spawn(
        self, child: Child, colour: str, log: logging.Logger
    ) -> tuple[subprocess.Popen[str], threading.Thread]:
        process = subprocess.Popen(
            list(child.command),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A session of its own: Ctrl-C reaches us alone, and we end the children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        file = self._logs / f"{child.name}.pid"
        file.with_suffix(".pid.new").write_text(f"{process.pid}\n")
        file.with_suffix(".pid.new").replace(file)  # whoever reads it finds all of it
        pump = threading.Thread(target=self._pump, args=(process, child, colour, log), daemon=True)
        pump.start()
        return process, pump

    def _pump(
        self, process: subprocess.Popen[str], child: Child, colour: str, log: logging.Logger
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        with process.stdout as lines:
            for line in lines:
                text = Text.from_ansi(line.rstrip())
                log.info(text.plain)
                is_chatter = child.chatter and re.search(child.chatter, text.plain)
                if not (is_chatter or _DETAIL.match(text.plain) or self._stopping.is_set()):
                    self._console.print(
                        Text.assemble((f"{child.name:<8} │ ", colour), text), soft_wrap=True
                    )

    def _log_of(self, child: Child) -> Path:
        return self._logs / f"{child.name}.log"


class _LogFile(RotatingFileHandler):
    """A log that gives up a line when the disk is full, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _file_log(name: str, folder: Path) -> logging.Logger:
    folder.mkdir(parents=True, exist_ok=True)
    log = logging.Logger(name)
    handler = _LogFile(folder / f"{name}.log", maxBytes=10 * 2**20, backupCount=2, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the child, before its program: should we be killed, it is killed as well.

    Not asked to end: Dagster's processes may take long over that, and hold their ports meanwhile.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
