"""Gradients of touched blocks, and updates by them, against torch's optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import KINDS, Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids
from torch import Tensor
from torch import library as op_library

import lma
from lma.allocation import Full, Hashed, Robe
from lma.kernels import graph_ops, ops
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import lookup
from lma.kernels.reference import touched as reference
from lma.kernels.touched import Touched, lookup_touched
from lma.kernels.update import UpdateKind
from lma.nn import FusedOptimizer


def arguments(case: Case, batch: int, bags: bool, seed: int = 0) -> tuple[Any, ...]:
    """What `lookup` takes behind the weights."""
    generator = torch.Generator().manual_seed(seed)
    features = len(case.dims)
    modes = torch.arange(features) % 2
    if not bags:
        return (
            case.rule, one_hot_ids(case, batch, generator), case.numbers, case.columns, modes,
            case.pieces, case.width,
        )  # fmt: skip
    offsets = bag_offsets(features, batch, 4, generator)
    ids = bag_ids(case, offsets, batch, generator)
    return (
        case.rule, ids, case.numbers, case.columns, modes, case.pieces, case.width, offsets,
    )  # fmt: skip


def check_sparse(case: Case, batch: int, bags: bool, seed: int = 0) -> None:
    weight = case.weight().requires_grad_()
    call = arguments(case, batch, bags, seed)
    dense, sparse = lookup(weight, *call), lookup_touched(weight, *call)
    assert torch.equal(dense, sparse)
    grad = torch.randn(dense.shape, generator=torch.Generator().manual_seed(1))
    (wanted,) = torch.autograd.grad(dense, weight, grad)
    (found,) = torch.autograd.grad(sparse, weight, grad)
    assert found.is_sparse
    assert found.is_coalesced()
    indices = found.indices()[0]
    assert torch.equal(indices, indices.unique())
    torch.testing.assert_close(found.to_dense(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("name", KINDS)
def test_sparse_gradients_are_the_dense_ones(name: str, chunk: int, bags: bool) -> None:
    case = named_case(name, chunk, private=True)
    for batch in (0, 1, 40):
        check_sparse(case, batch, bags)


@given(data=st.data())
def test_touched_blocks_equal_the_reference(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    kinds = [
        (data.draw(st.sampled_from(list(Kind))), data.draw(st.sampled_from(["prefix"])))
        for _ in range(count)
    ]
    dims = data.draw(st.lists(st.integers(1, 17), min_size=count, max_size=count))
    privates = [data.draw(st.integers(0, dim)) for dim in dims]
    seed = data.draw(st.integers(0, 10**6))
    case = make_case(seed, kinds, dims, privates, data.draw(st.integers(1, 9)))
    check_sparse(case, data.draw(st.integers(0, 4)), data.draw(st.booleans()), seed)


def test_features_may_lie_in_any_order_in_the_output() -> None:
    """Equal features whose columns are permuted must not pass for a gradient read in order."""
    case = make_case(0, [(Kind.UNSIGNED, "prefix")] * 3, [16] * 3, [0] * 3, 4)
    rule, ids, numbers, columns, *rest = arguments(case, 40, bags=False)
    weight, grad = case.weight().requires_grad_(), torch.randn(40, 48)
    in_order = lookup_touched(weight, rule, ids, numbers, columns, *rest)
    permuted = lookup_touched(weight, rule, ids, numbers, torch.tensor([32, 0, 16, 48]), *rest)
    turned = torch.cat([permuted[:, 32:], permuted[:, :32]], 1)
    assert torch.equal(turned, in_order)
    # The same numbers for the same features, wherever they lie.
    (found,) = torch.autograd.grad(permuted, weight, torch.cat([grad[:, 16:], grad[:, :16]], 1))
    (wanted,) = torch.autograd.grad(in_order, weight, grad)
    assert torch.equal(found.indices(), wanted.indices())
    torch.testing.assert_close(found.values(), wanted.values())


@pytest.mark.parametrize("privates", [[0, 0, 0], [0, 4, 16]], ids=["alike", "private parts"])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_threads_gives_the_same_bits(
    threads: int, bags: bool, privates: list[int], torch_threads: None
) -> None:
    # Far more blocks than one bucket of the kernel holds.
    case = make_case(0, [(Kind.UNSIGNED, "prefix")] * 3, [16] * 3, privates, 4)
    case.rule.layout[:, Column.HASHED_BLOCKS] = 9000
    case.num_blocks = max(9000, case.num_blocks)
    check_sparse(case, 4000, bags)
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        weight = case.weight().requires_grad_()
        out = lookup_touched(weight, *arguments(case, 4000, bags))
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results.append(torch.autograd.grad(out, weight, grad)[0])
    assert torch.equal(results[0].indices(), results[1].indices())
    assert torch.equal(results[0].values(), results[1].values())


OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adam": lambda p: torch.optim.SparseAdam(p, lr=0.1),
}


def collection(sparse: bool = False, method: Any = None) -> lma.EmbeddingBagCollection:
    torch.manual_seed(0)
    tables = [
        lma.EmbeddingBagConfig(300, 8, "a"),
        lma.EmbeddingBagConfig(None, 8, "b", pooling="mean"),
    ]
    return lma.EmbeddingBagCollection(
        tables, method=method or Hashed(block_size=4), budget="8KB", sparse=sparse
    )


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(count):
        offsets = bag_offsets(2, 20, 5, generator)
        out.append((torch.randint(0, 300, (int(offsets[-1]),), generator=generator), offsets))
    return out


def loss(module: lma.EmbeddingBagCollection, batch: tuple[Tensor, Tensor]) -> Tensor:
    out = module(*batch)
    return (out - torch.linspace(-1, 1, out.numel()).view_as(out)).square().sum()


# Torch's optimizers build sparse tensors without saying whether to check them.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("method", [Hashed(block_size=4), Robe(chunk_size=4)], ids=["hash", "robe"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_updates_equal_torchs_optimizer(name: str, method: Any) -> None:
    plain, fused = collection(sparse=True, method=method), collection(method=method)
    optimizer = OPTIMIZERS[name]([plain.memory.weight])
    FusedOptimizer(fused.memory, name, lr=0.1)
    for batch in batches(6):
        optimizer.zero_grad()
        loss(plain, batch).backward()
        optimizer.step()
        loss(fused, batch).backward()
        assert fused.memory.weight.grad is None
        torch.testing.assert_close(fused.memory.weight, plain.memory.weight, rtol=1e-4, atol=1e-5)


def test_block_adagrad_by_hand() -> None:
    module = collection()
    optimizer = FusedOptimizer(module.memory, "block_adagrad", lr=0.1)
    assert optimizer.state_bytes == 4 * module.allocation.num_blocks
    twin = collection()
    sums = torch.zeros(module.allocation.num_blocks, dtype=torch.float64)
    for batch in batches(4):
        loss(module, batch).backward()
        twin.zero_grad()
        loss(twin, batch).backward()
        assert twin.memory.weight.grad is not None
        g = twin.memory.weight.grad.double()
        sums += g.square().mean(1)
        with torch.no_grad():
            twin.memory.weight -= (0.1 * g / (sums.sqrt() + 1e-10).unsqueeze(1)).float()
        torch.testing.assert_close(module.memory.weight, twin.memory.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(UpdateKind))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_equal_the_reference(kind: UpdateKind, dtype: torch.dtype) -> None:
    case = named_case("all", 3, private=True)
    rule, ids, numbers, columns, modes, _, width, offsets = arguments(case, 30, True)
    starts = ops.starts(
        ids, _tables(case, offsets, len(ids)), *rule[:6], case.unit, rule.chunk, rule.stride,
        rule.lead, case.pieces,
    )  # fmt: skip
    touched = Touched(
        starts, offsets, None, numbers, columns, modes, rule.layout, rule.chunk, rule.lead
    )
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(30, width, generator=generator, dtype=dtype)
    shape = (case.num_blocks,) if kind == UpdateKind.BLOCK_ADAGRAD else case.weight().shape
    state, second = (torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))
    results = []
    for update in (ops.fused_update, reference.fused_update):
        held = [case.weight(dtype), state.clone(), second.clone()]
        update(*held, grad, *touched, int(kind), 0.1, 1e-8, 0.9, 0.999)
        results.append(held)
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


# One id per feature, sums, whole blocks: the case that kernels have loops of their own for.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("unit", [1, 4, 8, 16])
@pytest.mark.parametrize("kind", list(UpdateKind))
def test_updates_of_whole_blocks_equal_the_reference(
    kind: UpdateKind, unit: int, threads: int, torch_threads: None
) -> None:
    torch.set_num_threads(threads)
    # Several of the kernel's buckets, blocks touched once and several times.
    case = make_case(0, [(Kind.UNSIGNED, "prefix")] * 2, [48] * 2, [0] * 2, unit)
    case.rule.layout[:, Column.HASHED_BLOCKS] = 9000
    case.num_blocks = 9000
    rule, ids, numbers, columns, modes, _, width = arguments(case, 900, False)
    starts = ops.starts(
        ids, numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    modes = torch.zeros_like(modes)
    touched = (starts, None, None, numbers, columns, modes, rule.layout, rule.chunk, rule.lead)
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(900, width, generator=generator, dtype=torch.float64)
    shape = (case.num_blocks,) if kind == UpdateKind.BLOCK_ADAGRAD else case.weight().shape
    state, second = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    results = []
    for update, dtype in (
        (ops.fused_update, torch.float32), (reference.fused_update, torch.float64),
    ):  # fmt: skip
        held = [case.weight(dtype), state.to(dtype), second.to(dtype)]
        update(*held, grad.to(dtype), *touched, int(kind), 0.1, 1e-8, 0.9, 0.999)
        results.append(held)
    for found, wanted in zip(*results, strict=True):
        # Sums of many terms of size one, whose roundings add up to some 1e-5.
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-4)


def _tables(case: Case, offsets: Tensor, total: int) -> Tensor:
    from lma.kernels.reference.lookup import tables_of_entries

    return tables_of_entries(case.numbers, offsets, total)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_opcheck_of_touched_ops() -> None:
    case = named_case("all", 3, private=True)
    rule, ids, numbers, columns, modes, _, width = arguments(case, 5, False)
    starts = ops.starts(
        ids, numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    touched = (starts, None, None, numbers, columns, modes, rule.layout, rule.chunk, rule.lead)
    grad = torch.randn(5, width)
    op_library.opcheck(ops.touched_grad, (grad, *touched, case.num_blocks, case.unit))
    weight = case.weight()
    op_library.opcheck(
        ops.fused_update,
        (weight, torch.zeros_like(weight), torch.empty(0), grad, *touched, 1, 0.1, 1e-8, 0.9, 0.99),
    )
    settings = torch.tensor([0.1, 1e-8, 0.9, 0.99, 0], dtype=torch.float64)
    optimizer = torch.zeros_like(weight), torch.empty(0), settings
    op_library.opcheck(graph_ops.fused_step, (weight, *optimizer, grad, *touched, 1, None))
    begun = torch.zeros((), dtype=torch.float64)
    op_library.opcheck(graph_ops.fused_step, (weight, *optimizer, grad, *touched, 1, begun))
    # Only the schema of what returns a sparse tensor: comparing gradients is the next test's.
    schema = ["test_schema"]
    read = (ids, None, None, numbers, columns, modes, *rule, case.pieces, width)
    op_library.opcheck(
        graph_ops.sparse_grad, (grad, *touched, case.num_blocks, case.unit), test_utils=schema
    )
    op_library.opcheck(graph_ops.lookup_sparse, (weight, *read))
    op_library.opcheck(graph_ops.lookup_updating, (weight, *optimizer, *read, 1))


def test_a_resumed_run_is_the_same() -> None:
    through, first, second = collection(), collection(), collection()
    whole = FusedOptimizer(through.memory, "adam", lr=0.05)
    half = FusedOptimizer(first.memory, "adam", lr=0.05)
    for batch in batches(4):
        loss(through, batch).backward()
    for batch in batches(4)[:2]:
        loss(first, batch).backward()
    second.load_state_dict(first.state_dict())
    rest = FusedOptimizer(second.memory, "adam", lr=0.9)
    rest.load_state_dict(half.state_dict())
    for batch in batches(4)[2:]:
        loss(second, batch).backward()
    assert torch.equal(through.memory.weight, second.memory.weight)
    assert whole.steps == rest.steps == 4
    with pytest.raises(ValueError, match="state is of 'adam'"):
        FusedOptimizer(collection().memory, "sgd").load_state_dict(half.state_dict())


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"weight_decay": 0.1}, "weight_decay .* every block at every step"),
        ({"momentum": 0.9}, "momentum .* every block that ever had a gradient"),
        ({"max_norm": 1.0}, "max_norm .* known only after the update"),
        ({"grad_scaler": object()}, "grad_scaler .* already made"),
        ({"accumulation_steps": 2}, "accumulation_steps .* every backward pass makes a step"),
    ],
)
def test_what_cannot_work_is_refused(option: dict[str, Any], text: str) -> None:
    module = collection()
    with pytest.raises(ValueError, match=text):
        FusedOptimizer(module.memory, "sgd", **option)
    FusedOptimizer(module.memory, "sgd", weight_decay=0.0, accumulation_steps=1).close()
    with pytest.raises(TypeError, match="no argument 'nesterov'"):
        FusedOptimizer(module.memory, "sgd", nesterov=True)


def test_misuse_is_an_error() -> None:
    module = collection()
    optimizer = FusedOptimizer(module.memory, "sgd")
    with pytest.raises(ValueError, match="already has a FusedOptimizer"):
        FusedOptimizer(module.memory, "sgd")
    batch = batches(1)[0]
    waiting = loss(module, batch)
    with pytest.raises(RuntimeError, match="earlier lookup still waits"):
        loss(module, batch)
    with torch.no_grad():
        loss(module, batch)
    waiting.backward(retain_graph=True)
    # Torch notices by itself that the weights are no longer those of the forward.
    with pytest.raises(RuntimeError, match=r"second backward pass|modified by an inplace"):
        waiting.backward()
    # A graph that is thrown away waits no longer.
    del waiting
    loss(module, batch)
    loss(module, batch)
    optimizer.close()
    loss(module, batch).backward()
    assert module.memory.weight.grad is not None
    full = lma.EmbeddingBagCollection([lma.EmbeddingBagConfig(9, 4, "a")], method=Full())
    with pytest.raises(ValueError, match="FullAllocation has no fused kernels"):
        FusedOptimizer(full.memory, "sgd")
    with pytest.raises(ValueError, match="method must be one of"):
        FusedOptimizer(module.memory, "adamw")
