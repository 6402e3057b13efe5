"""What the benchmark measures is what it says; figures themselves are not judged here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lma.benchmarking import EmbeddingSpeed, measure, ratios
from lma.benchmarking import embedding_speed as module
from lma.benchmarking.criteo_shape import CARDINALITIES, draw_ids, lma_collection, sizes
from lma.benchmarking.rivals import FullTables, bare_gather, bare_moves, in_turn
from lma.benchmarking.timing import interleaved

TINY = EmbeddingSpeed(
    dim=4, batch=16, scale=1 << 20, compression=4, blocks=(1, 2), kinds=("random",), repeats=2,
    fbgemm=False,
)  # fmt: skip


def test_the_shape_is_criteos() -> None:
    assert len(CARDINALITIES) == 26
    assert sum(CARDINALITIES) == 33_762_577
    assert sizes(1) == list(CARDINALITIES)
    ids = draw_ids([3, 1000], 4000, "zipf", 0)
    assert ids.shape == (4000, 2)
    assert [int(column.max()) for column in ids.T] == [2, 999]
    # Log-uniform ranks: half of the ids are below the square root of the size.
    assert 0.4 < float((ids[:, 1] < 31).double().mean()) < 0.6
    assert 0.4 < float((draw_ids([1000], 4000, "uniform", 0) < 500).double().mean()) < 0.6


@pytest.mark.parametrize("kind", ["random", "learned"])
def test_the_collection_has_the_stated_size_and_signs_half(kind: str) -> None:
    tokens = [100, 41]
    collection = lma_collection(tokens, 8, 4, 2, kind)
    allocation = collection.allocation
    shared = 141 * 8 // 2 // 4
    books = 0 if kind == "random" else 2 * 2 * 256
    assert allocation.num_blocks == shared + books
    assert allocation.signatures.section("C2").num_signed == 21


def test_rivals_compute_the_same_thing() -> None:
    full = FullTables([5, 7], 3)
    ids = torch.tensor([[4, 6], [0, 1]])
    wanted = torch.stack([torch.cat([full.tables[f].weight[i] for f, i in enumerate(row)])
                          for row in ids.tolist()])  # fmt: skip
    torch.testing.assert_close(full(ids), wanted)
    # The bare gather reads the blocks that the lookup reads.
    collection = lma_collection([50, 9], 8, 4, 2, "random")
    blocks = bare_gather(collection, [ids])()
    torch.testing.assert_close(blocks.view(2, 16), collection(ids).detach())
    # Bare moves leave everything as it was.
    before = collection.memory.weight.detach().clone()
    bare_moves(collection, torch.ones(2, 16), [ids])()
    assert torch.equal(collection.memory.weight, before)


def test_batches_and_methods_take_turns() -> None:
    seen: list[str] = []
    steps = {name: in_turn(seen.append, [name + "1", name + "2"]) for name in "ab"}
    now = iter(range(100))
    figures = interleaved(steps, 3, warm_up=1, clock=lambda: next(now))
    assert seen == ["a2", "b2", "a1", "b1", "a2", "b2", "a1", "b1"]
    assert figures["a"] == {"median_ms": 1000, "p20_ms": 1000, "p80_ms": 1000}


def test_lines_and_ratios() -> None:
    lines = measure(TINY)
    rivals = {"EmbeddingBag", "index_select lma random block 1", "index_select lma random block 2"}
    ours = {"lma random block 1", "lma random block 2"}
    names = {(line["what"], line["method"]) for line in lines}
    assert names == {("forward", name) for name in rivals | ours} | {
        ("training step", name)
        for name in {"EmbeddingBag sparse + Adagrad"} | ours | {f"bare moves {o}" for o in ours}
    }
    for line in lines:
        assert line["p20_ms"] <= line["median_ms"] <= line["p80_ms"]
        assert (line["dim"], line["batch"], line["popularity"]) == (4, 16, "zipf")
        assert 0.5 < line["signed_share"] < 1
    made = [{**line, "median_ms": 1 + i} for i, line in enumerate(lines)]
    at = {(line["what"], line["method"]): line["median_ms"] for line in made}
    first, second = ratios(made)
    assert first.method == "lma random block 1"
    assert first.to_fbgemm is None
    assert second.to_select == (
        at["forward", second.method] / at["forward", f"index_select {second.method}"]
    )
    assert second.to_bags == second.forward_ms / at["forward", "EmbeddingBag"]
    assert second.to_sparse == (
        at["training step", second.method] / at["training step", "EmbeddingBag sparse + Adagrad"]
    )
    made.append({"what": "training step", "method": "FBGEMM Adagrad", "median_ms": 2.0})
    assert ratios(made)[1].to_fbgemm == second.step_ms / 2


def test_no_speed_of_wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.reference.lookup

    def wrong(*arguments: Any) -> Any:
        out, starts = right(*arguments)
        return out + 1, starts

    monkeypatch.setattr(module.reference, "lookup", wrong)
    with pytest.raises(AssertionError, match="not close"):
        measure(TINY)
