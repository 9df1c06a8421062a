"""What every command stands on: the consoles, the contents, failures told in one sentence."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from riskhub.cli.contents import CONTENTS
from riskhub.errors import RiskHubError

console = Console()
errors = Console(stderr=True)


class Commands(TyperGroup):
    """The commands by their contents; an expected failure is one sentence and exit code 1.

    A command is imported when it is asked for: to list them all takes none of them.
    """

    def __init__(self, **arguments: Any) -> None:
        """List all in the order of the contents, with their panels and lines."""
        super().__init__(**arguments)
        self._modules: dict[str, str] = {}
        for panel, lines in CONTENTS.items():
            for name, (module, line) in lines.items():
                self._modules[name] = module
                self.commands[name] = TyperCommand(name, short_help=line, rich_help_panel=panel)
        self.rich_markup_mode = "markdown"

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import what is asked for."""
        self.imported(args[0])
        return super().resolve_command(ctx, args)

    def imported(self, name: str) -> Any:
        """A command with all its options; None if there is no such one."""
        if module := self._modules.pop(name, None):
            app = import_module(f"riskhub.cli.{module}").app
            self.commands[name] = get_group(app).commands[name]
            _reflow(self.commands[name])
        return self.commands.get(name)

    def invoke(self, ctx: Any) -> Any:
        """Run one; typer itself answers a wrong usage."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.print("stopped")
        except RiskHubError as error:
            refuse(str(error))
        except BrokenPipeError:  # who reads has enough, such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            if error.strerror is None:
                raise
            refuse(f"{error.filename or 'the system'}: {error.strerror}")
        return None


def _reflow(command: Any) -> None:
    """Have paragraphs of help fill the terminal's width, and not keep the lines of the source."""
    command.rich_markup_mode = "markdown"
    for each in getattr(command, "commands", {}).values():
        _reflow(each)


def refuse(sentence: str) -> NoReturn:
    """Say it on stderr, and end with exit code 1."""
    errors.print(
        Text.assemble(("riskhub: ", "bold red"), sentence), highlight=False, soft_wrap=True
    )
    sys.exit(1)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows on a terminal's stderr what is told: of what, how many more, and of how many in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, more: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.advance(tasks[what], more)

        yield show
