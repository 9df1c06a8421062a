"""The API as it is deployed, a process on a socket, for tests of what speaks to it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from builders import wait_until
from databases import migrate

from riskhub import cast
from riskhub.settings import Settings
from riskhub.store import create_engine

ROOT = Path(__file__).parents[1]


def migrate_home(home: Path) -> None:
    """Make the database that the API finds in `home`."""
    migrate_database(Settings(home=home, database_url=None).effective_database_url)


def migrate_database(url: str) -> None:
    """Make the tables that the API finds in a database."""
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()


def environment(home: Path, **settings: str) -> dict[str, str]:
    """What a process of ours finds: nothing of riskhub's but these, and its home."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RISKHUB_")}
    # What a server leaves that is killed, it leaves in `home`.
    ours = {"RISKHUB_HOME": str(home), "TMPDIR": str(home)}
    return others | ours | settings | {"PYTHONPATH": str(ROOT)}


def log_of(home: Path) -> str:
    """What the API over `home` has said."""
    return (home / "api.log").read_text()


@contextmanager
def api_process(home: Path, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The API over the database in `home`, ready; killed outright at the end, if not before.

    Args:
        settings: as the environment has them, such as ``RISKHUB_API_WORKERS="2"``.
    """
    with (
        (home / "api.log").open("ab") as log,
        subprocess.Popen(
            cast.command_api(),
            env=environment(home, RISKHUB_API_PORT=str(port), **settings),
            cwd=home,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _is_ready(port), within_sec=60)
            assert process.poll() is None, log_of(home)
            yield process
        finally:
            process.kill()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False
