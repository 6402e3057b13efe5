"""Modules compile to one graph: signatures, bags, weights, padding, max, touched blocks only."""

import os
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import lma
from lma.allocation import Full, Hashed, Lma
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
    """Values and the memory's gradient, compiled with no graph break and not."""
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    found = []
    for function in (module, compiled):
        memory.weight.grad = None
        out = function(*inputs)
        out.square().sum().backward()
        assert memory.weight.grad is not None
        found.append((out.detach(), memory.weight.grad.to_dense()))
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
