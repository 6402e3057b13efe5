"""The fused lookup in plain torch: starts, gather, pooling, and the two gradients.

A *slot* is one vector of the output: feature f of batch row r, number r * features + f. Its bag
is one entry (`offsets` None, entry = slot), or entries offsets[f * batch + r] up to the next
offset, feature after feature as in TorchRec's KeyedJaggedTensor.

Starts are kept in *units*, the rows of the memory: every start is a whole number of them, and
they fit in 31 bits however large the memory is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lma.kernels.layout import Column
from lma.kernels.reference.addresses import chunk_starts, private_starts
from lma.kernels.reference.pooling import bag_numbers

MEAN = 1  # of `modes`; 0 is a sum


def starts(
    ids: Tensor,
    numbers: Tensor,
    layout: Tensor,
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    unit: int,
    chunk: int,
    stride: int,
    lead: int,
    pieces: int,
) -> Tensor:
    """First unit of every piece of every token: int32 [entries, pieces]; -1 where there is none.

    Piece 0 is the private part where `lead` is 1; the chunks follow.

    Args:
        ids: Token ids, int64 [entries].
        numbers: Tables, int64 [features]; entry e is of table numbers[e % features].
        layout, seeds, draws, codes, fingerprints, overflow_keys, chunk, stride, lead: Of a `Rule`.
        unit: Floats of one row of the memory.
        pieces: `Rule.pieces` of the largest table.
    """
    out = torch.full((len(ids), pieces), -1, dtype=torch.int32, device=ids.device)
    tables = numbers.repeat(len(ids) // max(1, len(numbers)))
    semantic = layout[:, Column.DIM] - layout[:, Column.PRIVATE_DIM]
    counts = -(-semantic // chunk)
    kinds = frozenset(int(kind) for kind in layout[:, Column.KIND])
    for count in sorted({int(counts[number]) for number in numbers}):
        # Tables of equally many chunks: learned codes divide their codebooks among them.
        (entries,) = (counts[tables] == count).nonzero(as_tuple=True)
        row = layout[tables[entries]]
        if lead:
            first = private_starts(ids[entries], row) // unit
            out[entries, 0] = torch.where(row[:, Column.PRIVATE_DIM] > 0, first, -1).int()
        if count:
            start = chunk_starts(
                ids[entries], row, count, stride, kinds, seeds, draws, codes, fingerprints,
                overflow_keys,
            )  # fmt: skip
            out[entries, lead : lead + count] = (start // unit).int()
    return out


def tables_of_entries(numbers: Tensor, offsets: Tensor | None, total: int) -> Tensor:
    """Tables such that entry e is of table result[e % len(result)], from one per feature."""
    if offsets is None or len(numbers) == 1:
        return numbers
    batch = (len(offsets) - 1) // len(numbers)
    if batch == 0:
        return numbers[:0]
    return torch.repeat_interleave(numbers, offsets[::batch].diff(), output_size=total)


def lookup(
    weight: Tensor,
    ids: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    chunk: int,
    stride: int,
    lead: int,
    pieces: int,
    width: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """`pool_starts` of `starts`: (pooled vectors, starts with `keep`, else no rows of them)."""
    tables = tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, weight.shape[1],
        chunk, stride, lead, pieces,
    )  # fmt: skip
    out = pool_starts(
        weight, found, offsets, factors, numbers, columns, modes, layout, chunk, lead, width
    )
    return out, found if keep else found.new_empty(0, pieces)


class Entries(NamedTuple):
    """The memory's floats behind every entry.

    Attributes:
        places: Floats of the flat memory, int64 [entries, dim]; 0 where `used` is False.
        used: Whether the entry's table has that many dimensions, bool [entries, dim].
        slot: The entry's slot, int64 [entries].
        feature: The entry's feature, int64 [entries].
        length: Entries of its bag, int64 [entries].
    """

    places: Tensor
    used: Tensor
    slot: Tensor
    feature: Tensor
    length: Tensor


def read_entries(
    starts: Tensor,
    offsets: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    unit: int,
    size: int,
) -> Entries:
    """Where every float of every entry lies; runs go on at 0 behind the memory's end, `size`."""
    features, total = len(numbers), len(starts)
    device = starts.device
    if offsets is None:
        slot = torch.arange(total, device=device)
        feature, length = slot % features, torch.ones_like(slot)
    else:
        batch = (len(offsets) - 1) // features
        bag = bag_numbers(offsets, total)
        feature = bag // max(1, batch)
        slot = (bag - feature * batch) * features + feature
        length = offsets.diff()[bag]
    row = layout[numbers[feature]]
    dim = int(columns.diff().amax()) if features else 0
    i = torch.arange(dim, device=device)
    private = row[:, Column.PRIVATE_DIM].unsqueeze(1)
    own = i < private
    behind = (i - private).clamp(min=0)
    piece = torch.where(own, 0, lead + behind // chunk).clamp(max=max(0, starts.shape[1] - 1))
    inside = torch.where(own, i, behind % chunk)
    used = i < row[:, Column.DIM].unsqueeze(1)
    first = starts.long().gather(1, piece) if starts.shape[1] else torch.zeros_like(piece)
    places = torch.where(used, (first * unit + inside) % max(1, size), 0)
    return Entries(places, used, slot, feature, length)


def pool_starts(
    weight: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    width: int,
) -> Tensor:
    """Pooled vectors [batch, width]: sums (means where `modes` is 1) over every slot's bag.

    out[r, columns[f] + i] = sum over entries e of the bag of factors[e] * weight[place(e, i)].
    Sums are taken in float32 (float64 stays) and returned in the dtype of `weight`.

    Args:
        weight: [num_blocks, block_size].
        starts: Of `starts`.
        offsets: int64 [features * batch + 1]; None: one entry per slot.
        factors: Per-entry factors [entries].
        numbers: Table of every feature, int64 [features].
        columns: First output column of every feature, and the end: int64 [features + 1].
        modes: int64 [features].
        layout, chunk, lead: Of the `Rule`.
        width: `columns[-1]`.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    entries = read_entries(
        starts, offsets, numbers, columns, layout, chunk, lead, weight.shape[1], weight.numel()
    )
    values = weight.reshape(-1)[entries.places].to(wide)
    slots = len(starts) if offsets is None else len(offsets) - 1
    return pool_entries(values, entries, factors, modes, columns, slots, width).to(weight.dtype)


def pool_entries(
    values: Tensor,
    entries: Entries,
    factors: Tensor | None,
    modes: Tensor,
    columns: Tensor,
    slots: int,
    width: int,
) -> Tensor:
    """Sums, or means, of the entries' vectors `values` [entries, dim] over every slot's bag."""
    features = len(modes)
    scale = entry_scale(entries, factors, modes, values.dtype)
    values = values.masked_fill(~entries.used, 0.0) * scale.unsqueeze(1)
    dim = values.shape[1]
    pooled = values.new_zeros(slots, dim).index_add(0, entries.slot, values)
    return pooled.view(slots // features, features * dim)[:, _padded(columns, dim, width)]


def lookup_grad(
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    num_blocks: int,
    block_size: int,
) -> Tensor:
    """Dense gradient of `weight`, [num_blocks, block_size], in the dtype of `grad`.

    grad_weight[p] = sum over entries e and dimensions i with place(e, i) = p of
    factors[e] * grad[r, columns[f] + i], summed in float32 (float64 stays).
    """
    wide = torch.promote_types(grad.dtype, torch.float32)
    size = num_blocks * block_size
    entries = read_entries(starts, offsets, numbers, columns, layout, chunk, lead, block_size, size)
    share = entry_grads(grad.to(wide), entries, columns, len(numbers))
    share = share * entry_scale(entries, factors, modes, wide).unsqueeze(1)
    out = share.new_zeros(size)
    if size:
        out = out.index_add(0, entries.places.reshape(-1), share.reshape(-1))
    return out.view(num_blocks, block_size).to(grad.dtype)


def factors_grad(
    weight: Tensor,
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
) -> Tensor:
    """Gradient of the per-entry factors of sums: grad_e = vector_e . grad of its slot."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    entries = read_entries(
        starts, offsets, numbers, columns, layout, chunk, lead, weight.shape[1], weight.numel()
    )
    values = weight.reshape(-1)[entries.places].to(wide)
    share = entry_grads(grad.to(wide), entries, columns, len(numbers))
    return (values * share).sum(1).to(weight.dtype)


def _padded(columns: Tensor, dim: int, width: int) -> Tensor:
    """Where output column c stands among features padded to `dim`: int64 [width]."""
    column = torch.arange(width, device=columns.device)
    feature = torch.searchsorted(columns, column, right=True) - 1
    return feature * dim + column - columns[feature]


def entry_scale(
    entries: Entries, factors: Tensor | None, modes: Tensor, dtype: torch.dtype
) -> Tensor:
    """What an entry's vector counts in its bag: its factor, over the length for a mean."""
    mean = modes[entries.feature] == MEAN
    scale = torch.where(mean, entries.length.to(dtype).reciprocal(), 1.0)
    return scale if factors is None else scale * factors.to(dtype)


def entry_grads(grad: Tensor, entries: Entries, columns: Tensor, features: int) -> Tensor:
    """The gradient of every entry's slot, 0 behind its table's dimension: [entries, dim]."""
    dim = entries.places.shape[1]
    padded = grad.new_zeros(len(grad), features * dim)
    padded[:, _padded(columns, dim, grad.shape[1])] = grad
    share = padded.view(-1, dim)[entries.slot]
    return share.masked_fill(~entries.used, 0.0)
