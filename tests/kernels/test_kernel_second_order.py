"""Gradients of gradients and forward-mode derivatives: right, or an error that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_cases import Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids
from torch import Tensor
from torch import library as op_library
from torch.autograd import forward_ad

import lma
from lma.allocation import Hashed
from lma.kernels import ops
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import lookup
from lma.kernels.reference import lookup as reference
from lma.kernels.reference.quantised import quantise
from lma.kernels.touched import lookup_touched
from lma.nn import FusedOptimizer

Function = Callable[..., Tensor]


def functions(case: Case, bags: bool, weighted: bool) -> tuple[Function, Function, int]:
    """(`lookup`, the reference that autograd differentiates itself, entries) of one call."""
    generator = torch.Generator().manual_seed(0)
    features = len(case.dims)
    offsets = bag_offsets(features, 3, 4, generator) if bags else None
    ids = one_hot_ids(case, 3, generator)
    if offsets is not None:
        ids = bag_ids(case, offsets, 3, generator)
    modes = torch.arange(features) % 2 if not weighted else torch.zeros_like(case.numbers)

    def ours(weight: Tensor, factors: Tensor | None = None, function: Any = lookup) -> Tensor:
        return function(  # type: ignore[no-any-return]
            weight, case.rule, ids, case.numbers, case.columns, modes, case.pieces, case.width,
            offsets, factors,
        )  # fmt: skip

    def plain(weight: Tensor, factors: Tensor | None = None) -> Tensor:
        out, _ = reference.lookup(
            weight, ids, offsets, factors, case.numbers, case.columns, modes, *case.rule,
            case.pieces, case.width, True,
        )  # fmt: skip
        return out

    return ours, plain, len(ids)


def inputs(case: Case, entries: int, weighted: bool, dtype: torch.dtype) -> list[Tensor]:
    weight = case.weight(dtype).requires_grad_()
    if not weighted:
        return [weight]
    factors = torch.randn(entries, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [weight, factors.to(dtype).requires_grad_()]


def third_order(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    """A number that every derivative up to the third takes part in, differentiated."""
    loss = function(*tensors).pow(3).sum()
    for _ in range(2):
        grads = torch.autograd.grad(loss, tensors, create_graph=True)
        loss = sum((grad.square().sum() for grad in grads), torch.zeros(()))
    return list(torch.autograd.grad(loss, tensors))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("name", ["random", "all"])
def test_gradients_of_gradients_are_the_references(name: str, bags: bool, weighted: bool) -> None:
    case = named_case(name, 3, private=True)
    ours, plain, entries = functions(case, bags, weighted)
    wide = inputs(case, entries, weighted, torch.float64)
    wanted = third_order(plain, wide)
    for found, exact in zip(third_order(ours, wide), wanted, strict=True):
        assert bool(exact.any())
        torch.testing.assert_close(found, exact)
    for found, exact in zip(
        third_order(ours, inputs(case, entries, weighted, torch.float32)), wanted, strict=True
    ):
        # Sums of products of up to a dozen rounded factors, relative to the largest.
        size = float(exact.abs().max())
        torch.testing.assert_close(found.double() / size, exact / size, rtol=1e-4, atol=1e-5)


# PyTorch warns of its own use of deprecated functions.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_finite_differences_agree(weighted: bool) -> None:
    # Runs that go on at the memory's beginning.
    case = make_case(4, [(Kind.UNSIGNED, "prefix")] * 2, [2, 4], [0, 0], 3, stride=1)
    case.rule.layout[:, Column.HASHED_BLOCKS] = case.num_blocks = 7
    ours, _, entries = functions(case, True, weighted)
    tensors = inputs(case, entries, weighted, torch.float64)
    assert torch.autograd.gradgradcheck(ours, tensors)
    assert torch.autograd.gradcheck(ours, tensors, check_forward_ad=True)


def test_a_gradient_penalty_of_a_module() -> None:
    module = lma.EmbeddingBagCollection(
        [lma.EmbeddingBagConfig(9, 4, "a")], method=Hashed(block_size=2), budget="1KB"
    )
    weight = module.memory.weight
    out = module(torch.tensor([[3], [3], [5]]))
    (grad,) = torch.autograd.grad(out.square().sum(), weight, create_graph=True)
    grad.square().sum().backward()
    # grad = 2 count * w at every float, and the sum of its squares has the gradient 8 count^2 * w.
    (counts,) = torch.autograd.grad(module(torch.tensor([[3], [3], [5]])).sum(), weight)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 8 * counts.square() * weight.detach())
    assert bool(weight.grad.any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    case = named_case("random", 4)
    ours, _, entries = functions(case, True, True)
    weight, factors = inputs(case, entries, True, dtype)
    wide = factors.detach().float().requires_grad_()
    out = ours(weight, wide)
    first = torch.autograd.grad(out.float().square().sum(), [weight, wide], create_graph=True)
    second = torch.autograd.grad(sum(g.float().sum() for g in first), [weight, wide])
    assert [g.dtype for g in (*first, *second)] == [dtype, torch.float32] * 2
    assert all(bool(g.any()) for g in second)


def test_gradients_of_touched_blocks_say_that_they_are_final() -> None:
    case = named_case("random", 4)
    ours, _, entries = functions(case, True, True)
    weight, factors = inputs(case, entries, True, torch.float32)
    out = ours(weight, factors, lookup_touched)
    sparse, own = torch.autograd.grad(out.square().sum(), [weight, factors], create_graph=True)
    dense = torch.autograd.grad(ours(weight, factors).square().sum(), [weight, factors])
    torch.testing.assert_close(sparse.to_dense(), dense[0])
    torch.testing.assert_close(own, dense[1])
    with pytest.raises(RuntimeError, match=r"touched blocks is not differentiable again.*sparse"):
        sparse.to_dense().square().sum().backward()
    grad = torch.ones_like(out, requires_grad=True)
    _, starts = ops.lookup(weight, *_read(case), True)
    _, values = ops.touched_grad(grad, *_place(case, starts), *weight.shape)
    with pytest.raises(RuntimeError, match="not differentiable again"):
        values.sum().backward()


def test_an_update_happens_once() -> None:
    module = lma.EmbeddingBagCollection(
        [lma.EmbeddingBagConfig(9, 4, "a")], method=Hashed(block_size=2), budget="1KB"
    )
    optimizer = FusedOptimizer(module.memory, "sgd", lr=0.1)
    scale = torch.ones(4, requires_grad=True)
    loss = (module(torch.tensor([[3], [5]])) * scale).square().sum()
    inputs = [scale, module.memory.weight]
    grad, none = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
    assert none is None
    assert optimizer.steps == 1
    with pytest.raises(RuntimeError, match=r"second backward pass|modified by an inplace"):
        grad.square().sum().backward()
    assert optimizer.steps == 1


def _read(case: Case) -> tuple[Any, ...]:
    ids = one_hot_ids(case, 3, torch.Generator().manual_seed(0))
    sums = torch.zeros_like(case.numbers)
    bags = (None, None, case.numbers, case.columns, sums)
    return (ids, *bags, *case.rule, case.pieces, case.width)


def _place(case: Case, starts: Tensor, factors: Tensor | None = None) -> tuple[Any, ...]:
    sums, rule = torch.zeros_like(case.numbers), case.rule
    bags = (None, factors, case.numbers, case.columns, sums)
    return (starts, *bags, rule.layout, rule.chunk, rule.lead)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype) -> None:
    case = named_case("all", 3, private=True)
    weight = case.weight(dtype).requires_grad_()
    out, starts = ops.lookup(weight.detach(), *_read(case), True)
    grad = torch.randn_like(out, requires_grad=True)
    factors = torch.rand(len(starts)).to(dtype).requires_grad_()
    place = _place(case, starts, factors)
    op_library.opcheck(ops.lookup_grad, (grad, *place, *weight.shape))
    op_library.opcheck(ops.pool_starts, (weight, *place, case.width))
    rest = (None, *place[3:5], *place[6:])
    op_library.opcheck(ops.factors_grad, (weight, grad, starts, *rest))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tangents_go_through_lookups() -> None:
    case = named_case("all", 3, private=True)
    ours, plain, entries = functions(case, True, True)
    weight, factors = (t.detach() for t in inputs(case, entries, True, torch.float32))
    steps = torch.randn_like(weight), torch.randn_like(factors)
    out, tangent = torch.func.jvp(ours, (weight, factors), steps)
    torch.testing.assert_close(out, ours(weight, factors))
    # Linear in either.
    torch.testing.assert_close(tangent, ours(steps[0], factors) + ours(weight, steps[1]))
    one = torch.ones(())
    _, nested = torch.func.jvp(
        lambda w: torch.func.jvp(lambda z: (z * ours(w)).square().sum(), (one,), (one,))[1],
        (weight,), (steps[0],),
    )  # fmt: skip
    torch.testing.assert_close(nested, 4 * (ours(weight) * ours(steps[0])).sum())
    nested = torch.func.jacfwd(torch.func.jacfwd(lambda f: ours(weight, f).pow(3).sum()))(factors)
    twice = torch.autograd.functional.hessian(lambda f: plain(weight, f).pow(3).sum(), factors)
    torch.testing.assert_close(nested, twice)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, steps[0])
        with pytest.raises(RuntimeError, match="touched blocks have no forward mode"):
            ours(dual, factors, lookup_touched)
        dual = forward_ad.make_dual(factors, steps[1])
        with pytest.raises(RuntimeError, match="int8 memory have no gradient"):
            ours(quantise(weight), dual)
