"""A log without a vocabulary, from raw values to a saved model, within its budget."""

import pytest

import lma.data
from lma.training import MethodConfig, RunConfig, SignatureShelf, TrainingConfig, load, run, save


@pytest.fixture(scope="module")
def hashed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashed")
    lma.data.write_synthetic(folder / "log.tsv", rows=4000, scale=1 / 4096)
    return lma.data.prepare("criteo", [folder / "log.tsv"], folder / "data", ids="hashed")


@pytest.mark.parametrize("name", ["hashed", "lma-rows", "lma-labelled-context", "lma-learned"])
@pytest.mark.parametrize("counts", ["serving", "weights"])
def test_it_trains_in_its_budget_and_comes_back(hashed, tmp_path, name, counts):
    shelf = SignatureShelf(hashed)
    config = RunConfig(
        MethodConfig(name, "60kB", counts), training=TrainingConfig(epochs=1, batch_size=512)
    )
    model, result = run(hashed, config, shelf)
    assert 0.97 * 60_000 <= result.bytes[counts] <= 60_000
    held = sum(t.nbytes for t in model.embeddings.state_dict().values())
    assert held == result.bytes["serving"]
    if name != "hashed":
        assert result.bytes["signatures"] > 1000
        assert sum(s.num_signed for s in model.embeddings.allocation.sections) > 200
    save(model, tmp_path / "model", encoder=hashed.encoder)
    again = lma.training.evaluate(load(tmp_path / "model").model, hashed, "test")
    assert again.auc == result.test["auc"]


def test_methods_that_need_a_vocabulary_say_so(hashed):
    for name in ("full", "low-dimension", "frequency-cutoff"):
        config = RunConfig(MethodConfig(name, "60kB"))
        with pytest.raises(ValueError, match="needs num_embeddings"):
            run(hashed, config, SignatureShelf(hashed))


def test_an_index_larger_than_the_budget(hashed):
    config = RunConfig(MethodConfig("lma-rows", "2kB"))
    with pytest.raises(lma.BudgetError):
        run(hashed, config, SignatureShelf(hashed))
