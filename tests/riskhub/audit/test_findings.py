"""Each finding that there is has been made by a test, and has its row in the docs."""

import re
from collections.abc import Iterator
from pathlib import Path

from tampering import history, landings, telling

from riskhub.audit.findings import FINDINGS
from riskhub.store.audit import TABLES

PRODUCTION = Path(__file__).parents[3] / "docs" / "production.md"
# What neither the database nor the blobs are tampered with for: a topic, and what producers say.
ELSEWHERE = {
    (what, fault)
    for what in ("acknowledged snapshots", "events on the topic")
    for fault in ("missing", "altered")
}


def documented() -> Iterator[tuple[str, str]]:
    _, _, section = PRODUCTION.read_text().partition("## Is everything there?")
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            names, faults, *_ = line.strip("|").split("|")
            yield from (
                (name, fault)
                for name in re.findall(r"`([^`]+)`", names)
                for fault in re.findall(r"[a-z]+", faults)
            )


def test_there_are_those_that_were_made() -> None:
    breaks = landings.BREAKS | telling.BREAKS | history.BREAKS
    made = {expected for _, expected in breaks.values()} | ELSEWHERE
    there_are = {(what, fault) for what, faults in FINDINGS.items() for fault in faults}
    assert made - {(table, "extra") for table in TABLES} == there_are - {
        (table, "extra") for table in TABLES
    }


def test_each_has_its_row_in_the_docs() -> None:
    rows = list(documented())
    assert sorted(rows) == sorted(
        (what, fault) for what, faults in FINDINGS.items() for fault in faults
    )
