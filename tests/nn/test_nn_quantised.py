"""`quantise_` on modules of every method: same vectors, a quarter of the bytes, no training."""

from pathlib import Path

import pytest
import torch

import lma
from lma.allocation import (
    FrequencyCutoff,
    Full,
    Hashed,
    HashingTrick,
    Lma,
    LowDimension,
    QuotientRemainder,
    Robe,
)
from lma.nn import Quantised, dequantise, quantise
from lma.signatures import LogStats, TableStats
from signature_cases import random_signatures

TABLES = {"a": 50, "b": 30}
METHODS = {
    "full": Full(),
    "low dimension": LowDimension(4),
    "low dimension of one": LowDimension(1),
    "frequency cut-off": FrequencyCutoff(),
    "hashed floats": Hashed(),
    "hashed blocks": Hashed(block_size=4),
    "robe": Robe(4),
    "hashing trick": HashingTrick(),
    "quotient-remainder": QuotientRemainder(),
    "lma floats": Lma(),
    "lma blocks": Lma(block_size=4),
    "lma with private tables": Lma(block_size=4, private_share=0.6),
}
ONE_HOT = torch.tensor([[1, 29], [49, 0], [0, 7], [1, 29]])
VALUES, OFFSETS = torch.tensor([3, 49, 0, 0, 1, 5, 29]), torch.tensor([0, 2, 2, 4, 6, 7, 7])


def collection(name: str, pooling: str = "sum", **arguments: object) -> lma.EmbeddingBagCollection:
    torch.manual_seed(0)
    supports = [TableStats.of_supports(t, range(n, 0, -1)) for t, n in TABLES.items()]
    budget = {} if name in ("full", "low dimension", "low dimension of one") else {"budget": 1500}
    return lma.EmbeddingBagCollection(
        [lma.EmbeddingBagConfig(n, 8, t, pooling=pooling) for t, n in TABLES.items()],
        method=METHODS[name],
        signatures=random_signatures({"a": 20, "b": 10}, 4, 8),
        stats=LogStats.of(supports),
        init_std=1.0,
        **budget,
        **arguments,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", METHODS)
def test_vectors_are_those_of_the_rounded_floats(
    name: str, pooling: str, dtype: torch.dtype
) -> None:
    model, twin = collection(name, pooling, dtype=dtype), collection(name, pooling)
    before = model.memory.num_bytes()
    stored = quantise(model.memory.weight)
    with torch.no_grad():
        twin.memory.weight.copy_(dequantise(*stored))
    assert model.memory.quantise_() is model.memory
    for inputs in ((ONE_HOT,), (VALUES, OFFSETS)):
        found = model(*inputs)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, twin(*inputs).detach())
    count = model.memory.num_bytes()
    floats = model.memory.weight.numel()
    assert before.weights == floats * dtype.itemsize
    assert count.weights == floats + 2 * len(stored.scales)
    assert (count.signatures, count.index) == (before.signatures, before.index)
    assert f"{count.weights:,} bytes" in str(model.memory_report())


@pytest.mark.parametrize("name", ["full", "hashed blocks", "hashing trick"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_padding_and_weights(name: str, mode: str) -> None:
    model, twin = collection(name), collection(name)
    with torch.no_grad():
        twin.memory.weight.copy_(dequantise(*quantise(model.memory.weight)))
    model.memory.quantise_()
    ids = torch.tensor([[3, 7, 3], [7, 7, 7], [0, 1, 49]])
    factors = torch.tensor([[1.0, 2.0, 3.0]] * 3) if mode == "sum" else None
    outs = []
    for memory in (model.memory, twin.memory):
        bag = lma.EmbeddingBag(50, 8, mode=mode, padding_idx=7, table="a", memory=memory)
        one = lma.Embedding(50, 8, padding_idx=7, table="a", memory=memory)
        outs.append((bag(ids, None, factors).detach(), one(ids).detach()))
    for found, wanted in zip(*outs, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not bool(outs[0][0][1].any())
    assert not bool(outs[0][1][1].any())


@pytest.mark.parametrize("name", ["full", "lma with private tables"])
def test_state_goes_round(name: str) -> None:
    model = collection(name)
    floats = model.state_dict()
    model.memory.quantise_()
    state = model.state_dict()
    assert state["memory.weight"].dtype == torch.int8
    assert state["memory.scales"].dtype == torch.float16
    for other in (collection(name), collection(name, dtype=torch.int8)):
        other.memory.quantise_()
        other.load_state_dict(state)
        assert torch.equal(other(ONE_HOT), model(ONE_HOT))
    with pytest.raises(
        lma.StateMismatchError, match="saved weights are int8, this memory is floats"
    ):
        collection(name).load_state_dict(state)
    with pytest.raises(
        lma.StateMismatchError, match="saved weights are floats, this memory is int8"
    ):
        model.load_state_dict(floats)


def test_a_saved_model_gives_the_same_scores(tmp_path: Path) -> None:
    model = lma.models.DLRM(collection("lma blocks"), 3).eval()
    model.embeddings.memory.quantise_()
    lma.save(model, tmp_path / "model")
    loaded = lma.load(tmp_path / "model").model
    memory = loaded.embeddings.memory
    assert memory.quantised
    assert memory.num_bytes() == model.embeddings.memory.num_bytes()
    dense = torch.randn(4, 3)
    assert torch.equal(loaded(dense, ONE_HOT), model(dense, ONE_HOT))
    (tmp_path / "float").mkdir()
    lma.save(lma.models.DLRM(collection("lma blocks"), 3), tmp_path / "float")
    small, large = ((tmp_path / d / "model.safetensors").stat().st_size for d in ("model", "float"))
    assert small < large


@pytest.mark.parametrize("name", ["full", "hashed blocks"])
def test_training_is_refused(name: str) -> None:
    model = collection(name)
    model.memory.quantise_()
    assert list(model.parameters()) == []
    assert not model(ONE_HOT).requires_grad
    model.train()
    with pytest.raises(
        RuntimeError, match=r"training mode: a quantised memory has no gradients: call"
    ):
        model(ONE_HOT)
    with pytest.raises(RuntimeError, match="reset_parameters: a quantised memory has no gradients"):
        model.memory.reset_parameters()
    with torch.no_grad():
        training = model(ONE_HOT)
    assert torch.equal(model.eval()(ONE_HOT), training)


def test_a_fused_optimizer_lets_go_and_is_refused() -> None:
    model = collection("hashed blocks")
    lma.FusedOptimizer(model.memory, "adagrad")
    model(ONE_HOT).sum().backward()
    model.memory.quantise_()
    assert model(ONE_HOT).shape == (4, 16)
    with pytest.raises(ValueError, match="a quantised memory has no gradients"):
        lma.FusedOptimizer(model.memory, "adagrad")


def test_casts_and_moves_leave_the_integers_alone() -> None:
    model = collection("lma blocks")
    model.memory.quantise_()
    before, wanted = model.state_dict(), model(ONE_HOT)
    before = {name: tensor.clone() for name, tensor in before.items()}
    model.memory.quantise_()
    for moved in (model.half(), model.double(), model.to_empty(device="cpu")):
        for name, tensor in moved.state_dict().items():
            assert torch.equal(tensor, before[name]), name
            assert tensor.dtype == before[name].dtype
        assert torch.equal(moved(ONE_HOT), wanted)
    assert isinstance(model.memory.stored, Quantised)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["full", "lma with private tables"])
def test_it_compiles_to_one_graph(name: str) -> None:
    torch._dynamo.reset()
    model = collection(name)
    model.memory.quantise_()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for inputs in ((ONE_HOT,), (VALUES, OFFSETS)):
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
