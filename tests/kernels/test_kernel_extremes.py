"""Bags of none and of a million ids, ids at the ends of 64 bits, all ids equal: every backend.

Weights and gradients are small whole numbers here, so float32 sums are exact in any order, and a
single term that is lost or read twice shows.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import Case, make_case
from torch import Tensor

from lma.kernels import ops
from lma.kernels.layout import Kind
from lma.kernels.reference import lookup as reference
from lma.kernels.update import UpdateKind

MILLION = 10**6
EDGES = torch.tensor([2**63 - 1, 2**63 - 2, -(2**63), 1 - 2**63, 0, -1])
EPS = torch.finfo(torch.float32).eps


def case_of(kind: Kind, index: str = "prefix") -> Case:
    return make_case(3, [(kind, index)] * 2, [6, 4], [2, 0], 4)


def whole_numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    """-8 ... 8: a million of them sum to less than 2^24."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, shape, generator=generator).float()


def check_exact(case: Case, ids: Tensor, offsets: Tensor | None, modes: Tensor) -> None:
    """Forward, dense and touched gradient, and an update, against the reference in float64."""
    rule = case.rule
    weight = whole_numbers((case.num_blocks, case.unit), 0)
    rest = (ids, offsets, None, case.numbers, case.columns, modes, *rule, case.pieces, case.width)
    found, starts = ops.lookup(weight, *rest, True)
    exact, same = reference.lookup(weight.double(), *rest, True)
    assert torch.equal(starts, same)
    assert torch.equal(found, exact.float())
    grad = whole_numbers(tuple(found.shape), 1)
    touched = (
        starts, offsets, None, case.numbers, case.columns, modes, rule.layout, rule.chunk, rule.lead
    )  # fmt: skip
    wanted = reference.lookup_grad(grad.double(), *touched, *weight.shape).float()
    assert torch.equal(ops.lookup_grad(grad, *touched, *weight.shape), wanted)
    rows, values = ops.touched_grad(grad, *touched, *weight.shape)
    dense = torch.zeros_like(weight).index_copy_(0, rows, values)
    assert torch.equal(dense, wanted)
    after, none = weight.clone(), torch.empty(0)
    ops.fused_update(after, none, none, grad, *touched, int(UpdateKind.SGD), 1.0, 0.0, 0.0, 0.0)
    assert torch.equal(after, weight - wanted)


SUMS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize("kind", list(Kind))
def test_no_bags_and_empty_bags(kind: Kind) -> None:
    case = case_of(kind)
    none = torch.empty(0, dtype=torch.int64)
    for modes in (SUMS, SUMS + 1):
        check_exact(case, none, torch.zeros(1, dtype=torch.int64), modes)
        check_exact(case, none, torch.zeros(3, dtype=torch.int64), modes)
        check_exact(case, none, None, modes)


@pytest.mark.parametrize(
    ("kind", "index", "equal"),
    [
        (Kind.UNSIGNED, "prefix", True),
        (Kind.RANDOM, "fingerprint", False),
        (Kind.LEARNED, "prefix", False),
    ],
    ids=["all equal", "random codes", "learned codes"],
)
def test_a_million_ids_in_one_bag(kind: Kind, index: str, equal: bool) -> None:
    case = case_of(kind, index)
    ids = case.ids(0, MILLION + 3, torch.Generator().manual_seed(0))
    if equal:
        ids[:] = ids[0]
    check_exact(case, ids, torch.tensor([0, MILLION, MILLION + 3]), SUMS)


@pytest.mark.parametrize("kind", [Kind.UNSIGNED, Kind.RANDOM, Kind.LEARNED])
@pytest.mark.parametrize("index", ["prefix", "fingerprint"])
def test_ids_at_the_ends_of_64_bits(kind: Kind, index: str) -> None:
    case = case_of(kind, index)
    check_exact(case, EDGES.repeat_interleave(2), None, SUMS)
    check_exact(case, EDGES, torch.tensor([0, 1, 4, 4, 6]), SUMS)


@pytest.mark.parametrize("kind", list(Kind))
def test_all_rows_of_a_batch_read_one_token(kind: Kind) -> None:
    case = case_of(kind)
    check_exact(case, torch.zeros(2 * 20_000, dtype=torch.int64), None, SUMS)


@given(data=st.data())
def test_floats_are_off_by_their_roundings_at_most(data: st.DataObject) -> None:
    """A float32 sum of n terms in any order: (n + 3) eps / 2 times the sum of their sizes."""
    kind = data.draw(st.sampled_from(list(Kind)))
    case = case_of(kind, data.draw(st.sampled_from(["prefix", "fingerprint"])))
    lengths = data.draw(st.lists(st.integers(0, 300), min_size=0, max_size=3))
    modes = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=2, max_size=2)))
    offsets = torch.tensor([0, *lengths, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    ids = torch.cat([case.ids(t, sum(lengths), generator) for t in range(2)])
    factors = torch.randn(len(ids), generator=generator) if not bool(modes.any()) else None
    weight = case.weight()

    def run(weight: Tensor, factors: Tensor | None) -> tuple[Tensor, Tensor]:
        return reference.lookup(
            weight, ids, offsets, factors, case.numbers, case.columns, modes, *case.rule,
            case.pieces, case.width, True,
        )  # fmt: skip

    found, starts = ops.lookup(
        weight, ids, offsets, factors, case.numbers, case.columns, modes, *case.rule, case.pieces,
        case.width, True,
    )  # fmt: skip
    exact, _ = run(weight.double(), None if factors is None else factors.double())
    sizes, _ = run(weight.double().abs(), None if factors is None else factors.double().abs())
    terms = torch.tensor(lengths).view(-1, 1).double()
    assert bool(((found - exact).abs() <= (terms + 3) * EPS / 2 * sizes).all())

    rule = case.rule
    grad = torch.randn(found.shape, generator=generator)
    rest = (case.numbers, case.columns, modes, rule.layout, rule.chunk, rule.lead, *weight.shape)
    wide = None if factors is None else factors.double()
    exact = reference.lookup_grad(grad.double(), starts, offsets, wide, *rest)
    sizes = reference.lookup_grad(
        grad.double().abs(), starts, offsets, None if wide is None else wide.abs(), *rest
    )
    one = torch.ones_like(grad, dtype=torch.float64)
    counts = reference.lookup_grad(one, starts, offsets, None, *rest[:2], SUMS, *rest[3:])
    bound = (counts + 3) * EPS / 2 * sizes
    dense = ops.lookup_grad(grad, starts, offsets, factors, *rest)
    rows, values = ops.touched_grad(grad, starts, offsets, factors, *rest)
    for gradient in (dense, torch.zeros_like(weight).index_copy_(0, rows, values)):
        assert bool(((gradient - exact).abs() <= bound).all())
