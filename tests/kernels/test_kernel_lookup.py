"""The fused lookup and its gradients: Numba against the reference, the reference against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import KINDS, Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids
from torch import Tensor
from torch import library as op_library

from lma.kernels import ops
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import chunk_starts, lookup
from lma.kernels.reference import lookup as reference


def run(
    case: Case,
    weight: Tensor,
    ids: Tensor,
    modes: Tensor,
    offsets: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    return lookup(
        weight, case.rule, ids, case.numbers, case.columns, modes, case.pieces, case.width,
        offsets, factors,
    )  # fmt: skip


def reference_run(
    case: Case,
    weight: Tensor,
    ids: Tensor,
    modes: Tensor,
    offsets: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """The reference, differentiated by autograd itself instead of our formulas."""
    out, _ = reference.lookup(
        weight, ids, offsets, factors, case.numbers, case.columns, modes, *case.rule, case.pieces,
        case.width, True,
    )  # fmt: skip
    return out


def by_loops(
    case: Case,
    weight: Tensor,
    ids: Tensor,
    modes: Tensor,
    offsets: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """The same in Python loops over floats, from the starts alone."""
    features = len(case.dims)
    batch = (len(ids) if offsets is None else len(offsets) - 1) // features
    tables = reference.tables_of_entries(case.numbers, offsets, len(ids))
    rule = case.rule
    starts = reference.starts(
        ids, tables, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    ).tolist()
    flat = weight.double().reshape(-1).tolist()
    out = torch.zeros(batch, case.width, dtype=torch.float64)
    for r in range(batch):
        for f, (dim, private) in enumerate(zip(case.dims, case.privates, strict=True)):
            bag = range(r * features + f, r * features + f + 1)
            if offsets is not None:
                bag = range(int(offsets[f * batch + r]), int(offsets[f * batch + r + 1]))
            for e in bag:
                scale = 1.0 if factors is None else float(factors[e])
                scale /= len(bag) if int(modes[f]) else 1
                for i in range(dim):
                    piece, inside = (0, i) if i < private else divmod(i - private, rule.chunk)
                    piece += 0 if i < private else rule.lead
                    place = (starts[e][piece] * case.unit + inside) % len(flat)
                    out[r, int(case.columns[f]) + i] += scale * flat[place]
    return out


def compare(case: Case, ids: Tensor, modes: Tensor, offsets: Any, factors: Any) -> None:
    weight = case.weight().requires_grad_()
    own = None if factors is None else factors.clone().requires_grad_()
    found = run(case, weight, ids, modes, offsets, own)
    torch.testing.assert_close(found, reference_run(case, weight, ids, modes, offsets, factors))
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    wide = case.weight().double().requires_grad_()
    other = None if factors is None else factors.double().requires_grad_()
    exact = reference_run(case, wide, ids, modes, offsets, other)
    exact_grads = torch.autograd.grad(
        exact, [wide] if other is None else [wide, other], grad.double()
    )
    grads = torch.autograd.grad(found, [weight] if own is None else [weight, own], grad)
    assert bool(
        (
            (grads[0] - exact_grads[0]).abs() <= rounding(case, ids, modes, offsets, factors, grad)
        ).all()
    )
    if own is not None:
        torch.testing.assert_close(grads[1], exact_grads[1].float())
    with torch.no_grad():
        assert torch.equal(run(case, weight, ids, modes, offsets, own), found)


def rounding(
    case: Case, ids: Tensor, modes: Tensor, offsets: Any, factors: Any, grad: Tensor
) -> Tensor:
    """What a float32 sum of n terms in any order may be off: (n + 3) eps/2 times sum of |terms|.

    Three more roundings make the term: factor, share of the mean, product.
    """
    weight = case.weight().double().requires_grad_()
    size = None if factors is None else factors.double().abs()
    out = reference_run(case, weight, ids, modes, offsets, size)
    (absolute,) = torch.autograd.grad(out, weight, grad.double().abs())
    out = reference_run(case, weight, ids, torch.zeros_like(modes), offsets)
    (count,) = torch.autograd.grad(out, weight, torch.ones_like(out))
    return (count + 3) * torch.finfo(torch.float32).eps / 2 * absolute


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("name", KINDS)
def test_one_hot(name: str, chunk: int, private: bool) -> None:
    case = named_case(name, chunk, private=private)
    generator = torch.Generator().manual_seed(chunk)
    ids = one_hot_ids(case, 70, generator)
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    compare(case, ids, zeros, None, None)
    compare(case, ids, zeros, None, torch.randn(len(ids), generator=generator))


@pytest.mark.parametrize("chunk", [1, 4, 5])
@pytest.mark.parametrize("name", KINDS)
def test_bags(name: str, chunk: int) -> None:
    case = named_case(name, chunk, private=True)
    generator = torch.Generator().manual_seed(chunk)
    features = len(case.dims)
    # Longer than a tile of the kernel, and empty ones among them.
    for batch, longest in ((9, 4), (2, 150), (1, 1), (0, 0)):
        offsets = bag_offsets(features, batch, longest, generator)
        ids = bag_ids(case, offsets, batch, generator)
        modes = torch.arange(features) % 2
        compare(case, ids, modes, offsets, None)
        factors = torch.randn(len(ids), generator=generator)
        compare(case, ids, torch.zeros_like(modes), offsets, factors)


@given(data=st.data())
def test_any_tables_and_bags(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    kinds = [
        (data.draw(st.sampled_from(list(Kind))), data.draw(st.sampled_from(["prefix", "marks"])))
        for _ in range(count)
    ]
    kinds = [(kind, "fingerprint" if index == "marks" else index) for kind, index in kinds]
    dims = data.draw(st.lists(st.integers(1, 17), min_size=count, max_size=count))
    privates = [data.draw(st.integers(0, dim)) for dim in dims]
    seed = data.draw(st.integers(0, 10**6))
    case = make_case(seed, kinds, dims, privates, data.draw(st.integers(1, 9)))
    batch = data.draw(st.integers(0, 4))
    generator = torch.Generator().manual_seed(seed)
    offsets = bag_offsets(count, batch, data.draw(st.integers(0, 5)), generator)
    ids = bag_ids(case, offsets, batch, generator)
    modes = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    compare(case, ids, modes, offsets, None)
    weight = case.weight(torch.float64)
    torch.testing.assert_close(
        run(case, weight, ids, modes, offsets), by_loops(case, weight, ids, modes, offsets)
    )


@pytest.mark.parametrize("name", KINDS)
def test_reference_equals_plain_loops(name: str) -> None:
    case = named_case(name, 3, private=True)
    generator = torch.Generator().manual_seed(2)
    modes = torch.arange(len(case.dims)) % 2
    weight = case.weight(torch.float64)
    ids = one_hot_ids(case, 4, generator)
    torch.testing.assert_close(run(case, weight, ids, modes), by_loops(case, weight, ids, modes))
    offsets = bag_offsets(len(case.dims), 3, 4, generator)
    ids = bag_ids(case, offsets, 3, generator)
    factors = torch.randn(len(ids), generator=generator, dtype=torch.float64)
    sums = torch.zeros_like(modes)
    torch.testing.assert_close(
        run(case, weight, ids, sums, offsets, factors),
        by_loops(case, weight, ids, sums, offsets, factors),
    )


def test_runs_go_on_at_the_beginning_of_the_memory() -> None:
    """ROBE: stride 1, runs of 6 in a memory so small that many wrap around."""
    case = make_case(4, [(Kind.UNSIGNED, "prefix")] * 2, [12, 18], [0, 0], 6, stride=1)
    case.num_blocks = int(case.rule.layout[0, Column.HASHED_BLOCKS])
    generator = torch.Generator().manual_seed(0)
    ids = one_hot_ids(case, 60, generator)
    zeros = torch.zeros(2, dtype=torch.int64)
    starts = chunk_starts(case.rule, ids, case.numbers, 1, case.pieces)
    assert int(starts.max()) + 6 > case.num_blocks
    compare(case, ids, zeros, None, None)
    weight = case.weight(torch.float64)
    torch.testing.assert_close(run(case, weight, ids, zeros), by_loops(case, weight, ids, zeros))


def test_gradients_by_finite_differences() -> None:
    kinds = [(Kind.RANDOM, "fingerprint"), (Kind.UNSIGNED, "prefix")]
    case = make_case(1, kinds, [7, 4], [2, 0], 3)
    generator = torch.Generator().manual_seed(2)
    offsets = bag_offsets(len(case.dims), 2, 3, generator)
    ids = bag_ids(case, offsets, 2, generator)
    weight = case.weight(torch.float64).requires_grad_()
    modes = torch.arange(len(case.dims)) % 2
    assert torch.autograd.gradcheck(lambda w: run(case, w, ids, modes, offsets), (weight,))
    factors = torch.randn(len(ids), dtype=torch.float64, generator=generator).requires_grad_()
    sums = torch.zeros_like(modes)
    assert torch.autograd.gradcheck(
        lambda w, f: run(case, w, ids, sums, offsets, f), (weight, factors)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    case = named_case("all", 4, private=True)
    features = len(case.dims)
    # A bag so long that a sum in half precision would stop growing.
    offsets = torch.arange(features + 1) * 3000
    generator = torch.Generator().manual_seed(0)
    ids = bag_ids(case, offsets, 1, generator)
    zeros = torch.zeros(features, dtype=torch.int64)
    weight = case.weight(dtype).abs_().requires_grad_()
    found = run(case, weight, ids, zeros, offsets)
    assert found.dtype == dtype
    exact = run(case, weight.detach().double(), ids, zeros, offsets)
    # One rounding, at the end.
    torch.testing.assert_close(found, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0)
    (grad,) = torch.autograd.grad(found, weight, torch.ones_like(found) / 8)
    wide = weight.detach().double().requires_grad_()
    out = run(case, wide, ids, zeros, offsets)
    (exact,) = torch.autograd.grad(out, wide, torch.ones_like(out) / 8)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_million_ids_in_one_bag() -> None:
    case = make_case(0, [(Kind.RANDOM, "prefix")], [8], [0], 4)
    total = 10**6
    generator = torch.Generator().manual_seed(0)
    ids = case.ids(0, total, generator)
    offsets = torch.tensor([0, total])
    zero = torch.zeros(1, dtype=torch.int64)
    weight = case.weight().requires_grad_()
    found = run(case, weight, ids, zero, offsets)
    exact = run(case, weight.detach().double(), ids, zero, offsets)
    # Every one of n partial sums, at most n * largest, is rounded by eps/2 of itself; roundings
    # have random signs, and eight standard deviations are allowed.
    largest = float(weight.detach().abs().max())
    bound = 8 * total**0.5 * total * largest * torch.finfo(torch.float32).eps / 2
    assert float((found.detach().double() - exact).abs().max()) < bound
    found.sum().backward()
    assert weight.grad is not None
    # Every place is added ones, exact in float32.
    assert float(weight.grad.double().sum()) == 8 * total


def test_all_ids_equal() -> None:
    case = named_case("all", 4)
    ids = torch.zeros(len(case.dims) * 2000, dtype=torch.int64)
    compare(case, ids, torch.zeros(len(case.dims), dtype=torch.int64), None, None)


@pytest.mark.parametrize("name", ["random", "all"])
def test_gradients_repeat_for_any_number_of_threads(name: str, torch_threads: None) -> None:
    case = named_case(name, 4)
    generator = torch.Generator().manual_seed(0)
    ids = one_hot_ids(case, 5000, generator)
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    weight = case.weight().requires_grad_()
    grads, outs = [], []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        out = run(case, weight, ids, zeros)
        generator.manual_seed(1)
        grad = torch.randn(out.shape, generator=generator)
        grads.append(torch.autograd.grad(out, weight, grad)[0])
        outs.append(out)
    for grad, out in zip(grads, outs, strict=True):
        assert torch.equal(grad, grads[0])
        assert torch.equal(out, outs[0])


def opcheck_arguments() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    case = named_case("all", 3, private=True)
    generator = torch.Generator().manual_seed(0)
    features, batch = len(case.dims), 3
    offsets = bag_offsets(features, batch, 3, generator)
    ids = bag_ids(case, offsets, batch, generator)
    factors = torch.rand(len(ids), generator=generator)
    modes = torch.zeros(features, dtype=torch.int64)
    rule, numbers, columns = case.rule, case.numbers, case.columns
    tables = reference.tables_of_entries(numbers, offsets, len(ids))
    starts = chunk_starts(rule, ids, tables, case.unit, case.pieces)
    grad = torch.randn(batch, case.width, generator=generator)
    weight = case.weight()
    bags = (offsets, factors, numbers, columns, modes)
    return {
        "starts": (
            ops.starts,
            (
                ids, tables, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces,
            ),
        ),
        "lookup": (
            ops.lookup,
            (
                weight.requires_grad_(), ids, offsets, factors.requires_grad_(), *bags[2:], *rule,
                case.pieces, case.width, True,
            ),
        ),
        "lookup_grad": (
            ops.lookup_grad,
            (
                grad, starts, offsets, factors.detach(), *bags[2:], rule.layout, rule.chunk,
                rule.lead, case.num_blocks, case.unit,
            ),
        ),
        "factors_grad": (
            ops.factors_grad,
            (
                weight.detach(), grad, starts, offsets, numbers, columns, rule.layout, rule.chunk,
                rule.lead,
            ),
        ),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["starts", "lookup", "lookup_grad", "factors_grad"])
def test_opcheck(name: str) -> None:
    op, arguments = opcheck_arguments()[name]
    op_library.opcheck(op, arguments)


def test_bad_arguments_are_named() -> None:
    case = named_case("unsigned", 2)
    zeros = torch.zeros(2, dtype=torch.int64)
    weight = case.weight()
    with pytest.raises(ValueError, match="3 bags are no multiple of 2 features"):
        run(case, weight, torch.zeros(3, dtype=torch.int64), zeros)
    with pytest.raises(ValueError, match=r"factors must be \[4\], found \[3\]"):
        run(case, weight, torch.zeros(4, dtype=torch.int64), zeros, None, torch.ones(3))
    with pytest.raises(ValueError, match="weights are on meta, ids on cpu"):
        run(case, weight.to("meta"), torch.zeros(4, dtype=torch.int64), zeros)


@pytest.mark.parametrize("factors", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("tables", "dim", "chunk"), [(300, 8, 4), (26, 64, 1), (5, 16, 8)])
def test_tiles_of_fewer_and_of_more_entries_than_features(
    tables: int, dim: int, chunk: int, factors: bool
) -> None:
    kinds = [(kind, "prefix") for kind in list(Kind)]
    case = make_case(1, [kinds[t % len(kinds)] for t in range(tables)], [dim] * tables,
                     [0] * tables, chunk)  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    ids = one_hot_ids(case, 41, generator)
    scales = torch.randn(len(ids), generator=generator) if factors else None
    modes = torch.zeros(tables, dtype=torch.int64)
    arguments = case, case.weight(), ids, modes, None, scales
    torch.testing.assert_close(run(*arguments), reference_run(*arguments))
    found = chunk_starts(case.rule, ids, case.numbers, case.unit, case.pieces)
    rule = case.rule
    tables_of = reference.tables_of_entries(case.numbers, None, len(ids))
    wanted = reference.starts(
        ids, tables_of, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    assert torch.equal(found, wanted)
