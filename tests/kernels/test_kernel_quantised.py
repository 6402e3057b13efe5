"""int8 memories: the quantiser's bound, and lookups that read them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import KINDS, Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids
from torch import library as op_library

from lma.kernels import ops
from lma.kernels.cpu.quantised_kernel import half_to_float
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import chunk_starts, lookup
from lma.kernels.reference import quantised as reference
from lma.kernels.reference.quantised import dequantise, group_blocks, num_groups, quantise
from lma.nn import Quantised

# The quotient is rounded to float32 before it is rounded to an integer below 128.
SLACK = 1 + 128 * 2.0**-23


@given(
    num_blocks=st.integers(0, 40),
    block_size=st.integers(1, 70),
    exponent=st.integers(-40, 22),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_every_float_moves_by_half_a_scale_at_most(
    num_blocks: int, block_size: int, exponent: int, seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_blocks, block_size, generator=generator).to(dtype) * 2.0**exponent
    weight[weight.abs() > 2.0**22] = 0
    values, scales = quantise(weight)
    assert values.dtype == torch.int8
    assert values.shape == weight.shape
    assert scales.dtype == torch.float16
    found = dequantise(values, scales).double().numpy()
    flat, group = weight.double().numpy().reshape(-1), group_blocks(block_size) * block_size
    assert len(scales) == num_groups(num_blocks, block_size) == -(-flat.size // group)
    for g, scale in enumerate(scales.numpy()):
        own = slice(g * group, (g + 1) * group)
        largest = np.abs(flat[own]).max()
        # The smallest float16 with which nothing is cut off.
        assert float(scale) >= largest / 127 * (1 - 2.0**-23)
        if scale > 0:
            assert float(np.nextafter(scale, np.float16(0))) < largest / 127
        moved = np.abs(flat[own] - found.reshape(-1)[own]).max()
        assert moved <= float(scale) / 2 * SLACK


def test_ties_go_to_the_even_number() -> None:
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5], [-0.5, -1.5, -127.0, 3.4]])
    values, scales = quantise(weight)
    assert scales.tolist() == [1.0]
    assert values.tolist() == [[127, 0, 2, 2], [0, -2, -127, 3]]
    # A second group has a scale of its own, and one of zeros stays zeros.
    values, scales = quantise(torch.cat([weight, torch.zeros(14, 4), weight / 4, weight * 0]))
    assert scales.tolist() == [1.0, 0.25]
    assert dequantise(values, scales)[16:18].tolist() == [
        [31.75, 0, 0.5, 0.5],
        [0, -0.5, -31.75, 0.75],
    ]
    values, scales = quantise(torch.zeros(2, 64))
    assert not bool(scales.any() | values.any())


def test_groups_are_whole_blocks_of_64_floats() -> None:
    wanted = {1: 64, 2: 32, 3: 16, 4: 16, 16: 4, 48: 1, 64: 1, 100: 1}
    assert {size: group_blocks(size) for size in wanted} == wanted


def test_scales_are_read_as_float16_bits() -> None:
    bits = np.arange(0x7C00, dtype=np.uint16)
    wanted = bits.view(np.float16).astype(np.float32)
    assert [half_to_float(b) for b in bits] == wanted.tolist()


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (torch.tensor([[1.0, torch.nan]]), ValueError, "NaN, infinite or beyond"),
        (torch.tensor([[torch.inf]]), ValueError, "NaN, infinite or beyond"),
        (torch.tensor([[9e6]]), ValueError, "NaN, infinite or beyond"),
        (torch.tensor([1.0]), TypeError, r"floats \[num_blocks, block_size\], found torch.float32"),
        (torch.tensor([[1]]), TypeError, "must be floats .* found torch.int64"),
    ],
)
def test_what_cannot_be_quantised(weight: torch.Tensor, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        quantise(weight)


def run(weight: Any, case: Case, ids: torch.Tensor, modes: Any, offsets: Any, factors: Any) -> Any:
    return lookup(
        weight, case.rule, ids, case.numbers, case.columns, modes, case.pieces, case.width,
        offsets, factors,
    )  # fmt: skip


def compare(case: Case, ids: torch.Tensor, modes: Any, offsets: Any, factors: Any) -> None:
    """The op, the reference, and the lookup in the floats that the int8 memory stands for."""
    stored = quantise(case.weight())
    found = run(stored, case, ids, modes, offsets, factors)
    assert found.dtype == torch.float32
    floats = run(dequantise(*stored).double(), case, ids, modes, offsets, factors)
    torch.testing.assert_close(found, floats.float())
    plain = reference.lookup_quantised(
        *stored, ids, offsets, factors, case.numbers, case.columns, modes, *case.rule, case.pieces,
        case.width,
    )  # fmt: skip
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 16, 40])
@pytest.mark.parametrize("name", ["unsigned", "all"])
def test_one_hot(name: str, chunk: int, private: bool) -> None:
    case = named_case(name, chunk, private=private)
    generator = torch.Generator().manual_seed(chunk)
    ids = one_hot_ids(case, 70, generator)
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    compare(case, ids, zeros, None, None)
    compare(case, ids, zeros, None, torch.randn(len(ids), generator=generator))


@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("name", KINDS)
def test_bags(name: str, chunk: int) -> None:
    case = named_case(name, chunk, private=True)
    generator = torch.Generator().manual_seed(chunk)
    features = len(case.dims)
    for batch, longest in ((9, 4), (2, 40), (1, 1), (0, 0)):
        offsets = bag_offsets(features, batch, longest, generator)
        ids = bag_ids(case, offsets, batch, generator)
        modes = torch.arange(features) % 2
        compare(case, ids, modes, offsets, None)
        factors = torch.randn(len(ids), generator=generator)
        compare(case, ids, torch.zeros_like(modes), offsets, factors)


def test_runs_go_on_at_the_beginning_of_the_memory() -> None:
    case = make_case(4, [(Kind.UNSIGNED, "prefix")] * 2, [12, 18], [0, 0], 6, stride=1)
    case.num_blocks = int(case.rule.layout[0, Column.HASHED_BLOCKS])
    ids = one_hot_ids(case, 60, torch.Generator().manual_seed(0))
    starts = chunk_starts(case.rule, ids, case.numbers, 1, case.pieces)
    assert int(starts.max()) + 6 > case.num_blocks
    compare(case, ids, torch.zeros(2, dtype=torch.int64), None, None)


def test_a_long_bag_is_summed_in_float32() -> None:
    case = named_case("unsigned", 4)
    total = 10**5
    ids = torch.zeros(2 * total, dtype=torch.int64)
    offsets = torch.tensor([0, total, 2 * total])
    zeros = torch.zeros(2, dtype=torch.int64)
    stored = quantise(case.weight())
    found = run(stored, case, ids, zeros, offsets, None)
    one = run(stored, case, ids[:2], zeros, None, None)
    # n partial sums of one sign, each off by eps/2 of at most the whole.
    bound = total * torch.finfo(torch.float32).eps / 2 * total * one.abs()
    assert bool(((found.double() - total * one.double()).abs() <= bound).all())
    assert float(found.abs().max()) > 1000 * float(one.abs().max())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck() -> None:
    case = named_case("all", 3, private=True)
    generator = torch.Generator().manual_seed(0)
    offsets = bag_offsets(len(case.dims), 3, 3, generator)
    ids = bag_ids(case, offsets, 3, generator)
    factors = torch.rand(len(ids), generator=generator)
    modes = torch.zeros(len(case.dims), dtype=torch.int64)
    arguments = (
        *quantise(case.weight()), ids, offsets, factors, case.numbers, case.columns, modes,
        *case.rule, case.pieces, case.width,
    )  # fmt: skip
    op_library.opcheck(ops.lookup_quantised, arguments)


def test_there_is_no_gradient() -> None:
    case = named_case("unsigned", 4)
    ids = one_hot_ids(case, 2, torch.Generator().manual_seed(0))
    zeros = torch.zeros(2, dtype=torch.int64)
    stored = quantise(case.weight())
    factors = torch.ones(len(ids), requires_grad=True)
    assert not run(stored, case, ids, zeros, None, factors.detach()).requires_grad
    with pytest.raises(RuntimeError, match="factors of an int8 memory have no gradient"):
        run(stored, case, ids, zeros, None, factors)
    with pytest.raises(ValueError, match="weights are on meta, ids on cpu"):
        run(Quantised(stored.values.to("meta"), stored.scales), case, ids, zeros, None, None)
