"""Labels that mean nothing must not be learnt: codes may not carry a token's own few labels."""

import random

import pytest

import lma.data
from lma.training import MethodConfig, RunConfig, SignatureShelf, TrainingConfig, run


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    lma.data.write_synthetic(folder / "log.tsv", rows=24_000, scale=1 / 1024)
    lines = (folder / "log.tsv").read_text().splitlines()
    labels = [line[0] for line in lines]
    random.Random(0).shuffle(labels)
    text = "".join(a + line[1:] + "\n" for a, line in zip(labels, lines, strict=True))
    (folder / "random.tsv").write_text(text)
    return lma.data.prepare("criteo", [folder / "random.tsv"], folder / "data")


@pytest.mark.parametrize("name", ["lma-labelled-context", "lma-learned"])
def test_test_auc_is_chance(log, name):
    config = RunConfig(
        MethodConfig(name, "4x"),
        training=TrainingConfig(epochs=2, batch_size=1024, learning_rate=3e-3),
    )
    _, result = run(log, config, SignatureShelf(log))
    rows = result.test["rows"]
    # Standard error of the AUC of a score that knows nothing (Mann-Whitney), a quarter positive.
    error = ((rows + 1) / (12 * rows * 0.25 * rows * 0.75)) ** 0.5
    assert abs(result.test["auc"] - 0.5) < 4 * error
