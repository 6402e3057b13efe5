"""A small synthetic log, prepared once."""

import pytest

import lma.data


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    lma.data.write_synthetic(folder / "log.tsv", rows=6000, scale=1 / 4096, seed=3)
    return lma.data.prepare("criteo", [folder / "log.tsv"], folder / "data")
