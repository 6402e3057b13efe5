"""The starts of every backend are the reference's, bit for bit, and right by an exact index."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import KINDS, Case, make_case, named_case, one_hot_ids

from lma.hashing import token_keys_t
from lma.kernels.layout import Column, Kind
from lma.kernels.lookup import chunk_starts
from lma.kernels.reference import lookup as reference
from lma.kernels.reference.addresses import find_slots
from lma.signatures.fingerprints import FingerprintIndex


def both(case: Case, ids: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rule = case.rule
    found = chunk_starts(rule, ids, numbers, case.unit, case.pieces)
    wanted = reference.starts(
        ids, numbers, *rule[:6], case.unit, rule.chunk, rule.stride, rule.lead, case.pieces
    )
    return found, wanted


@pytest.mark.parametrize("private", [False, True], ids=["", "private"])
@pytest.mark.parametrize("chunk", [1, 4, 5])
@pytest.mark.parametrize("name", KINDS)
def test_starts_equal_the_reference(name: str, chunk: int, private: bool) -> None:
    for seed in range(3):
        case = named_case(name, chunk, seed, private)
        generator = torch.Generator().manual_seed(seed)
        ids = one_hot_ids(case, 50, generator)
        found, wanted = both(case, ids, case.numbers)
        assert found.dtype == torch.int32
        assert torch.equal(found, wanted)
        assert int(found.max()) < case.num_blocks


@given(data=st.data())
def test_starts_equal_the_reference_for_any_tables(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    kinds = data.draw(
        st.lists(
            st.tuples(st.sampled_from(list(Kind)), st.sampled_from(["prefix", "fingerprint"])),
            min_size=count, max_size=count,
        )
    )  # fmt: skip
    dims = data.draw(st.lists(st.integers(1, 20), min_size=count, max_size=count))
    privates = [data.draw(st.integers(0, dim)) for dim in dims]
    chunk = data.draw(st.integers(1, 9))
    power = data.draw(st.integers(1, 3))
    case = make_case(data.draw(st.integers(0, 10**6)), kinds, dims, privates, chunk, power)
    batch = data.draw(st.integers(0, 6))
    ids = one_hot_ids(case, batch, torch.Generator().manual_seed(0))
    found, wanted = both(case, ids, case.numbers)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["random by fingerprint", "learned"])
def test_every_signed_token_is_found_by_its_fingerprint(name: str) -> None:
    for seed in range(10):
        case = named_case(name, 2, seed)
        for t, ids in enumerate(case.known):
            row = case.rule.layout[t].expand(len(ids), -1)
            keys = token_keys_t(row[:, Column.SALT], ids)
            slots = find_slots(ids, keys, row, case.rule.fingerprints, case.rule.overflow_keys)
            # Slots differ, so no two signed tokens can share codes by mistake of the index.
            assert int(slots.min()) >= 0
            assert len(set(slots.tolist())) == len(set(ids.tolist()))


def test_one_table_per_id() -> None:
    case = named_case("all", 3, private=True)
    numbers = torch.tensor([5, 0, 3, 3, 1, 2, 4, 0])
    generator = torch.Generator().manual_seed(3)
    ids = torch.cat([case.ids(int(n), 1, generator) for n in numbers])
    found, wanted = both(case, ids, numbers)
    assert torch.equal(found, wanted)


def test_no_ids() -> None:
    case = named_case("all", 3, private=True)
    none = torch.empty(0, dtype=torch.int64)
    for numbers in (none, case.numbers):
        found, wanted = both(case, none, numbers)
        assert found.shape == wanted.shape == (0, case.pieces)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_starts_do_not_depend_on_threads(threads: int, torch_threads: None) -> None:
    case = named_case("all", 2, private=True)
    ids = one_hot_ids(case, 3000, torch.Generator().manual_seed(0))
    _, wanted = both(case, ids, case.numbers)
    torch.set_num_threads(threads)
    found, _ = both(case, ids, case.numbers)
    assert torch.equal(found, wanted)


def test_bad_arguments_are_named() -> None:
    case = named_case("unsigned", 2)
    rule, numbers = case.rule, case.numbers
    with pytest.raises(TypeError, match=r"ids must be int64 .* found torch.int32 \[4\]"):
        chunk_starts(rule, torch.zeros(4, dtype=torch.int32), numbers, case.unit, case.pieces)
    with pytest.raises(ValueError, match="3 ids are no multiple of 2 features"):
        chunk_starts(rule, torch.zeros(3, dtype=torch.int64), numbers, case.unit, case.pieces)


def test_an_index_as_builders_make_it() -> None:
    """Twenty thousand keys, twins among them, through the index of `lma.signatures`."""
    case = make_case(0, [(Kind.LEARNED, "fingerprint")], [8], [0], 4)
    layout = case.rule.layout.clone()
    ids = torch.randint(-(2**63), 2**63 - 1, (20_000,), generator=torch.Generator().manual_seed(0))
    keys = token_keys_t(layout[0, Column.SALT], ids)
    index = FingerprintIndex.build(keys.numpy())
    layout[0, Column.NUM_BUCKETS] = len(index.fingerprints)
    layout[0, Column.NUM_OVERFLOW] = len(index.overflow_keys)
    assert len(index.overflow_keys) > 0
    slots = index.fingerprints.size + len(index.overflow_keys)
    codes = torch.randint(0, 256, (9 * slots + 2,), generator=torch.Generator().manual_seed(1))
    rule = case.rule._replace(
        layout=layout,
        codes=codes.to(torch.uint8),
        fingerprints=torch.from_numpy(index.fingerprints),
        overflow_keys=torch.from_numpy(index.overflow_keys),
    )
    found = chunk_starts(rule, ids, case.numbers, case.unit, case.pieces)
    # The same codes under a prefix index, asked for by slot.
    layout = layout.clone()
    layout[0, Column.NUM_SIGNED] = slots
    by_slot = chunk_starts(
        rule._replace(layout=layout), torch.from_numpy(index.slots).long(), case.numbers, case.unit,
        case.pieces,
    )  # fmt: skip
    assert torch.equal(found, by_slot)
