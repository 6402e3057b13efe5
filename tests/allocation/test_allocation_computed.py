"""Mixed dimension, tensor train and deep hash, against their formulas and torch's own modules."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lma import SharedMemory, shared_fraction
from lma.allocation import (
    Budget,
    DeepHash,
    LowDimension,
    Method,
    MixedDimension,
    Table,
    TensorTrain,
)
from lma.allocation.deep_hash import BUCKETS, DeepHashAllocation, hash_encoding
from lma.allocation.mixed_dimension import MixedDimensionAllocation
from lma.allocation.tensor_train import Train, train_vectors
from lma.errors import BudgetError, UnsupportedError
from lma.hashing import combine_int, stream_seed, token_key
from lma.signatures import LogStats, TableStats

TABLES = [Table("a", 60, 4), Table("b", 3, 4)]
METHODS: list[Method] = [MixedDimension(), TensorTrain(), DeepHash()]
NAMES = [method.name for method in METHODS]


def memory_of(method: Method, budget: int = 620, **arguments: object) -> SharedMemory:
    torch.manual_seed(0)
    arguments = {"init_std": 1.0, "dtype": torch.float64, **arguments}
    return SharedMemory(TABLES, method, budget=budget, **arguments)


def look_up(memory: SharedMemory, ids: Tensor, numbers: Tensor) -> Tensor:
    return memory.lookup(ids, numbers, memory.allocation.group(0))


def all_tokens(memory: SharedMemory) -> Tensor:
    ids = torch.cat([torch.arange(table.num_embeddings or 0) for table in memory.tables])
    counts = torch.tensor([table.num_embeddings or 0 for table in memory.tables])
    numbers = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return look_up(memory, ids, numbers)


# --- tensor train -----------------------------------------------------------------------------


def test_a_train_by_hand() -> None:
    # Two rows per core, one column each but for the last core's two; rank 2.
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    second = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]).view(2, 2, 1, 2)
    third = torch.tensor([[1.0, 10.0, 2.0, 20.0], [5.0, 0.0, 7.0, 0.0]]).view(2, 2, 2, 1)
    found = train_vectors([first, second, third], torch.tensor([0, 3, 6]))
    # 0 = (0, 0, 0): [1 2] I [1 10; 2 20] = [5 50]
    # 3 = (0, 1, 1): [1 2] swapped, [2 1] [5 0; 7 0] = [17 0]
    # 6 = (1, 1, 0): [4 3] [1 10; 2 20] = [10 100]
    assert found.tolist() == [[5, 50], [17, 0], [10, 100]]


@given(tokens=st.integers(1, 60), dim=st.sampled_from([1, 2, 4, 6, 12, 16]), rank=st.integers(1, 4))
def test_every_row_is_the_sum_of_products(tokens: int, dim: int, rank: int) -> None:
    train = Train.of(tokens, dim)
    g1, g2, g3 = (torch.randn(shape, dtype=torch.float64) for shape in train.shapes(rank))
    found = train_vectors([g1, g2, g3], torch.arange(tokens))
    matrix = torch.einsum("ixpa,jaqb,kbrx->ijkpqr", g1, g2, g3).reshape(-1, dim)
    torch.testing.assert_close(found, matrix[:tokens])


@given(tokens=st.integers(1, 100_000))
def test_no_slice_of_a_core_is_out_of_reach(tokens: int) -> None:
    n1, n2, n3 = Train.of(tokens, 16).rows
    assert n1 * n2 * n3 >= tokens
    assert (n1 - 1) * n2 * n3 < tokens
    assert n2 * n3 <= tokens
    assert Train.of(tokens, 16).columns == (2, 2, 4)


def test_ranks_follow_the_budget() -> None:
    # 1000 rows of 8: three cores of 10 rows and 2 columns; 40 r + 20 r^2 floats at rank r.
    tables = [Table("a", 1000, 8), Table("b", 5, 8)]
    for floats, ranks in [
        # Table b, 2 + 4 + 4 floats at rank 1 (rows 2, 2, 2), is whole (40) where rank 2 takes 32
        # and rank 3 would take 54.
        (60 + 12, [1, 1]),
        (160 + 32, [2, 2]),
        (160 + 40, [2, 0]),
        (20 * 36 + 40 * 6 + 40, [6, 0]),
        (20 * 36 + 40 * 6 + 39, [5, 0]),
        (8040, [0, 0]),
    ]:
        allocation = TensorTrain().allocate(tables, Budget(4 * floats, "weights"))
        assert allocation.ranks.tolist() == ranks, floats
        assert allocation.num_blocks <= floats
    with pytest.raises(BudgetError, match="284 bytes hold 71 floats, cores of rank 1 take 72"):
        TensorTrain().allocate(tables, Budget(284, "weights"))


def test_the_cap_on_arithmetic_limits_ranks() -> None:
    table = [Table("a", 1000, 8)]
    # 4 r^2 + 8 r multiply-adds at rank r: 60 at 3.
    allocation = TensorTrain(max_multiply_adds=60).allocate(table, Budget(20_000))
    assert allocation.ranks.tolist() == [3]


def test_products_of_cores_start_as_other_vectors() -> None:
    memory = SharedMemory([Table("a", 3000, 16)], TensorTrain(), budget=20_000, init_std=0.01)
    assert int(memory.allocation.ranks) > 5
    vectors = all_tokens(memory).double()
    # Products share entries: sqrt(number of slices of the smallest core) bounds what is averaged.
    assert vectors.std().item() == pytest.approx(0.01, rel=0.15)
    assert abs(vectors.mean().item()) < 0.001
    # Entries have no middle: their least square is that of the cut, 4 / 5.746.
    for core in memory.allocation.arrays(memory.weight.detach()):
        assert core.square().min() / core.square().mean() == pytest.approx(4 / 5.746, rel=0.1)


# --- mixed dimension --------------------------------------------------------------------------


def test_rows_and_projections_are_torchs() -> None:
    tables = [Table("a", 50, 6), Table("b", 20, 6)]
    memory = SharedMemory(
        tables, allocation=MixedDimensionAllocation(tables, [2, 6]), dtype=torch.float64
    )
    rows, whole = nn.Embedding(50, 2), nn.Embedding(20, 6)
    linear = nn.Linear(2, 6, bias=False)
    for module in (rows, whole, linear):
        module.double()
    parts = memory.weight.view(-1).split([100, 120, 12])
    with torch.no_grad():
        rows.weight.copy_(parts[0].view(50, 2))
        whole.weight.copy_(parts[1].view(20, 6))
        linear.weight.copy_(parts[2].view(2, 6).T)
    ids = torch.tensor([[3, 7], [49, 0], [3, 19]])
    found = look_up(memory, ids, torch.tensor([0, 1]))
    expected = torch.stack([linear(rows(ids[:, 0])), whole(ids[:, 1])], 1)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, memory.weight, cotangent)
    expected.backward(cotangent)
    pieces = [rows.weight.grad, whole.weight.grad, linear.weight.grad.T]
    torch.testing.assert_close(gradient, torch.cat([p.reshape(-1, 1) for p in pieces]))


def test_dimensions_by_hand() -> None:
    # Popularity 1 / tokens and alpha 1/2: dimensions in the ratio 1 : 3 : 9.
    tables = [Table(name, size, 16) for name, size in (("a", 8100), ("b", 900), ("c", 100))]
    rows = [8100, 3 * 900, 9 * 100]
    projections = [1 * 9, 3 * 9, 0]
    floats = sum(rows) + sum(projections)
    found = MixedDimension(alpha=0.5).allocate(tables, Budget(4 * floats, "weights"))
    assert found.dims.tolist() == [1, 3, 9]
    assert [table.embedding_dim for table in found.tables] == [9, 9, 9]
    assert found.num_blocks == floats
    # A field that is looked up four times as often is twice as wide: 1 : 3 : 18, capped at 16.
    lookups = {"a": 8100, "b": 8100, "c": 4 * 8100}
    stats = LogStats.of(
        [TableStats.of_supports(t.name, [lookups[t.name] / t.num_embeddings] * t.num_embeddings)
         for t in tables]
    )  # fmt: skip
    floats = 8100 + 3 * 900 + 16 * 100 + 16 + 3 * 16
    found = MixedDimension(alpha=0.5).allocate(tables, Budget(4 * floats, "weights"), stats=stats)
    assert found.dims.tolist() == [1, 3, 16]


def test_one_dimension_for_all_is_low_dimension() -> None:
    tables = [Table("a", 700, 16), Table("b", 50, 16)]
    for budget in (3100, 6100, 9500, 50_000):
        found = MixedDimension(alpha=0).allocate(tables, Budget(budget))
        (dim,) = set(found.dims.tolist())
        low = LowDimension().allocate(tables, Budget(budget))
        # Low dimension has no index of dimensions.
        assert dim in (low.block_size, low.block_size - 1)
        assert found.num_blocks == dim * 750


def test_small_fields_have_full_rows() -> None:
    # 5 rows of 8 take 40 floats, as rows of 4 and a projection would 20 + 32.
    tables = [Table("a", 500, 8), Table("b", 5, 8)]
    allocation = MixedDimension(alpha=0.1).allocate(tables, Budget(4 * 2100, "weights"))
    dims = allocation.dims.tolist()
    assert dims[1] == allocation.tables[0].embedding_dim


def test_projected_rows_start_as_other_vectors() -> None:
    tables = [Table("a", 4000, 16), Table("b", 10, 16)]
    memory = SharedMemory(tables, MixedDimension(), budget=60_000, init_std=0.01)
    assert memory.allocation.dims.tolist() == [3, 16]
    # Over the starts of P: its 3 x 16 entries decide the size of all 4000 vectors.
    squares = []
    for seed in range(30):
        torch.manual_seed(seed)
        memory.reset_parameters()
        squares.append(look_up(memory, torch.arange(4000), torch.zeros(1).long()).square().mean())
    # 48 entries, 30 times: a relative standard error of sqrt(2 / 1440) = .037, three of them.
    assert torch.stack(squares).mean().item() == pytest.approx(1e-4, rel=0.11)


# --- deep hash --------------------------------------------------------------------------------


def test_encoding_is_k_hashes_of_the_key() -> None:
    keys = torch.tensor([token_key("a", 5), token_key("b", -3)])
    seeds = torch.tensor([stream_seed(1, i) - (1 << 64) * (stream_seed(1, i) >> 63)
                          for i in range(3)])  # fmt: skip
    found = hash_encoding(keys, seeds)
    for (row, key), i in itertools.product(enumerate(keys.tolist()), range(3)):
        bucket = (combine_int(stream_seed(1, i), key) >> 32) * BUCKETS >> 32
        assert found[row, i].item() == pytest.approx(2 * bucket / (BUCKETS - 1) - 1, abs=1e-6)


def test_codes_are_uniform_and_tell_tokens_apart() -> None:
    keys = torch.tensor([token_key("a", i) for i in range(2000)])
    allocation = DeepHashAllocation(TABLES, 8, 16, 1, seed=3)
    codes = hash_encoding(keys, allocation.seeds)
    assert len(codes.unique(dim=0)) == 2000
    assert codes.min() >= -1
    assert codes.max() <= 1
    # 32 000 draws of variance 1/3: four standard errors.
    assert abs(codes.mean().item()) < 4 * (1 / 3 / 32_000) ** 0.5
    assert codes.square().mean().item() == pytest.approx(1 / 3, abs=4 * (4 / 45 / 32_000) ** 0.5)


def torch_network(allocation: DeepHashAllocation, weight: Tensor) -> nn.Sequential:
    """The same network of torch's modules."""
    modules: list[nn.Module] = []
    arrays = iter(allocation.arrays(weight.detach()))
    for layer in range(allocation.arguments["hidden_layers"]):
        weights, scale, shift = next(arrays), next(arrays), next(arrays)
        linear = nn.Linear(*reversed(weights.shape), bias=False, dtype=torch.float64)
        norm = nn.BatchNorm1d(len(scale), dtype=torch.float64)
        linear.weight.data = weights.clone()
        norm.weight.data, norm.bias.data = scale.clone(), shift.clone()
        norm.running_mean.copy_(allocation.running_mean[layer])
        norm.running_var.copy_(allocation.running_var[layer])
        modules += [linear, norm, nn.Mish()]
    weights, bias = next(arrays), next(arrays)
    last = nn.Linear(*reversed(weights.shape), dtype=torch.float64)
    last.weight.data, last.bias.data = weights.clone(), bias.clone()
    return nn.Sequential(*modules, last)


@pytest.mark.parametrize("hidden_layers", [1, 3])
def test_network_is_torchs_on_every_occurrence(hidden_layers: int) -> None:
    tables = [Table("a", 500, 4), Table("b", 400, 4), Table("c", 2, 4)]
    allocation = DeepHashAllocation(tables, 5, 7, hidden_layers, seed=0)
    memory = SharedMemory(tables, allocation=allocation, init_std=1.0, dtype=torch.float64)
    with torch.no_grad():
        memory.weight.add_(0.1 * torch.randn_like(memory.weight))
    network = torch_network(allocation, memory.weight)
    # Repeated tokens: the moments are those of all occurrences.
    ids = torch.randint(0, 20, (64, 2)) ** 2
    keys = torch.tensor([[token_key("a", a), token_key("b", b)] for a, b in ids.tolist()])
    codes = hash_encoding(keys.flatten(), allocation.seeds).double()
    for training in (True, True, False):
        memory.train(training)
        network.train(training)
        # Ours keeps the running moments in float32.
        close = {} if training else {"rtol": 1e-5, "atol": 1e-5}
        found = look_up(memory, ids, torch.tensor([0, 1])).flatten(0, 1)
        expected = network(codes)
        torch.testing.assert_close(found, expected, **close)
        cotangent = torch.randn_like(found)
        (gradient,) = torch.autograd.grad(found, memory.weight, cotangent)
        parameters = list(network.parameters())
        pieces = torch.autograd.grad(expected, parameters, cotangent)
        flat = torch.cat([piece.flatten() for piece in pieces])
        torch.testing.assert_close(gradient[: len(flat)], flat.unsqueeze(1), **close)
        assert not gradient[len(flat) :].any()  # table c, held whole
        for layer, norm in enumerate(m for m in network if isinstance(m, nn.BatchNorm1d)):
            torch.testing.assert_close(allocation.running_mean[layer], norm.running_mean.float())
            torch.testing.assert_close(allocation.running_var[layer], norm.running_var.float())


def test_one_occurrence_is_normalised_by_the_running_moments() -> None:
    memory = memory_of(DeepHash())
    ids, number = torch.tensor([50]), torch.tensor([0])
    before = memory.allocation.running_mean.clone()
    found = look_up(memory, ids, number)
    assert torch.equal(memory.allocation.running_mean, before)
    assert torch.equal(found, look_up(memory.eval(), ids, number))


def test_running_moments_are_saved_and_counted() -> None:
    memory = memory_of(DeepHash(), dtype=torch.float32)
    width = memory.allocation.arguments["width"]
    layers = memory.allocation.arguments["hidden_layers"]
    assert memory.num_bytes().index == 9 * 8 + 2 * 4 * layers * width
    all_tokens(memory)
    other = memory_of(DeepHash(), dtype=torch.float32)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(all_tokens(other.eval()), all_tokens(memory.eval()))


def test_networks_serve_any_id() -> None:
    memory = SharedMemory([Table("a", None, 4), Table("b", 2, 4)], DeepHash(), budget=4000).eval()
    ids = torch.tensor([-(2**63), 2**63 - 1, 0, 1])
    vectors = look_up(memory, ids, torch.tensor([0]))
    assert len(vectors.unique(dim=0)) == 4
    assert torch.isfinite(vectors).all()


def test_the_cap_on_arithmetic_limits_the_width() -> None:
    tables = [Table("a", 10**6, 16)]
    method = DeepHash(hidden_layers=1, hashes_per_unit=2, max_multiply_adds=1000)
    allocation = method.allocate(tables, Budget(10**6))
    # 18 * 36 + 18 * 16 = 936, and three more hashes; 19 units take 1026.
    assert (allocation.arguments["width"], allocation.arguments["hashes"]) == (18, 39)
    # The paper's k from 64 units on; 114 of them: 114 * 1024 + 114^2 + 114 * 16 = 131 556.
    allocation = DeepHash().allocate(tables, Budget(10**7))
    assert (allocation.arguments["width"], allocation.arguments["hashes"]) == (113, 1024)
    with pytest.raises(ValueError, match=r"DeepHash\.hidden_layers must be at least 1, found 0"):
        DeepHash(hidden_layers=0)


# --- all three --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_gradients(method: Method) -> None:
    memory = memory_of(method)
    ids, numbers = torch.tensor([[0, 1], [59, 2], [0, 0]]), torch.tensor([0, 1])
    group = memory.allocation.group(0)

    def vectors(weight: Tensor) -> Tensor:
        return memory.allocation.vectors(weight, ids, numbers, group, False)

    assert torch.autograd.gradcheck(vectors, (memory.weight,))


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_every_float_is_in_use(method: Method) -> None:
    memory = memory_of(method)
    vectors = all_tokens(memory)
    (gradient,) = torch.autograd.grad(vectors, memory.weight, torch.randn_like(vectors))
    assert (gradient != 0).all()


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_budgets_that_hold_everything_hold_full_tables(method: Method) -> None:
    memory = memory_of(method, 63 * 4 * 4 + 8 * 9)
    assert memory.weight.numel() == 63 * 4
    ids = torch.tensor([[5, 2]])
    rows = memory.weight.view(63, 4)[torch.tensor([[5, 62]])]
    assert torch.equal(look_up(memory, ids, torch.tensor([0, 1])), rows)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
@pytest.mark.parametrize("shape", [(0,), (0, 2), (), (3,), (3, 2), (2, 1, 2)])
def test_ids_of_any_shape(method: Method, shape: tuple[int, ...]) -> None:
    memory = memory_of(method).eval()
    ids = torch.randint(0, 3, shape)
    numbers = torch.tensor([0, 1]) if shape[-1:] == (2,) else torch.zeros((1,) * len(shape)).long()
    out = look_up(memory, ids, numbers)
    assert out.shape == (*shape, 4)
    flat = all_tokens(memory)
    places = ids + 60 * numbers.expand(shape)
    torch.testing.assert_close(out, flat[places])
    out.sum().backward()
    assert memory.weight.grad is not None


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_what_cannot_be_is_refused(method: Method) -> None:
    memory = memory_of(method, sparse=True)
    with pytest.raises(UnsupportedError, match="has dense gradients only"):
        all_tokens(memory)
    with pytest.raises(UnsupportedError, match="their floats have no places in the memory"):
        shared_fraction(memory, ("a", 1), ("b", 1))
