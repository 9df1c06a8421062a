"""History through the bulk door: in chunks, resumable, each line answered for.

Landing the same snapshot again changes nothing, so progress is only a saving: when it is lost, the
source is posted again from its start. Progress counts snapshots, and belongs to one source (by its
digest) posted in one way; anything else begins anew.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

import blake3

from riskhub.client.client import RiskHubClient
from riskhub.client.prepare import Prepared
from riskhub.client.sources import Item, Source
from riskhub.errors import ContractViolation
from riskhub.strict_json import Document

LINES_PER_REQUEST = 1_000
BYTES_PER_REQUEST = 8 * 2**20
OUTCOMES = ("created", "duplicate", "valid", "conflict", "refused")
_SUCCESSES = {HTTPStatus.CREATED: "created", HTTPStatus.OK: "duplicate"}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is. `refused_bytes` is how long the file of refused lines was then."""

    key: str
    done: int = 0
    position: int = 0
    counts: dict[str, int] | None = None
    refused_bytes: int = 0

    @property
    def failed(self) -> int:
        """Snapshots that are not in the hub as they are in the source."""
        counts = self.counts or {}
        return counts.get("conflict", 0) + counts.get("refused", 0)


def key_of(source: Source, **how: Any) -> str:
    """What a progress belongs to: the source's content, and how it is posted."""
    hasher = blake3.blake3()
    hasher.update_mmap(source.path)
    parts = {"source": hasher.hexdigest(), "at": source.at, "worlds": sorted(source.worlds)}
    return blake3.blake3(json.dumps(parts | how, sort_keys=True).encode()).hexdigest()


def read_progress(path: Path, key: str) -> Progress:
    """The progress in a file; none when there is no such file, or it belongs to something else."""
    try:
        found = Progress(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return Progress(key)
    return found if found.key == key else Progress(key)


def run(
    client: RiskHubClient,
    source: Source,
    *,
    progress: Progress,
    state: Path,
    refused: Path,
    dry_run: bool = False,
    advanced: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Post what is left of a source; the state file is gone when all is answered for.

    Args:
        progress: where to go on, by `read_progress`.
        state: where the progress is kept, after each chunk.
        refused: gets a JSON line for each snapshot that didn't land, with the reasons.
        dry_run: check each snapshot here and post none.
        advanced: told after each chunk.

    Raises:
        HubUnavailable, HubRefused: what was done is kept; run it again.
        SourceUnusable: see `Source.items`.
    """
    with refused.open("ab") as reasons:
        reasons.truncate(progress.refused_bytes)  # what a killed run wrote comes again
        for chunk in _chunks(client, islice(source.items(), progress.done, None)):
            outcomes = [*_land(client, chunk, dry_run=dry_run)]
            for item, outcome, problem in outcomes:
                if problem:
                    line = {"place": item.place, "outcome": outcome, "problem": problem}
                    reasons.write(json.dumps(line | {"snapshot": item.document}).encode() + b"\n")
            reasons.flush()
            counts = Counter(progress.counts) + Counter(outcome for _, outcome, _ in outcomes)
            done = progress.done + len(chunk)
            position = chunk[-1][0].position
            progress = Progress(progress.key, done, position, dict(counts), reasons.tell())
            if not dry_run:
                _keep(state, progress)
            advanced(progress)
    if not progress.refused_bytes:
        refused.unlink()
    if not dry_run:
        state.unlink(missing_ok=True)
    return progress


_Checked = tuple[Item, Prepared | ContractViolation]


def _chunks(client: RiskHubClient, items: Iterator[Item]) -> Iterator[list[_Checked]]:
    """The items, checked, in portions that one request carries."""
    chunk: list[_Checked] = []
    held = 0
    for item in items:
        chunk.append((item, checked := _check(client, item)))
        held += len(checked.body) if isinstance(checked, Prepared) else 0
        if len(chunk) == LINES_PER_REQUEST or held >= BYTES_PER_REQUEST:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _check(client: RiskHubClient, item: Item) -> Prepared | ContractViolation:
    try:
        return item.problem or client.prepare(item.document)
    except ContractViolation as violation:
        return violation


def _land(
    client: RiskHubClient, chunk: list[_Checked], *, dry_run: bool
) -> Iterator[tuple[Item, str, Document | None]]:
    """Each item with what came of it, and the problem if it did not land."""
    lines = [checked for _, checked in chunk if isinstance(checked, Prepared)]
    answers = iter([] if dry_run or not lines else client.publish_batch(lines))
    for item, checked in chunk:
        if isinstance(checked, ContractViolation):
            errors = [asdict(error) for error in checked.errors]
            yield item, "refused", {"detail": str(checked), "errors": errors}
        elif dry_run:
            yield item, "valid", None
        else:
            answer = next(answers)
            failed = "conflict" if answer["status"] == HTTPStatus.CONFLICT else "refused"
            outcome = _SUCCESSES.get(answer["status"], failed)
            yield item, outcome, None if outcome != failed else answer


def _keep(state: Path, progress: Progress) -> None:
    # A rename, so that a kill leaves the one or the other; a power cut may cost time, no more.
    temporary = state.with_name(f".{state.name}.tmp")
    temporary.write_text(json.dumps(asdict(progress)))
    temporary.replace(state)
