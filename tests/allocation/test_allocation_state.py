"""A saved state opens only in a memory that computes the same places; others name what differs."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lma import SharedMemory
from lma.allocation import (
    Allocation,
    Budget,
    Cafe,
    Cce,
    DeepHash,
    FrequencyCutoff,
    Full,
    Hashed,
    HashingTrick,
    Lma,
    LmaAllocation,
    LowDimension,
    MixedDimension,
    Plan,
    QuotientRemainder,
    Robe,
    Table,
    TablePlan,
    TensorTrain,
)
from lma.allocation.computed import ComputedAllocation
from lma.allocation.frequency_cutoff import FrequencyCutoffAllocation
from lma.allocation.hashing_trick import HashingTrickAllocation
from lma.allocation.mixed_dimension import MixedDimensionAllocation
from lma.allocation.quotient_remainder import QuotientRemainderAllocation
from lma.allocation.recipes import from_recipe, to_recipe
from lma.allocation.tensor_train import TensorTrainAllocation
from lma.errors import FormatError, StateMismatchError
from lma.signatures import LogStats, TableStats
from signature_cases import random_codes, random_signatures, signatures_of

TABLES = [Table("a", 200, 8), Table("b", 100, 8)]
EVEN = [Table("a", 100, 8), Table("b", 100, 8)]
STATS = LogStats.of([TableStats.of_supports(t.name, np.arange(1, 101)) for t in TABLES])


def make(
    method: object,
    budget: int | Budget = 4000,
    tables: list[Table] = TABLES,
    codes_seed: int = 0,
    num_codes: int = 4,
    similarity: str = "context",
    **arguments: object,
) -> SharedMemory:
    sizes = {t.name: 80 for t in tables}
    codes = random_codes(sizes, num_codes, 8, codes_seed)
    signatures = signatures_of(codes, code_bits=8, seed=codes_seed, similarity=similarity)
    stats = LogStats.of([TableStats.of_supports(t.name, np.arange(1, 101)) for t in tables])
    if isinstance(method, Full):
        return SharedMemory(tables, method)
    return SharedMemory(
        tables, method, budget=budget, signatures=signatures, stats=stats, **arguments
    )


ALL = [
    Full(),
    LowDimension(2),
    Hashed(),
    Hashed(block_size=4),
    Robe(4),
    HashingTrick(),
    HashingTrick(per_table=False),
    QuotientRemainder(),
    MixedDimension(),
    TensorTrain(),
    DeepHash(),
    FrequencyCutoff(),
    Cce(),
    Cce(columns=1),
    Cafe(),
    Lma(),
    Lma(block_size=4, hashed_share=0.2),
    Lma(private_share=0),
]
NAMES = [f"{m.name} {i}" for i, m in enumerate(ALL)]


def all_vectors(memory: SharedMemory) -> torch.Tensor:
    out = []
    for number, table in enumerate(memory.tables):
        group = memory.allocation.group(number)
        ids = torch.arange(table.num_embeddings or 500)
        out.append(memory.lookup(ids, torch.tensor([number]), group).flatten())
    return torch.cat(out)


@pytest.mark.parametrize("method", ALL, ids=NAMES)
def test_state_comes_back(method: object) -> None:
    torch.manual_seed(0)
    one, two = make(method), make(method)
    assert not torch.equal(one.weight, two.weight)
    two.load_state_dict(one.state_dict())
    assert torch.equal(all_vectors(one), all_vectors(two))


@pytest.mark.parametrize("method", ALL, ids=NAMES)
def test_state_goes_through_safetensors(method: object, tmp_path: Path) -> None:
    one, two = make(method), make(method)
    state = one.state_dict()
    pointers = [t.untyped_storage().data_ptr() for t in state.values() if t.numel()]
    assert len(set(pointers)) == len(pointers)
    save_file(state, tmp_path / "model.safetensors")
    two.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(all_vectors(one), all_vectors(two))


@pytest.mark.parametrize("method", ALL, ids=NAMES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_stand_alone(method: object, copied: Callable) -> None:
    one = make(method)
    two = copied(one)
    assert torch.equal(all_vectors(one), all_vectors(two))
    with torch.no_grad():
        two.weight.add_(1)
    assert not torch.equal(all_vectors(one), all_vectors(two))
    two.load_state_dict(one.state_dict())
    assert torch.equal(all_vectors(one), all_vectors(two))


@pytest.mark.parametrize("method", ALL, ids=NAMES)
def test_places_do_not_follow_the_dtype(method: object) -> None:
    memory = make(method)
    before = all_vectors(memory).detach()
    integers = {
        name: tensor.clone()
        for name, tensor in memory.state_dict().items()
        if not tensor.is_floating_point()
    }
    memory.to(torch.bfloat16)
    assert memory.weight.dtype == torch.bfloat16
    # The rounding unit of bfloat16, thrice for a rounded product of two rounded rows. Sums may
    # cancel: what they lose is relative to their terms.
    sums = isinstance(memory.allocation, ComputedAllocation) or isinstance(method, Cce)
    size = before.abs().max().item() if sums else 0
    torch.testing.assert_close(
        all_vectors(memory).float(), before, atol=3 * 2**-8 * size, rtol=3 * 2**-8
    )
    for name, tensor in integers.items():
        assert torch.equal(memory.state_dict()[name], tensor)
    memory.half().float()
    assert memory.weight.dtype == torch.float32


@pytest.mark.parametrize("method", ALL, ids=NAMES)
def test_a_recipe_in_json_makes_the_same_places(method: object) -> None:
    one = make(method)
    recipe = json.loads(json.dumps(to_recipe(one.allocation)))
    tensors = {
        name.removeprefix("allocation."): tensor
        for name, tensor in one.state_dict().items()
        if name.startswith("allocation.")
    }
    two = SharedMemory(one.tables, allocation=from_recipe(recipe, tensors))
    two.load_state_dict(one.state_dict())
    assert type(two.allocation) is type(one.allocation)
    assert torch.equal(all_vectors(one), all_vectors(two))


def test_recipes_of_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="no recipe for Allocation"):
        to_recipe(Allocation(TABLES, 1, 1, {}))
    with pytest.raises(FormatError, match="unknown allocation 'x'; known: full, hashed"):
        from_recipe({"kind": "x", "tables": [], "arguments": {}}, {})


def test_other_signatures_of_the_same_plan_travel_with_the_state() -> None:
    # Codes are state: a module built from other codes of the same shape reads the saved ones.
    one, two = make(Lma()), make(Lma(), codes_seed=0)
    with torch.no_grad():
        two.allocation.codes.zero_()
    assert not torch.equal(one.allocation.codes, two.allocation.codes)
    two.load_state_dict(one.state_dict())
    assert torch.equal(all_vectors(one), all_vectors(two))


def weights(size: int) -> Budget:
    return Budget(size, "weights")


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        (make(Hashed(seed=1)), make(Hashed(seed=2)), "seed was 1, is 2"),
        (make(Hashed(), 4000), make(Hashed(), 8000), "num_blocks was 988, is 1988"),
        (make(Hashed()), make(Hashed(), tables=[*TABLES, Table("c", 9, 8)]), "tables was"),
        (make(Hashed()), make(Hashed(), tables=[Table("A", 200, 8), TABLES[1]]), "tables was"),
        (
            make(Hashed(block_size=4), weights(4000)),
            make(Hashed(block_size=2), weights(4000)),
            "num_blocks was 250, is 500, block_size was 4, is 2",
        ),
        (make(Robe(4)), make(Robe(2)), "chunk_size was 4, is 2"),
        (make(Robe(4, seed=-1)), make(Robe(4)), "seed was -1, is 0"),
        (make(Robe(4)), make(Hashed()), r"saved by another method \(7 settings, here 6\)"),
        (
            make(Hashed(block_size=8), weights(4000)),
            make(HashingTrick(per_table=False), weights(4000)),
            "method was 1, is 2",
        ),
        (
            make(HashingTrick(per_table=False), weights(4000)),
            make(HashingTrick(), weights(4000)),
            r"rows was \[125\], is \[\d+, \d+\]",
        ),
        (
            SharedMemory(TABLES, allocation=HashingTrickAllocation(TABLES, [30, 20], 0)),
            SharedMemory(TABLES, allocation=HashingTrickAllocation(TABLES, [20, 30], 0)),
            r"rows was \[30, 20\], is \[20, 30\]",
        ),
        (
            SharedMemory(TABLES, allocation=FrequencyCutoffAllocation(TABLES, [30, 20])),
            SharedMemory(TABLES, allocation=FrequencyCutoffAllocation(TABLES, [20, 30])),
            r"kept was \[30, 20\], is \[20, 30\]",
        ),
        (
            SharedMemory(TABLES, allocation=QuotientRemainderAllocation(TABLES, [20, 25])),
            SharedMemory(TABLES, allocation=QuotientRemainderAllocation(TABLES, [10, 25])),
            r"remainders was \[20, 25\], is \[10, 25\]",
        ),
        (
            SharedMemory(EVEN, allocation=MixedDimensionAllocation(EVEN, [1, 2])),
            SharedMemory(EVEN, allocation=MixedDimensionAllocation(EVEN, [2, 1])),
            r"dims was \[1, 2\], is \[2, 1\]",
        ),
        (
            SharedMemory(EVEN, allocation=TensorTrainAllocation(EVEN, [1, 2])),
            SharedMemory(EVEN, allocation=TensorTrainAllocation(EVEN, [2, 1])),
            r"ranks was \[1, 2\], is \[2, 1\]",
        ),
        (make(DeepHash(seed=1)), make(DeepHash(seed=2)), "seed was 1, is 2"),
        (
            make(DeepHash(hidden_layers=1)),
            make(DeepHash(hidden_layers=2)),
            r"hashes was \d+, is \d+, hidden_layers was 1, is 2",
        ),
        (make(LowDimension(2)), make(LowDimension(3)), "block_size was 2, is 3"),
        (make(Lma(seed=1)), make(Lma(seed=2)), "seed was 1, is 2"),
        (make(Lma(power=1)), make(Lma(power=2)), "power was 1, is 2"),
        (make(Lma()), make(Lma(hashed_share=0.25)), r"hashed_blocks was 0, is \d+"),
        (make(Lma(), 4000), make(Lma(), 8000), r"num_blocks was \d+, is \d+"),
        (make(Lma()), make(Lma(), codes_seed=5), "signature_seed was 0, is 5"),
        (
            make(Lma(private_share=0, signature_share=0.1)),
            make(Lma(private_share=0, signature_share=0.9)),
            "num_signed of table 'a' was 47, is 80",
        ),
        (
            make(Lma(), similarity="rows"),
            make(Lma(), similarity="context"),
            "shares_across_tables of table 'a' was 1, is 0",
        ),
        (
            make(Lma(power=2), num_codes=4),
            make(Lma(power=2, signature_share=0.5), weights(4000), num_codes=8),
            "num_codes of table 'a' was 4, is 8",
        ),
    ],
)
def test_other_places_are_refused(saved: SharedMemory, wanted: SharedMemory, message: str) -> None:
    before = {name: tensor.clone() for name, tensor in wanted.state_dict().items()}
    with pytest.raises(StateMismatchError, match=message):
        wanted.load_state_dict(saved.state_dict())
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    # Through a parent module as well, and with strict=False.
    parents = [torch.nn.ModuleDict({"emb": memory}) for memory in (saved, wanted)]
    with pytest.raises(StateMismatchError, match=message):
        parents[1].load_state_dict(parents[0].state_dict(), strict=False)


def lma_of(shares: tuple[TablePlan, ...], signed: dict[str, int]) -> LmaAllocation:
    plan = Plan(shares, 40, 0, 1, 2, 4, 8)
    signatures = random_signatures(signed, 4, 8)
    return LmaAllocation(TABLES, plan, signatures, 0)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (
            lma_of((TablePlan("a", 10), TablePlan("b", 20)), {"a": 10, "b": 20}),
            lma_of((TablePlan("a", 20), TablePlan("b", 10)), {"a": 20, "b": 10}),
            "num_signed of table 'a' was 10, is 20",
        ),
        (
            lma_of((TablePlan("a", 0, 10, 4), TablePlan("b", 0, 20, 4)), {}),
            lma_of((TablePlan("a", 0, 10, 4), TablePlan("b", 0, 41, 2)), {}),
            "num_private of table 'b' was 20, is 41",
        ),
    ],
)
def test_another_plan_is_named_by_table(
    one: LmaAllocation, two: LmaAllocation, message: str
) -> None:
    assert one.num_blocks == two.num_blocks
    with pytest.raises(StateMismatchError, match=message):
        two.load_state_dict(one.state_dict())


def test_settings_are_tensors_of_the_state() -> None:
    memory = make(Lma(seed=7, power=3))
    names = memory.allocation._header_names
    header = dict(zip(names, memory.state_dict()["allocation.header"].tolist(), strict=True))
    assert header["hash_version"] == 1
    assert header["seed"] == 7
    assert header["power"] == 3
    assert memory.state_dict()["allocation.plan_rows"].dtype == torch.int32
    assert set(memory.state_dict()) == {
        "weight",
        *(f"allocation.{n}" for n in
          ("header", "plan_rows", "codes", "fingerprints", "overflow_keys")),
    }  # fmt: skip


def test_a_state_of_another_hash_version_is_refused() -> None:
    memory = make(Hashed())
    state = memory.state_dict()
    state["allocation.header"] = state["allocation.header"].clone()
    state["allocation.header"][0] = 0
    with pytest.raises(StateMismatchError, match="hash_version was 0, is 1"):
        memory.load_state_dict(state)


def test_a_state_without_settings_is_incomplete() -> None:
    memory = make(Hashed())
    state = {"weight": memory.weight.detach()}
    with pytest.raises(RuntimeError, match=r"Missing key.*allocation\.header"):
        memory.load_state_dict(state)


def test_signatures_come_out_as_they_went_in() -> None:
    memory = make(Lma(private_share=0), 4000)
    codes = random_codes({"a": 80, "b": 80}, 4, 8)
    signatures = memory.allocation.signatures
    assert signatures.seed == 0
    for section in signatures.sections:
        found = signatures.codes_of(section.table, torch.arange(section.num_signed))
        assert np.array_equal(found.numpy(), codes[section.table][: section.num_signed])


# --- plans and signatures that do not fit each other -------------------------------------------


def test_unfit_plans_are_refused() -> None:
    signatures = random_signatures({"a": 5}, 4, 8)
    for shares, arguments, message in [
        (
            (TablePlan("a", 5, 5, 9),),
            (10, 0, 1, 2, 4, 8),
            "'a' has 8 dimensions, 9 of them private",
        ),
        ((TablePlan("a", 5),), (10, 0, 1, 2, 5, 8), "num_codes is 5, signatures of 'a' have 4"),
        ((TablePlan("a", 5),), (10, 0, 1, 5, 4, 8), "power 5 needs as many distinct codes"),
        ((TablePlan("a", 5),), (0, 0, 1, 2, 4, 8), "table 'a' needs shared blocks, there are none"),
    ]:
        with pytest.raises(ValueError, match=message):
            LmaAllocation([Table("a", 10, 8)], Plan(shares, *arguments), signatures, 0)


def test_signatures_of_two_widths_are_refused() -> None:
    signatures = type(random_signatures({"a": 1})).join(
        [random_signatures({"a": 5}, 4, 8), random_signatures({"b": 5}, 8, 8)]
    )
    with pytest.raises(ValueError, match=r"signatures differ in \(kind, num_codes, code_bits\)"):
        SharedMemory(TABLES, Lma(), budget=4000, signatures=signatures)


def test_private_rows_alone_need_no_blocks() -> None:
    plan = Plan((TablePlan("a", 0, 200, 8), TablePlan("b", 0, 100, 8)), 0, 0, 1, 2, 4, 8)
    allocation = LmaAllocation(TABLES, plan, random_signatures({}), 0)
    assert (allocation.num_blocks, allocation.block_size) == (302, 8)
    memory = SharedMemory(TABLES, allocation=allocation)
    rows = memory.lookup(torch.arange(100), torch.tensor([1]), allocation.group(1))
    assert torch.equal(rows, memory.weight[201:301])
    # Ids that were not seen read the spare row.
    assert torch.equal(
        memory.lookup(torch.tensor([-1, 100]), torch.tensor([1]), allocation.group(1)),
        memory.weight[[301, 301]],
    )


def test_blocks_are_whole_or_refused() -> None:
    whole = make(Lma(block_size=4, private_share=0)).allocation
    number = torch.zeros(1, dtype=torch.int64)
    blocks = whole.blocks(torch.arange(50), number, whole.group(0))
    places = whole.places("a", torch.arange(50))
    assert torch.equal(places[:, ::4], blocks * 4)
    plan = Plan((TablePlan("a", 0, 200, 3), TablePlan("b")), 10, 0, 4, 2, 4, 8)
    mixed = LmaAllocation(TABLES, plan, random_signatures({}), 0)
    with pytest.raises(ValueError, match="private or partial blocks; use locations"):
        mixed.blocks(torch.arange(5), number, mixed.group(0))
    with pytest.raises(NotImplementedError):
        Allocation(TABLES, 1, 1, {}).blocks(torch.arange(5), number, (8,))


def test_repr_says_what_is_laid_out() -> None:
    assert "tables=2, memory=988x1" in repr(make(Hashed()).allocation)
    assert STATS.num_tokens == 200
