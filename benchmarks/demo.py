"""The main job: `riskhub up --demo` from an empty directory to its first table.

Limits: 3 minutes to the table, 1.5 GiB of memory for everything together (the proportional set
size of all processes, sampled while it works).
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.service_resolution import free_port

TABLE_LIMIT_SEC = 180.0
MEMORY_LIMIT_MIB = 1536.0
PORTS = ("API", "DAGSTER", "CODE_SERVER", "EMBEDDED_REDIS")


def run() -> bool:
    """Measure one pass; True when both limits hold."""
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ) | {"RISKHUB_HOME": home, "RISKHUB_EXIT_WHEN_READY": "1"}
        environment |= {f"RISKHUB_{name}_PORT": str(free_port()) for name in PORTS}
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "riskhub", "up", "--demo"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        peak = _Peak(process.pid)
        table_after = None
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"│ defensive", line) and table_after is None:
                table_after = time.monotonic() - began
        code = process.wait()
        peak_mib = peak.stop()
        database_mib = (Path(home) / "hub.db").stat().st_size / 2**20
    if code or table_after is None:
        print(f"demo: failed with exit code {code}")
        return False
    print(f"demo: table after {table_after:5.1f} s ({table_after / TABLE_LIMIT_SEC:.0%} of limit)")
    print(f"demo: memory at most {peak_mib:5.0f} MiB ({peak_mib / MEMORY_LIMIT_MIB:.0%} of limit)")
    print(f"demo: database {database_mib:.0f} MiB")
    return table_after <= TABLE_LIMIT_SEC and peak_mib <= MEMORY_LIMIT_MIB


class _Peak:
    """The largest memory that a process and all below it had together, sampled twice a second."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The peak in MiB."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._done.wait(0.5):
            total = 0
            try:
                family = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in family:
                try:
                    memory = process.memory_full_info()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                # Where the system does not share out common pages, their whole size is counted.
                total += getattr(memory, "pss", memory.rss)
            self._peak = max(self._peak, total / 2**20)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(0 if run() else 1)
