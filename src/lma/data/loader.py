"""From shards to batches, in any order, starting anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.data.batch import Batch
from lma.data.order import EpochOrder, Piece
from lma.data.schema import Schema
from lma.data.shards import RowGroup

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Rows:
    """Some rows in row-major form; bags are (values, offsets) per multi-hot feature."""

    ids: npt.NDArray[Any]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32] | None
    bags: list[tuple[npt.NDArray[Any], I64]]

    def __len__(self) -> int:
        return len(self.labels)


def iterate_batches(
    groups: Sequence[RowGroup],
    schema: Schema,
    order: EpochOrder,
    batch_size: int,
    numbers: range,
) -> Iterator[Batch]:
    """The batches with these numbers; number n is the epoch's rows from `n * batch_size` on.

    The last batch of an epoch may be smaller.
    """
    first_rows = np.cumsum([0, *(len(group) for group in groups)])
    loaded = -1
    rows = _Rows(np.zeros(0), np.zeros(0, np.float32), np.zeros(0, np.uint8), None, [])
    piece = Piece(np.zeros(0, np.int64), np.zeros(0, np.int64), None)
    for number in numbers:
        start = number * batch_size
        stop = min(start + batch_size, order.rows)
        parts = []
        position = start
        while position < stop:
            wanted, offset = order.piece_of(position)
            if wanted != loaded:
                piece = order.piece(wanted)
                rows = _read(groups, first_rows, piece)
                loaded = wanted
            count = min(stop - position, len(piece) - offset)
            parts.append(_pick(rows, piece.order, offset, count))
            position += count
        yield _to_batch(schema, parts)


def _read(groups: Sequence[RowGroup], first_rows: I64, piece: Piece) -> _Rows:
    """The piece's runs one after the other: views for a single run, else a copy."""
    parts = []
    for start, stop in zip(piece.starts.tolist(), piece.stops.tolist(), strict=True):
        number = int(np.searchsorted(first_rows, start, side="right")) - 1
        while start < stop:
            group, first = groups[number], int(first_rows[number])
            end = min(stop, first + len(group))
            parts.append(_slice(group, start - first, end - first))
            start, number = end, number + 1
    return parts[0] if len(parts) == 1 else _concatenate(parts)


def _slice(rows: _Rows | RowGroup, start: int, stop: int) -> _Rows:
    bags = []
    for values, offsets in rows.bags:
        own = offsets[start : stop + 1]
        bags.append((values[own[0] : own[-1]], own - own[0]))
    weights = None if rows.weights is None else rows.weights[start:stop]
    return _Rows(
        rows.ids[start:stop], rows.dense[start:stop], rows.labels[start:stop], weights, bags
    )


def _concatenate(parts: Sequence[_Rows]) -> _Rows:
    bags = []
    for f in range(len(parts[0].bags)):
        lengths = np.concatenate([np.diff(part.bags[f][1]) for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        bags.append((np.concatenate([part.bags[f][0] for part in parts]), offsets))
    return _Rows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.labels for part in parts]),
        _concatenate_weights(parts),
        bags,
    )


def _concatenate_weights(parts: Sequence[_Rows]) -> npt.NDArray[np.float32] | None:
    weights = [part.weights for part in parts if part.weights is not None]
    return np.concatenate(weights) if weights else None


def _pick(rows: _Rows, order: I64 | None, offset: int, count: int) -> _Rows:
    """`count` rows from `offset` on of the piece's order, copied."""
    if order is None:
        # The mapped file is read-only, and a batch belongs to its user.
        part = _slice(rows, offset, offset + count)
        weights = None if part.weights is None else part.weights.copy()
        return _Rows(part.ids.copy(), part.dense.copy(), part.labels, weights, part.bags)
    index = order[offset : offset + count]
    bags = []
    for values, offsets in rows.bags:
        starts = offsets[index]
        lengths = offsets[index + 1] - starts
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if count else 0) - np.repeat(ends - lengths, lengths)
        bags.append(
            (
                np.take(values, np.repeat(starts, lengths) + within),
                np.concatenate([np.zeros(1, np.int64), ends]),
            )
        )
    weights = None if rows.weights is None else rows.weights[index]
    # `take` copies whole rows, several times as fast as indexing.
    ids, dense = np.take(rows.ids, index, axis=0), np.take(rows.dense, index, axis=0)
    return _Rows(ids, dense, rows.labels[index], weights, bags)


def _to_batch(schema: Schema, parts: Sequence[_Rows]) -> Batch:
    rows = parts[0] if len(parts) == 1 else _concatenate(parts)
    dense = torch.from_numpy(rows.dense)
    labels = torch.from_numpy(rows.labels.astype(np.float32))
    weights = None if rows.weights is None else torch.from_numpy(rows.weights)
    if not schema.multi_hot:
        return Batch(
            dense, torch.from_numpy(rows.ids.astype(np.int64, copy=False)), None, labels, weights
        )
    count = len(rows)
    one_hot, bags = iter(range(rows.ids.shape[1])), iter(rows.bags)
    values, lengths = [], []
    for feature in schema.features:
        if feature.multi_hot:
            bag_values, bag_offsets = next(bags)
            values.append(bag_values.astype(np.int64))
            lengths.append(np.diff(bag_offsets))
        else:
            values.append(rows.ids[:, next(one_hot)].astype(np.int64))
            lengths.append(np.ones(count, np.int64))
    offsets = np.zeros(len(schema.features) * count + 1, np.int64)
    np.cumsum(np.concatenate(lengths), out=offsets[1:])
    flat = torch.from_numpy(np.concatenate(values))
    return Batch(dense, flat, torch.from_numpy(offsets), labels, weights)
