"""Checked ids and offsets, and modules that compile to one graph."""

from __future__ import annotations

import pytest
import torch
from torch import library as op_library

import lma
from lma.allocation import Hashed, Robe
from lma.kernels import ops
from lma.kernels.reference import inputs as reference

SIZES = torch.tensor([5, -1, 0, 1])
IDS = torch.tensor([[0, -7, 3, 0], [4, 2**63 - 1, -1, 1], [7, -(2**63), 0, -9], [-1, 0, 2, 0]])
NAMES = "a\nb\nc\nd"


@pytest.mark.parametrize("policy", [reference.ERROR, reference.WRAP, reference.CLAMP])
@pytest.mark.parametrize("tables", [[0, 1], [0, 1, 3], [1]])
def test_ids_equal_the_reference(tables: list[int], policy: int) -> None:
    ids = IDS[:, tables].reshape(-1)
    numbers = torch.tensor(tables)
    arguments = (ids, numbers, SIZES, policy, False, NAMES)
    wanted = reference.accept_ids(*arguments)
    found = ops.accept_ids(*arguments)
    if policy == reference.ERROR:
        # Without a check nothing is changed.
        assert torch.equal(wanted, ids)
    assert torch.equal(found, wanted)
    if policy == reference.WRAP:
        python = [
            i % int(SIZES[t]) if t != 1 else i
            for i, t in zip(ids.tolist(), tables * len(IDS), strict=True)
        ]
        assert found.tolist() == python


@pytest.mark.parametrize("accept", [reference.accept_ids, ops.accept_ids], ids=["torch", "numba"])
def test_an_id_outside_is_named(accept: object) -> None:
    with pytest.raises(IndexError, match=r"id -1 of table 'a' is outside \[0, 5\)"):
        accept(torch.tensor([3, 9, -1, 9]), torch.tensor([0, 1]), SIZES, 0, True, NAMES)  # type: ignore[operator]
    # A table without rows has no nearest end.
    with pytest.raises(IndexError, match=r"of table 'c' is outside \[0, 0\)"):
        accept(torch.tensor([0]), torch.tensor([2]), SIZES, 2, True, NAMES)  # type: ignore[operator]


def test_no_ids() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert ops.accept_ids(none, torch.tensor([0, 1]), SIZES, 0, True, NAMES).shape == (0,)


def test_offsets() -> None:
    offsets = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    found = ops.accept_offsets(offsets, 5, "offsets")
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 2, 2, 5]
    for wrong, text in (
        ([1, 5], r"offsets\[0\] must be 0, found 1"),
        ([0, 4], "must end at the number of ids, 5, found 4"),
        ([0, 3, 2, 5], "must not descend, found 3 then 2"),
    ):
        with pytest.raises(ValueError, match=text):
            ops.accept_offsets(torch.tensor(wrong), 5, "offsets")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck_of_inputs() -> None:
    op_library.opcheck(
        ops.accept_ids, (torch.tensor([3, 9]), torch.tensor([0, 1]), SIZES, 1, False, NAMES)
    )
    op_library.opcheck(ops.accept_offsets, (torch.tensor([0, 2, 5]), 5, "offsets"))


# Dynamo warns of its own use of deprecated functions.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [Hashed(), Robe(chunk_size=4)], ids=["hashed", "robe"])
def test_modules_compile_to_one_graph(method: Hashed | Robe) -> None:
    torch._dynamo.reset()
    tables = [
        lma.EmbeddingBagConfig(100, 8, "a"),
        lma.EmbeddingBagConfig(None, 8, "b", pooling="mean"),
    ]
    plain = lma.EmbeddingBagCollection(tables, method=method, budget="4KB")
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    one_hot = torch.tensor([[1, -5], [99, 2**62]])
    values, offsets = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2, 2, 3, 5])
    for inputs in ((one_hot,), (values, offsets)):
        grads = []
        for module in (plain, compiled):
            plain.memory.weight.grad = None
            out = module(*inputs)
            out.square().sum().backward()
            grads.append(plain.memory.weight.grad)
        torch.testing.assert_close(compiled(*inputs), plain(*inputs))
        assert grads[0] is not None
        assert grads[1] is not None
        torch.testing.assert_close(grads[0], grads[1])
    with pytest.raises(IndexError, match="id 100 of table 'a'"):
        compiled(torch.tensor([[100, 0], [1, 1]]))
