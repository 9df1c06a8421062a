"""How a command that keeps running tells what happens: a line each, for people and for programs."""

from datetime import UTC, datetime

from riskhub.cli.frame import console


def tell(event: str, **fields: object) -> None:
    """A line as ``at=2026-01-31T21:00:00Z event="no budgets" reason=portfolio_too_old``."""
    told = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "event": event, **fields}
    line = " ".join(f"{name}={_as_value(value)}" for name, value in told.items())
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _as_value(value: object) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    if text and not set(text) & set(' ="\n'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
