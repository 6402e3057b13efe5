"""The kernels on a GPU against the reference on the CPU; skipped where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import KINDS, Case, bag_ids, bag_offsets, make_case, named_case, one_hot_ids
from torch import Tensor, nn
from torch import library as op_library

from lma.allocation import Hashed, Robe
from lma.benchmarking.criteo_shape import lma_collection
from lma.kernels import ops
from lma.kernels.reference import inputs, quantised, touched
from lma.kernels.reference import lookup as reference
from lma.nn import EmbeddingBagCollection, EmbeddingBagConfig, FusedOptimizer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore"),
]
GPU = torch.device("cuda")


def move(value: Any) -> Any:
    """Tensors of an argument list, on the GPU."""
    if isinstance(value, Tensor):
        return value.to(GPU)
    return type(value)(move(v) for v in value) if isinstance(value, tuple | list) else value


def alike_case(name: str, chunk: int, dim: int, seed: int = 0) -> Case:
    """Tables of one dimension without private parts, for which kernels know more."""
    kinds = KINDS[name]
    return make_case(seed, kinds, [dim] * len(kinds), [0] * len(kinds), chunk)


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("chunk", [1, 3, 16])
@pytest.mark.parametrize("name", KINDS)
def test_starts_bit_for_bit(name: str, chunk: int, private: bool) -> None:
    case = named_case(name, chunk, 1, private)
    rule = case.rule
    ids = one_hot_ids(case, 700, torch.Generator().manual_seed(1))
    arguments = (
        ids, case.numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )  # fmt: skip
    assert torch.equal(ops.starts(*move(arguments)).cpu(), reference.starts(*arguments))


@settings(max_examples=30)  # every new combination is compiled
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([1, 2, 4, 5, 16, 32]),
    st.sampled_from(["differ", "alike", "private"]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    st.sampled_from([None, 0, 1, 4]),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
)
def test_lookup_and_gradients(
    name: str,
    chunk: int,
    shape: str,
    dtype: torch.dtype,
    longest: int | None,
    batch: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    case = named_case(name, chunk, seed % 1000, shape == "private")
    if shape == "alike":
        case = alike_case(name, chunk, 2 * chunk + seed % 2, seed % 1000)
    rule, features = case.rule, len(case.dims)
    offsets = None
    ids = one_hot_ids(case, batch, generator)
    if longest is not None:
        offsets = bag_offsets(features, batch, longest, generator)
        ids = bag_ids(case, offsets, batch, generator)
    weight = case.weight(dtype)
    grad = torch.randn(batch, case.width, generator=generator).to(dtype)
    factors = torch.randn(len(ids), generator=generator).to(dtype)
    sums = torch.zeros(features, dtype=torch.int64)
    for modes, own in ((torch.arange(features) % 2, None), (sums, factors)):
        bags = (offsets, own, case.numbers, case.columns, modes)
        arguments = (weight, ids, *bags, *rule, case.pieces, case.width, True)
        out, starts = ops.lookup(*move(arguments))
        wanted, wanted_starts = reference.lookup(*arguments)
        assert torch.equal(starts.cpu(), wanted_starts)
        torch.testing.assert_close(out.cpu(), wanted)
        place = (grad, wanted_starts, *bags, rule.layout, rule.chunk, rule.lead, *weight.shape)
        # A place may be read by hundreds of entries: one sum of 16-bit terms against another.
        loose: dict[str, float] = {}
        if dtype in (torch.bfloat16, torch.float16):
            loose = {"rtol": 2e-2, "atol": 2e-2}
        elif dtype == torch.float32:
            loose = {"rtol": 1e-5, "atol": 1e-4}
        wide = (grad.double(), *place[1:])
        dense = reference.lookup_grad(*wide)
        torch.testing.assert_close(ops.lookup_grad(*move(place)).cpu().double(), dense, **loose)
        rows, values = ops.touched_grad(*move(place))
        wanted_rows, wanted_values = touched.touched_grad(*wide)
        assert torch.equal(rows.cpu(), wanted_rows)
        torch.testing.assert_close(values.cpu().double(), wanted_values, **loose)
        dots = (weight, grad, wanted_starts, offsets, case.numbers, case.columns)
        rest = (rule.layout, rule.chunk, rule.lead)
        if dtype in (torch.float32, torch.float64):
            torch.testing.assert_close(
                ops.factors_grad(*move(dots), *move(rest)).cpu(),
                reference.factors_grad(*dots, *rest),
                **loose,
            )


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bags", [False, True], ids=["one id", "bags"])
def test_lookup_in_8_and_4_bits(bags: bool, bits: int) -> None:
    kinds = KINDS["all"]
    features = len(kinds)
    for dims, private in (
        ([(12, 14, 13)[t % 3] for t in range(features)], [(2, 14, 0)[t % 3] for t in range(6)]),
        ([16] * features, [0] * features),
    ):
        case = make_case(0, kinds, dims, private, 4)
        generator = torch.Generator().manual_seed(0)
        offsets = bag_offsets(features, 50, 3, generator) if bags else None
        ids = one_hot_ids(case, 50, generator)
        if offsets is not None:
            ids = bag_ids(case, offsets, 50, generator)
        stored = quantised.quantise(case.weight(), bits)
        arguments = (
            *stored, ids, offsets, None, case.numbers, case.columns, torch.arange(features) % 2,
            *case.rule, case.pieces, case.width,
        )  # fmt: skip
        found = ops.lookup_quantised(*move(arguments)).cpu()
        torch.testing.assert_close(found, quantised.lookup_quantised(*arguments))


def test_one_bag_of_a_million_equal_ids() -> None:
    """The case of contention: bounded by 10^6 roundings of a sum of 10^6 terms of one size."""
    case = alike_case("unsigned", 4, 8)
    many = 10**6
    ids = torch.full((many + 3,), 2**62)
    offsets = torch.tensor([0, many, many + 3])
    modes = torch.zeros(2, dtype=torch.int64)
    weight = case.weight()
    arguments = (weight, ids, offsets, None, case.numbers, case.columns, modes, *case.rule)
    out, starts = ops.lookup(*move(arguments), case.pieces, case.width, True)
    wide, wanted_starts = reference.lookup(
        weight.double(), *arguments[1:], case.pieces, case.width, True
    )
    bound = many * 2.0**-24
    torch.testing.assert_close(out.cpu().double(), wide, rtol=bound, atol=1e-6)
    grad = torch.ones(1, case.width)
    place = (
        offsets, None, case.numbers, case.columns, modes, case.rule.layout, case.rule.chunk,
        case.rule.lead, *weight.shape,
    )  # fmt: skip
    wanted = reference.lookup_grad(grad.double(), wanted_starts, *place)
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            found = ops.lookup_grad(move(grad), starts, *move(place)).cpu().double()
        finally:
            torch.use_deterministic_algorithms(False)
        torch.testing.assert_close(found, wanted, rtol=bound, atol=1e-6)


def test_the_same_bits_every_time_where_asked() -> None:
    tokens = [3, 50, 2000]
    ids = torch.stack([torch.randint(0, s, (5000,)) for s in tokens], 1).to(GPU)
    torch.use_deterministic_algorithms(True)
    try:
        grads = []
        for _ in range(3):
            torch.manual_seed(0)
            module = lma_collection(tokens, 32, 16, 2, "random").to(GPU)
            module(ids).square().sum().backward()
            grads.append(module.memory.weight.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("method", ["sgd", "adagrad", "block_adagrad", "adam"])
@pytest.mark.parametrize("block", [1, 4, 16])
def test_fused_optimizer_as_on_the_cpu(block: int, method: str) -> None:
    tokens = [3, 50, 2000]
    modules = [lma_collection(tokens, 32, block, 2, "learned") for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    modules[1].to(GPU)
    optimizers = [FusedOptimizer(m.memory, method, lr=0.1) for m in modules]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        ids = torch.stack([torch.randint(0, s, (400,), generator=generator) for s in tokens], 1)
        grad = torch.randn(400, 96, generator=generator)
        modules[0](ids).backward(grad)
        modules[1](ids.to(GPU)).backward(grad.to(GPU))
    found, wanted = modules[1].memory.weight.detach().cpu(), modules[0].memory.weight.detach()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert optimizers[1].steps == 3


@pytest.mark.parametrize("method", [Hashed(), Robe(chunk_size=4)], ids=["hashed", "robe"])
def test_a_model_on_the_gpu(method: Hashed | Robe) -> None:
    """Modules, sparse gradients with torch's optimizer, and one graph for `torch.compile`."""
    configs = [EmbeddingBagConfig(50, 8, "a"), EmbeddingBagConfig(None, 8, "b", pooling="mean")]
    torch.manual_seed(0)
    module = EmbeddingBagCollection(configs, method=method, budget=4000, sparse=True)
    other = EmbeddingBagCollection(configs, method=method, budget=4000)
    other.load_state_dict(module.state_dict())
    other.to(GPU)
    ids = torch.tensor([[0, -7], [49, 2**63 - 1], [3, 5]])
    torch.testing.assert_close(other(ids.to(GPU)).cpu(), module(ids))
    compiled = torch.compile(nn.Sequential(other), fullgraph=True)
    out = compiled(ids.to(GPU))
    torch.testing.assert_close(out.cpu(), module(ids))
    out.square().sum().backward()
    module(ids).square().sum().backward()
    wanted = module.memory.weight.grad.to_dense()  # type: ignore[union-attr]
    torch.testing.assert_close(other.memory.weight.grad.cpu(), wanted)  # type: ignore[union-attr]
    module.to(GPU)
    module.zero_grad()
    module(ids.to(GPU)).square().sum().backward()
    torch.testing.assert_close(module.memory.weight.grad.to_dense().cpu(), wanted)  # type: ignore[union-attr]
    torch.optim.Adagrad(module.parameters()).step()


@pytest.mark.parametrize("policy", [inputs.ERROR, inputs.WRAP, inputs.CLAMP])
def test_accepted_ids(policy: int) -> None:
    sizes = torch.tensor([5, -1, 2**62, 1])
    ids = torch.randint(-(2**63), 2**63 - 1, (400,)) // torch.tensor([1, 2**60]).repeat(200)
    arguments = (ids, torch.tensor([0, 1, 3, 2]), sizes, policy, False, "a\nb\nc\nd")
    assert torch.equal(ops.accept_ids(*move(arguments)).cpu(), inputs.accept_ids(*arguments))
    none = (ids[:0], *arguments[1:])
    assert ops.accept_ids(*move(none)).shape == (0,)


def test_bad_input_is_a_python_error() -> None:
    module = EmbeddingBagCollection([EmbeddingBagConfig(5, 8, "a")], method=Hashed(), budget=400)
    module.to(GPU)
    with pytest.raises(IndexError, match=r"id 5 of table 'a' is outside \[0, 5\)"):
        module(torch.tensor([[4], [5]], device=GPU))
    with pytest.raises(ValueError, match="ids are on cpu, the memory on cuda"):
        module(torch.tensor([[4]]))
    with pytest.raises(ValueError, match="must not descend"):
        module(torch.tensor([0, 1], device=GPU), torch.tensor([0, 2, 1, 2], device=GPU))
    # The device still works.
    assert module(torch.tensor([[4]], device=GPU)).shape == (1, 8)


def test_opcheck() -> None:
    case = alike_case("all", 4, 8)
    ids = one_hot_ids(case, 9, torch.Generator().manual_seed(0))
    bags = (None, None, case.numbers, case.columns, torch.zeros(6, dtype=torch.int64))
    weight = case.weight().requires_grad_()
    arguments = move((weight, ids, *bags, *case.rule, case.pieces, case.width, True))
    op_library.opcheck(ops.lookup, arguments)
    op_library.opcheck(
        ops.accept_ids,
        (torch.tensor([3, 9], device=GPU), torch.tensor([0, 1], device=GPU),
         torch.tensor([5, 7], device=GPU), inputs.WRAP, False, "a\nb"),
    )  # fmt: skip
