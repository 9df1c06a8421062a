"""A hub where all is well, filled once and copied for each test; see `auditing`."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from auditing import fill, settings_in

from riskhub.blobs import BlobStore, open_blobs
from riskhub.settings import Settings
from riskhub.store import Store, create_engine


@pytest.fixture(scope="package")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a hub where all is well, to be copied: its database, and its blobs."""
    home = tmp_path_factory.mktemp("well")
    fill(settings_in(home, home / "blobs"))
    shutil.copytree(home / "blobs", home / "as they were")
    return home


@pytest.fixture
def settings(well: Path, tmp_path: Path) -> Settings:
    shutil.copytree(well, tmp_path / "home")
    # References name the directory: the blobs stay where they are, and are put back.
    shutil.rmtree(well / "blobs")
    shutil.copytree(well / "as they were", well / "blobs")
    return settings_in(tmp_path / "home", well / "blobs")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with closing(Store(create_engine(settings.effective_database_url))) as opened:
        yield opened


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    opened = open_blobs(settings)
    assert opened is not None
    return opened
