"""What the environment says of the settings: ``RISKHUB_<NAME>``, or a file that it names.

``RISKHUB_<NAME>_FILE`` names a file that holds what ``RISKHUB_<NAME>`` would: so Docker and
Kubernetes hand out secrets. It is read when settings are, and stands for the variable in all else;
both at once are refused unless they say the same. No refusal repeats what a file holds.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

from riskhub.errors import RiskHubError

PREFIX = "RISKHUB_"
TEST_MODE_VARIABLE = "P28_TEST_MODE"
_FILE = "_FILE"
_MOST_BYTES = 2**20  # a token or a URL is far smaller: what is larger is the wrong file


class SettingsInvalid(RiskHubError):
    """A setting has a value it can't have; the text names each one."""


class Environment(EnvSettingsSource):
    """``RISKHUB_<NAME>``, files that are named there, and the variable of deployed governors."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        given = dict(self.env_vars)
        for variable, path in named_files(settings_cls).items():
            content = _content(f"{variable}{_FILE}", path)
            if given.get(variable.lower(), content) != content:
                raise SettingsInvalid(f"{variable} and {variable}{_FILE} differ: keep one of them")
            # Nested ones would else be refused, as settings that there aren't.
            given.pop(f"{variable}{_FILE}".lower(), None)
            given[variable.lower()] = content
        self.env_vars = given

    def __call__(self) -> dict[str, Any]:
        given = super().__call__()
        if os.environ.get(TEST_MODE_VARIABLE) == "1":
            governor = given.setdefault("governor", {})
            if isinstance(governor, dict):  # else it is refused for what it is
                governor.setdefault("test_mode", True)
        return given


def named_files(settings_cls: type[BaseModel]) -> dict[str, Path]:
    """The variables for which the environment names a file, without ``_FILE``, and the files.

    A setting whose own name ends in ``_file``, such as `tokens_file`, is none of them.
    """
    return {
        name.removesuffix(_FILE): Path(value).expanduser()
        for name, value in _uppercase(os.environ)
        if name.startswith(PREFIX)
        and name.endswith(_FILE)
        and _is_setting(settings_cls, name.removesuffix(_FILE))
        and not _is_setting(settings_cls, name)
    }


def absolute_files(settings_cls: type[BaseModel]) -> dict[str, str]:
    """The same as variables for a process that works in another directory."""
    return {
        f"{variable}{_FILE}": str(path.resolve())
        for variable, path in named_files(settings_cls).items()
    }


def variable_of(path: tuple[str | int, ...]) -> str:
    """The variable of a setting, such as ``RISKHUB_GOVERNOR__MODE``."""
    return PREFIX + "__".join(map(str, path)).upper()


def given_as(path: tuple[str | int, ...]) -> str | None:
    """The variable, of this process, that a setting is or would be read from."""
    for name in (variable_of(path), f"{variable_of(path)}{_FILE}"):
        if name in variables():
            return name
    return None


def variables() -> set[str]:
    """The names of all variables there are, in capitals."""
    return {name for name, _ in _uppercase(os.environ)}


def _uppercase(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name.upper(), value) for name, value in environ.items())


def _is_setting(settings_cls: type[BaseModel], variable: str) -> bool:
    """Whether a variable is one of a setting, or of a group of them."""
    model: Any = settings_cls
    for step in variable.removeprefix(PREFIX).lower().split("__"):
        fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
        if step not in fields:
            return False
        field = fields[step]
        model = getattr(field, "annotation", None) or getattr(field, "type", None)
    return True


def _content(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode().rstrip("\r\n")
    except OSError as error:
        raise SettingsInvalid(
            f"{variable} names {path}, which can't be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{variable} names {path}, which is not UTF-8") from None
    if len(content) > _MOST_BYTES:
        raise SettingsInvalid(f"{variable} names {path}, which is larger than a setting")
    if not text:
        raise SettingsInvalid(f"{variable} names {path}, which is empty")
    return text
