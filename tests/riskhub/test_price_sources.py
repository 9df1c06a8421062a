"""One suite for every source of prices: files, objects in S3, tables."""

import gzip
import hashlib
import io
import json
import os
import random
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import service_resolution
import sqlalchemy as sa

from riskhub import bootstrap
from riskhub.effective import effective
from riskhub.prices import (
    PriceFileError,
    PriceSettings,
    PricesMissing,
    PricesUnavailable,
    load_panel,
    open_prices,
)
from riskhub.settings import Settings, SettingsInvalid, load_settings
from riskhub.store import create_engine as create_hub_engine
from riskhub.store import migrate

SECRET = "hunter2-s3cret"
DAYS = (date(2024, 1, 4), date(2024, 1, 5), date(2024, 1, 8))
SYMBOLS = ("AAA", "BRK.B")
PRICES = ((0.264, 1 / 3), (0.1 + 0.2, 40.0), (99.0, 5e-324))

Price = Any
Row = tuple[Any, Any, Price]
ROWS: list[Row] = [
    (day, symbol, price)
    for day, prices in zip(DAYS, PRICES, strict=True)
    for symbol, price in zip(SYMBOLS, prices, strict=True)
]


def canonical_digest() -> str:
    """What `riskhub.prices.as_arrow` says that a digest covers, put together by hand."""
    names = {"days": [day.isoformat() for day in DAYS], "symbols": list(SYMBOLS)}
    doubles = [price for prices in PRICES for price in prices]
    content = b"riskhub-panel/1\n" + json.dumps(names, separators=(",", ":")).encode() + b"\n"
    content += struct.pack(f"<{len(doubles)}d", *doubles)
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def with_row(day: date, symbol: str, price: Price) -> list[Row]:
    """The rows with another price in one place."""
    return [row if row[:2] != (day, symbol) else (day, symbol, price) for row in ROWS]


def without_row(day: date, symbol: str) -> list[Row]:
    return [row for row in ROWS if row[:2] != (day, symbol)]


# --- how each source is written --------------------------------------------------------------


def as_csv(rows: Sequence[Row]) -> bytes:
    symbols = list(dict.fromkeys(symbol for _, symbol, _ in rows))
    by_day: dict[date, dict[str, Price]] = {}
    for day, symbol, price in rows:
        by_day.setdefault(day, {})[symbol] = price
    lines = [
        ",".join([str(day), *("" if of[s] is None else repr(of[s]) for s in symbols)])
        for day, of in by_day.items()
    ]
    return "\n".join([",".join(["Date", *symbols]), *lines, ""]).encode()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def as_wide_parquet(rows: Sequence[Row]) -> bytes:
    days = list(dict.fromkeys(day for day, _, _ in rows))
    symbols = list(dict.fromkeys(symbol for _, symbol, _ in rows))
    prices = {(day, symbol): price for day, symbol, price in rows}
    columns = {symbol: [prices.get((day, symbol)) for day in days] for symbol in symbols}
    return parquet(pa.table({"Date": days} | columns))


def as_long_parquet(rows: Sequence[Row]) -> bytes:
    days, symbols, prices = zip(*rows, strict=True) if rows else ((), (), ())
    volume = pa.array([7] * len(rows))
    return parquet(
        pa.table({"day": list(days), "volume": volume, "symbol": symbols, "price": list(prices)})
    )


FORMS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "csv": as_csv,
    "csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "wide.parquet": as_wide_parquet,
    "long.parquet": as_long_parquet,
}


def write_table(
    url: str,
    rows: Sequence[Row],
    *,
    name: str = "prices",
    schema: str | None = None,
    columns: Sequence[str] = ("day", "symbol", "price"),
    day_type: Any = sa.Date,
    price_type: Any = sa.Double,
) -> None:
    """Make the table anew with these rows, as somebody else would: without the hub's code."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    types = (day_type, sa.String(40), price_type)
    table = sa.Table(name, sa.MetaData(schema=schema), *map(sa.Column, columns, types))
    with engine.begin() as connection:
        if schema is not None:
            connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        table.drop(connection, checkfirst=True)
        table.create(connection)
        if rows:
            connection.execute(
                sa.insert(table), [dict(zip(columns, row, strict=True)) for row in rows]
            )
    engine.dispose()


@dataclass(frozen=True)
class Source:
    """A source by its settings, and `put`, which replaces what it holds."""

    kind: str
    settings: Settings
    put: Callable[[Sequence[Row]], None]

    @property
    def is_long(self) -> bool:
        return self.kind.endswith("long.parquet") or "table" in self.kind

    @property
    def is_csv(self) -> bool:
        return "csv" in self.kind


ALL = [
    *FORMS,
    *(f"s3 {form}" for form in FORMS),
    *("sqlite table", "postgres table", "hub's table"),
]
LONG = [kind for kind in ALL if kind.endswith("long.parquet") or "table" in kind]
NO_CSV = [kind for kind in ALL if "csv" not in kind]


def s3_source(kind: str, home: Path, request: pytest.FixtureRequest) -> Source:
    form = kind.removeprefix("s3 ")
    bucket = request.getfixturevalue("s3_bucket")
    shared = {name: value for name, value in bucket if name.startswith("s3_") and value}
    del shared["s3_prefix"]
    prices = PriceSettings(kind="s3", s3_key=f"daily/prices.{form}", **shared)

    def put(rows: Sequence[Row]) -> None:
        there = service_resolution.s3_resource(bucket)
        there.Object(prices.s3_bucket, prices.s3_key).put(Body=FORMS[form](rows))

    return Source(kind, Settings(home=home, prices=prices), put)


def table_source(kind: str, home: Path, request: pytest.FixtureRequest) -> Source:
    if kind == "postgres table":
        url = request.getfixturevalue("postgres_url")
        prices = PriceSettings(kind="table", table="market.prices", database_url=url)
        return Source(
            kind,
            Settings(home=home, prices=prices),
            lambda rows: write_table(url, rows, schema="market"),
        )
    if kind == "sqlite table":
        url = f"sqlite:///{home / 'elsewhere.db'}"
        prices = PriceSettings(
            **{"kind": "table", "table": "closes", "database_url": url},
            **{"day_column": "Date", "symbol_column": "Ticker", "price_column": "Adj Close"},
        )
        columns = ("Date", "Ticker", "Adj Close")
        return Source(
            kind,
            Settings(home=home, prices=prices),
            lambda rows: write_table(url, rows, name="closes", columns=columns),
        )
    settings = Settings(home=home, prices=PriceSettings(kind="table", table="prices"))
    engine = create_hub_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    return Source(kind, settings, lambda rows: write_table(settings.effective_database_url, rows))


@pytest.fixture(params=ALL)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    kind: str = request.param
    if kind.startswith("s3 "):
        return s3_source(kind, tmp_path, request)
    if kind.endswith("table"):
        return table_source(kind, tmp_path, request)
    path = tmp_path / f"prices.{kind}"
    settings = Settings(home=tmp_path, prices_path=path)
    return Source(kind, settings, lambda rows: path.write_bytes(FORMS[kind](rows)) and None)


def refusal(source: Source) -> str:
    with pytest.raises(PriceFileError) as refused:
        open_prices(source.settings).load()
    told = str(refused.value)
    assert told.startswith(open_prices(source.settings).label)
    assert "\n" not in told
    return told


# --- what every source does ------------------------------------------------------------------


def test_the_same_content_is_the_same_panel(source: Source) -> None:
    source.put(ROWS)
    panel = open_prices(source.settings).load()
    assert (panel.symbols, panel.days) == (SYMBOLS, DAYS)
    assert panel.prices.tolist() == [list(prices) for prices in PRICES]  # to the last bit
    with pytest.raises(ValueError, match="read-only"):
        panel.prices[0, 0] = 1.0


def test_the_digest_is_of_the_csv_or_of_the_content(source: Source) -> None:
    source.put(ROWS)
    of_csv = f"sha256:{hashlib.sha256(as_csv(ROWS)).hexdigest()}"
    expected = of_csv if source.is_csv else canonical_digest()
    assert open_prices(source.settings).load().digest == expected


@pytest.mark.parametrize("source", LONG, indirect=True)
def test_the_order_of_rows_does_not_matter(source: Source) -> None:
    shuffled = ROWS.copy()
    random.Random(7).shuffle(shuffled)  # noqa: S311
    assert shuffled != ROWS
    source.put(shuffled)
    panel = open_prices(source.settings).load()
    assert panel.digest == canonical_digest()
    assert panel.prices.tolist() == [list(prices) for prices in PRICES]


def test_a_process_reads_it_once_and_again_when_it_changes(source: Source) -> None:
    source.put(ROWS)
    first = bootstrap.price_panel(source.settings)
    assert bootstrap.price_panel(source.settings) is first

    corrected = with_row(DAYS[0], "AAA", 0.265)
    source.put(corrected)
    touch(source, at=1)
    second = bootstrap.price_panel(source.settings)
    assert second.prices[0, 0] == 0.265
    assert second.digest != first.digest

    source.put([*corrected, (date(2024, 1, 9), "AAA", 98.0), (date(2024, 1, 9), "BRK.B", 2.0)])
    touch(source, at=2)
    assert bootstrap.price_panel(source.settings).days[-1] == date(2024, 1, 9)


def touch(source: Source, at: int) -> None:
    """A file written twice within a tick of the file system's clock has one time of change."""
    if source.settings.prices.kind == "file":
        os.utime(source.settings.prices_path, (at, at))


def test_what_is_not_there_is_missing(source: Source) -> None:
    if source.kind in ("sqlite table", "postgres table"):
        source.put(ROWS)  # so that there is a database
        prices = source.settings.prices.model_copy(update={"table": "absent"})
        settings = source.settings.model_copy(update={"prices": prices})
        source = replace(source, settings=settings)
    assert "is missing" in refusal(source)
    for ask in (open_prices(source.settings).fingerprint, open_prices(source.settings).load):
        with pytest.raises(PricesMissing):
            ask()


@pytest.mark.parametrize("source", NO_CSV, indirect=True)
class TestRefusals:
    """What a CSV is refused for is in `test_prices`."""

    def test_a_null_is_named_by_symbol_and_day(self, source: Source) -> None:
        source.put(with_row(DAYS[1], "BRK.B", None))
        assert refusal(source).endswith("is corrupt: BRK.B on 2024-01-05 has no price")

    def test_a_row_that_is_not_there_is_named_by_symbol_and_day(self, source: Source) -> None:
        source.put(without_row(DAYS[1], "BRK.B"))
        assert refusal(source).endswith("is corrupt: BRK.B on 2024-01-05 has no price")

    def test_a_symbol_without_any_price_is_named_with_its_first_day(self, source: Source) -> None:
        source.put([(day, symbol, None if symbol == "AAA" else p) for day, symbol, p in ROWS])
        assert "AAA on 2024-01-04 has no price" in refusal(source)

    @pytest.mark.parametrize(("price", "told"), [(0.0, "0"), (-1.5, "-1.5"), (float("inf"), "inf")])
    def test_an_impossible_price_is_named(self, source: Source, price: float, told: str) -> None:
        source.put(with_row(DAYS[2], "AAA", price))
        assert f"AAA on 2024-01-08 has the price {told}" in refusal(source)

    def test_nothing_at_all_is_no_panel(self, source: Source) -> None:
        source.put([])
        assert "it has no prices" in refusal(source)


@pytest.mark.parametrize("source", LONG, indirect=True)
class TestRefusalsOfRows:
    def test_a_second_price_of_a_day_is_named_even_when_it_is_the_same(
        self, source: Source
    ) -> None:
        source.put([*ROWS, ROWS[3]])
        assert "BRK.B on 2024-01-05 has several prices" in refusal(source)

    def test_a_row_without_a_symbol_is_told(self, source: Source) -> None:
        source.put([*ROWS, (DAYS[0], None, 1.0)])
        assert "a row has no symbol" in refusal(source)

    def test_a_row_without_a_day_is_told(self, source: Source) -> None:
        source.put([*ROWS, (None, "AAA", 1.0)])
        assert "a row has no day" in refusal(source)


# --- Parquet ---------------------------------------------------------------------------------


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[bytes], Any]:
    """The panel that some Parquet has."""

    def load(content: bytes) -> Any:
        path = tmp_path / "prices.pq"
        path.write_bytes(content)
        return load_panel(path)

    return load


WIDE = {"AAA": [prices[0] for prices in PRICES], "BRK.B": [prices[1] for prices in PRICES]}


@pytest.mark.parametrize(
    "days",
    [
        pa.array(DAYS, pa.date64()),
        pa.array([day.isoformat() for day in DAYS]),
        pa.array([day.isoformat() for day in DAYS]).dictionary_encode(),
        pa.array([f"{day}T00:00:00" for day in DAYS], pa.large_string()),
        pa.array([datetime(d.year, d.month, d.day) for d in DAYS], pa.timestamp("ns")),  # noqa: DTZ001
        pa.array([datetime(d.year, d.month, d.day) for d in DAYS], pa.timestamp("s", "UTC")),  # noqa: DTZ001
        # Midnight in New York is five in the morning: the day is the one it is there.
        pa.array(
            [datetime(d.year, d.month, d.day, 5) for d in DAYS],  # noqa: DTZ001
            pa.timestamp("us", "America/New_York"),
        ),
    ],
    ids=lambda days: str(days.type),
)
def test_a_day_is_a_day_of_whatever_type(loaded, days: pa.Array) -> None:
    assert loaded(parquet(pa.table({"d": days} | WIDE))).digest == canonical_digest()


@pytest.mark.parametrize("named", ["Date", None])
def test_the_index_of_pandas_is_the_day(loaded, tmp_path: Path, named: str | None) -> None:
    index = pd.DatetimeIndex(DAYS, name=named)
    frame = pd.DataFrame({"BRK.B": WIDE["BRK.B"], "AAA": WIDE["AAA"]}, index=index)
    frame.to_parquet(tmp_path / "frame.parquet")
    assert load_panel(tmp_path / "frame.parquet").digest == canonical_digest()
    frame.reset_index().to_parquet(tmp_path / "column.parquet")
    assert load_panel(tmp_path / "column.parquet").digest == canonical_digest()


def test_the_gap_of_a_pandas_frame_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame(WIDE, index=pd.DatetimeIndex(DAYS))
    frame.iloc[1, 0] = np.nan
    frame.to_parquet(tmp_path / "frame.parquet")
    with pytest.raises(PriceFileError, match="AAA on 2024-01-05 has no price"):
        load_panel(tmp_path / "frame.parquet")


def test_integers_and_decimals_are_the_nearest_doubles(loaded) -> None:
    cents = [Decimal("0.264"), Decimal("0.098"), Decimal("123456789.123")]
    table = pa.table({"d": DAYS, "AAA": pa.array(cents), "BRK.B": pa.array([1, 2, 3], pa.int32())})
    prices = loaded(parquet(table)).prices
    assert prices.tolist() == [[0.264, 1.0], [0.098, 2.0], [123456789.123, 3.0]]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"d": DAYS[::-1]} | WIDE, "2024-01-05 follows 2024-01-08: days must increase"),
        ({"d": [DAYS[0], DAYS[0], DAYS[2]]} | WIDE, "2024-01-04 follows 2024-01-04"),
        ({"d": [DAYS[0], None, DAYS[2]]} | WIDE, "a row has no day"),
        ({"d": ["2024-01-04", "soon", "2024-01-08"]} | WIDE, "not a day: .*'soon'"),
        ({"d": [1, 2, 3]} | WIDE, "the days are of type int64"),
        (
            {"d": [datetime(2024, 1, day, 16) for day in (4, 5, 8)]} | WIDE,  # noqa: DTZ001
            "not a day: 2024-01-04 16:00:00",
        ),
        ({"d": DAYS, "AAA": ["1", "2", "3"]}, "the column AAA is of type string, not a number"),
        ({"d": DAYS, "AAA": [True, True, True]}, "the column AAA is of type bool"),
        ({"d": DAYS}, "it has no prices"),
        ({"day": DAYS, "symbol": [1, 2, 3], "price": [1.0] * 3}, "symbols are of type int64"),
        ({"day": DAYS, "symbol": ["", "A", "A"], "price": [1.0] * 3}, "a row has no symbol"),
    ],
)
def test_columns_that_are_no_panel_are_refused(loaded, columns: Any, reason: str) -> None:
    with pytest.raises(PriceFileError, match=f"is corrupt: .*{reason}"):
        loaded(parquet(pa.table({name: pa.array(column) for name, column in columns.items()})))


def test_a_column_that_is_there_twice_is_refused(loaded) -> None:
    table = pa.Table.from_arrays(
        [pa.array(DAYS), pa.array([1.0] * 3), pa.array([2.0] * 3)], names=["d", "AAA", "AAA"]
    )
    with pytest.raises(PriceFileError, match="duplicate columns AAA"):
        loaded(parquet(table))


def test_a_file_that_is_cut_or_no_parquet_is_refused(loaded) -> None:
    whole = as_long_parquet(ROWS)
    for content in (b"", b"Date,AAA\n", whole[: len(whole) // 2], whole[:-1]):
        with pytest.raises(PriceFileError, match="not a whole Parquet file"):
            loaded(content)


# --- tables ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'elsewhere.db'}"


def in_table(url: str, **named: Any) -> Settings:
    return Settings(prices=PriceSettings(kind="table", table="prices", database_url=url, **named))


def test_numeric_prices_are_the_nearest_doubles(postgres_url: str) -> None:
    rows = [(day, "AAA", Decimal(text)) for day, text in zip(DAYS, ["0.264", "0.1", "7"])]  # noqa: B905
    write_table(postgres_url, rows, price_type=sa.Numeric(18, 3))
    assert open_prices(in_table(postgres_url)).load().prices.tolist() == [[0.264], [0.1], [7.0]]


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_timestamps_at_midnight_are_days_and_others_are_not(
    database: str, elsewhere: str, request: pytest.FixtureRequest
) -> None:
    url = elsewhere if database == "sqlite" else request.getfixturevalue("postgres_url")
    midnights = [(datetime(d.year, d.month, d.day), s, p) for d, s, p in ROWS]  # noqa: DTZ001
    write_table(url, midnights, day_type=sa.DateTime)
    assert open_prices(in_table(url)).load().digest == canonical_digest()
    closes = [(day + timedelta(hours=16), symbol, price) for day, symbol, price in midnights]
    write_table(url, closes, day_type=sa.DateTime)
    with pytest.raises(PriceFileError, match="not a day: 2024-01-04 16:00:00"):
        open_prices(in_table(url)).load()


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
@pytest.mark.parametrize("role", ["day", "symbol", "price"])
def test_a_column_that_is_not_there_is_told(
    database: str, role: str, elsewhere: str, request: pytest.FixtureRequest
) -> None:
    url = elsewhere if database == "sqlite" else request.getfixturevalue("postgres_url")
    write_table(url, ROWS)
    with pytest.raises(PricesUnavailable, match="Nowhere"):
        open_prices(in_table(url, **{f"{role}_column": "Nowhere"})).load()


def test_a_database_of_others_is_not_made_and_not_changed(elsewhere: str, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.db"
    with pytest.raises(PricesUnavailable, match="unable to open database file"):
        open_prices(in_table(elsewhere)).load()
    assert not path.exists()

    write_table(elsewhere, ROWS)
    before = path.read_bytes()
    assert open_prices(in_table(elsewhere)).load().days == DAYS
    assert path.read_bytes() == before
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/market",
        f"postgresql://me:x@h:{SECRET}/market",
        f"nodriver://me:{SECRET}@h/market",
        SECRET,
    ],
)
def test_a_database_that_cannot_be_asked_is_told_without_its_password(url: str) -> None:
    settings = in_table(url)
    source = open_prices(settings)
    for ask in (source.fingerprint, source.load):
        with pytest.raises(PricesUnavailable, match="price table prices can't be read") as told:
            ask()
        assert SECRET not in str(told.value)
    assert SECRET not in f"{source!r} {settings.prices!r} {source.label}"


# --- S3 --------------------------------------------------------------------------------------


def test_an_s3_that_does_not_answer_is_told_without_its_secret(
    free_port: Callable[[], int],
) -> None:
    prices = PriceSettings(
        kind="s3",
        s3_bucket="market",
        s3_key="prices.parquet",
        s3_endpoint_url=f"http://127.0.0.1:{free_port()}",
        s3_region="us-east-1",
        s3_access_key_id="me",
        s3_secret_access_key=SECRET,
        timeout_sec=0.5,
    )
    source = open_prices(Settings(prices=prices))
    with pytest.raises(PricesUnavailable, match=r"s3://market/prices\.parquet can't be") as told:
        source.load()
    assert SECRET not in f"{told.value} {source!r}"


def test_a_bucket_that_is_not_there_is_missing(s3_bucket, tmp_path: Path) -> None:
    shared = {name: value for name, value in s3_bucket if name.startswith("s3_") and value}
    del shared["s3_prefix"]
    prices = PriceSettings(
        kind="s3", s3_key="prices.csv", **(shared | {"s3_bucket": "riskhub-is-not-there"})
    )
    source = open_prices(Settings(prices=prices))
    for ask in (source.fingerprint, source.load):
        with pytest.raises(PricesMissing):
            ask()


# --- settings --------------------------------------------------------------------------------


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_PRICES__KIND", "table")
    monkeypatch.setenv("RISKHUB_PRICES__TABLE", "market.prices")
    assert open_prices(load_settings()).label == "price table market.prices"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"kind": "s3", "s3_bucket": "market"}, "needs a bucket and a key"),
        ({"kind": "s3", "s3_key": "prices.csv"}, "needs a bucket and a key"),
        ({"kind": "table"}, "needs the name of the table"),
        ({"s3_access_key_id": "me"}, "belong together"),
        ({"day_column": "price"}, "three columns"),
        ({"kind": "table", "table": "a.b.c"}, "should match pattern"),
        ({"kind": "ftp"}, "'file', 's3' or 'table'"),
    ],
)
def test_incomplete_settings_are_refused(
    given: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"RISKHUB_PRICES__{name.upper()}", value)
    with pytest.raises(SettingsInvalid, match=reason):
        load_settings()


def test_no_secret_of_theirs_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "database_url": f"postgresql://me:{SECRET}@db/market",
        "s3_access_key_id": f"AKIA-{SECRET}",
        "s3_secret_access_key": SECRET,
    }
    for name, value in secrets.items():
        monkeypatch.setenv(f"RISKHUB_PRICES__{name.upper()}", value)
    settings = load_settings()
    shown = {one.key: one.value for one in effective(settings)}
    assert shown["prices.database_url"] == "postgresql://me:***@db/market"
    assert SECRET not in str(shown)
    assert settings.prices.s3_secret_access_key is not None
    assert settings.prices.s3_secret_access_key.get_secret_value() == SECRET


def test_a_process_that_needs_none_of_them_does_not_wait_for_their_libraries() -> None:
    script = (
        "import sys; import riskhub.settings, riskhub.prices;"
        "print({'pandas', 'pyarrow', 'boto3', 'sqlalchemy'} & sys.modules.keys())"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "set()"
