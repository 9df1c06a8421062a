"""What every command stands on: the consoles, and failures told in one sentence."""

import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from riskhub.errors import RiskHubError

console = Console()
errors = Console(stderr=True)


class Commands(TyperGroup):
    """The commands, where an expected failure is one sentence and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run one; typer itself answers a wrong usage."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.print("stopped")
        except RiskHubError as error:
            refuse(str(error))
        except OSError as error:
            if error.strerror is None:
                raise
            refuse(f"{error.filename or 'the system'}: {error.strerror}")
        return None


def refuse(sentence: str) -> NoReturn:
    """Say it on stderr, and end with exit code 1."""
    errors.print(
        Text.assemble(("riskhub: ", "bold red"), sentence), highlight=False, soft_wrap=True
    )
    sys.exit(1)
