"""Where the files are that are shipped beside the code: prices, scenarios, rules, `dagster.yaml`.

A wheel carries them in the package (`pyproject.toml` says which); from a source tree, or installed
editable, they are those of the repository. Not meant are templates, static files and migrations:
they lie beside the module that reads them.
"""

from pathlib import Path

from riskhub.errors import RiskHubError

_PACKAGED = Path(__file__).with_name("_shipped")
_REPOSITORY = Path(__file__).resolve().parent.parent


class NotShipped(RiskHubError):
    """This installation lacks a file that belongs to it."""


def shipped(name: str) -> Path:
    """The path of a shipped file or directory, which may not be there; see `shipped_file`.

    Args:
        name: as in the repository, such as ``data/scenarios.yaml``.
    """
    return (_PACKAGED if _PACKAGED.is_dir() else _REPOSITORY) / name


def shipped_file(name: str) -> Path:
    """The path of a shipped file. Raises `NotShipped` when the installation lacks it."""
    path = shipped(name)
    if not path.is_file():
        raise NotShipped(f"this installation has no {name}: {path} is not there")
    return path
