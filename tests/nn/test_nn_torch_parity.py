"""`Full` reproduces torch's modules bit for bit, outputs and gradients, over torch's arguments."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lma
from lma.allocation import Full

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@dataclasses.dataclass
class Bags:
    """One call of an EmbeddingBag."""

    size: int
    dim: int
    mode: str
    sparse: bool
    include_last: bool
    padding: int | None
    dtype: torch.dtype
    ids: torch.Tensor
    offsets: torch.Tensor | None
    weights: torch.Tensor | None


@st.composite
def bags(draw: st.DrawFn) -> Bags:
    size, dim = draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 3, 8, 17]))
    mode = draw(st.sampled_from(["sum", "mean", "max"]))
    sparse = mode != "max" and draw(st.booleans())
    padding = draw(st.none() | st.integers(-size, size - 1))
    index = draw(st.sampled_from([torch.int64, torch.int32]))
    dtype = draw(st.sampled_from(DTYPES))
    one_id = st.integers(0, size - 1)
    include_last = draw(st.booleans())
    offsets = None
    if draw(st.booleans()):
        # torch itself fails on bags of a fixed length of 0.
        length = draw(st.integers(1, 5))
        count = draw(st.integers(0, 6))
        ids = torch.tensor(
            draw(st.lists(one_id, min_size=count * length, max_size=count * length)), dtype=index
        ).view(count, length)
    else:
        lengths = draw(st.lists(st.integers(0, 5), max_size=6))
        total = sum(lengths)
        ids = torch.tensor(draw(st.lists(one_id, min_size=total, max_size=total)), dtype=index)
        ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        offsets = torch.tensor(ends if include_last else ends[:-1], dtype=index)
    weights = None
    if mode == "sum" and draw(st.booleans()):
        seed = draw(st.integers(0, 99))
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(ids.shape, generator=generator).to(dtype)
    return Bags(size, dim, mode, sparse, include_last, padding, dtype, ids, offsets, weights)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if expected.is_sparse:
        assert found.is_sparse
        found, expected = found.coalesce(), expected.coalesce()
        assert torch.equal(found.indices(), expected.indices())
        found, expected = found.values(), expected.values()
    # As bits: NaN equals NaN.
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def both_bags(call: Bags, **arguments: object) -> tuple[nn.EmbeddingBag, lma.EmbeddingBag]:
    shared = {
        "mode": call.mode,
        "sparse": call.sparse,
        "include_last_offset": call.include_last,
        "padding_idx": call.padding,
        "dtype": call.dtype,
    }
    theirs = nn.EmbeddingBag(call.size, call.dim, **shared)
    ours = lma.EmbeddingBag(call.size, call.dim, **shared, method=Full(), **arguments)
    with torch.no_grad():
        # torch's padding row is read by nobody: fill it all the same.
        theirs.weight.copy_(torch.randn(call.size, call.dim))
        ours.memory.weight.copy_(theirs.weight)
    return theirs, ours


@given(bags(), st.integers(0, 1000))
def test_bags(call: Bags, seed: int) -> None:
    torch.manual_seed(seed)
    theirs, ours = both_bags(call)
    results = []
    cotangent = None
    for module in (theirs, ours):
        weights = None if call.weights is None else call.weights.clone().requires_grad_()
        out = module(call.ids, call.offsets, weights)
        cotangent = torch.randn_like(out) if cotangent is None else cotangent
        assert out.requires_grad
        out.backward(cotangent)
        results.append((out, weights))
    same(results[1][0], results[0][0])
    if call.weights is not None:
        same(results[1][1].grad, results[0][1].grad)
    same(ours.memory.weight.grad, theirs.weight.grad)


@given(bags())
def test_one_optimizer_step(call: Bags) -> None:
    theirs, ours = both_bags(call)
    updated = []
    for module in (theirs, ours):
        kind = torch.optim.SparseAdam if call.sparse else torch.optim.Adam
        optimizer = kind(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            module(call.ids, call.offsets, call.weights).float().square().sum().backward()
            optimizer.step()
        (parameter,) = module.parameters()
        updated.append(parameter)
    same(updated[1], updated[0])


@given(
    st.integers(1, 12),
    st.sampled_from([1, 2, 3, 8]),
    st.booleans(),
    st.data(),
    st.sampled_from(DTYPES),
    st.sampled_from([(), (0,), (5,), (3, 2), (2, 0, 4), (2, 3, 4)]),
)
def test_embedding(
    size: int,
    dim: int,
    sparse: bool,
    data: st.DataObject,
    dtype: torch.dtype,
    shape: tuple[int, ...],
) -> None:
    padding = data.draw(st.none() | st.integers(-size, size - 1))
    index = data.draw(st.sampled_from([torch.int32, torch.int64]))
    # torch's own sparse gradient of a single id fails.
    sparse = sparse and shape != ()
    ids = torch.randint(0, size, shape, dtype=index)
    theirs = nn.Embedding(size, dim, padding, sparse=sparse, dtype=dtype)
    ours = lma.Embedding(size, dim, padding, sparse=sparse, dtype=dtype, method=Full())
    with torch.no_grad():
        ours.memory.weight.copy_(theirs.weight)
    outs = [module(ids) for module in (theirs, ours)]
    same(outs[1], outs[0])
    cotangent = torch.randn_like(outs[0])
    for out in outs:
        out.backward(cotangent)
    same(ours.memory.weight.grad, theirs.weight.grad)


def test_padding_row_is_never_read_nor_moved() -> None:
    ours = lma.Embedding(5, 4, padding_idx=-2, method=Full())
    assert ours.padding_idx == 3
    with torch.no_grad():
        ours.memory.weight[3] = torch.nan
    out = ours(torch.tensor([3, 1, 3]))
    assert out[0].tolist() == out[2].tolist() == [0.0] * 4
    out.sum().backward()
    assert ours.memory.weight.grad[3].abs().sum() == 0


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf"), 0.0])
def test_special_floats(mode: str, special: float) -> None:
    ids, offsets = torch.tensor([0, 1, 2, 1, 1, 3]), torch.tensor([0, 2, 2, 5])
    call = Bags(4, 3, mode, False, False, None, torch.float32, ids, offsets, None)
    theirs, ours = both_bags(call)
    with torch.no_grad():
        theirs.weight[1] = special
        ours.memory.weight.copy_(theirs.weight)
    same(ours(ids, offsets), theirs(ids, offsets))


def test_ties_of_max_take_the_same_gradient() -> None:
    ids, offsets = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0, 3])
    call = Bags(3, 2, "max", False, False, None, torch.float32, ids, offsets, None)
    theirs, ours = both_bags(call)
    with torch.no_grad():
        theirs.weight.fill_(1.0)
        ours.memory.weight.fill_(1.0)
    for module in (theirs, ours):
        module(ids, offsets).sum().backward()
    same(ours.memory.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_hundred_thousand_ids_sum_as_torch_sums(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (100_000,), generator=generator)
    offsets = torch.randint(0, 100_000, (999,), generator=generator).sort().values
    offsets[0] = 0
    call = Bags(50, 8, mode, False, False, 7, torch.float32, ids, offsets, None)
    theirs, ours = both_bags(call)
    for module in (theirs, ours):
        module(ids, offsets).square().sum().backward()
    same(ours(ids, offsets), theirs(ids, offsets))
    same(ours.memory.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_no_ids_are_zeros(mode: str) -> None:
    bag = lma.EmbeddingBag(5, 4, mode=mode, method=Full())
    assert torch.equal(bag(torch.empty(3, 0, dtype=torch.int64)), torch.zeros(3, 4))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("padding", [None, 2])
def test_a_single_id_has_one_vector(sparse: bool, padding: int | None) -> None:
    ours = lma.Embedding(5, 4, padding, sparse=sparse, method=Full())
    assert torch.equal(ours(torch.tensor(1)), ours.memory.weight[1])
    expected = ours.memory.weight[2] if padding is None else torch.zeros(4)
    assert torch.equal(ours(torch.tensor(2)), expected)


# --- several tables in one memory -------------------------------------------------------------


def test_tables_of_one_dimension_are_torch_modules_side_by_side() -> None:
    memory = lma.SharedMemory(
        [lma.allocation.Table("a", 5, 4), lma.allocation.Table("b", 7, 4)], Full()
    )
    assert memory.allocation.whole_rows
    bag = lma.EmbeddingBag(7, 4, mode="sum", table="b", memory=memory)
    row = lma.Embedding(5, 4, table="a", memory=memory)
    expected = nn.functional.embedding_bag(
        torch.tensor([6, 0, 6]), memory.weight[5:], torch.tensor([0, 1]), mode="sum"
    )
    same(bag(torch.tensor([6, 0, 6]), torch.tensor([0, 1])), expected)
    same(row(torch.tensor([[4]])), memory.weight[4].view(1, 1, 4))


# --- arguments that are refused ---------------------------------------------------------------


@pytest.mark.parametrize("module", [lma.Embedding, lma.EmbeddingBag])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm": 1.0}, "max_norm is not supported: rows of a shared memory belong to many"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq is not supported"),
        ({"padding_idx": 5}, "padding_idx must be within num_embeddings 5, found 5"),
        ({"padding_idx": -6}, "padding_idx must be within num_embeddings 5, found -6"),
        ({"out_of_range": "ignore"}, r"out_of_range must be one of \('error', 'wrap', 'clamp'\)"),
        ({"method": Full(), "allocation": Full().allocate([])}, "give an allocation, or a method"),
    ],
)
def test_arguments_that_cannot_be_honoured(module: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(5, 4, **{"method": Full(), **arguments})


def test_modes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"mode must be one of .*, found 'median'"):
        lma.EmbeddingBag(5, 4, mode="median", method=Full())
    with pytest.raises(ValueError, match="mode 'max' has no sparse gradient, as in torch"):
        lma.EmbeddingBag(5, 4, mode="max", sparse=True, method=Full())


IDS = torch.tensor([1, 2, 3])
START = torch.tensor([0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IDS,), ValueError, r"ids \[total\] need offsets"),
        (
            (IDS.view(1, 3), START),
            ValueError,
            r"offsets must be None when ids are \[bags, length\]",
        ),
        ((IDS.view(1, 1, 3),), ValueError, r"ids must have 1 or 2 dimensions, found \[1, 1, 3\]"),
        ((torch.tensor(1),), ValueError, r"ids must have 1 or 2 dimensions, found \[\]"),
        ((IDS.float(), START), TypeError, "ids must be int32 or int64, found torch.float32"),
        ((IDS.bool(), START), TypeError, "ids must be int32 or int64, found torch.bool"),
        ((IDS, START.float()), TypeError, r"offsets must be a 1-D int32 or int64 .* torch.float32"),
        ((IDS, START.view(1, 1)), TypeError, r"offsets must be a 1-D .* \[1, 1\]"),
        ((IDS, torch.tensor([1])), ValueError, r"offsets\[0\] must be 0, found 1"),
        ((IDS, torch.tensor([0, 2, 1])), ValueError, "offsets must not descend, found 2 then 1"),
        ((IDS, torch.tensor([0, 4])), ValueError, "offsets must not descend, found 4 then 3"),
        ((IDS + 3, START), IndexError, r"id 5 of table 'table' is outside \[0, 5\)"),
        ((-IDS, START), IndexError, r"id -1 of table 'table' is outside \[0, 5\)"),
        ((IDS, START, torch.ones(2)), ValueError, r"shape of ids \[3\], found \[2\]"),
    ],
)
def test_calls_that_are_refused(arguments: tuple, error: type, message: str) -> None:
    bag = lma.EmbeddingBag(5, 4, mode="sum", method=Full())
    with pytest.raises(error, match=message):
        bag(*arguments)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "offsets must hold at least one entry, the end"),
        ([0], "offsets must end at the number of ids, 3, found 0"),
        ([0, 4], "offsets must end at the number of ids, 3, found 4"),
        ([1, 3], r"offsets\[0\] must be 0, found 1"),
    ],
)
def test_last_offset_is_the_end(offsets: list[int], message: str) -> None:
    bag = lma.EmbeddingBag(5, 4, include_last_offset=True, method=Full())
    with pytest.raises(ValueError, match=message):
        bag(IDS, torch.tensor(offsets, dtype=torch.int64))


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_weights_need_sums(mode: str) -> None:
    bag = lma.EmbeddingBag(5, 4, mode=mode, method=Full())
    with pytest.raises(ValueError, match=f"per_sample_weights need mode 'sum', found '{mode}'"):
        bag(IDS, START, torch.ones(3))


def test_repr() -> None:
    bag = lma.EmbeddingBag(5, 4, padding_idx=-1, method=Full(), table="C1")
    assert "5, 4, table='C1', padding_idx=4" in repr(bag)
    assert "5, 4, table='table'" in repr(lma.Embedding(5, 4, method=Full()))
