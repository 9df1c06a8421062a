"""The wheel, built and installed where there is no repository."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def ran(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    told = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def built(source: Path, directory: Path) -> Path:
    """The wheel that `pip wheel` makes of a source tree, by the pinned backend."""
    ran(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--wheel-dir", directory, source),
        cwd=directory,
    )
    (wheel,) = directory.glob("riskhub-*.whl")
    return wheel


def installation(wheel: Path, home: Path) -> Path:
    """The `bin` of an environment that has the wheel, and the dependencies of this one."""
    ran(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home)
    python = home / "venv" / "bin" / "python"
    ran(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"),
        *("--no-index", wheel),
        cwd=home,
    )
    # A path in a .pth: what .pth files lie there (that of an editable riskhub) is not looked at.
    (libraries,) = (home / "venv" / "lib").glob("python*/site-packages")
    (libraries / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def clean_environment() -> dict[str, str]:
    """Of a process that knows nothing of the repository, nor of anybody's settings."""
    ours = ("RISKHUB_", "PYTHON", "P28_", "VIRTUAL_ENV", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
