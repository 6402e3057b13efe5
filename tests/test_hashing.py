"""The hash family against known values, plain integers, and statistics with derived bounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lma import hashing

U64 = st.integers(0, 2**64 - 1)
I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**63 - 2, -(2**63) + 1, 2**31, 2**32]),
)
LISTS = st.lists(I64, max_size=40)


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def as_torch(values: list[int]) -> torch.Tensor:
    return torch.tensor([signed(v % 2**64) for v in values], dtype=torch.int64)


# --- values that are part of every file -----------------------------------------------------


def test_version_is_the_one_these_values_belong_to() -> None:
    assert hashing.HASH_VERSION == 1


def test_mix_is_splitmix64() -> None:
    # Published outputs of splitmix64 (rosettacode.org, seed 1234567; Vigna's, seed 0).
    state, outputs = 1234567, []
    for _ in range(5):
        state = (state + hashing.GOLDEN) % 2**64
        outputs.append(hashing.mix64_int(state))
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert hashing.mix64_int(hashing.GOLDEN) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1, 0x5692161D100B05E5),
        (1 << 63, 0x25C26EA579CEA98A),
        (2**64 - 1, 0xB4D055FCF2CBBD7B),
        (0x123456789ABCDEF, 0xB2C058E4EBB5112C),
    ],
)
def test_golden_mix(value: int, expected: int) -> None:
    assert hashing.mix64_int(value) == expected


@pytest.mark.parametrize(
    ("state", "value", "expected"),
    [(0, 0, 0xE220A8397B1DCDAF), (1, 2, 0x1D0B14E4DB018FED), (-1, -1, 0xE220A8397B1DCDAF)],
)
def test_golden_combine(state: int, value: int, expected: int) -> None:
    assert hashing.combine_int(state, value) == expected


@pytest.mark.parametrize(
    ("seed", "stream", "expected"),
    [
        (0, 0, 0xE220A8397B1DCDAF),
        (0, 1, 0x910A2DEC89025CC1),
        (7, 3, 0x75CC7191379F4728),
        (-1, 1 << 22, 0xE237A823B5770F11),
    ],
)
def test_golden_stream_seed(seed: int, stream: int, expected: int) -> None:
    assert hashing.stream_seed(seed, stream) == expected
    assert hashing.stream_seeds(seed, 1, first=stream).tolist() == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 0x43ECF6F2143A2D56),
        ("C1", 0xF9BF6AEEBF1DE89B),
        ("12345678", 0x98E1DCE2F3E688F8),
        ("123456789", 0xA81788DAB03EE6B1),
        ("Ωmega", 0xB72BF498C8CF145D),
        (b"\x00", 0xBFEF8030DDC2D772),
        (b"\x00\x00", 0x41142829AE9E115E),
        ("x" * 100, 0x20A868AC2917CD58),
    ],
)
def test_golden_strings(text: str | bytes, expected: int) -> None:
    assert hashing.hash_string(text) == expected
    assert hashing.hash_strings([text]).tolist() == [signed(expected)]


@pytest.mark.parametrize(
    ("table", "value", "expected"),
    [
        ("C1", 0, 7966603323317120331),
        ("C1", -1, -869618662889191010),
        ("C1", 2**63 - 1, -31576175315781690),
        ("C1", -(2**63), -9107754182106780120),
        ("user", "a", -9174938043009896654),
    ],
)
def test_golden_token_keys(table: str, value: int | str, expected: int) -> None:
    assert hashing.token_key(table, value) == expected


# --- three forms, the same bits -------------------------------------------------------------


@given(LISTS)
def test_mix_agrees(values: list[int]) -> None:
    expected = [hashing.mix64_int(v) for v in values]
    assert hashing.mix64(np.array(values, dtype=np.int64)).tolist() == expected
    assert hashing.mix64_t(as_torch(values)).tolist() == [signed(v) for v in expected]


@given(st.lists(st.tuples(I64, I64), max_size=40))
def test_combine_agrees(pairs: list[tuple[int, int]]) -> None:
    states, values = [a for a, _ in pairs], [b for _, b in pairs]
    expected = [hashing.combine_int(a, b) for a, b in pairs]
    found = hashing.combine(np.array(states, dtype=np.int64), np.array(values, dtype=np.int64))
    assert found.tolist() == expected
    found_t = hashing.combine_t(as_torch(states), as_torch(values))
    assert found_t.tolist() == [signed(v) for v in expected]


@given(st.text(max_size=12), LISTS)
def test_token_keys_agree_and_are_undone(table: str, ids: list[int]) -> None:
    salt = hashing.table_salt(table)
    expected = [hashing.token_key(table, i) for i in ids]
    keys = hashing.token_keys(np.uint64(salt), np.array(ids, dtype=np.int64))
    assert keys.view(np.int64).tolist() == expected
    found = hashing.token_keys_t(torch.tensor(signed(salt)), as_torch(ids))
    assert found.tolist() == expected
    assert hashing.token_ids(np.uint64(salt), keys).tolist() == ids


@given(U64, st.integers(1, 2**31 - 1))
def test_reduce_range_agrees(value: int, size: int) -> None:
    expected = ((value >> 32) * size) >> 32
    assert 0 <= expected < size
    assert int(hashing.reduce_range(np.uint64(value), size)) == expected
    word = torch.tensor([signed(value)])
    assert hashing.reduce_range_t(word, size).tolist() == [expected]
    assert hashing.reduce_range_t(word, torch.tensor([size])).tolist() == [expected]


@pytest.mark.parametrize("bits", [1, 16, 30, 31, 32, 63])
def test_right_shift_is_logical(bits: int) -> None:
    words = [0, 1, -1, 2**63 - 1, -(2**63), -12345]
    found = hashing.shift_right_t(as_torch(words), bits).tolist()
    assert found == [signed((w % 2**64) >> bits) for w in words]


@given(U64)
def test_to_signed_keeps_the_bits(value: int) -> None:
    assert hashing.to_signed(value) == signed(value)
    assert hashing.to_signed(value + 2**64) == signed(value)


def test_zero_dimensional_and_empty_arrays() -> None:
    assert int(hashing.mix64(1)) == hashing.mix64_int(1)
    assert int(hashing.combine(-1, 2**62)) == hashing.combine_int(-1, 2**62)
    for empty in (hashing.mix64(np.empty(0, np.int32)), hashing.combine(3, np.empty(0, np.int64))):
        assert empty.shape == (0,)
        assert empty.dtype == np.uint64
    assert hashing.stream_seeds(0, 0).shape == (0,)
    assert hashing.mix64(np.ones((2, 3), np.int32)).shape == (2, 3)


def test_arguments_are_not_changed() -> None:
    values = np.arange(5, dtype=np.uint64)
    hashing.mix64(values)
    hashing.combine(values, values)
    hashing.token_ids(np.uint64(9), values)
    assert values.tolist() == [0, 1, 2, 3, 4]


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="expected integers, found dtype float64"):
        hashing.mix64(np.array([1.0]))


# --- strings --------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.text(max_size=30), st.binary(max_size=30)), max_size=12))
def test_many_strings_hash_as_one_by_one(values: list[str | bytes]) -> None:
    expected = [signed(hashing.hash_string(v)) for v in values]
    assert hashing.hash_strings(values).tolist() == expected


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.integers(0, 9))
def test_a_slice_of_a_buffer_hashes_as_its_strings(values: list[bytes], skip: int) -> None:
    # Arrow slices keep the whole buffer and begin their offsets inside it.
    data = np.frombuffer(b"#" * skip + b"".join(values) + b"tail", dtype=np.uint8)
    offsets = skip + np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int32)
    found = hashing.hash_string_buffer(data, offsets)
    assert found.tolist() == [signed(hashing.hash_string(v)) for v in values]


def test_descending_offsets_are_refused() -> None:
    with pytest.raises(ValueError, match="offsets must ascend"):
        hashing.hash_string_buffer(np.zeros(4, np.uint8), np.array([0, 3, 1]))


def test_length_and_padding_separate_strings() -> None:
    values = [b"\0" * n for n in range(40)] + [b"a" + b"\0" * n for n in range(40)]
    assert len(set(hashing.hash_strings(values).tolist())) == len(values)


# --- keys -----------------------------------------------------------------------------------


def test_tables_and_ids_have_keys_of_their_own() -> None:
    ids = [*range(-2000, 2000), 2**63 - 1, -(2**63)]
    keys = {hashing.token_key(f"C{t}", i) for t in range(20) for i in ids}
    assert len(keys) == 20 * len(ids)


@given(st.text(max_size=20), I64)
def test_key_accepts_every_form_of_an_id(table: str, value: int) -> None:
    key = hashing.token_key(table, value)
    assert hashing.token_key(table, np.int64(value)) == key
    assert hashing.token_key(table, value % 2**64) == key
    assert hashing.token_key(table, torch.tensor(value)) == key  # type: ignore[arg-type]
    assert -(2**63) <= key < 2**63


@given(st.text(max_size=9), st.text(max_size=20))
def test_key_of_a_string_is_that_of_its_hash(table: str, value: str) -> None:
    assert hashing.token_key(table, value) == hashing.token_key(table, hashing.hash_string(value))
    assert hashing.token_key(table, value) == hashing.token_key(table, value.encode())


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_key_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"must fit in 64 bits, found {value}"):
        hashing.token_key("C1", value)


def test_key_of_a_float_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        hashing.token_key("C1", 1.5)  # type: ignore[arg-type]


# --- statistics -----------------------------------------------------------------------------


def chi_square(counts: np.ndarray, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def assert_uniform(places: np.ndarray, size: int) -> None:
    """Chi-square within the tails of Laurent and Massart (2000), e^-20 on either side."""
    counts = np.bincount(places, minlength=size)
    assert len(counts) == size
    found, freedom, x = chi_square(counts, len(places) / size), size - 1, 20.0
    assert found <= freedom + 2 * math.sqrt(freedom * x) + 2 * x
    assert found >= freedom - 2 * math.sqrt(freedom * x)


@pytest.mark.parametrize("size", [2, 7, 1000, 4096])
@pytest.mark.parametrize("ids", ["counting", "multiples", "negative", "huge"])
def test_hashed_ids_fill_a_range_evenly(size: int, ids: str) -> None:
    n = np.arange(1 << 18, dtype=np.int64)
    tokens = {"counting": n, "multiples": n << 20, "negative": -n, "huge": 2**63 - 1 - n}[ids]
    keys = hashing.token_keys(np.uint64(hashing.table_salt("C1")), tokens)
    assert_uniform(hashing.reduce_range(keys, size), size)
    assert_uniform(
        hashing.reduce_range(hashing.combine(hashing.stream_seed(0, 3), keys), size), size
    )


def test_two_streams_are_independent() -> None:
    keys = hashing.token_keys(np.uint64(1), np.arange(1 << 18))
    first, second = (
        hashing.reduce_range(hashing.combine(seed, keys), 32) for seed in hashing.stream_seeds(0, 2)
    )
    assert_uniform(first * 32 + second, 1024)


def test_two_tables_are_independent() -> None:
    ids = np.arange(1 << 18)
    first, second = (
        hashing.reduce_range(hashing.token_keys(np.uint64(hashing.table_salt(t)), ids), 32)
        for t in ("C1", "C2")
    )
    assert_uniform(first * 32 + second, 1024)


def test_every_input_bit_moves_half_of_the_output_bits() -> None:
    words = hashing.mix64(np.arange(1, 4097, dtype=np.uint64) << np.uint64(17))
    hashes = hashing.mix64(words)
    for bit in range(64):
        changed = hashes ^ hashing.mix64(words ^ np.uint64(1 << bit))
        share = np.unpackbits(changed.view(np.uint8)).reshape(-1, 64).mean(0)
        # 64 * 64 binomial shares of 4096 flips, standard deviation 1/128: six of them.
        assert np.abs(share - 0.5).max() < 6 / 128


def test_string_hashes_fill_a_range_evenly() -> None:
    hashes = hashing.hash_strings([f"{n:08x}" for n in range(1 << 16)])
    assert_uniform(hashing.reduce_range(hashes, 256), 256)
    assert_uniform((hashes & 255).astype(np.int64), 256)
