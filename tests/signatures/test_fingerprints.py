"""The fingerprint index, hashed ids from end to end, and counting in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hashed_log import HashedLog, hashed_and_dense
from set_oracle import as_batch

from lma.errors import LmaError
from lma.hashing import table_salt, token_keys
from lma.kernels.reference.addresses import find_fingerprint
from lma.signatures import (
    ContextCodeBuilder,
    MinHashBuilder,
    SignatureConfig,
    SignatureTable,
    SupportCounter,
    fit_signatures,
)
from lma.signatures.fingerprints import FingerprintIndex


def reference_slots(index, keys):
    """By the plain torch definition."""
    n = len(keys)
    return find_fingerprint(
        torch.from_numpy(keys.view(np.int64)),
        torch.zeros(n, dtype=torch.int64),
        torch.full((n,), len(index.fingerprints)),
        torch.from_numpy(index.fingerprints),
        torch.from_numpy(index.overflow_keys),
        torch.zeros(n, dtype=torch.int64),
        torch.full((n,), len(index.overflow_keys)),
    ).numpy()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100, 5000, 60_000])
def test_every_signed_key_is_found_in_its_own_slot(count):
    rng = np.random.default_rng(count)
    keys = np.unique(rng.integers(0, 2**64, count, dtype=np.uint64))
    rng.shuffle(keys)
    index = FingerprintIndex.build(keys)
    assert len(np.unique(index.slots)) == len(keys)
    assert np.array_equal(reference_slots(index, keys), index.slots)
    assert np.array_equal(index.overflow_keys, np.sort(index.overflow_keys))


def test_load_and_false_matches():
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 2**64, 200_000, dtype=np.uint64))
    index = FingerprintIndex.build(keys)
    lanes = index.fingerprints.size
    assert (index.fingerprints != 0).sum() / lanes >= 0.9
    bytes_per_key = (index.fingerprints.nbytes + index.overflow_keys.nbytes) / len(keys)
    assert bytes_per_key <= 2.2
    strangers = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    matched = int((reference_slots(index, strangers) >= 0).sum())
    expected = 16 * 0.95 / 65_535 * len(strangers)
    assert matched <= expected + 5 * np.sqrt(expected)
    assert matched / len(strangers) <= 0.001


def test_twins_go_to_the_exact_list():
    """Keys that differ in bits 16 to 31 alone: same fingerprint, same first bucket."""
    keys = np.uint64(0xABCD_0000_0000_1234) + (np.arange(12, dtype=np.uint64) << np.uint64(16))
    index = FingerprintIndex.build(keys)
    assert len(index.overflow_keys) >= 10
    assert np.array_equal(reference_slots(index, keys), index.slots)
    zero = np.array([0, 1], np.uint64)  # low bits 0 are stored as 1: a twin of 1
    index = FingerprintIndex.build(zero)
    assert np.array_equal(reference_slots(index, zero), index.slots)


def test_no_keys_and_bad_keys():
    index = FingerprintIndex.build(np.zeros(0, np.uint64))
    assert index.fingerprints.shape == (0, 8)
    with pytest.raises(ValueError, match="all different"):
        FingerprintIndex.build(np.array([3, 3], np.uint64))
    with pytest.raises(ValueError, match="load"):
        FingerprintIndex.build(np.array([3], np.uint64), load=0.99)


@pytest.mark.parametrize("similarity", ["rows", "context", "labelled_context"])
def test_hashed_ids_get_the_codes_that_their_sets_have(similarity):
    """Built in two passes (fit), in one, and merged from parts: the same table."""
    _, rows, labels, raw = hashed_and_dense()
    config = SignatureConfig(similarity, num_codes=4, min_support=2)
    table = fit_signatures(HashedLog(rows, labels, ("user", "movie")), config)
    assert table.section("user").index == "fingerprint"
    one = MinHashBuilder({"user": None, "movie": None}, config)
    one.update(*as_batch(rows, 2), labels)
    parts = [MinHashBuilder({"user": None, "movie": None}, config) for _ in range(3)]
    for part, (first, last) in zip(parts, ((0, 150), (150, 160), (160, 400)), strict=True):
        part.update(*as_batch(rows[first:last], 2), labels[first:last], first_row=first)
    merged = parts[2].merge(parts[0]).merge(parts[1])
    for other in (one.finish(), merged.finish()):
        assert torch.equal(other.codes, table.codes)
        assert torch.equal(other.fingerprints, table.fingerprints)
    ids = torch.from_numpy(raw)
    from set_oracle import element_sets, expected_codes

    sets = element_sets(rows, labels, ("user", "movie"), similarity)
    found = table.codes_of("user", ids)
    for token, codes in zip(raw.tolist(), found.tolist(), strict=True):
        assert codes == expected_codes(sets["user", token], 4, 16)


def test_hashed_ids_learn_the_codes_of_dense_ones():
    """Same keys are needed for same signs, so quality is compared: which users share codes."""
    _, rows, labels, raw = hashed_and_dense()
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=2, dim=6, passes=2)
    table = fit_signatures(HashedLog(rows, labels, ("user", "movie")), config)
    assert table.section("user").num_signed == 30
    assert (table.codes_of("user", torch.from_numpy(raw)) >= 0).all()
    assert (table.find("user", torch.arange(1000)) < 0).float().mean() > 0.99
    builder = ContextCodeBuilder({"user": None, "movie": None}, config)
    for _ in range(builder.num_passes):
        builder.update(*as_batch(rows, 2), labels)
        builder.next_pass()
    assert torch.equal(builder.finish().codes, table.codes)


def test_a_plan_limits_hashed_tables(tmp_path):
    _, rows, labels, _ = hashed_and_dense()
    log = HashedLog(rows, labels, ("user", "movie"))
    table = fit_signatures(log, SignatureConfig("context"), num_signed={"user": 9, "movie": 12})
    assert [s.num_signed for s in table.sections] == [9, 12]
    table.save(tmp_path)
    loaded = SignatureTable.load(tmp_path)
    ids = torch.tensor([v for row in rows for v in row[0]])
    assert torch.equal(loaded.codes_of("user", ids), table.codes_of("user", ids))
    short = table.truncate({"movie": 12})
    assert torch.equal(short.codes_of("movie", ids), table.codes_of("movie", ids))
    with pytest.raises(ValueError, match="fit it again"):
        table.truncate({"user": 5})
    with pytest.raises(ValueError, match="fingerprints"):
        table.neighbours("user", int(ids[0]))


def test_supports_are_exact_while_they_fit():
    rng = np.random.default_rng(0)
    ids = rng.integers(-50, 50, 20_000) * 2**55
    counter = SupportCounter("a")
    for piece in np.array_split(ids, 7):
        counter.update(piece)
    values, counts = np.unique(ids, return_counts=True)
    found, supports = counter.most_frequent()
    assert dict(zip(found.tolist(), supports.tolist(), strict=True)) == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )
    assert counter.error == 0
    assert counter.stats().num_tokens == len(values)


def test_bounded_counts_keep_their_promise():
    rng = np.random.default_rng(1)
    ids = rng.zipf(1.3, 60_000) % 2**40
    counters = [SupportCounter("a", 1000) for _ in range(3)]
    for piece, counter in zip(np.array_split(ids, 3), counters, strict=True):
        counter.update(piece)
    merged = counters[0].merge(counters[1]).merge(counters[2])
    assert merged.num_tokens <= 1000
    assert 0 < merged.error <= 2 * len(ids) / 1000
    values, counts = np.unique(ids, return_counts=True)
    true = dict(zip(values.tolist(), counts.tolist(), strict=True))
    found, supports = merged.most_frequent()
    for token, support in zip(found.tolist(), supports.tolist(), strict=True):
        assert true[token] - merged.error <= support <= true[token]
    assert set(values[counts > merged.error].tolist()) <= set(found.tolist())


def test_the_map_grows():
    """More tokens than the first room of the hash table, in one batch and in many."""
    ids = np.arange(10_000) * 7919
    one, many = SupportCounter("a"), SupportCounter("a")
    one.update(ids)
    for piece in np.array_split(np.concatenate([ids, ids[:5]]), 11):
        many.update(piece)
    assert one.stats().counts.tolist() == [10_000]
    assert many.stats().counts.tolist() == [5, 9_995]
    assert token_keys(np.uint64(table_salt("a")), ids).dtype == np.uint64


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="max_tokens"):
        SupportCounter("a", 1)
    with pytest.raises(TypeError, match="int64"):
        SupportCounter("a").update(np.array([0.5]))


def test_counters_merge_neither_with_other_tables_nor_with_themselves():
    with pytest.raises(LmaError, match="different tables: 'a' and 'b'"):
        SupportCounter("a").merge(SupportCounter("b"))
    one = SupportCounter("a")
    with pytest.raises(LmaError, match="a counter with itself"):
        one.merge(one)


@pytest.mark.parametrize("ids", [[7, 7], [7, 7, 7, 9], [1, 2, 3, 2]])
def test_a_repeated_id_is_refused(ids):
    with pytest.raises(ValueError, match="ids must be all different"):
        FingerprintIndex.of_tokens(5, np.array(ids))
