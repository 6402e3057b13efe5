from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from lma.data import RowEncoder
from lma.data.column_hash import hash_bags, hash_column
from lma.data.dictionary import Dictionary
from lma.data.key_index import KeyIndex
from lma.data.raw import DenseColumn, RawFeature, RawSchema
from lma.data.token_counter import TokenCounter
from lma.errors import DataError, FormatError
from lma.hashing import hash_string, hash_strings, to_signed

SCHEMA = RawSchema(
    "toy",
    (DenseColumn("price"), DenseColumn("delta", "asinh")),
    (RawFeature("city"), RawFeature("tags", multi_hot=True)),
)


def dictionary(*values):
    import pyarrow as pa

    counter = TokenCounter()
    for rank, value in enumerate(values):
        counter.update(hash_strings([value] * (len(values) - rank)))
    result = Dictionary.from_counter(counter)
    result.values = pa.array(values, pa.large_string())
    return result


@pytest.fixture
def encoder():
    return RowEncoder(SCHEMA, [dictionary("Rome", "", "Oslo"), dictionary("new", "old")])


FRAME = pl.DataFrame(
    {
        "label": [1, 0, 1],
        "price": [0.0, None, float("inf")],
        "delta": [-1e300, 1.0, float("nan")],
        "city": ["Oslo", None, "Atlantis"],
        "tags": [["old", "new", "odd"], None, []],
        "more": [1, 2, 3],
    }
)


def test_encode_by_hand(encoder):
    batch = encoder.encode(FRAME)
    assert batch.values.tolist() == [2, 1, 3, 1, 0, 2]
    assert batch.offsets.tolist() == [0, 1, 2, 3, 6, 6, 6]
    assert batch.labels.tolist() == [1, 0, 1]
    wanted = [
        [0, np.arcsinh(-1e300), 0, 0],
        [0, np.arcsinh(1), 1, 0],
        [0, 0, 1, 1],
    ]
    torch.testing.assert_close(batch.dense, torch.tensor(wanted, dtype=torch.float32))
    assert encoder.schema.dense == ("price", "delta", "price_missing", "delta_missing")


def test_labels_are_nan_where_absent(encoder):
    assert encoder.encode(FRAME.drop("label")).labels.isnan().all()


def test_no_rows(encoder):
    batch = encoder.encode(FRAME.clear())
    assert len(batch) == 0
    assert batch.offsets.tolist() == [0]


def test_integers_are_their_decimal_strings():
    encoder = RowEncoder(RawSchema("t", (), (RawFeature("n"),)), [dictionary("7", "-3")])
    assert encoder.encode(pl.DataFrame({"n": [-3, 7, 8]})).values.tolist() == [[1], [0], [2]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop("city"), "column 'city' is missing"),
        (FRAME.rename({"price": "prices"}), "column 'price' is missing; the nearest is 'prices'"),
        (FRAME.with_columns(city=pl.lit(1.5)), "column 'city': expected strings or integers"),
        (FRAME.with_columns(tags=pl.lit("a")), "column 'tags': expected lists"),
        (FRAME.with_columns(price=pl.lit("a")), "column 'price': expected numbers"),
        (FRAME.with_columns(label=pl.lit("a")), "column 'label': expected 0 or 1"),
    ],
)
def test_unusable_frames(encoder, frame, message):
    with pytest.raises(DataError, match=message):
        encoder.encode(frame)


def test_save_and_load(encoder, tmp_path):
    encoder.save(tmp_path / "e")
    again = RowEncoder.load(tmp_path / "e")
    assert again.schema == encoder.schema
    assert torch.equal(again.encode(FRAME).values, encoder.encode(FRAME).values)
    assert again.titles("city") == ["Rome", "", "Oslo", "<unseen>"]


def test_load_of_damaged_files(encoder, tmp_path):
    with pytest.raises(FormatError, match="not an encoder of ours"):
        RowEncoder.load(tmp_path)
    encoder.save(tmp_path)
    (tmp_path / "dictionary-001.arrow").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"dictionary-001\.arrow: not a dictionary"):
        RowEncoder.load(tmp_path)
    text = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(text.replace('"hash_version": 1', '"hash_version": 9'))
    with pytest.raises(FormatError, match="prepare the data again"):
        RowEncoder.load(tmp_path)


def test_unknown_feature(encoder):
    with pytest.raises(ValueError, match="no feature 'cities'; the nearest is 'city'"):
        encoder.titles("cities")


@pytest.mark.parametrize("values", [[], [""], ["a", None, "žluť", "12345678", "123456789"]])
def test_hash_column_equals_hash_string(values):
    import pyarrow as pa

    wanted = [to_signed(hash_string(value or "")) for value in values]
    for kind in (pa.string(), pa.large_string()):
        assert hash_column(pa.array(values, kind)).tolist() == wanted
        assert hash_column(pa.array(["zz", *values], kind).slice(1)).tolist() == wanted


def test_hash_column_of_eight_bytes():
    import pyarrow as pa

    values = ["12345678", "", None, "abcdefgh"]
    wanted = [to_signed(hash_string(value or "")) for value in values]
    assert hash_column(pa.array(values, pa.large_string())).tolist() == wanted
    assert hash_column(pa.array(["x", *values])[1:]).tolist() == wanted


def test_hash_bags():
    import pyarrow as pa

    lists = pa.array([["a"], None, [], ["b", None]], pa.large_list(pa.large_string()))
    values, lengths = hash_bags(lists)
    assert lengths.tolist() == [1, 0, 0, 2]
    assert values.tolist() == [to_signed(hash_string(v)) for v in ("a", "b", "")]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_key_index_equals_a_dict(count):
    rng = np.random.default_rng(count)
    keys = np.unique(rng.integers(0, 2**64, count, dtype=np.uint64))
    if count > 2:
        keys[:3] = [0, 1, 2]  # one crowded bucket
        keys[-1] = 2**64 - 1
    queries = np.concatenate([keys, rng.integers(0, 2**64, 500, dtype=np.uint64), keys[:5] + 1])
    position = {int(key): n for n, key in enumerate(keys)}
    found = KeyIndex(keys).find(queries)
    assert found.tolist() == [position.get(int(query), -1) for query in queries]


def test_token_counter_equals_counting_in_one_go(tmp_path):
    import pyarrow as pa

    rng = np.random.default_rng(0)
    counter = TokenCounter(tmp_path / "values.arrow")
    texts = [str(v) for v in (rng.zipf(1.2, 300_000) % 200_000)]
    for start in range(0, len(texts), 20_000):
        part = pa.array(texts[start : start + 20_000], pa.large_string())
        counter.update(hash_column(part), part)
    keys, counts = counter.finish()
    values, wanted = np.unique(texts, return_counts=True)
    by_value = dict(zip(values.tolist(), wanted.tolist(), strict=True))
    hashes = {hash_string(value): value for value in by_value}
    assert len(counter) == len(by_value)
    assert [by_value[hashes[int(key)]] for key in keys] == counts.tolist()
    value_keys, strings = counter.read_values()
    assert [hashes[int(k) % 2**64] for k in value_keys.tolist()] == strings.to_pylist()
