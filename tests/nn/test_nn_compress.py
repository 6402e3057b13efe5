"""`compress_` and modules that borrow a memory: names, ownership, and models left unchanged."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn

import lma
from lma.allocation import Full, Hashed, Lma, Table
from lma.errors import BudgetError, StateMismatchError
from signature_cases import random_signatures


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.ModuleList([nn.EmbeddingBag(50, 8, mode="sum"), nn.EmbeddingBag(30, 8)])
        self.tags = nn.ModuleDict({"genre": nn.Embedding(20, 4, padding_idx=0)})

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        bags = [bag(ids) for bag in self.emb]
        return torch.cat([*bags, self.tags["genre"](ids).sum(1)], 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        self.shared = nn.Embedding(40, 8)
        self.alias = self.shared
        self.head = nn.Linear(28, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([self.tower(ids), self.shared(ids).sum(1) + self.alias(ids).sum(1)], 1)
        return self.head(rows)


NAMES = {"tower.emb.0", "tower.emb.1", "tower.tags.genre", "shared"}
IDS = torch.tensor([[1, 2, 0], [19, 3, 3]])


def compressed(seed: int = 0, **arguments: object) -> Model:
    torch.manual_seed(seed)
    return lma.compress_(Model(), **{"budget": 2000, "method": Hashed(), **arguments})


def test_every_embedding_is_replaced() -> None:
    model = Model()
    found = lma.compress_(model, budget=2000, method=Hashed())
    assert found is model
    assert not any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in model.modules())
    assert {t.name for t in model.lma_memory.tables} == NAMES
    assert isinstance(model.tower.emb[0], lma.EmbeddingBag)
    assert (model.tower.emb[0].mode, model.tower.emb[1].mode) == ("sum", "mean")
    assert model.tower.tags["genre"].padding_idx == 0
    assert model.lma_memory.num_bytes().serving <= 2000
    assert model.tower.emb[0].memory_report().bytes == model.lma_memory.num_bytes()


def test_a_module_under_two_names_stays_one() -> None:
    model = compressed()
    assert model.alias is model.shared
    assert len(model.lma_memory.tables) == 4
    full = lma.compress_(Model(), method=Full())
    assert full.lma_memory.weight.numel() == 50 * 8 + 30 * 8 + 20 * 4 + 40 * 8
    # Named by either of its names.
    named = lma.compress_(Model(), method=Full(), tables={"alias": "C9"})
    assert named.shared.table == named.alias.table == "C9"
    with pytest.raises(ValueError, match="'alias' is 'C9', and the same module elsewhere is 'C8'"):
        lma.compress_(Model(), method=Full(), tables={"shared": "C8", "alias": "C9"})


def test_memory_is_registered_once() -> None:
    model = compressed()
    names = [name for name, _ in model.named_parameters()]
    assert sorted(names) == ["head.bias", "head.weight", "lma_memory.weight"]
    state = model.state_dict()
    pointers = [t.untyped_storage().data_ptr() for t in state.values() if t.numel()]
    assert len(set(pointers)) == len(pointers)
    assert {name for name in state if "memory" in name} == {
        "lma_memory.weight",
        "lma_memory.allocation.header",
    }


def test_model_trains_and_its_state_comes_back(tmp_path: Path) -> None:
    model = compressed()
    model(IDS).sum().backward()
    assert model.lma_memory.weight.grad.abs().sum() > 0
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    other = compressed(seed=1)
    assert not torch.equal(other(IDS), model(IDS))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(IDS), model(IDS))
    save_model(model, str(tmp_path / "model.safetensors"))
    third = compressed(seed=2)
    load_model(third, tmp_path / "model.safetensors")
    assert torch.equal(third(IDS), model(IDS))
    with pytest.raises(StateMismatchError, match="seed was 0, is 3"):
        compressed(method=Hashed(seed=3)).load_state_dict(model.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_borrow_from_their_own_memory(copied) -> None:
    model = compressed()
    other = copied(model)
    assert torch.equal(other(IDS), model(IDS))
    assert other.tower.emb[0].memory is other.lma_memory
    assert other.shared.memory is other.lma_memory
    with torch.no_grad():
        other.lma_memory.weight.add_(1.0)
    assert not torch.equal(other(IDS), model(IDS))


def test_moving_the_model_moves_what_is_borrowed() -> None:
    model = compressed().double()
    assert model.shared(IDS).dtype == torch.float64
    assert model(IDS).dtype == torch.float64
    model.to(torch.bfloat16)
    assert model.tower(IDS).dtype == torch.bfloat16


def test_devices_and_dtypes_are_the_modules_own() -> None:
    assert lma.compress_(Model().double(), method=Full()).lma_memory.weight.dtype == torch.float64


def test_small_modules_are_left_alone() -> None:
    model = compressed(min_embeddings=31)
    assert isinstance(model.tower.emb[0], lma.EmbeddingBag)
    assert type(model.tower.emb[1]) is nn.EmbeddingBag
    assert type(model.tower.tags["genre"]) is nn.Embedding
    model(IDS)


def test_tables_are_named_for_signatures() -> None:
    signatures = random_signatures({"C1": 30, "C2": 20})
    model = lma.compress_(
        Model(),
        budget=4000,
        method=Lma(),
        signatures=signatures,
        tables={"tower.emb.0": "C1", "tower.emb.1": "C2"},
    )
    assert {t.name for t in model.lma_memory.tables} == {"C1", "C2", "tower.tags.genre", "shared"}
    assert model.lma_memory.allocation.plan.num_signed["C1"] == 30
    assert model.tower.emb[0].table == "C1"


def test_two_modules_may_read_one_table() -> None:
    model = nn.ModuleList([nn.Embedding(20, 4), nn.Embedding(20, 4), nn.Embedding(20, 8)])
    tables = {"0": "user", "1": "user"}
    lma.compress_(model, method=Full(), tables=tables)
    assert [t.name for t in model.lma_memory.tables] == ["user", "2"]
    assert torch.equal(model[0](IDS), model[1](IDS))
    for wrong in (nn.Embedding(20, 8), nn.Embedding(21, 4)):
        model = nn.ModuleList([nn.Embedding(20, 4), wrong])
        with pytest.raises(ValueError, match=r"'1' is \[\d+, \d\], another .* is \[20, 4\]"):
            lma.compress_(model, method=Full(), tables=tables)
        assert model[1] is wrong


def test_sparse_gradients_are_kept() -> None:
    model = nn.ModuleList([nn.Embedding(20, 4, sparse=True)])
    lma.compress_(model, method=Full())
    model[0](IDS).sum().backward()
    assert model.lma_memory.weight.grad.is_sparse
    mixed = [nn.Embedding(20, 4, sparse=True), nn.Embedding(20, 4)]
    with pytest.raises(ValueError, match="give sparse=True or sparse=False"):
        lma.compress_(nn.ModuleList(mixed), method=Full())
    assert not lma.compress_(nn.ModuleList(mixed), method=Full(), sparse=False).lma_memory.sparse


class Refused(nn.Module):
    def __init__(self, bad: nn.Module) -> None:
        super().__init__()
        self.good = nn.Embedding(10, 4)
        self.bad = bad


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (nn.Linear(2, 2), {}, ValueError, "no nn.Embedding or nn.EmbeddingBag to replace"),
        (Model(), {"min_embeddings": 51}, ValueError, "no nn.Embedding or nn.EmbeddingBag"),
        (nn.Embedding(4, 4), {}, ValueError, "the model itself is an embedding"),
        (Model(), {"tables": {"x": "C1"}}, ValueError, r"no embedding modules \['x'\]; there are"),
        (nn.Sequential(nn.Embedding(4, 4)), {}, ValueError, "the last layer of this nn.Sequential"),
        (Model(), {"budget": 10}, BudgetError, "10 bytes do not hold one block"),
        (Refused(nn.Embedding(9, 4, max_norm=1.0)), {}, ValueError, "max_norm is not supported"),
        (
            Refused(nn.EmbeddingBag(9, 4, scale_grad_by_freq=True)),
            {},
            ValueError,
            "scale_grad_by_freq is not supported",
        ),
    ],
)
def test_a_refused_model_is_unchanged(
    model: nn.Module, arguments: dict, error: type, message: str
) -> None:
    before = {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}
    with pytest.raises(error, match=message):
        lma.compress_(model, **{"budget": 1000, "method": Hashed(), **arguments})
    after = {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}
    assert after == before


def test_a_second_memory_is_refused() -> None:
    model = compressed(min_embeddings=31)
    with pytest.raises(ValueError, match="has a lma_memory already; compress all modules in one"):
        lma.compress_(model, budget=1000, method=Hashed())
    assert "lma_memory.weight" in dict(model.named_parameters())


# --- modules over a memory of their own or another's ------------------------------------------


def test_own_memory_is_registered_and_a_borrowed_one_is_not() -> None:
    own = lma.EmbeddingBag(10, 4, method=Full())
    assert [name for name, _ in own.named_parameters()] == ["own_memory.weight"]
    borrowed = lma.EmbeddingBag(10, 4, table="table", memory=own.memory)
    assert list(borrowed.parameters()) == []
    assert borrowed.state_dict() == {}
    assert borrowed.allocation is own.allocation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "b"}, "no table 'b'"),
        ({"num_embeddings": 11}, "table 'a' has num_embeddings 10, found 11"),
        ({"num_embeddings": None}, "table 'a' has num_embeddings 10, found None"),
        ({"budget": "1MB"}, "budget belong to the memory, which is given"),
        ({"sparse": True}, "sparse belong to the memory, which is given"),
    ],
)
def test_borrowing_what_is_not_there(arguments: dict, message: str) -> None:
    memory = lma.SharedMemory([Table("a", 10, 4)], Full())
    wanted = {"num_embeddings": 10, "table": "a", "memory": memory, **arguments}
    with pytest.raises((ValueError, KeyError), match=message):
        lma.Embedding(wanted.pop("num_embeddings"), 4, **wanted)


def test_hashed_ids_have_no_negative_padding_rule() -> None:
    rows = lma.Embedding(None, 4, padding_idx=-1, method=Hashed(), budget=400)
    assert rows.padding_idx == -1
    out = rows(torch.tensor([-1, -(2**63), 2**63 - 1]))
    assert out[0].abs().sum() == 0
    assert (out[1:].abs().sum(1) > 0).all()


def test_initial_weights_follow_init_std() -> None:
    table = [Table("a", 4000, 16)]
    for std, expected in ((None, 0.01), (0.5, 0.5), (0.0, 0.0)):
        memory = lma.SharedMemory(table, Full(), init_std=std)
        # 64 000 draws: five standard errors of a standard deviation.
        error = 5 * expected / (2 * 64_000) ** 0.5
        assert abs(float(memory.weight.detach().std()) - expected) <= error
    before = memory.weight.clone()
    memory.init_std = 1.0
    memory.reset_parameters()
    assert not torch.equal(memory.weight, before)


def test_an_allocation_or_a_method() -> None:
    allocation = Full().allocate([Table("a", 10, 4)])
    for extra in ({"budget": 100}, {"compression": 16}, {"method": Full()}):
        with pytest.raises(ValueError, match="give an allocation, or a method with its budget"):
            lma.SharedMemory(allocation.tables, allocation=allocation, **extra)
    assert lma.SharedMemory(allocation.tables, allocation=allocation).allocation is allocation
