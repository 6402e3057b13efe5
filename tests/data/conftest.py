"""Fixtures for the data tests: small prepared logs, and the real ones where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lma.data import prepare, write_synthetic


@pytest.fixture(scope="session")
def synthetic_log(tmp_path_factory):
    """A synthetic log of 3,000 rows."""
    return write_synthetic(
        tmp_path_factory.mktemp("log") / "log.tsv", rows=3000, scale=1 / 4096, seed=1
    )


@pytest.fixture(scope="session")
def synthetic_dataset(synthetic_log, tmp_path_factory):
    return prepare("criteo", synthetic_log, tmp_path_factory.mktemp("prepared") / "data", seed=3)


@pytest.fixture(scope="session")
def real_logs():
    """The folder of real logs."""
    folder = os.environ.get("LMA_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LMA_DATA does not name a folder with the real logs")
    return Path(folder)
