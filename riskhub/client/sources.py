"""Files of weights as snapshots, one after the other, however long the file is.

NDJSON: each line a whole snapshot, or ``{"world_id", "as_of", "weights"}``. Parquet: long form, one
row a weight, with the columns ``world_id`` (may be missing when one world is named), ``as_of`` (a
time with a zone, a date, or text) or ``date``, ``symbol``, ``weight`` and, if wanted, ``version``.
The rows of a snapshot stand together, and those of a world are sorted by time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from riskhub.errors import ContractViolation, RiskHubError
from riskhub.snapshot import format_instant, parse_instant
from riskhub.strict_json import Document, parse_json, violation

ROWS_PER_BATCH = 65_536


class SourceUnusable(RiskHubError):
    """The file can't be read as a source of snapshots; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Item:
    """One snapshot of a source, or why what stands there is none.

    `place` names it for people (``line 7``), `position` is how far in the file its end is, in the
    unit of `Source.length`.
    """

    place: str
    position: int
    document: Document
    problem: ContractViolation | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file of snapshots.

    Args:
        path: ``.parquet`` or ``.pq``, else NDJSON.
        worlds: only these; empty for all. A single one is the world of what names none.
        at: the time of day, such as ``21:00Z``, that a date without a time stands for.
    """

    path: Path
    worlds: frozenset[str] = frozenset()
    at: str = "21:00:00Z"

    @property
    def is_parquet(self) -> bool:
        """Whether it is read as Parquet."""
        return self.path.suffix in (".parquet", ".pq")

    def length(self) -> int:
        """Rows of a Parquet file, else bytes. Raises `SourceUnusable`."""
        if not self.is_parquet:
            return self.path.stat().st_size
        with _parquet(self.path) as file:
            return int(file.metadata.num_rows)

    def items(self) -> Iterator[Item]:
        """The snapshots of the wanted worlds, in the order of the file.

        Raises:
            SourceUnusable: columns are missing, or rows are not in order.
        """
        for item in self._rows() if self.is_parquet else self._lines():
            if item.problem or not self.worlds or item.document.get("world_id") in self.worlds:
                yield item

    def _lines(self) -> Iterator[Item]:
        position = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                position += len(line)
                if not line.strip():
                    continue
                place = f"line {number}"
                try:
                    yield Item(place, position, self._completed(parse_json(line)))
                except ContractViolation as problem:
                    yield Item(place, position, {}, problem)

    def _rows(self) -> Iterator[Item]:
        group: _Group | None = None
        latest: dict[str, str] = {}
        for number, (world, when, version, symbol, weight) in enumerate(self._cells(), 1):
            key = (world, when)
            if group is None or group.key != key:
                if group:
                    yield self._item(group, number - 1)
                self._check_order(latest, key, number)
                group = _Group(key, version, number)
            group.add(symbol, weight, version)
        if group:
            yield self._item(group, number)

    def _cells(self) -> Iterator[tuple[Any, ...]]:
        with _parquet(self.path) as file:
            yield from self._cells_of(file)

    def _cells_of(self, file: Any) -> Iterator[tuple[Any, ...]]:
        names = set(file.schema_arrow.names)
        time = "as_of" if "as_of" in names else "date"
        missing = {time, "symbol", "weight"} - names
        if "world_id" not in names and len(self.worlds) != 1:
            missing |= {"world_id"}
        if missing:
            raise SourceUnusable(f"{self.path} has no column {', '.join(sorted(missing))}")
        wanted = list({"world_id", "version"} & names | {time, "symbol", "weight"})
        (only,) = self.worlds if len(self.worlds) == 1 else (None,)
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
            columns = {name: batch.column(name).to_pylist() for name in wanted}
            nothing = [None] * batch.num_rows
            yield from zip(
                columns.get("world_id", [only] * batch.num_rows),
                map(_text_of_time, columns[time]),
                columns.get("version", nothing),
                columns["symbol"],
                columns["weight"],
                strict=True,
            )

    def _check_order(self, latest: dict[str, str], key: tuple[Any, Any], number: int) -> None:
        world, when = key
        try:
            order = format_instant(parse_instant(self._instant(when)))
        except (ValueError, TypeError):
            return  # the contract will refuse it by name
        if order <= latest.get(world, ""):
            raise SourceUnusable(
                f"{self.path} row {number}: {when} of {world} comes after {latest[world]}; the "
                "rows of a snapshot must stand together, and those of a world be sorted by time"
            )
        latest[world] = order

    def _item(self, group: "_Group", position: int) -> Item:
        world, when = group.key
        place = f"row {group.first}"
        if group.problem:
            named = {"world_id": world, "as_of": when}
            return Item(place, position, named, violation(*group.problem))
        document = {"world_id": world, "as_of": when, "weights": group.weights}
        if group.version is not None:
            document["version"] = str(group.version)
        return Item(place, position, self._completed(document))

    def _completed(self, document: Document) -> Document:
        """With the version that a rerun gives again, and a date as an instant."""
        when = document.get("as_of")
        if isinstance(when, str):
            document = {"version": when} | document | {"as_of": self._instant(when)}
        if len(self.worlds) == 1 and "world_id" not in document:
            document = document | {"world_id": next(iter(self.worlds))}
        return document

    def _instant(self, when: str) -> str:
        return when if "T" in when else f"{when}T{self.at}"


@dataclass(slots=True)
class _Group:
    """The rows of one snapshot so far."""

    key: tuple[Any, Any]
    version: Any
    first: int
    weights: dict[str, float] = field(default_factory=dict)
    problem: tuple[str, str] | None = None

    def add(self, symbol: Any, weight: Any, version: Any) -> None:
        name = f"weights.{symbol}"
        if symbol in self.weights:
            self.problem = (name, "is given twice")
        elif not isinstance(symbol, str):
            self.problem = (name, "is not a symbol")
        elif isinstance(weight, str | bool) or weight is None:
            self.problem = (name, f"is {weight!r}, not a number")
        elif version != self.version:
            self.problem = ("version", f"differs between rows: {self.version} and {version}")
        else:
            self.weights[symbol] = float(weight)


def _text_of_time(value: Any) -> Any:
    if isinstance(value, datetime):
        # Without a zone the contract refuses it: whose midnight was it?
        return format_instant(value) if value.tzinfo else value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowException  # noqa: PLC0415 - slow to import, and few commands need it
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    try:
        with ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (ArrowException, OSError) as error:
        raise SourceUnusable(f"{path} can't be read as Parquet: {error}") from error
