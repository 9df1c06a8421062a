"""The supervisor, on small Python children."""

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from builders import wait_until
from rich.console import Console

from riskhub.supervisor import FOR_EVER, ON_A_LAPTOP, Child, ChildFailed, Manner, Supervisor

WAITS = "import signal\nsignal.pause()"


class Stage:
    """A supervisor whose terminal and logs can be read, and whose children are programs."""

    def __init__(self, folder: Path, manner: Manner = ON_A_LAPTOP) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self._terminal = io.StringIO()
        console = Console(file=self._terminal, width=80)
        self.supervisor = Supervisor(console, self.logs, dict(os.environ), manner)

    def child(
        self,
        name: str,
        program: str,
        *,
        is_ready: Callable[[], bool] | None = None,
        **options: object,
    ) -> Child:
        """A child that runs a program; it is ready when the program touches ``<name>.ready``."""
        ready = self.folder / f"{name}.ready"
        return Child(
            name,
            [sys.executable, "-u", "-c", program],
            is_ready or ready.exists,
            **options,  # type: ignore[arg-type]
        )

    def ready(self, name: str) -> str:
        """The line of a program that makes it ready; the file holds its process id."""
        path = self.folder / f"{name}.ready"
        return (
            "import os\n"
            f"open({str(path) + '.new'!r}, 'w').write(str(os.getpid()))\n"
            f"os.rename({str(path) + '.new'!r}, {str(path)!r})\n"
        )

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.ready").read_text())

    @property
    def shown(self) -> str:
        return self._terminal.getvalue()

    def log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.supervisor.stop()


def test_start_returns_when_every_child_is_ready_and_says_so(stage: Stage) -> None:
    names = ("first", "second")
    stage.supervisor.start(
        [stage.child(name, stage.ready(name) + WAITS, about=f"at {name}.example") for name in names]
    )
    assert all(psutil.pid_exists(stage.pid(name)) for name in names)
    assert "✓ first    at first.example" in stage.shown
    assert "✓ second   at second.example" in stage.shown


def test_a_child_that_ends_before_it_is_ready_fails_the_start_and_its_log_is_named(
    stage: Stage,
) -> None:
    child = stage.child("broken", "raise SystemExit(7)")
    with pytest.raises(ChildFailed, match=r"broken ended with exit code 7; see .*/broken\.log"):
        stage.supervisor.start([child])


def test_a_child_that_is_never_ready_fails_the_start(stage: Stage) -> None:
    child = stage.child("slow", WAITS, is_ready=lambda: False, ready_timeout_sec=0.2)
    with pytest.raises(ChildFailed, match=r"slow was not ready after 0 s; see .*/slow\.log"):
        stage.supervisor.start([child])


def test_what_a_child_says_is_shown_with_its_name_and_kept_in_its_log(stage: Stage) -> None:
    says = "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\n"
    stage.supervisor.start([stage.child("talker", says + stage.ready("talker") + WAITS)])
    wait_until(lambda: stage.shown.count("talker   │") == 2)
    assert "talker   │ to stdout\n" in stage.shown
    assert "talker   │ to stderr\n" in stage.shown
    assert "to stdout\n" in stage.log("talker")
    assert "to stderr\n" in stage.log("talker")


def test_markup_and_colour_of_a_child_are_shown_as_text(stage: Stage) -> None:
    says = "print('[red]not markup[/] \\x1b[31mred\\x1b[0m')\n"
    stage.supervisor.start([stage.child("artist", says + stage.ready("artist") + WAITS)])
    wait_until(lambda: "not markup" in stage.shown)
    assert "[red]not markup[/] red\n" in stage.shown
    assert "\x1b" not in stage.log("artist")


def test_chatter_and_the_inside_of_a_traceback_are_kept_from_the_terminal(stage: Stage) -> None:
    says = (
        "import traceback\n"
        "print('No cursor for event type X')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
        "print('after')\n"
    )
    child = stage.child(
        "daemon", says + stage.ready("daemon") + WAITS, chatter="No cursor for event type"
    )
    stage.supervisor.start([child])
    wait_until(lambda: "│ after" in stage.shown)
    assert "ZeroDivisionError: division by zero" in stage.shown
    assert "Traceback" not in stage.shown
    assert "No cursor" not in stage.shown
    assert "Traceback" in stage.log("daemon")
    assert "No cursor" in stage.log("daemon")


def test_a_child_that_is_killed_is_started_again_with_a_message(stage: Stage) -> None:
    stage.supervisor.start([stage.child("victim", stage.ready("victim") + WAITS)])
    stage.supervisor.watch()
    first = stage.pid("victim")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: stage.pid("victim") != first)
    assert psutil.pid_exists(stage.pid("victim"))
    assert "victim was ended by SIGKILL; starting it again (1 of 3)" in stage.shown
    stage.supervisor.raise_failure()


def test_what_a_killed_child_started_is_ended_before_it_is_started_again(stage: Stage) -> None:
    worker = stage.ready("worker") + WAITS
    program = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {worker!r}])\n"
        + stage.ready("parent")
        + WAITS
    )
    both = (stage.folder / "worker.ready", stage.folder / "parent.ready")
    stage.supervisor.start(
        [stage.child("parent", program, is_ready=lambda: all(path.exists() for path in both))]
    )
    stage.supervisor.watch()
    worker_pid, parent_pid = stage.pid("worker"), stage.pid("parent")
    os.kill(parent_pid, signal.SIGKILL)
    wait_until(lambda: stage.pid("parent") != parent_pid)
    wait_until(lambda: not _runs(worker_pid))


def test_a_command_is_run_when_a_child_that_died_is_ready_again(stage: Stage) -> None:
    order = stage.folder / "order"
    note = f"open({str(order)!r}, 'a').write"
    ready = stage.folder / "runner.ready"
    child = stage.child(
        "runner",
        f"{note}('start ')\n{stage.ready('runner')}{WAITS}",
        is_ready=lambda: ready.exists() and _runs(stage.pid("runner")),
        after_revival=[sys.executable, "-c", f"import sys; {note}(sys.argv[1])"],
    )
    stage.supervisor.start([child])
    stage.supervisor.watch()
    before, first = time.time(), stage.pid("runner")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: order.read_text().split()[2:] != [])
    *starts, died_at = order.read_text().split()
    assert starts == ["start", "start"]
    assert before < float(died_at) < time.time()


def test_a_child_that_will_not_stay_up_is_a_failure_that_names_its_log(stage: Stage) -> None:
    stage.supervisor.start([stage.child("dying", stage.ready("dying") + "raise SystemExit(3)")])
    stage.supervisor.watch()
    wait_until(lambda: stage.supervisor.failure is not None)
    assert stage.shown.count("starting it again") == ON_A_LAPTOP.restarts
    with pytest.raises(
        ChildFailed, match=r"dying ended with exit code 3 and would not stay up; see .*/dying\.log"
    ):
        stage.supervisor.raise_failure()


def test_restarts_that_lie_long_back_are_forgiven(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Manner(restarts=3, window_sec=0.0))
    stage.supervisor.start([stage.child("moody", stage.ready("moody") + "raise SystemExit(3)")])
    stage.supervisor.watch()
    wait_until(lambda: stage.shown.count("starting it again") > 3)
    stage.supervisor.stop()
    assert stage.supervisor.failure is None


def test_in_production_a_child_is_started_again_for_ever_ever_more_slowly(tmp_path: Path) -> None:
    stage = Stage(tmp_path, replace(FOR_EVER, first_pause_sec=0.01))
    stage.supervisor.start([stage.child("dying", stage.ready("dying") + "raise SystemExit(3)")])
    stage.supervisor.watch()
    wait_until(lambda: stage.shown.count("starting it again") > 4)
    stage.supervisor.stop()
    assert stage.supervisor.failure is None
    said = [line for line in stage.shown.splitlines() if "starting it again" in line]
    assert [line.rpartition("again")[2] for line in said[:4]] == [
        "",
        " in 0.01 s",
        " in 0.02 s",
        " in 0.04 s",
    ]


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [FOR_EVER.pause_sec(starts) for starts in range(8)]
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert {ON_A_LAPTOP.pause_sec(starts) for starts in range(4)} == {0.0}


def test_the_process_id_of_a_child_lies_beside_its_log(stage: Stage) -> None:
    stage.supervisor.start([stage.child("found", stage.ready("found") + WAITS)])
    assert (stage.logs / "found.pid").read_text() == f"{stage.pid('found')}\n"


def test_stop_tells_children_to_end_last_started_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        stage.supervisor.start([stage.child(name, stage.ready(name) + WAITS)])
    told = []
    send = os.killpg

    def killpg(group: int, number: int) -> None:
        told.append((group, number))
        send(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    stage.supervisor.stop()
    asked = [group for group, number in told if number == signal.SIGTERM]
    assert asked == [stage.pid("second"), stage.pid("first")]


def test_stop_ends_grandchildren_too(stage: Stage) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    worker = stubborn + stage.ready("worker") + "while True: signal.pause()"
    program = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {worker!r}])\n" + WAITS
    )
    stage.supervisor.start([stage.child("worker", program)])
    worker_pid = stage.pid("worker")
    stage.supervisor.stop()
    wait_until(lambda: not _runs(worker_pid))


def test_stop_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    stage = Stage(tmp_path, replace(ON_A_LAPTOP, stop_sec=0.2))
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    program = deaf + stage.ready("deaf") + "while True: signal.pause()"
    stage.supervisor.start([stage.child("deaf", program)])
    pid = stage.pid("deaf")
    stage.supervisor.stop()
    assert not _runs(pid)


def test_nothing_is_started_again_once_stopped(stage: Stage) -> None:
    stage.supervisor.start([stage.child("quiet", stage.ready("quiet") + WAITS)])
    stage.supervisor.watch()
    pid = stage.pid("quiet")
    stage.supervisor.stop()
    assert not _runs(pid)
    assert stage.pid("quiet") == pid
    assert "starting it again" not in stage.shown


def test_what_a_child_says_while_it_ends_is_in_its_log_only(stage: Stage) -> None:
    program = (
        "import signal, sys\n"
        "def leave(*_):\n    print('good bye')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
    )
    stage.supervisor.start([stage.child("polite", program + stage.ready("polite") + WAITS)])
    stage.supervisor.stop()
    assert "good bye" in stage.log("polite")
    assert "good bye" not in stage.shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_costs_log_lines_and_nothing_else(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.logs.mkdir()
    (stage.logs / "writer.log").symlink_to("/dev/full")
    says = "print('said')\n"
    stage.supervisor.start([stage.child("writer", says + stage.ready("writer") + WAITS)])
    wait_until(lambda: "│ said" in stage.shown)
    stage.supervisor.stop()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the death")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "orphan.ready"
    stage = Stage(tmp_path)
    orphan = stage.ready("orphan") + WAITS
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom rich.console import Console\n"
        "from riskhub.supervisor import Child, Supervisor\n"
        f"child = Child('orphan', [sys.executable, '-c', {orphan!r}], "
        f"Path({str(ready)!r}).exists)\n"
        f"Supervisor(Console(), Path({str(tmp_path)!r}), dict(os.environ)).start([child])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    stage.supervisor.start([stage.child("parent", program, is_ready=ready.exists)])
    wait_until(lambda: not _runs(stage.pid("orphan")))
    stage.supervisor.stop()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
