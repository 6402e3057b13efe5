"""The Triton kernels in Triton's interpreter, on the CPU, against the reference.

Run by `test_kernel_triton.py` in a process of its own.
"""

from __future__ import annotations

import os
from types import ModuleType

import pytest
import torch
from rule_cases import KINDS, Case, bag_ids, bag_offsets, named_case, one_hot_ids

from lma.kernels.reference import lookup as reference
from lma.kernels.reference import quantised

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


@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("name", ["all", "unsigned"])
def test_lookup_in_int8(kernels: ModuleType, name: str, bags: bool) -> None:
    case = named_case(name, 4, private=True)
    features = len(case.dims)
    generator = torch.Generator().manual_seed(0)
    offsets = bag_offsets(features, 5, 3, generator) if bags else None
    ids = one_hot_ids(case, 5, generator)
    if offsets is not None:
        ids = bag_ids(case, offsets, 5, generator)
    stored = quantised.quantise(case.weight())
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


def test_deterministic_algorithms_use_the_reference(kernels: ModuleType) -> None:
    case = named_case("unsigned", 4)
    ids = one_hot_ids(case, 50, torch.Generator().manual_seed(0))
    starts = starts_of(reference, case, ids)
    grad = torch.randn(50, case.width)
    modes = torch.zeros(2, dtype=torch.int64)
    arguments = (
        grad, starts, None, None, case.numbers, case.columns, modes, case.rule.layout,
        case.rule.chunk, case.rule.lead, case.num_blocks, case.unit,
    )  # fmt: skip
    torch.use_deterministic_algorithms(True)
    try:
        found = kernels.lookup_grad(*arguments)
        wanted = reference.lookup_grad(*arguments)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found, wanted)
