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
from lma.kernels.reference import inputs, quantised, touched
from lma.kernels.reference import lookup as reference
from lma.kernels.update import UpdateKind

# Torch and Triton warn of their own old habits.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The launchers."""
    assert os.environ["TRITON_INTERPRET"] == "1"
    from lma.kernels.gpu import lookup

    return lookup


@pytest.fixture(autouse=True)
def small_programs(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many programs, the last one partly filled, of sizes too small for a GPU."""
    from lma.kernels.gpu import accept, segment_kernel, update_kernel

    for module, name, size in (
        (kernels, "STARTS", 256), (kernels, "ENTRIES", 32), (kernels, "TILE", 256),
        (segment_kernel, "FLOATS", 128), (segment_kernel, "SEGMENTS", 8),
        (update_kernel, "FLOATS", 64), (accept, "ENTRIES", 8),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)


def starts_of(kernels: ModuleType, case: Case, ids: torch.Tensor) -> torch.Tensor:
    rule = case.rule
    return kernels.starts(  # type: ignore[no-any-return]
        ids, case.numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("name", KINDS)
def test_starts(kernels: ModuleType, name: str, private: bool) -> None:
    case = named_case(name, 3, 1, private)
    ids = one_hot_ids(case, 70, torch.Generator().manual_seed(1))
    assert torch.equal(starts_of(kernels, case, ids), starts_of(reference, case, ids))


def test_tensors_that_are_views(kernels: ModuleType) -> None:
    """Tables, factors and ids with strides of their own, 0 among them."""
    case = named_case("all", 4)
    ids = one_hot_ids(case, 9, torch.Generator().manual_seed(0))
    wide = torch.stack([ids, ids], 1)[:, 0]
    one = torch.tensor(1).expand(len(ids))
    rule = case.rule
    rest = (*rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces)
    assert torch.equal(kernels.starts(wide, one, *rest), reference.starts(wide, one, *rest))
    numbers, columns = case.numbers, case.columns
    sums = torch.zeros(len(numbers), dtype=torch.int64)
    grad = torch.randn(9, case.width)
    for factors in (torch.randn(len(ids), 2)[:, 0], torch.tensor(2.0).expand(len(ids))):
        bags = (None, factors, numbers, columns, sums)
        arguments = (case.weight(), wide, *bags, *rule, case.pieces, case.width, True)
        found, starts = kernels.lookup(*arguments)
        torch.testing.assert_close(found, reference.lookup(*arguments)[0])
        place = (
            grad,
            starts,
            *bags,
            rule.layout,
            rule.chunk,
            rule.lead,
            case.num_blocks,
            case.unit,
        )
        torch.testing.assert_close(kernels.lookup_grad(*place), reference.lookup_grad(*place))
        torch.testing.assert_close(kernels.touched_grad(*place)[1], touched.touched_grad(*place)[1])


def test_no_ids(kernels: ModuleType) -> None:
    case = named_case("all", 3, private=True)
    none = torch.empty(0, dtype=torch.int64)
    assert starts_of(kernels, case, none).shape == (0, case.pieces)


def alike_case(name: str, chunk: int) -> Case:
    """Tables of one dimension without private parts, for which kernels know more."""
    kinds = KINDS[name]
    return make_case(0, kinds, [12] * len(kinds), [0] * len(kinds), chunk)


CASES = {
    "all": lambda: named_case("all", 4, private=True),
    "unsigned": lambda: named_case("unsigned", 4, private=True),
    "all alike": lambda: alike_case("all", 4),
    "unsigned alike": lambda: alike_case("unsigned", 4),
    "parts of chunks": lambda: alike_case("all", 5),
    "single floats": lambda: alike_case("all", 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("name", CASES)
def test_lookup_and_gradients(
    kernels: ModuleType, name: str, bags: bool, dtype: torch.dtype
) -> None:
    case = CASES[name]()
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


def test_a_row_of_many_touches_is_added_up_in_parts(kernels: ModuleType) -> None:
    """Every entry reads the same floats; once more gives the same bits."""
    case = named_case("unsigned", 4)
    entries = 600
    grad = torch.randn(entries // 2, case.width, generator=torch.Generator().manual_seed(0))
    starts = starts_of(reference, case, torch.full((entries,), 7))
    arguments = (
        grad, starts, None, None, case.numbers, case.columns, torch.zeros(2, dtype=torch.int64),
        case.rule.layout, case.rule.chunk, case.rule.lead, case.num_blocks, case.unit,
    )  # fmt: skip
    rows, values = kernels.touched_grad(*arguments)
    wanted = torch.zeros(case.num_blocks, case.unit, dtype=torch.float64)
    for e, pieces in enumerate(starts.tolist()):
        dim, column = case.dims[e % 2], int(case.columns[e % 2])
        for j, start in enumerate(pieces):
            for i in range(max(0, min(4, dim - 4 * j))):
                wanted[start, i] += grad[e // 2, column + 4 * j + i].double()
    assert set(rows.tolist()) == set(starts[starts >= 0].tolist())
    # 300 terms of size 1, each sum of parts within half a unit in the last place of some 20.
    torch.testing.assert_close(values.double(), wanted[rows], rtol=1e-5, atol=1e-5)
    assert torch.equal(kernels.touched_grad(*arguments)[1], values)


@pytest.mark.parametrize("name", ["all", "all alike"])
@pytest.mark.parametrize("kind", list(UpdateKind))
def test_fused_update(kernels: ModuleType, kind: UpdateKind, name: str) -> None:
    case = CASES[name]()
    generator = torch.Generator().manual_seed(0)
    starts = starts_of(reference, case, one_hot_ids(case, 9, generator))
    grad = torch.randn(9, case.width, generator=generator)
    modes = torch.zeros(len(case.dims), dtype=torch.int64)
    weight = case.weight()
    size = len(weight) if kind == UpdateKind.BLOCK_ADAGRAD else weight.shape
    state = torch.rand(size, generator=generator)
    both = []
    for function in (kernels.fused_update, touched.fused_update):
        memory, first, second = weight.clone(), state.clone(), torch.rand_like(weight)
        second.copy_(weight.abs())
        function(
            memory, first, second, grad, starts, None, None, case.numbers, case.columns, modes,
            case.rule.layout, case.rule.chunk, case.rule.lead, int(kind), 0.1, 1e-8, 0.9, 0.99,
        )  # fmt: skip
        both.append((memory, first, second))
    for found, wanted in zip(*both, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not torch.equal(both[0][0], weight)


@pytest.mark.parametrize("policy", [inputs.ERROR, inputs.WRAP, inputs.CLAMP])
def test_accepted_ids(kernels: ModuleType, policy: int) -> None:
    from lma.kernels.gpu import accept

    sizes = torch.tensor([5, -1, 2**62, 1])
    ids = torch.randint(-(2**63), 2**63 - 1, (20,)) // torch.tensor([1, 2**60]).repeat(10)
    arguments = (ids, torch.tensor([0, 1, 3, 2]), sizes, policy, False, "a\nb\nc\nd")
    assert torch.equal(accept.accept_ids(*arguments), inputs.accept_ids(*arguments))
    if policy == inputs.ERROR:
        with pytest.raises(IndexError, match="is outside"):
            accept.accept_ids(*arguments[:4], True, arguments[5])
    assert accept.accept_ids(ids[:0], *arguments[1:]).shape == (0,)


def test_facts_follow_a_layout_that_is_changed(kernels: ModuleType) -> None:
    from lma.kernels.gpu.facts import facts

    layout = alike_case("all", 4).rule.layout
    assert facts(layout) == (12, 12, 0, True, True)
    layout[0, Column.DIM] = 20
    assert facts(layout)[:2] == (0, 20)
    layout[:, Column.KIND] = Kind.UNSIGNED
    layout[:, Column.PRIVATE_DIM] = 3
    assert facts(layout) == (0, 20, 3, False, False)


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
