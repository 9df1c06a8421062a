"""A panel in a file, of a form that the end of its name tells."""

from dataclasses import dataclass
from pathlib import Path

from riskhub.prices.as_csv import panel_of_csv, panel_of_gzipped_csv
from riskhub.prices.panel import (
    NotAPanel,
    PriceFileCorrupt,
    PriceFileMissing,
    PricePanel,
    PricesUnavailable,
)
from riskhub.prices.settings import PriceSettings

_PARQUET = (".parquet", ".pq")
_DEFAULT = PriceSettings()


def load_panel(path: Path, settings: PriceSettings = _DEFAULT) -> PricePanel:
    """The panel in a file: Parquet when it is called so, else CSV, gzipped if it ends in `.gz`.

    Args:
        settings: only how the columns of Parquet in long form are called.

    Raises:
        PriceFileMissing: there is none.
        PriceFileCorrupt: damaged, incomplete, or otherwise no panel.
        PricesUnavailable: it can't be read.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise PriceFileMissing(path) from error
    except OSError as error:
        raise PricesUnavailable(f"price file {path}", error.strerror or str(error)) from error
    try:
        return panel_of_file(content, path.name, settings)
    except NotAPanel as refusal:
        raise PriceFileCorrupt(path, str(refusal)) from refusal


def panel_of_file(content: bytes, name: str, settings: PriceSettings) -> PricePanel:
    """The panel in a file's content, by the end of its name. Raises `NotAPanel`."""
    if name.endswith(_PARQUET):
        from riskhub.prices.as_arrow import panel_of_parquet  # noqa: PLC0415 - slow to import

        return panel_of_parquet(
            content, settings.day_column, settings.symbol_column, settings.price_column
        )
    return panel_of_gzipped_csv(content) if name.endswith(".gz") else panel_of_csv(content)


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A `PriceSource` on a path."""

    path: Path
    settings: PriceSettings

    @property
    def label(self) -> str:
        """See `PriceSource`."""
        return f"price file {self.path}"

    def fingerprint(self) -> str:
        """See `PriceSource`."""
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PriceFileMissing(self.path) from error
        except OSError as error:
            raise PricesUnavailable(self.label, error.strerror or str(error)) from error
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def load(self) -> PricePanel:
        """See `PriceSource`."""
        return load_panel(self.path, self.settings)
