"""A run worker with one task more: it notes that it begins, and ends when the test lets it.

Run as ``python tests/lingering.py NAME`` with the environment of a run worker.
"""

import os
import sys
import time
from pathlib import Path

import celery

from riskhub.settings import Settings, load_settings
from riskhub_dagster.run_worker import make_app, serve

LINGER = "linger"


def app_of(settings: Settings) -> celery.Celery:
    """The app of a run worker, with the task."""
    app = make_app(settings)

    @app.task(name=LINGER)
    def linger(notes: str, release: str) -> None:
        with Path(notes).open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not Path(release).exists():
            time.sleep(0.02)

    return app


if __name__ == "__main__":
    settings = load_settings()
    sys.exit(serve(app_of(settings), name=sys.argv[1], concurrency=1))
