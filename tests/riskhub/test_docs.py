"""What the runbook and the table of commands say can be typed, and be watched, is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import command_of

ROOT = Path(__file__).parents[2]
DOCS = ("runbook.md", "commands.md", "production.md")
# A command ends where its sentence, cell, line of code or part of a pipe does.
TYPED = re.compile(r"(?:^|`|\$ |; |& )riskhub ([^`|#\n;&]+)", re.MULTILINE)


def typed() -> Iterator[tuple[str, str]]:
    for name in DOCS:
        text = (ROOT / "docs" / name).read_text().replace("\\\n", " ")
        yield from ((name, match[1].strip()) for match in TYPED.finditer(text))


@pytest.mark.parametrize(("name", "line"), list(typed()))
def test_each_command_of_the_docs_can_be_typed(name: str, line: str) -> None:
    command, words = command_of(line.split())

    assert words != line.split(), f"{name}: there is no `riskhub {line}`"
    there_are = {option for each in command.params for option in each.opts}
    flags = {word.strip(".,:()").partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= there_are, f"{name}: riskhub {line}"


@pytest.mark.parametrize("name", DOCS)
def test_each_metric_of_the_docs_is_one(name: str) -> None:
    code = "".join(
        path.read_text() for part in ("riskhub", "api") for path in (ROOT / part).rglob("*.py")
    )
    pattern = r"\b(?:risk_hub_snapshot|riskhub_(?!dagster\b)|p28)_?[a-z0-9_]*[a-z0-9]\b"

    named = set(re.findall(pattern, (ROOT / "docs" / name).read_text()))

    missing = [metric for metric in named if metric.removesuffix("_total") not in code]
    assert sorted(missing) == []
