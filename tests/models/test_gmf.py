"""GMF against the formula, and through the commands' own way of building models."""

import pytest
import torch

import lma
from lma.allocation import Full, Hashed, LowDimension
from lma.errors import FormatError
from lma.models import GMF
from lma.training import MethodConfig, ModelConfig, RunConfig, TrainingConfig, load, run, save


def collection(dim=4, method=None, features=2, **arguments):
    configs = [lma.EmbeddingBagConfig(10 + i, dim, f"t{i}") for i in range(features)]
    return lma.EmbeddingBagCollection(configs, method=method or Full(), **arguments)


def test_the_formula_row_by_row():
    torch.manual_seed(0)
    model = GMF(collection())
    torch.nn.init.normal_(model.output.weight)
    torch.nn.init.normal_(model.output.bias)
    values = torch.tensor([[1, 2], [4, 5], [1, 5]])
    expected = []
    for user, item in model.embeddings(values).view(3, 2, 4):
        terms = [h * p * q for h, p, q in zip(model.output.weight[0], user, item, strict=True)]
        expected.append(sum(terms) + model.output.bias[0])
    torch.testing.assert_close(model(torch.zeros(3, 0), values), torch.stack(expected))


def test_it_begins_as_a_plain_product():
    model = GMF(collection(method=Hashed(), budget=400))
    values = torch.tensor([[3, 7]])
    user, item = model.embeddings(values).view(2, 4)
    torch.testing.assert_close(model(torch.zeros(1, 0), values)[0], user @ item)


def test_every_parameter_gets_a_gradient_and_empty_batches_pass():
    model = GMF(collection(method=LowDimension(dim=2)))
    model(torch.zeros(8, 0), torch.randint(0, 10, (8, 2))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model(torch.zeros(0, 0), torch.zeros(0, 2).long()).shape == (0,)


def test_it_takes_two_features_and_no_numbers():
    with pytest.raises(ValueError, match="two features, found 3"):
        GMF(collection(features=3))
    with pytest.raises(ValueError, match="no dense features, found 2; use a DLRM"):
        GMF(collection(), 2)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    """Users like the movies of their own parity, told by ids alone."""
    folder = tmp_path_factory.mktemp("ratings")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40, (4000, 2), generator=generator)
    lines = [f"{u},{m},{int(u % 2 == m % 2)}" for u, m in ids.tolist()]
    (folder / "log.csv").write_text("\n".join(["user,movie,liked", *lines]) + "\n")
    (folder / "schema.toml").write_text('label = "liked"\none_hot = ["user", "movie"]\n')
    return lma.data.prepare(
        "table", folder / "log.csv", folder / "data", schema=folder / "schema.toml"
    )


def test_a_config_chooses_it_and_a_folder_brings_it_back(ratings, tmp_path):
    config = RunConfig(
        MethodConfig("full", ""),
        ModelConfig("gmf", embedding_dim=4),
        TrainingConfig(epochs=10, batch_size=64, learning_rate=1e-2),
    )
    model, result = run(ratings, config)
    assert isinstance(model, GMF)
    assert result.test["auc"] > 0.99
    assert result.config["model"]["name"] == "gmf"
    save(model, tmp_path / "m", encoder=ratings.encoder)
    bundle = load(tmp_path / "m")
    values = torch.tensor([[1, 2], [3, 4]])
    dense = torch.zeros(2, 0)
    assert torch.equal(bundle.model(dense, values), model.eval()(dense, values))
    description = tmp_path / "m" / "lma.json"
    description.write_text(description.read_text().replace('"GMF"', '"DCN"'))
    with pytest.raises(FormatError, match="unknown model class"):
        load(tmp_path / "m")
