"""4-bit memories: packing by hand, the quantiser's bound, lookups against their floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rule_cases import KINDS, bag_ids, bag_offsets, named_case, one_hot_ids

from lma.kernels.lookup import lookup
from lma.kernels.reference.quantised import (
    Quantised,
    dequantise,
    fake_quantise,
    group_blocks,
    lookup_quantised,
    quantise,
    read_floats,
    read_rows,
)


def test_two_values_stand_in_a_byte() -> None:
    weight = torch.tensor([[7.0, -7.0, 0.5, 1.5], [3.4, -1.5, 0.0, -0.4]])
    values, scales = quantise(weight, bits=4)
    assert scales.tolist() == [1.0]
    # 7, -7, 0, 2 and 3, -2, 0, 0; each plus 8; the first in the lower half.
    assert values.tolist() == [[15 | 1 << 4, 8 | 10 << 4], [11 | 6 << 4, 8 | 8 << 4]]
    assert values.dtype == torch.uint8
    assert dequantise(values, scales).tolist() == [[7, -7, 0, 2], [3, -2, 0, 0]]
    assert Quantised(values, scales).shape == (2, 4)


@pytest.mark.parametrize("block_size", [2, 6, 16, 64, 100])
def test_every_float_moves_by_half_a_scale_at_most(block_size: int) -> None:
    weight = torch.randn(37, block_size, generator=torch.Generator().manual_seed(block_size))
    values, scales = quantise(weight, bits=4)
    assert values.nbytes == weight.numel() // 2
    own = scales.float()[torch.arange(37) // group_blocks(block_size)].unsqueeze(1)
    moved = (dequantise(values, scales) - weight).abs()
    # The quotient is rounded to float32 before it is rounded to an integer below 8.
    assert bool((moved <= own / 2 * (1 + 2.0**-20)).all())
    rows = torch.tensor([36, 0, 5])
    memory = Quantised(values, scales)
    floats = dequantise(values, scales)
    assert torch.equal(read_rows(memory, rows), floats[rows])
    places = torch.arange(weight.numel()).flip(0)
    assert torch.equal(read_floats(memory, places), floats.reshape(-1)[places])


def test_odd_blocks_and_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="even number of floats, found 3"):
        quantise(torch.zeros(4, 3), bits=4)
    with pytest.raises(ValueError, match="8 or 4, found 5"):
        quantise(torch.zeros(4, 4), bits=5)


@pytest.mark.parametrize("chunk", [2, 4, 16])
@pytest.mark.parametrize("name", KINDS)
def test_lookup_reads_what_the_floats_say(name: str, chunk: int) -> None:
    """Op and reference, bags and single ids, against the float lookup in float64."""
    case = named_case(name, chunk, private=True)
    if case.weight().shape[1] % 2:
        case = named_case(name, chunk)
    generator = torch.Generator().manual_seed(chunk)
    stored = quantise(case.weight(), bits=4)
    features = len(case.dims)
    offsets = bag_offsets(features, 9, 4, generator)
    modes = torch.arange(features) % 2
    for ids, bounds in (
        (one_hot_ids(case, 70, generator), None),
        (bag_ids(case, offsets, 9, generator), offsets),
    ):
        rest = ids, case.numbers, case.columns, modes, case.pieces, case.width, bounds, None
        found = lookup(stored, case.rule, *rest)
        wanted = lookup(dequantise(*stored).double(), case.rule, *rest)
        torch.testing.assert_close(found, wanted.float())
        plain = lookup_quantised(
            *stored, ids, bounds, None, case.numbers, case.columns, modes, *case.rule,
            case.pieces, case.width,
        )  # fmt: skip
        torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("bits", [4, 8])
def test_training_sees_the_rounding_and_its_gradient_passes_through(bits: int) -> None:
    weight = torch.randn(9, 8, requires_grad=True)
    rounded = fake_quantise(weight, bits)
    assert torch.equal(rounded, dequantise(*quantise(weight.detach(), bits)))
    (rounded * torch.arange(8.0)).sum().backward()
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy(), np.tile(np.arange(8.0), (9, 1)))


def test_rounding_is_traced_without_looking_at_values() -> None:
    traced = torch.compile(lambda w: fake_quantise(w, 4) * 2, backend="eager", fullgraph=True)
    weight = torch.randn(9, 8, requires_grad=True)
    torch.testing.assert_close(traced(weight), fake_quantise(weight, 4) * 2)
