"""`EmbeddingBagCollection` against one module per feature over the same memory."""

import dataclasses
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lma
from lma import EmbeddingBagCollection as Collection
from lma import EmbeddingBagConfig as Config
from lma.allocation import Full, Hashed, Lma, Robe, Table
from signature_cases import random_signatures

MIXED = [
    Config(30, 8, "user", ("viewer", "author"), "mean"),
    Config(20, 4, "city", (), "sum"),
    Config(None, 8, "device", ("device",), "max"),
    Config(9, 8, "genre", ("genre",), "mean"),
]
EQUAL = [Config(30, 8, "user", ("viewer", "author")), Config(20, 8, "city"), Config(9, 8, "genre")]
SUMS = [dataclasses.replace(config, pooling="sum") for config in MIXED]
METHODS = {
    "hashed floats": Hashed(),
    "hashed blocks": Hashed(block_size=4),
    "robe": Robe(2),
    "lma": Lma(),
    "lma blocks": Lma(block_size=4, hashed_share=0.1),
    "full": Full(),
}


def collection(
    method: str, configs: list[Config] = EQUAL, budget: int = 3000, **arguments: object
) -> Collection:
    torch.manual_seed(0)
    given_budget = {} if method == "full" else {"budget": budget}
    return Collection(
        configs,
        method=METHODS[method],
        signatures=random_signatures({c.name: 9 for c in configs}, 4, 8),
        dtype=torch.float64,
        init_std=1.0,
        **given_budget,
        **arguments,
    )


def per_feature(
    model: Collection,
    values: torch.Tensor,
    offsets: torch.Tensor,
    batch: int,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Every feature through an EmbeddingBag of its own over the same memory."""
    out = []
    number = 0
    for config in model.configs:
        for _ in config.feature_names:
            bag = lma.EmbeddingBag(
                config.num_embeddings, config.embedding_dim, mode=config.pooling,
                include_last_offset=True, table=config.name, memory=model.memory,
            )  # fmt: skip
            bounds = offsets[number * batch : (number + 1) * batch + 1]
            span = slice(int(bounds[0]), int(bounds[-1]))
            own = None if weights is None else weights[span]
            out.append(bag(values[span], bounds - bounds[0], own))
            number += 1
    return torch.cat(out, 1)


def jagged(model: Collection, batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (len(model.features) * batch,), generator=generator)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    values, at = [], 0
    for config in model.configs:
        for _ in config.feature_names:
            total = int(lengths[at : at + batch].sum())
            top = config.num_embeddings or 2**62
            values.append(torch.randint(0, top, (total,), generator=generator))
            at += batch
    return torch.cat(values), offsets


def same_gradients(model: Collection, found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn(expected.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad(out, model.memory.weight, cotangent)[0]
                 for out in (found, expected)]  # fmt: skip
    dense = [g.to_dense() if g.is_sparse else g for g in gradients]
    torch.testing.assert_close(*dense)


@pytest.mark.parametrize("configs", [EQUAL, MIXED, SUMS], ids=["equal", "mixed", "sums"])
@pytest.mark.parametrize("method", METHODS)
@given(batch=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=6)
def test_jagged_is_a_bag_per_feature(
    method: str, configs: list[Config], batch: int, seed: int
) -> None:
    if method == "full" and any(c.num_embeddings is None for c in configs):
        return
    model = collection(method, configs)
    values, offsets = jagged(model, batch, seed)
    found = model(values, offsets)
    assert found.shape == (batch, sum(model.embedding_dims))
    same_gradients(model, found, per_feature(model, values, offsets, batch))
    if all(c.pooling == "sum" for c in configs):
        weights = torch.randn(len(values), dtype=torch.float64)
        expected = per_feature(model, values, offsets, batch, weights)
        same_gradients(model, model(values, offsets, weights), expected)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("configs", [EQUAL, MIXED], ids=["equal", "mixed"])
@pytest.mark.parametrize("method", METHODS)
@given(batch=st.integers(0, 5), seed=st.integers(0, 99), index=st.sampled_from([32, 64]))
@settings(max_examples=5)
def test_one_hot_is_jagged_of_length_one(
    method: str, configs: list[Config], sparse: bool, batch: int, seed: int, index: int
) -> None:
    if method == "full" and any(c.num_embeddings is None for c in configs):
        return
    model = collection(method, configs, sparse=sparse)
    generator = torch.Generator().manual_seed(seed)
    sizes = [c.num_embeddings or 1 << 20 for c in configs for _ in c.feature_names]
    columns = [torch.randint(0, size, (batch,), generator=generator) for size in sizes]
    values = torch.stack(columns, 1).to(torch.int32 if index == 32 else torch.int64)
    found = model(values)
    assert found.shape == (batch, sum(model.embedding_dims))
    offsets = torch.arange(len(sizes) * batch + 1, dtype=values.dtype)
    flat = values.T.reshape(-1)
    if not sparse:
        same_gradients(model, found, model(flat, offsets))
    same_gradients(model, model(values), per_feature(model, flat, offsets.long(), batch))


def test_full_collection_is_torch_side_by_side() -> None:
    model = collection("full", [Config(30, 8, "a"), Config(20, 8, "b")])
    ids = torch.tensor([[3, 19], [29, 0], [3, 3]])
    rows = model.memory.weight
    expected = torch.cat([rows[ids[:, 0]], rows[30 + ids[:, 1]]], 1)
    assert torch.equal(model(ids), expected)


def test_one_hot_weights_scale_vectors() -> None:
    for configs in (EQUAL, [dataclasses.replace(c, pooling="sum") for c in MIXED]):
        model = collection("hashed blocks", configs)
        values = torch.ones(3, len(model.features), dtype=torch.int64)
        weights = torch.randn(values.shape, dtype=torch.float64)
        plain = model(values)
        expected, at = [], 0
        for feature, dim in enumerate(model.embedding_dims):
            expected.append(plain[:, at : at + dim] * weights[:, feature : feature + 1])
            at += dim
        torch.testing.assert_close(
            model(values, per_sample_weights=weights), torch.cat(expected, 1)
        )


def test_features_of_one_table_read_the_same_vectors() -> None:
    model = collection("lma")
    out = model(torch.tensor([[5, 5, 1, 1]]))
    assert torch.equal(out[:, :8], out[:, 8:16])
    # Another table's token of the same id does not.
    assert not torch.equal(out[:, 16:24], out[:, 24:])


# --- keyed inputs -----------------------------------------------------------------------------


@dataclasses.dataclass
class Keyed:
    """The part of TorchRec's KeyedJaggedTensor that is read."""

    names: list[str]
    ids: torch.Tensor
    bounds: torch.Tensor
    factors: torch.Tensor | None = None

    def keys(self) -> list[str]:
        return self.names

    def values(self) -> torch.Tensor:
        return self.ids

    def offsets(self) -> torch.Tensor:
        return self.bounds

    def weights_or_none(self) -> torch.Tensor | None:
        return self.factors


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("weighted", [False, True])
@given(order=st.permutations(range(6)), batch=st.integers(0, 4), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_keys_are_matched_by_name(
    index: torch.dtype, weighted: bool, order: list[int], batch: int, seed: int
) -> None:
    model = collection("hashed blocks", SUMS)
    values, offsets = jagged(model, batch, seed)
    weights = torch.randn(len(values), dtype=torch.float64) if weighted else None
    expected = model(values, offsets, weights)
    # A sixth feature that the collection does not read is passed over.
    names = [*model.features, "unread"]
    pieces = []
    for feature in range(5):
        bounds = offsets[feature * batch : (feature + 1) * batch + 1]
        span = slice(int(bounds[0]), int(bounds[-1]))
        pieces.append((values[span], bounds.diff(), None if weights is None else weights[span]))
    pieces.append((torch.arange(batch), torch.ones(batch, dtype=torch.int64), torch.ones(batch)))
    lengths = torch.cat([pieces[k][1] for k in order])
    keyed = Keyed(
        [names[k] for k in order],
        torch.cat([pieces[k][0] for k in order]),
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(index),
        None if weights is None else torch.cat([pieces[k][2] for k in order]),
    )
    torch.testing.assert_close(model(keyed), expected)
    straight = Keyed(list(model.features), values, offsets, weights)
    assert torch.equal(model(straight), expected)


def test_keyed_inputs_that_are_refused() -> None:
    model = collection("hashed blocks", [Config(5, 8, "a"), Config(5, 8, "b")])
    ids = torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"features \['b'\] are missing; the input has \['a'\]"):
        model(Keyed(["a"], ids, torch.tensor([0, 1, 2])))
    with pytest.raises(ValueError, match=r"offsets must be \[2 keys \* batch \+ 1\], found 4"):
        model(Keyed(["b", "a"], ids, torch.tensor([0, 1, 1, 2])))
    with pytest.raises(ValueError, match="offsets must end at the number of ids, 2, found 3"):
        model(Keyed(["b", "a"], ids, torch.tensor([0, 1, 3])))
    with pytest.raises(ValueError, match=r"per_sample_weights must have the shape of values \[2\]"):
        model(Keyed(["b", "a"], ids, torch.tensor([0, 1, 2]), torch.ones(3)))
    with pytest.raises(TypeError, match="offsets must be a tensor, found list"):
        model(Keyed(["b", "a"], ids, [0, 1, 2]))  # type: ignore[arg-type]
    for wrong in ({"a": ids}, [[1, 2]], types.SimpleNamespace()):
        with pytest.raises(TypeError, match="a tensor or an object like TorchRec's"):
            model(wrong)


# --- configs ----------------------------------------------------------------------------------


def test_configs_are_checked() -> None:
    with pytest.raises(ValueError, match=r"table 'a': pooling must be one of .*, found 'min'"):
        Config(5, 8, "a", pooling="min")
    with pytest.raises(ValueError, match="needs at least one table"):
        Collection([])
    with pytest.raises(ValueError, match=r"feature names must differ, found \['x', 'x'\]"):
        Collection([Config(5, 8, "a", ("x",)), Config(5, 8, "b", ("x",))], method=Full())
    with pytest.raises(ValueError, match="tables must have different names"):
        Collection([Config(5, 8, "a", ("x",)), Config(5, 8, "a", ("y",))], method=Full())
    assert Config(5, 8, "a").feature_names == ("a",)
    assert Config(5, 8, "a", ["x", "y"]).feature_names == ("x", "y")  # type: ignore[arg-type]


def test_a_given_memory_is_owned() -> None:
    tables = [Table("a", 5, 8), Table("b", 6, 8)]
    memory = lma.SharedMemory(tables, Full())
    model = Collection([Config(6, 8, "b")], memory=memory)
    assert [name for name, _ in model.named_parameters()] == ["memory.weight"]
    assert torch.equal(model(torch.tensor([[2]])), memory.weight[7:8])
    with pytest.raises(ValueError, match=r"\['budget'\] belong to the memory, which is given"):
        Collection([Config(6, 8, "b")], memory=memory, budget=100)
    with pytest.raises(KeyError, match="no table 'c'"):
        Collection([Config(6, 8, "c")], memory=memory)


def test_a_schema_gives_one_table_per_feature() -> None:
    features = [types.SimpleNamespace(name=n, num_embeddings=5) for n in ("x", "y")]
    schema = types.SimpleNamespace(features=features)
    model = Collection.for_schema(schema, 4, method=Full())
    assert model.features == ("x", "y")
    assert model.embedding_dim == 4
    assert model.allocation is model.memory.allocation
    assert model.memory_report().bytes.weights == 10 * 4 * 4


def test_embedding_dim_where_features_differ() -> None:
    with pytest.raises(ValueError, match=r"different dimensions: \(8, 8, 4, 8, 8\)"):
        _ = collection("hashed blocks", MIXED).embedding_dim


# --- bad calls --------------------------------------------------------------------------------

TWO = [Config(5, 8, "a"), Config(5, 8, "b")]
IDS = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (IDS,),
            ValueError,
            r"values must be \[batch, 2\], or \[total\] with offsets; found \[2\]",
        ),
        ((IDS.view(2, 1),), ValueError, r"values must be \[batch, 2\]"),
        ((IDS.view(1, 2, 1),), ValueError, r"values must be \[batch, 2\]"),
        ((IDS.view(1, 2).double(),), TypeError, "ids must be int32 or int64, found torch.float64"),
        ((IDS.view(1, 2), torch.tensor([0, 1, 2])), ValueError, r"values must be \[total\] with"),
        ((IDS, torch.tensor([0, 2])), ValueError, r"\[2 features \* batch \+ 1\], found 2 entries"),
        ((IDS, torch.tensor([0, 1, 3])), ValueError, "must end at the number of ids, 2, found 3"),
        ((IDS, torch.tensor([0, 3, 2])), ValueError, "must not descend, found 3 then 2"),
        ((IDS, torch.tensor([1, 1, 2])), ValueError, r"offsets\[0\] must be 0, found 1"),
        ((IDS, torch.tensor([0.0, 1.0, 2.0])), TypeError, "offsets must be a 1-D int32 or int64"),
        ((IDS, torch.empty(0, dtype=torch.int64)), ValueError, "at least one entry, the end"),
        ((IDS, torch.tensor([0])), ValueError, "must end at the number of ids, 2, found 0"),
        ((IDS.view(1, 2) + 3,), IndexError, r"id 5 of table 'b' is outside \[0, 5\)"),
        ((IDS - 2, torch.tensor([0, 1, 2])), IndexError, r"id -1 of table 'a' is outside \[0, 5\)"),
        ((IDS, torch.tensor([0, 1, 2]), torch.ones(3)), ValueError, r"shape of values \[2\]"),
        ((IDS.view(1, 2), None, torch.ones(2)), ValueError, r"shape of values \[1, 2\]"),
    ],
)
def test_calls_that_are_refused(arguments: tuple, error: type, message: str) -> None:
    model = collection("hashed blocks", TWO)
    with pytest.raises(error, match=message):
        model(*arguments)


def test_weights_need_sums_everywhere() -> None:
    model = collection("hashed blocks", MIXED)
    with pytest.raises(ValueError, match="per_sample_weights need pooling 'sum' in every table"):
        model(torch.ones(1, 5, dtype=torch.int64), None, torch.ones(1, 5))


# --- ids outside ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["wrap", "clamp"])
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_ids_outside_are_mended(policy: str, ids: list[int]) -> None:
    model = collection("hashed blocks", TWO, out_of_range=policy)
    mended = [i % 5 if policy == "wrap" else min(max(i, 0), 4) for i in ids]
    found = model(torch.tensor([[i, i] for i in ids]))
    assert torch.equal(found, model(torch.tensor([[i, i] for i in mended])))
    bag = lma.EmbeddingBag(5, 8, table="b", memory=model.memory)
    assert torch.equal(bag(torch.tensor([ids])), bag(torch.tensor([mended])))


@pytest.mark.parametrize("policy", ["error", "wrap", "clamp"])
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_unbounded_tables_take_any_id(policy: str, ids: list[int]) -> None:
    configs = [Config(None, 8, "a"), Config(5, 8, "b")]
    model = collection("hashed floats", configs, out_of_range=policy)
    values = torch.tensor([[i, 0] for i in ids])
    places = model.allocation.places("a", values[:, 0])
    assert torch.equal(model(values)[:, :8], model.memory.weight.flatten()[places])


@pytest.mark.parametrize("policy", ["error", "wrap", "clamp"])
def test_a_table_of_no_tokens_has_no_id_to_take(policy: str) -> None:
    configs = [Config(0, 8, "a"), Config(5, 8, "b")]
    model = collection("full", configs, out_of_range=policy)
    with pytest.raises(IndexError, match=r"of table 'a' is outside \[0, 0\)"):
        model(torch.tensor([[0, 0]]))
    out = model(torch.tensor([4]), torch.tensor([0, 0, 1]))
    assert torch.equal(out, torch.cat([torch.zeros(1, 8), model.memory.weight[4:]], 1))


def test_collection_trains_a_model() -> None:
    model = nn.Sequential(collection("lma"), nn.Linear(32, 1, dtype=torch.float64))
    ids = torch.randint(0, 9, (64, 4))
    target = (ids[:, :1] % 2).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(ids), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
