"""The Triton kernels in Triton's interpreter, on the CPU, against the reference.

Run by `test_kernel_triton.py` in a process of its own.
"""

from __future__ import annotations

import os
from types import ModuleType

import pytest
import torch
from rule_cases import KINDS, Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids

from lma.kernels.layout import Column, Kind
from lma.kernels.reference import lookup as reference
from lma.kernels.reference import quantised, touched

# Torch and Triton warn of their own old habits.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The launchers."""
    assert os.environ["TRITON_INTERPRET"] == "1"
    from lma.kernels.gpu import lookup

    return lookup


def starts_of(kernels: ModuleType, case: Case, ids: torch.Tensor) -> torch.Tensor:
    rule = case.rule
    return kernels.starts(  # type: ignore[no-any-return]
        ids, case.numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("name", KINDS)
def test_starts(kernels: ModuleType, name: str, private: bool) -> None:
    case = named_case(name, 3, 1, private)
    # More than one program, the last one partly filled.
    ids = one_hot_ids(case, 70, torch.Generator().manual_seed(1))
    assert torch.equal(starts_of(kernels, case, ids), starts_of(reference, case, ids))


def test_no_ids(kernels: ModuleType) -> None:
    case = named_case("all", 3, private=True)
    none = torch.empty(0, dtype=torch.int64)
    assert starts_of(kernels, case, none).shape == (0, case.pieces)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("name", ["all", "unsigned"])
def test_lookup_and_gradients(
    kernels: ModuleType, name: str, bags: bool, dtype: torch.dtype
) -> None:
    case = named_case(name, 4, private=True)
    rule, features = case.rule, len(case.dims)
    generator = torch.Generator().manual_seed(0)
    offsets = bag_offsets(features, 5, 3, generator) if bags else None
    ids = one_hot_ids(case, 5, generator)
    if offsets is not None:
        ids = bag_ids(case, offsets, 5, generator)
    weight = case.weight(dtype)
    grad = torch.randn(5, case.width, generator=generator).to(dtype)
    factors = torch.randn(len(ids), generator=generator).to(dtype)
    sums = torch.zeros(features, dtype=torch.int64)
    for modes, own in ((torch.arange(features) % 2, None), (sums, factors)):
        both = []
        for backend in (kernels, reference):
            out, starts = backend.lookup(
                weight, ids, offsets, own, case.numbers, case.columns, modes, *rule, case.pieces,
                case.width, True,
            )  # fmt: skip
            place = (case.numbers, case.columns)
            dense = backend.lookup_grad(
                grad, starts, offsets, own, *place, modes, rule.layout, rule.chunk, rule.lead,
                *weight.shape,
            )  # fmt: skip
            dots = backend.factors_grad(
                weight, grad, starts, offsets, *place, rule.layout, rule.chunk, rule.lead
            )
            both.append((out, dense, dots))
        for found, wanted in zip(*both, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("name", ["all", "unsigned"])
def test_lookup_in_8_and_4_bits(kernels: ModuleType, name: str, bags: bool, bits: int) -> None:
    kinds = KINDS[name]
    features = len(kinds)
    # Rows of two floats, for 4 bits; the private parts are a part, the whole vector, nothing.
    dims = [(12, 14, 13)[t % 3] for t in range(features)]
    case = make_case(0, kinds, dims, [(2, 14, 0)[t % 3] for t in range(features)], 4)
    generator = torch.Generator().manual_seed(0)
    offsets = bag_offsets(features, 5, 3, generator) if bags else None
    ids = one_hot_ids(case, 5, generator)
    if offsets is not None:
        ids = bag_ids(case, offsets, 5, generator)
    stored = quantised.quantise(case.weight(), bits)
    assert stored.bits == bits
    factors = torch.randn(len(ids), generator=generator)
    sums = torch.zeros(features, dtype=torch.int64)
    for modes, own in ((torch.arange(features) % 2, None), (sums, factors)):
        found, wanted = (
            backend.lookup_quantised(
                *stored, ids, offsets, own, case.numbers, case.columns, modes, *case.rule,
                case.pieces, case.width,
            )
            for backend in (kernels, quantised)
        )  # fmt: skip
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "chunk", "bags", "dtype"),
    [
        ("all", 4, True, torch.float32),
        ("learned", 3, False, torch.bfloat16),
        ("unsigned", 1, True, torch.float32),
    ],
)
def test_sorted_gradients(
    kernels: ModuleType, name: str, chunk: int, bags: bool, dtype: torch.dtype
) -> None:
    case = named_case(name, chunk, private=True)
    features = len(case.dims)
    generator = torch.Generator().manual_seed(0)
    offsets = bag_offsets(features, 3, 3, generator) if bags else None
    ids = one_hot_ids(case, 3, generator)
    if offsets is not None:
        ids = bag_ids(case, offsets, 3, generator)
    tables = reference.tables_of_entries(case.numbers, offsets, len(ids))
    rule = case.rule
    starts = reference.starts(
        ids, tables, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    grad = torch.randn(3, case.width, generator=generator).to(dtype)
    factors = torch.randn(len(ids), generator=generator)
    sums = torch.zeros(features, dtype=torch.int64)
    for modes, own in ((torch.arange(features) % 2, None), (sums, factors)):
        arguments = (
            grad, starts, offsets, own, case.numbers, case.columns, modes, rule.layout, rule.chunk,
            rule.lead, case.num_blocks, case.unit,
        )  # fmt: skip
        rows, values = kernels.touched_grad(*arguments)
        wanted_rows, wanted = touched.touched_grad(*arguments)
        assert torch.equal(rows, wanted_rows)
        torch.testing.assert_close(values, wanted)
        torch.use_deterministic_algorithms(True)
        try:
            dense = kernels.lookup_grad(*arguments)
        finally:
            torch.use_deterministic_algorithms(False)
        torch.testing.assert_close(dense, reference.lookup_grad(*arguments))


def test_sorted_sums_are_taken_in_the_order_of_entries(kernels: ModuleType) -> None:
    """Every entry reads the same floats, and the sum has the bits of a loop over them."""
    case = named_case("unsigned", 4)
    grad = torch.randn(40, case.width, generator=torch.Generator().manual_seed(0))
    ids = torch.full((80,), 7)
    starts = starts_of(reference, case, ids)
    modes = torch.zeros(2, dtype=torch.int64)
    rows, values = kernels.touched_grad(
        grad, starts, None, None, case.numbers, case.columns, modes, case.rule.layout,
        case.rule.chunk, case.rule.lead, case.num_blocks, case.unit,
    )  # fmt: skip
    wanted = torch.zeros(case.num_blocks, case.unit)
    for e, pieces in enumerate(starts.tolist()):
        dim, column = case.dims[e % 2], int(case.columns[e % 2])
        for j, start in enumerate(pieces):
            for i in range(max(0, min(4, dim - 4 * j))):
                wanted[start, i] += grad[e // 2, column + 4 * j + i]
    assert torch.equal(values, wanted[rows])
    assert set(rows.tolist()) == set(starts[starts >= 0].tolist())


def test_runs_that_overlap_and_go_on_at_the_beginning(kernels: ModuleType) -> None:
    case = make_case(4, [(Kind.UNSIGNED, "prefix")] * 2, [12, 18], [0, 0], 6, stride=1)
    case.num_blocks = int(case.rule.layout[0, Column.HASHED_BLOCKS])
    ids = one_hot_ids(case, 8, torch.Generator().manual_seed(0))
    rule = case.rule
    starts = reference.starts(
        ids, case.numbers, *rule[:6], 1, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    assert int(starts.max()) + 6 > case.num_blocks
    grad = torch.randn(8, case.width)
    arguments = (
        grad, starts, None, None, case.numbers, case.columns, torch.zeros(2, dtype=torch.int64),
        rule.layout, rule.chunk, rule.lead, case.num_blocks, 1,
    )  # fmt: skip
    for found, wanted in zip(
        kernels.touched_grad(*arguments), touched.touched_grad(*arguments), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_no_gradients_of_no_rows(kernels: ModuleType) -> None:
    case = named_case("all", 4, private=True)
    starts = torch.empty(0, case.pieces, dtype=torch.int32)
    modes = torch.zeros(len(case.dims), dtype=torch.int64)
    rows, values = kernels.touched_grad(
        torch.empty(0, case.width), starts, None, None, case.numbers, case.columns, modes,
        case.rule.layout, case.rule.chunk, case.rule.lead, case.num_blocks, case.unit,
    )  # fmt: skip
    assert rows.shape == (0,)
    assert values.shape == (0, case.unit)
