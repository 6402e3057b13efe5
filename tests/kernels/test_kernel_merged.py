"""Entries that read the same blocks, merged before touches are sorted: the same gradients."""

from __future__ import annotations

import pytest
import torch
from rule_cases import Case, make_case, one_hot_ids
from torch import Tensor

from lma.kernels.cpu import merge_kernel, touched
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import lookup
from lma.kernels.touched import lookup_touched


@pytest.fixture
def always_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few chunks an entry has."""
    monkeypatch.setattr(touched, "MERGED_CHUNKS", 0)


def many_blocks(privates: list[int], kind: Kind = Kind.UNSIGNED) -> Case:
    case = make_case(0, [(kind, "prefix")] * 3, [16, 24, 16], privates, 4)
    case.rule.layout[:, Column.HASHED_BLOCKS] = 9000
    case.num_blocks = max(9000, case.num_blocks)
    return case


def gradients(case: Case, ids: Tensor, sparse: bool) -> Tensor:
    """Of a lookup in float32, or its definition in float64."""
    weight = case.weight().requires_grad_()
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    call = case.rule, ids, case.numbers, case.columns, zeros, case.pieces, case.width
    if sparse:
        out = lookup_touched(weight, *call)
    else:
        weight = weight.detach().double().requires_grad_()
        out = lookup(weight, *call)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad(out, weight, grad.to(out.dtype))[0]


@pytest.mark.parametrize("distinct", [1, 40, None], ids=["all equal", "40 rows", "as drawn"])
@pytest.mark.parametrize("privates", [[0, 0, 0], [0, 4, 16]], ids=["hashed", "private parts"])
def test_merged_gradients_are_the_reference_s(
    distinct: int | None, privates: list[int], always_merged: None
) -> None:
    case = many_blocks(privates)
    # More rows than a shard has, the last one not full.
    rows = merge_kernel.SHARD_ROWS * 2 + 63
    ids = one_hot_ids(case, rows, torch.Generator().manual_seed(0)).view(rows, len(case.dims))
    if distinct is not None:
        ids = ids[torch.arange(rows) % distinct]
    ids = ids.reshape(-1).contiguous()
    found = gradients(case, ids, sparse=True)
    wanted = gradients(case, ids, sparse=False)
    # Terms of size 1 of which up to `rows` are added in float32, in two stages.
    bound = 2**-24 * rows * 16
    assert float((found.to_dense().double() - wanted).abs().max()) < bound
    assert torch.equal(found.indices()[0], found.indices()[0].unique())


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_merging_few_rows(rows: int, always_merged: None) -> None:
    case = many_blocks([0, 4, 16])
    ids = one_hot_ids(case, rows, torch.Generator().manual_seed(0))
    found = gradients(case, ids, sparse=True).to_dense()
    torch.testing.assert_close(found.double(), gradients(case, ids, sparse=False))


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(
    threads: int, always_merged: None, torch_threads: None
) -> None:
    case = many_blocks([0, 4, 16])
    rows = merge_kernel.SHARD_ROWS + 5000
    ids = one_hot_ids(case, rows, torch.Generator().manual_seed(0))
    found = []
    for count in (1, threads):
        torch.set_num_threads(count)
        found.append(gradients(case, ids, sparse=True))
    assert torch.equal(found[0].indices(), found[1].indices())
    assert torch.equal(found[0].values(), found[1].values())


def test_merged_rows_by_hand(always_merged: None) -> None:
    # Entries 0 and 2 are alike; gradient rows are (0, 1), (2, 3), (4, 5), (6, 7).
    grad = torch.arange(8.0).view(4, 2)
    starts = torch.tensor([[0, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.int32)
    layout = torch.zeros(1, len(Column), dtype=torch.int64)
    layout[0, Column.DIM] = 2
    zero, columns = torch.zeros(1, dtype=torch.int64), torch.tensor([0, 2])
    indices, values = touched.touched_grad(
        grad, starts, None, None, zero, columns, zero, layout, 1, 0, 2, 1
    )
    assert indices.tolist() == [0, 1]
    assert values.view(-1).tolist() == [0 + 3 + 4 + 6 + 7, 1 + 2 + 5]
