"""What a person types: `riskhub ...`. One module a subject, each command a few lines."""

import typer

from riskhub.cli.frame import Commands

app = typer.Typer(
    cls=Commands,
    help="riskhub: the single source of truth for portfolio risk snapshots.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _riskhub() -> None:
    """Nothing: typer wants it of an app whose commands it does not know."""


def main() -> None:
    """The `riskhub` command."""
    app()
