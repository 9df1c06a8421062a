"""`riskhub` processes that run until they are ended."""

import secrets
import subprocess
import sys
from pathlib import Path

from served import environment


class Daemon:
    """A `riskhub` process that runs until it is ended; killed with the test."""

    def __init__(self, name: str, home: Path, settings: dict[str, str]) -> None:
        self.name = name
        self._home = home
        self._environment = environment(home, **settings)
        self._log = home / f"{name}-{secrets.token_hex(3)}.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "riskhub", self.name],
                env=self._environment,
                cwd=self._home,
                stdout=log,
                stderr=log,
            )

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.start()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
