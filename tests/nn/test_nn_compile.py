"""Modules compile to one graph: bags, weights, padding, max and mixed poolings, touched blocks."""

import os
import shutil
import types

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import lma
from lma.allocation import Full, Hashed, Lma, QuotientRemainder
from signature_cases import random_signatures

METHODS = {
    "hashed": Hashed(block_size=4),
    "lma": Lma(block_size=4),
    "lma with private tables": Lma(block_size=4, private_share=0.6),
    "full": Full(),
}
ONE_HOT = torch.tensor([[1, 29], [49, 0], [0, 7]])
VALUES, OFFSETS = torch.tensor([3, 49, 0, 0, 1, 29]), torch.tensor([0, 2, 2, 4, 5, 6, 6])
# Dynamo warns of its own use of deprecated functions.
pytestmark = pytest.mark.filterwarnings("ignore")


def arguments(name: str) -> dict[str, object]:
    given: dict[str, object] = {"method": METHODS[name], "init_std": 1.0}
    if name != "full":
        given |= {"budget": 1500, "signatures": random_signatures({"a": 20, "b": 10}, 4, 8)}
    return given


def same_when_compiled(
    module: torch.nn.Module, memory: lma.SharedMemory, *inputs: object, backend: str = "aot_eager"
) -> None:
    """Values and gradients, compiled with no graph break and not."""
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    found = []
    for function in (module, compiled):
        memory.weight.grad = None
        out = function(*inputs)
        out.square().sum().backward()
        gradient = memory.weight.grad
        assert gradient is not None
        found.append([out.detach(), gradient.to_dense()])
        if gradient.is_sparse:
            found[-1].append(gradient.coalesce().indices())
        for factors in inputs:
            if isinstance(factors, torch.Tensor) and factors.requires_grad:
                assert factors.grad is not None
                found[-1].append(factors.grad)
                factors.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), found[0][0])


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", METHODS)
def test_collections(name: str, pooling: str) -> None:
    tables = [
        lma.EmbeddingBagConfig(50, 8, "a", pooling=pooling),
        lma.EmbeddingBagConfig(30, 8, "b", pooling=pooling),
    ]
    model = lma.EmbeddingBagCollection(tables, **arguments(name))
    same_when_compiled(model, model.memory, ONE_HOT)
    same_when_compiled(model, model.memory, VALUES, OFFSETS)
    if pooling == "sum":
        same_when_compiled(model, model.memory, VALUES, OFFSETS, torch.randn(len(VALUES)))


@pytest.mark.parametrize("name", METHODS)
def test_single_tables(name: str) -> None:
    given = arguments(name) | (
        {} if name == "full" else {"signatures": random_signatures({"table": 20}, 4, 8)}
    )
    embedding = lma.Embedding(50, 8, 7, **given)
    same_when_compiled(embedding, embedding.memory, ONE_HOT)
    bag = lma.EmbeddingBag(50, 8, mode="sum", **given)
    same_when_compiled(bag, bag.memory, ONE_HOT, None, torch.randn(3, 2))


# --- padding ------------------------------------------------------------------------------------

# With chunks and private parts, torch's own pooling, products of two rows.
KINDS = ["lma with private tables", "full", "quotient-remainder"]
PADDED = torch.tensor([[7, 1], [7, 7], [3, 7]])
BEGINS = torch.tensor([0, 1, 1, 4])


def one_table(name: str) -> dict[str, object]:
    method = METHODS.get(name, QuotientRemainder())
    signatures = random_signatures({"table": 20}, 4, 8)
    given = {} if name == "full" else {"budget": 3000, "signatures": signatures}
    return {"method": method, "init_std": 1.0, **given}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", KINDS)
def test_padding_in_bags(name: str, mode: str, sparse: bool) -> None:
    if sparse and mode == "max":
        return
    bag = lma.EmbeddingBag(50, 8, mode=mode, sparse=sparse, padding_idx=7, **one_table(name))
    if mode == "sum":
        factors = torch.randn(6, requires_grad=True)
        same_when_compiled(bag, bag.memory, PADDED.flatten(), BEGINS, factors)
    else:
        same_when_compiled(bag, bag.memory, PADDED)


@pytest.mark.parametrize("name", KINDS)
def test_padding_and_sparse_gradients(name: str) -> None:
    embedding = lma.Embedding(50, 8, 7, sparse=True, **one_table(name))
    same_when_compiled(embedding, embedding.memory, PADDED)
    same_when_compiled(embedding, embedding.memory, PADDED[:0])


@pytest.mark.parametrize("kind", [lma.Embedding, lma.EmbeddingBag])
def test_nothing_but_padding_lists_its_blocks(kind: type) -> None:
    """The one batch whose touched blocks differ: shapes are fixed, so something is read."""
    module = kind(50, 8, padding_idx=7, sparse=True, **one_table("hashed"))
    torch._dynamo.reset()
    out = torch.compile(module, fullgraph=True, backend="aot_eager")(torch.full((2, 3), 7))
    out.sum().backward()
    gradient = module.memory.weight.grad.coalesce()
    places = module.allocation.places("table", torch.tensor([7]))
    assert not out.any()
    assert not gradient.values().any()
    assert set(gradient.indices()[0].tolist()) == set((places // 4).flatten().tolist())


@pytest.mark.parametrize("kind", [lma.Embedding, lma.EmbeddingBag])
def test_padding_in_updates(kind: type) -> None:
    """Adam moves every block that a gradient lists: padding lists none, compiled or not."""
    modules = [kind(50, 8, padding_idx=7, sparse=i == 0, **one_table("hashed")) for i in range(3)]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
        lma.FusedOptimizer(module.memory, "adam", lr=0.1)
    torch._dynamo.reset()
    compiled = torch.compile(modules[2], fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SparseAdam(modules[0].parameters(), lr=0.1)
    for ids in (torch.tensor([[0, 7], [1, 2]]), torch.tensor([[7, 4], [7, 7]])):
        for function in (modules[0], modules[1], compiled):
            function(ids).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for module in modules[1:]:
        torch.testing.assert_close(module.memory.weight, modules[0].memory.weight)


def test_special_floats_beside_padding() -> None:
    bag = lma.EmbeddingBag(50, 8, mode="sum", padding_idx=7, **one_table("hashed"))
    places = bag.allocation.places("table", torch.tensor([1, 7]))
    with torch.no_grad():
        bag.memory.weight.view(-1)[places] = torch.nan
    torch._dynamo.reset()
    out = torch.compile(bag, fullgraph=True, backend="aot_eager")(PADDED)
    assert torch.equal(out.isnan(), bag(PADDED).isnan())
    assert out[0].isnan().all()
    assert not out[1].any()


# --- collections that need several lookups ------------------------------------------------------


def two_tables(
    name: str, first: str, second: str, dim: int, **given: object
) -> lma.EmbeddingBagCollection:
    tables = [
        lma.EmbeddingBagConfig(50, 8, "a", pooling=first),
        lma.EmbeddingBagConfig(30, dim, "b", ("b", "c"), pooling=second),
    ]
    return lma.EmbeddingBagCollection(tables, **arguments(name), **given)


@pytest.mark.parametrize(
    ("name", "first", "second", "dim", "sparse"),
    [
        ("lma with private tables", "sum", "max", 8, False),
        ("lma with private tables", "max", "max", 4, True),
        ("full", "mean", "max", 4, False),
        ("full", "sum", "sum", 4, True),
    ],
)
def test_mixed_collections(name: str, first: str, second: str, dim: int, sparse: bool) -> None:
    model = two_tables(name, first, second, dim, sparse=sparse)
    values = torch.tensor([3, 49, 0, 0, 1, 29, 29])
    factors = [torch.randn(7, requires_grad=True)] if (first, second) == ("sum", "sum") else []
    same_when_compiled(model, model.memory, values, torch.tensor([0, 2, 2, 4, 5, 5, 7]), *factors)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    # No entry of the first table, then none of the second.
    for ends in ([0, 0, 0, 3, 5, 6, 7], [0, 5, 7, 7, 7, 7, 7]):
        inputs = values % 30, torch.tensor(ends)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))


def test_tables_of_no_tokens() -> None:
    tables = [lma.EmbeddingBagConfig(0, 8, "a"), lma.EmbeddingBagConfig(5, 4, "b", pooling="max")]
    model = lma.EmbeddingBagCollection(tables, method=Full(), init_std=1.0)
    same_when_compiled(model, model.memory, torch.tensor([3, 4]), torch.tensor([0, 0, 0, 2, 2]))


def test_keys_in_another_order() -> None:
    keyed = types.SimpleNamespace(
        keys=lambda: ["b", "a"],
        values=lambda: VALUES % 30,
        offsets=lambda: OFFSETS,
        weights_or_none=lambda: VALUES * 0.5,
    )
    model = pair()
    same_when_compiled(model, model.memory, keyed)


def test_one_graph_unasked_and_for_other_sizes() -> None:
    bag = lma.EmbeddingBag(50, 8, mode="max", padding_idx=7, **one_table("lma"))
    mixed = two_tables("full", "sum", "max", 4)
    for model in (bag, mixed):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(model, backend=counter)
        for rows in (2, 3, 4):
            values = torch.arange(3 * rows)
            inputs = (
                (values, torch.arange(3 * rows + 1)) if model is mixed else (values.view(-1, 3),)
            )
            torch.testing.assert_close(compiled(*inputs), model(*inputs))
        # For the first size, then for any.
        assert counter.frame_count == 2


def test_several_lookups_and_one_update_are_refused() -> None:
    model = two_tables("lma", "sum", "max", 8)
    lma.FusedOptimizer(model.memory, "sgd")
    inputs = VALUES % 30, torch.tensor([0, 2, 3, 6])
    with pytest.raises(RuntimeError, match="max beside another pooling or dimension"):
        model(*inputs)
    with torch.no_grad():
        model(*inputs)


# --- whole models, the compiler, updates ----------------------------------------------------------


def test_a_whole_model() -> None:
    tables = [lma.EmbeddingBagConfig(50, 8, "a"), lma.EmbeddingBagConfig(30, 8, "b")]
    model = lma.models.DLRM(lma.EmbeddingBagCollection(tables, **arguments("lma")), 3)
    same_when_compiled(model, model.embeddings.memory, torch.randn(3, 3), ONE_HOT)


needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="Inductor needs a C++ compiler"
)


@needs_compiler
@pytest.mark.slow
def test_a_whole_model_by_inductor() -> None:
    tables = [lma.EmbeddingBagConfig(50, 8, "a"), lma.EmbeddingBagConfig(30, 8, "b")]
    model = lma.models.DLRM(lma.EmbeddingBagCollection(tables, **arguments("lma")), 3)
    inputs = torch.randn(3, 3), ONE_HOT
    same_when_compiled(model, model.embeddings.memory, *inputs, backend="inductor")


def pair(**given: object) -> lma.EmbeddingBagCollection:
    torch.manual_seed(0)
    tables = [lma.EmbeddingBagConfig(50, 8, "a"), lma.EmbeddingBagConfig(30, 8, "b")]
    return lma.EmbeddingBagCollection(tables, **arguments("lma"), **given)


def test_sparse_gradients() -> None:
    model = pair(sparse=True)
    for inputs in ((ONE_HOT,), (VALUES, OFFSETS), (VALUES, OFFSETS, torch.randn(len(VALUES)))):
        same_when_compiled(model, model.memory, *inputs)
        assert model.memory.weight.grad is not None
        assert model.memory.weight.grad.is_sparse


@pytest.mark.parametrize("method", ["sgd", "adagrad", "block_adagrad", "adam"])
def test_updates_in_the_backward_pass(method: str) -> None:
    plain, model = pair(), pair()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    optimizers = [lma.FusedOptimizer(m.memory, method, lr=0.1) for m in (plain, model)]
    for step in range(4):
        for optimizer, function in zip(optimizers, (plain, compiled), strict=True):
            # Another rate, as schedules give it, is no reason to compile again.
            optimizer.lr = 0.1 / (1 + step)
            function((ONE_HOT - step).clamp(min=0)).square().sum().backward()
        torch.testing.assert_close(model.memory.weight, plain.memory.weight)
    assert not torch.equal(model.memory.weight, pair().memory.weight)
    assert model.memory.weight.grad is None
    assert [o.steps for o in optimizers] == [4, 4]
    assert counter.frame_count == 1


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kind", [lma.Embedding, lma.EmbeddingBag])
def test_padding_by_inductor(kind: type) -> None:
    module = kind(50, 8, padding_idx=7, sparse=True, **one_table("lma"))
    same_when_compiled(module, module.memory, PADDED, backend="inductor")


@needs_compiler
@pytest.mark.slow
def test_updates_in_the_backward_pass_by_inductor() -> None:
    plain, model = pair(), pair()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="inductor")
    optimizers = [lma.FusedOptimizer(m.memory, "adagrad", lr=0.1) for m in (plain, model)]
    for _ in range(2):
        for function in (plain, compiled):
            function(ONE_HOT).square().sum().backward()
        torch.testing.assert_close(model.memory.weight, plain.memory.weight)
    assert not torch.equal(model.memory.weight, pair().memory.weight)
    assert [o.steps for o in optimizers] == [2, 2]


def test_weights_of_entries_in_an_update() -> None:
    plain, model = pair(), pair()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    factors = [torch.randn(len(VALUES), requires_grad=True)]
    factors.append(factors[0].detach().clone().requires_grad_())
    for module, function, factor in zip((plain, model), (plain, compiled), factors, strict=True):
        lma.FusedOptimizer(module.memory, "adagrad", lr=0.1)
        function(VALUES, OFFSETS, factor).square().sum().backward()
    torch.testing.assert_close(model.memory.weight, plain.memory.weight)
    torch.testing.assert_close(factors[1].grad, factors[0].grad)
