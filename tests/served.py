"""The API as a process on a socket, for tests of what speaks to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from builders import wait_until

from riskhub.settings import Settings
from riskhub.store import create_engine, migrate


def migrate_home(home: Path) -> None:
    """Make the database that the API finds in `home`."""
    engine = create_engine(Settings(home=home, database_url=None).effective_database_url)
    migrate(engine)
    engine.dispose()


@contextmanager
def api_process(home: Path, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The API over the database in `home`, ready; killed outright at the end, if not before."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:app_from_environment"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RISKHUB_")}
    log_path = home / "api.log"
    with (
        log_path.open("ab") as log,
        subprocess.Popen(
            [*command, "--port", str(port), "--no-access-log"],
            env=ours | {"RISKHUB_HOME": str(home)} | settings,
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _is_ready(port), within_sec=60)
            assert process.poll() is None, log_path.read_text()
            yield process
        finally:
            process.kill()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False
