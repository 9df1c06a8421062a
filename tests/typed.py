"""Commands of `riskhub` as they are typed, and the environment that they are typed in."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import typer

from riskhub.cli import app
from riskhub.cli.frame import Commands


def command_of(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command or group that words name, and the words behind it."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = _part(command, rest.pop(0))
    return command, rest


def every_command() -> Iterator[list[str]]:
    """Every command and group, as it is typed."""
    return _commands_of(typer.main.get_command(app))


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no setting in the environment: what a test says of one is all there is."""
    for name in list(os.environ):
        if name.startswith("RISKHUB_"):
            monkeypatch.delenv(name)


def _commands_of(group: Any, *before: str) -> Iterator[list[str]]:
    yield list(before)
    for name in list(getattr(group, "commands", {})):
        yield from _commands_of(_part(group, name), *before, name)


def _part(group: Any, name: str) -> Any:
    return group.imported(name) if isinstance(group, Commands) else group.commands[name]
