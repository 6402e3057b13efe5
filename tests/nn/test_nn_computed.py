"""Bags, padding, ids outside and learning of methods that compute their vectors."""

import pytest
import torch
from torch import Tensor, nn

import lma
from lma import EmbeddingBagCollection as Collection
from lma import EmbeddingBagConfig as Config
from lma.allocation import DeepHash, Method, MixedDimension, TensorTrain

METHODS: list[Method] = [MixedDimension(), TensorTrain(), DeepHash()]
NAMES = [method.name for method in METHODS]
CONFIGS = [
    Config(90, 8, "user", ("viewer", "author"), "mean"),
    Config(70, 8, "city", (), "sum"),
    Config(5, 8, "genre", (), "max"),
]
TABLES = [0, 0, 1, 2]


def collection(method: Method, configs: list[Config] = CONFIGS, **arguments: object) -> Collection:
    torch.manual_seed(0)
    arguments = {"init_std": 1.0, "dtype": torch.float64, **arguments}
    # In training mode, the vectors of a deep hash depend on all tokens of the lookup.
    return Collection(configs, method=method, budget=2000, **arguments).eval()


def table_of(model: Collection, number: int) -> Tensor:
    """The full table that the memory stands for."""
    allocation, memory = model.allocation, model.memory
    ids = torch.arange(model.configs[number].num_embeddings or 0)
    return memory.lookup(ids, torch.tensor([number]), allocation.group(number))


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_bags_are_those_of_the_full_tables(method: Method) -> None:
    model = collection(method)
    batch = 6
    lengths = torch.randint(0, 4, (len(TABLES), batch))
    lengths[0, 0] = lengths[3, 1] = 0
    sizes = [CONFIGS[t].num_embeddings or 0 for t in TABLES]
    values = [torch.randint(0, s, (int(n),)) for s, n in zip(sizes, lengths.sum(1), strict=True)]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.flatten().cumsum(0)])
    found = model(torch.cat(values), offsets)
    expected = []
    for feature, table in enumerate(TABLES):
        bounds = torch.cat([lengths.new_zeros(1), lengths[feature].cumsum(0)])
        expected.append(
            nn.functional.embedding_bag(
                values[feature], table_of(model, table), bounds,
                mode=CONFIGS[table].pooling, include_last_offset=True,
            )
        )  # fmt: skip
    expected = torch.cat(expected, 1)
    torch.testing.assert_close(found, expected)
    assert not found[0, : model.embedding_dims[0]].any()
    cotangent = torch.randn_like(found)
    gradients = [
        torch.autograd.grad(out, model.memory.weight, cotangent)[0] for out in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_one_hot_is_a_row_of_each_table(method: Method) -> None:
    model = collection(method)
    values = torch.stack(
        [torch.randint(0, CONFIGS[t].num_embeddings or 0, (9,)) for t in TABLES], 1
    )
    expected = [table_of(model, table)[values[:, f]] for f, table in enumerate(TABLES)]
    torch.testing.assert_close(model(values), torch.cat(expected, 1))
    assert model(values[:0]).shape == (0, sum(model.embedding_dims))


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_weights_padding_and_ids_outside(method: Method) -> None:
    model = collection(method, out_of_range="wrap")
    memory = model.memory
    bag = lma.EmbeddingBag(70, 8, mode="sum", padding_idx=3, table="city", memory=memory)
    ids, offsets = torch.tensor([3, 74, 5, -1, 3]), torch.tensor([0, 3, 4])
    weights = torch.randn(5, dtype=torch.float64)
    table = table_of(model, 1)
    expected = torch.stack(
        [table[4] * weights[1] + table[5] * weights[2], table[69] * weights[3], 0 * table[0]]
    )
    torch.testing.assert_close(bag(ids, offsets, weights), expected)
    strict = collection(method)
    with pytest.raises(IndexError, match=r"id 70 of table 'city' is outside \[0, 70\)"):
        strict(torch.tensor([[0, 0, 70, 0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_narrow_floats_are_computed_in_wide_ones(method: Method, dtype: torch.dtype) -> None:
    model = collection(method, dtype=torch.float32)
    narrow = collection(method, dtype=dtype)
    with torch.no_grad():
        narrow.memory.weight.copy_(model.memory.weight)
        model.memory.weight.copy_(narrow.memory.weight)
    values = torch.tensor([[1, 2, 3, 4], [89, 0, 69, 0]])
    found = narrow(values)
    assert found.dtype == dtype
    assert torch.equal(found, model(values).to(dtype))


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_a_short_training_learns_what_tokens_mean(method: Method) -> None:
    configs = [Config(200, 8, "user"), Config(200, 8, "item")]
    embeddings = collection(method, configs, init_std=0.1, dtype=torch.float32)
    model = nn.Sequential(embeddings, nn.Linear(sum(embeddings.embedding_dims), 1)).train()
    truth = torch.randn(2, 200)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(300):
        ids = torch.randint(0, 200, (256, 2))
        target = truth[0, ids[:, 0]] + truth[1, ids[:, 1]]
        loss = nn.functional.mse_loss(model(ids).squeeze(1), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The target's variance is 2. A float per token explains all of it, a fifth of one not.
    assert sum(losses[-20:]) / 20 < 1
