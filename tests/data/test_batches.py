"""Order, resumption and layout of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from log_files import criteo_line, write_lines

from lma.data import Batch, prepare
from lma.data import order as order_module
from lma.data import shards as shards_module
from lma.data.order import EpochOrder
from lma.errors import FormatError

ROWS = 3000


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A dataset in many small shards whose first dense value tells the row."""
    folder = tmp_path_factory.mktemp("numbered")
    lines = [criteo_line(str(n % 2), [n] + [""] * 12) for n in range(ROWS)]
    patch = pytest.MonkeyPatch()
    patch.setattr(shards_module, "GROUP_ROWS", 257)
    patch.setattr(shards_module, "SHARD_GROUPS", 2)
    dataset = prepare("criteo", write_lines(folder / "log", lines), folder / "data")
    patch.undo()
    assert len(dataset.meta["splits"]["train"]["shards"]) == 5
    return dataset


@pytest.fixture
def small_buffers(monkeypatch):
    monkeypatch.setattr(order_module, "BLOCK_ROWS", 32)
    monkeypatch.setattr(order_module, "BUFFER_ROWS", 512)


def row_numbers(batches):
    return [n for b in batches for n in torch.expm1(b.dense[:, 0].double()).round().int().tolist()]


def test_unshuffled_is_the_order_of_the_log(numbered):
    rows = row_numbers(numbered.batches("train", 100))
    assert rows == sorted(rows)
    assert len(rows) == numbered.num_rows("train")
    all_rows = [row for split in SPLITS for row in row_numbers(numbered.batches(split, 7))]
    assert sorted(all_rows) == list(range(ROWS))


SPLITS = ("train", "validation", "test")


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("batch_size", [1, 64, 100, 5000])
def test_a_shuffled_epoch_has_every_row_once(numbered, batch_size):
    rows = row_numbers(numbered.batches("train", batch_size, shuffle=True, seed=4))
    assert sorted(rows) == row_numbers(numbered.batches("train", 100))
    assert rows != sorted(rows)


@pytest.mark.usefixtures("small_buffers")
def test_order_depends_on_seed_and_epoch_alone(numbered):
    def order(**options):
        return row_numbers(numbered.batches("train", 64, shuffle=True, **options))

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3) != order(seed=2, epoch=2)


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("start", [0, 1, 7, 37, 38, 1000])
def test_start_batch_resumes(numbered, shuffle, start):
    whole = list(numbered.batches("train", 64, shuffle=shuffle))
    rest = list(numbered.batches("train", 64, shuffle=shuffle, start_batch=start))
    assert row_numbers(rest) == row_numbers(whole[start:])


@pytest.mark.parametrize("shuffle", [False, True])
def test_max_rows_and_drop_last(numbered, shuffle):
    batches = list(numbered.batches("train", 64, shuffle=shuffle, max_rows=200, drop_last=True))
    assert [len(b) for b in batches] == [64, 64, 64]
    everything = list(numbered.batches("train", 64, shuffle=shuffle, max_rows=200))
    assert [len(b) for b in everything] == [64, 64, 64, 8]
    assert sorted(row_numbers(everything)) == row_numbers(numbered.batches("train", 200))[:200]
    assert not list(numbered.batches("train", 64, max_rows=0))


def test_batches_belong_to_their_user(numbered):
    batch = next(numbered.batches("train", 8))
    batch.dense.zero_()
    batch.values.zero_()
    assert next(numbered.batches("train", 8)).dense.any()


def test_types_and_shapes(numbered):
    batch = next(numbered.batches("train", 8, shuffle=True))
    assert isinstance(batch, Batch)
    assert len(batch) == 8
    assert (batch.dense.dtype, tuple(batch.dense.shape)) == (torch.float32, (8, 26))
    assert (batch.values.dtype, tuple(batch.values.shape)) == (torch.int64, (8, 26))
    assert batch.offsets is None
    assert (batch.labels.dtype, tuple(batch.labels.shape)) == (torch.float32, (8,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "split must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"start_batch": -1}, "start_batch"),
        ({"max_rows": -1}, "max_rows"),
    ],
)
def test_bad_arguments(numbered, arguments, message):
    with pytest.raises(ValueError, match=message):
        numbered.batches(**{"split": "train", "batch_size": 8, **arguments})


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 511, 512, 513, 2000])
def test_epoch_order_is_a_permutation(rows, small_buffers):
    order = EpochOrder(rows, shuffle=True, seed=9)
    seen = []
    for number in range(len(order)):
        piece = order.piece(number)
        runs = zip(piece.starts, piece.stops, strict=True)
        read = np.concatenate([np.arange(start, stop) for start, stop in runs])
        assert order.piece_of(len(seen)) == (number, 0)
        seen += read[piece.order].tolist()
        assert order.piece_of(len(seen) - 1) == (number, len(piece) - 1)
    assert sorted(seen) == list(range(rows))


def test_shuffle_is_well_mixed():
    # The mean position change of a random permutation of n is n / 3, its deviation about
    # n / (3 sqrt(2 n)) at most; five of them.
    n = 100_000
    order = EpochOrder(n, shuffle=True, seed=0).piece(0)
    runs = zip(order.starts, order.stops, strict=True)
    rows = np.concatenate([np.arange(start, stop) for start, stop in runs])[order.order]
    moved = np.abs(rows - np.arange(n)).mean()
    assert abs(moved - n / 3) < 5 * n / (3 * np.sqrt(2 * n))


def test_a_damaged_shard_is_found(numbered, tmp_path):
    import shutil

    from lma.data import Dataset, verify

    copy = tmp_path / "copy"
    shutil.copytree(numbered.path, copy)
    verify(copy)
    file = copy / "train-00001.arrow"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    Dataset.open(copy)
    with pytest.raises(FormatError, match=r"train-00001\.arrow: checksum"):
        verify(copy)
    file.write_bytes(data[:-1])
    with pytest.raises(FormatError, match=r"train-00001\.arrow: expected .* bytes"):
        Dataset.open(copy)
    file.unlink()
    with pytest.raises(FormatError, match=r"train-00001\.arrow: expected .* found None"):
        Dataset.open(copy)
