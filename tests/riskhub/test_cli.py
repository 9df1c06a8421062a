"""The command line: help for everything, one sentence for every failure, never a traceback."""

import gzip
import importlib
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import typer
from typed import command_of, every_command, forget_settings
from typer.testing import CliRunner, Result

from riskhub import cast, cli
from riskhub.cli import app, processes
from riskhub.cli.contents import CONTENTS
from riskhub.supervisor import ON_A_LAPTOP, Child

COMMANDS = list(every_command())
PORTS = ("API_PORT", "DAGSTER_PORT", "CODE_SERVER_PORT", "EMBEDDED_REDIS_PORT")


class Shell:
    """Types commands; each variable of the environment can be set first."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *words: str, **environment: str) -> Result:
        return CliRunner().invoke(app, list(words), env=self.environment | environment)

    def refusal(self, *words: str, **environment: str) -> str:
        """What a command that fails says: one sentence on stderr, and exit code 1."""
        result = self(*words, **environment)
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        sentence, end, rest = result.stderr.partition("\n")
        assert (end, rest) == ("\n", ""), result.stderr
        assert sentence.startswith("riskhub: ")
        return sentence


@pytest.fixture
def shell(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """A shell without settings but a home of its own and free ports; nothing may be left behind."""
    forget_settings(monkeypatch)
    ports: dict[str, str] = {}
    while len(set(ports.values())) < len(PORTS):
        ports = {f"RISKHUB_{name}": str(free_port()) for name in PORTS}
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    # Should something start that must not, it ends by itself.
    ends = {"RISKHUB_EXIT_WHEN_READY": "1"}
    before = set(psutil.Process().children())  # services of the whole test run, for example
    yield Shell(ports | ends | {"RISKHUB_HOME": str(tmp_path / "home")})
    for number, handler in handlers.items():
        signal.signal(number, handler)
    started = set(psutil.Process().children()) - before
    assert not [child.cmdline() for child in started]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(shell: Shell, words: list[str]) -> None:
    result = shell(*words, "--help")
    assert result.exit_code == 0
    assert f"Usage: root {' '.join(words)}".strip() in result.stdout


def test_each_command_is_in_the_contents_once_with_a_line_that_fits() -> None:
    entries = [entry for lines in CONTENTS.values() for entry in lines.items()]
    modules = {module for _, (module, _) in entries}
    apps = [importlib.import_module(f"riskhub.cli.{module}").app for module in modules]

    assert sorted(name for name, _ in entries) == sorted(
        name for each in apps for name in typer.main.get_group(each).commands
    )
    assert not [line for _, (_, line) in entries if len(line) > 58 or not line.endswith(".")]


def test_every_module_of_commands_is_in_the_contents() -> None:
    named = {module for lines in CONTENTS.values() for module, _ in lines.values()}
    there = {module.name for module in pkgutil.iter_modules(cli.__path__)}

    assert named == there - {"contents", "frame"}


def test_to_list_all_commands_takes_none_of_them() -> None:
    listed = (
        "import sys; from typer.testing import CliRunner; from riskhub.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print(sorted(name for name in sys.modules if name.startswith('riskhub')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == str(
        ["riskhub", "riskhub.cli", "riskhub.cli.contents", "riskhub.cli.frame", "riskhub.errors"]
    )


def test_the_reader_of_an_answer_may_go() -> None:
    riskhub = f"{sys.executable} -m riskhub config show --json"

    done = subprocess.run(
        ["sh", "-c", f"{riskhub} | true"], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("words", [words for words in COMMANDS if words], ids=" ".join)
def test_every_command_says_what_it_does(words: list[str]) -> None:
    command, rest = command_of(words)
    assert not rest
    assert command.help


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["up", "--nope"], "No such option: --nope"),
        (["nope"], "No such command 'nope'"),
        (["up", "more"], "unexpected extra argument"),
        (["redis", "--port", "abc"], "--port"),
        (["redis", "--port", "0"], "--port"),
        (["up", "--history", "abc"], "'abc' is not a year"),
        (["up", "--history", "2008-"], "'2008-' is not a year"),
        (["up", "--history", "2009-2008"], "ends before it begins"),
        (["demo", "history", "--history", ""], "is not a year"),
    ],
)
def test_a_wrong_usage_is_exit_code_2_with_the_usage(
    shell: Shell, words: list[str], complaint: str
) -> None:
    result = shell(*words)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Usage: " in result.stderr
    assert complaint in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_no_command_at_all_shows_the_help(shell: Shell) -> None:
    assert "Start everything in this terminal" in shell().output


@pytest.mark.parametrize("value", ["abc", "0", "99999", "-1"])
@pytest.mark.parametrize("name", PORTS)
def test_a_bad_setting_is_named(shell: Shell, name: str, value: str) -> None:
    assert f"RISKHUB_{name}: " in shell.refusal("up", **{f"RISKHUB_{name}": value})


@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port_is_named_with_its_setting(shell: Shell, name: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        refusal = shell.refusal("up", **{f"RISKHUB_{name}": port})
    assert refusal == f"riskhub: port {port} is taken (choose another with RISKHUB_{name})"


def test_a_truncated_price_file_is_named_before_anything_is_made(
    shell: Shell, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv.gz"
    prices.write_bytes(gzip.compress(b"Date,A\n2020-01-01,1\n" * 1000)[:-20])
    refusal = shell.refusal("up", "--demo", RISKHUB_PRICES_PATH=str(prices))
    assert f"price file {prices} is corrupt: not a whole gzip archive" in refusal
    assert not (tmp_path / "home").exists()


def test_a_missing_price_file_is_named(shell: Shell, tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv.gz"
    assert f"price file {prices} is missing" in shell.refusal("up", RISKHUB_PRICES_PATH=str(prices))


def test_years_without_prices_are_refused_before_anything_is_made(
    shell: Shell, tmp_path: Path
) -> None:
    refusal = shell.refusal("up", "--demo", "--history", "1980")
    assert "they go from 1990-01-02 to 2022-12-28" in refusal
    assert not (tmp_path / "home").exists()


def test_a_home_that_is_a_file_is_named(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("mine")
    refusal = shell.refusal("up", RISKHUB_HOME=str(home))
    assert f"can't write to {home}" in refusal
    assert "RISKHUB_HOME" in refusal
    assert home.read_text() == "mine"


def test_a_home_that_cannot_be_made_is_named(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    assert f"can't write to {home}" in shell.refusal("up", RISKHUB_HOME=str(home))


def test_a_database_that_does_not_answer_is_told(
    shell: Shell, free_port: Callable[[], int]
) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/hub"
    for command in ("up", "migrate", "api"):
        refusal = shell.refusal(command, RISKHUB_DATABASE_URL=url)
        assert "the database can't be used now" in refusal
        assert "refused" in refusal
        assert "secret" not in refusal


@pytest.mark.parametrize("url", ["garbage", "mysql://me:secret@localhost/hub"])
def test_a_database_that_is_not_known_is_told_without_its_password(shell: Shell, url: str) -> None:
    sentence = shell.refusal("migrate", RISKHUB_DATABASE_URL=url)
    assert "database URL" in sentence
    assert "secret" not in sentence


def test_a_database_in_an_impossible_directory_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    url = f"sqlite:///{tmp_path}/file/hub.db"
    assert f"{tmp_path}/file" in shell.refusal("up", RISKHUB_DATABASE_URL=url)


def test_a_redis_that_does_not_answer_is_told(shell: Shell, free_port: Callable[[], int]) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert "RISKHUB_REDIS_URL" in shell.refusal("up", RISKHUB_REDIS_URL=url)


@pytest.mark.parametrize("database", ["history/runs.db", "events/index.db"])
def test_an_unusable_storage_of_dagster_is_told(
    shell: Shell, tmp_path: Path, database: str
) -> None:
    storage = tmp_path / "home" / "dagster" / database
    storage.parent.mkdir(parents=True)
    storage.write_text("this is no database\n" * 100)
    refusal = shell.refusal("up")
    assert "Dagster's storage in " in refusal
    assert "file is not a database" in refusal


def test_the_api_needs_a_migrated_database(shell: Shell) -> None:
    assert "run `riskhub migrate`" in shell.refusal("api")


def test_migrate_makes_the_tables_and_can_be_said_twice(shell: Shell) -> None:
    for _ in range(2):
        result = shell("migrate")
        assert (result.exit_code, result.stdout) == (0, "the database is up to date\n")


def test_a_report_without_history_says_how_to_get_one(shell: Shell) -> None:
    shell("migrate")
    assert "`riskhub demo history`" in shell.refusal("demo", "report")


def test_history_without_a_hub_says_how_to_start_one(shell: Shell) -> None:
    assert "`riskhub up`" in shell.refusal("demo", "history")


def test_the_stand_in_says_when_its_port_is_taken(shell: Shell) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert f"can't listen on port {port}" in shell.refusal("redis", "--port", port)


def test_a_child_that_would_not_stay_up_ends_up_and_its_log_is_named(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Child("dying", [sys.executable, "-c", "raise SystemExit(3)"], lambda: True)
    monkeypatch.setattr(cast, "groups", lambda _: [[dying]])
    result = shell("up", RISKHUB_EXIT_WHEN_READY="0")
    assert result.exit_code == 1
    assert result.stderr == (
        "riskhub: dying ended with exit code 3 and would not stay up; "
        f"see {tmp_path / 'home' / 'logs' / 'dying.log'}\n"
    )
    assert result.stdout.count("starting it again") == ON_A_LAPTOP.restarts


def test_ctrl_c_is_an_orderly_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "up", interrupted)
    result = shell("up")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "stopped\n", "")


def test_a_bug_is_not_made_to_look_like_a_refusal(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(processes, "up", broken)
    assert isinstance(shell("up").exception, ZeroDivisionError)


def test_what_a_shell_sees_of_a_refusal(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riskhub", "up"],
        env=os.environ | shell.environment | {"RISKHUB_API_PORT": "abc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("riskhub: RISKHUB_API_PORT: ")
    assert done.stderr.count("\n") == 1


def test_dagsters_processes_end_when_asked_to_also_in_the_background(tmp_path: Path) -> None:
    # In place of Dagster's webserver: tells what it was started with.
    (tmp_path / "dagster_webserver.py").write_text(
        "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    )
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

    done = subprocess.run(
        [sys.executable, "-m", "riskhub", "dagster", "web"],
        env=environment | {"RISKHUB_HOME": str(tmp_path), "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("False", "")
