"""What an audit has found: counted, with a few examples of each. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

EXAMPLES = 5

Fault = Literal["missing", "doubled", "altered", "extra"]

FINDINGS: Mapping[str, tuple[Fault, ...]] = {
    "acknowledged snapshots": ("missing", "altered"),
    "bodies": ("altered",),
    "references": ("missing", "extra"),
    "blobs": ("missing", "altered"),
    "events": ("doubled", "altered"),
    "events of landings": ("missing", "doubled"),
    "events of numbers": ("missing",),
    "events of the quarantine": ("missing", "altered"),
    "events of violations": ("missing",),
    "events of exit signals": ("missing",),
    "events on the topic": ("missing", "altered"),
    "verdicts": ("missing", "altered"),
    "quarantine": ("missing", "extra"),
    "weights": ("missing", "altered", "extra"),
    "numbers": ("missing", "altered", "extra"),
    "tails": ("missing", "extra"),
    "contributions": ("missing", "extra"),
    "stress": ("missing", "altered", "extra"),
    "stress results": ("missing", "extra"),
    "worlds": ("missing", "altered"),
    "violations": ("missing", "doubled", "altered"),
    "exit signals": ("missing", "altered", "extra"),
    "exit episodes": ("missing", "altered"),
    "exit states": ("missing", "altered"),
    "cycles": ("altered",),
    "budgets": ("missing", "altered", "extra"),
}
"""All that can be found; beside these the name of a table: `extra`, rows of a landing that is gone.

docs/production.md says of each what to do.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: kind of thing, such as ``weights``.
        fault: ``missing``: it should be there; ``doubled``; ``altered``: it does not say what it
            should; ``extra``: it should not be there.
        example: which one, and what is wrong with it.
    """

    what: str
    fault: Fault
    example: str


@dataclass(slots=True)
class Counted:
    """How often there was such a finding, and the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """All that was looked at, and found. Takes no more memory for more of it."""

    looked_at: dict[str, int] = field(default_factory=dict)
    findings: dict[tuple[str, Fault], Counted] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def look(self, what: str, count: int = 1) -> None:
        """So many more of something were looked at."""
        self.looked_at[what] = self.looked_at.get(what, 0) + count

    def add(self, found: Iterable[Finding]) -> None:
        """Count findings."""
        for finding in found:
            counted = self.findings.setdefault((finding.what, finding.fault), Counted())
            counted.count += 1
            if len(counted.examples) < EXAMPLES:
                counted.examples.append(finding.example)
