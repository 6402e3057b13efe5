"""Rules of every kind with small random tables, built by hand: what kernels are compared on."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lma.hashing import hash_string, to_signed, token_keys_t
from lma.kernels.layout import Column, Kind
from lma.kernels.reference.addresses import LANES, candidate_buckets, fingerprint_of
from lma.kernels.rule import Rule


@dataclasses.dataclass
class Case:
    """One call's arguments, without the weights."""

    rule: Rule
    num_blocks: int
    unit: int
    dims: list[int]
    privates: list[int]
    known: list[Tensor]

    @property
    def columns(self) -> Tensor:
        return torch.tensor([0, *self.dims]).cumsum(0)

    @property
    def pieces(self) -> int:
        return max(self.rule.pieces(d, p) for d, p in zip(self.dims, self.privates, strict=True))

    @property
    def width(self) -> int:
        return sum(self.dims)

    @property
    def numbers(self) -> Tensor:
        return torch.arange(len(self.dims))

    def weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        wide = torch.randn(self.num_blocks, self.unit, generator=generator, dtype=torch.float64)
        return wide.to(dtype)

    def ids(self, table: int, count: int, generator: torch.Generator) -> Tensor:
        """Known ids, small ids, ids near 2^63, negative ids; those a whole table has, there."""
        known = self.known[table]
        pick = torch.randint(0, len(known), (count,), generator=generator)
        if int(self.rule.layout[table, Column.KIND]) == Kind.WHOLE:
            return known[pick]
        any_id = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
        small = torch.randint(-3, 40, (count,), generator=generator)
        edge = torch.tensor([2**63 - 1, -(2**63), 0, -1])[torch.arange(count) % 4]
        which = torch.randint(0, 5, (count,), generator=generator)
        out = known[pick]
        for value, other in ((1, any_id), (2, small), (3, edge)):
            out = torch.where(which == value, other, out)
        return out


def index_by_fingerprint(keys: Tensor, num_buckets: int) -> tuple[Tensor, Tensor]:
    """(fingerprints int16 [buckets, 8], overflow keys): first free lane of a key's two buckets."""
    fingerprints = torch.zeros(num_buckets, LANES, dtype=torch.int64)
    overflow = []
    first, second = candidate_buckets(keys, num_buckets)
    for key, mark, *buckets in zip(
        keys.tolist(), fingerprint_of(keys).tolist(), first.tolist(), second.tolist(), strict=True
    ):
        rows = [fingerprints[b] for b in buckets]
        free = [(r, int((r == 0).nonzero()[0])) for r in rows if bool((r == 0).any())]
        if not free or any(bool((r == mark).any()) for r in rows):
            overflow.append(key)
        else:
            row, lane = free[0]
            row[lane] = mark
    signed = torch.where(fingerprints >= 1 << 15, fingerprints - (1 << 16), fingerprints)
    return signed.to(torch.int16), torch.tensor(sorted(overflow), dtype=torch.int64)


def make_case(
    seed: int,
    kinds: list[tuple[Kind, str]],
    dims: list[int],
    privates: list[int],
    chunk: int,
    power: int = 2,
    stride: int | None = None,
) -> Case:
    """Tables one after the other in one memory, all tensors random.

    Args:
        seed: Of everything.
        kinds: (kind, "prefix" or "fingerprint") of every table.
        dims, privates: Of every table.
        chunk: Floats of a chunk.
        power: Codes per chunk.
        stride: Floats between blocks; `chunk` unless given (then only unsigned tables).
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    step = stride or chunk
    unit = math.gcd(step, *(p for p in privates if p))
    shared = draw(3, 40)
    layout = torch.zeros(len(kinds), len(Column), dtype=torch.int64)
    codes, fingerprints, overflow, known = [], [], [], []
    end = shared * step
    byte = bucket = entry = 0
    for t, ((kind, index), dim, private) in enumerate(zip(kinds, dims, privates, strict=True)):
        row = layout[t]
        row[Column.SALT] = to_signed(hash_string(f"table {t}"))
        row[Column.KIND] = kind
        row[Column.DIM] = dim
        row[Column.HASHED_BLOCKS] = shared
        count = draw(1, 30)
        ids = torch.arange(count)
        chunks = -(-(dim - private) // chunk)
        if kind == Kind.WHOLE:
            row[Column.HASHED_BASE] = end
            end += count * chunks * step
        if kind in (Kind.RANDOM, Kind.LEARNED):
            if index == "fingerprint":
                ids = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
                buckets = draw(1, max(1, count // 5))
                keys = token_keys_t(row[Column.SALT], ids)
                marks, rest = index_by_fingerprint(keys, buckets)
                row[Column.NUM_SIGNED] = -1
                row[Column.BUCKET_BASE], row[Column.NUM_BUCKETS] = bucket, buckets
                row[Column.OVERFLOW_BASE], row[Column.NUM_OVERFLOW] = entry, len(rest)
                fingerprints.append(marks)
                overflow.append(rest)
                bucket, entry = bucket + buckets, entry + len(rest)
                slots = buckets * LANES + len(rest)
            else:
                row[Column.NUM_SIGNED] = slots = count
            bits = draw(1, 16 if kind == Kind.RANDOM else 5)
            num_codes = draw(power, 9)
            row[Column.NUM_CODES], row[Column.CODE_BITS] = num_codes, bits
            row[Column.CODE_BASE] = byte
            size = slots * ((num_codes * bits + 7) // 8)
            codes.append(torch.randint(0, 256, (size,), generator=generator).to(torch.uint8))
            byte += size
            row[Column.CODED_BLOCKS] = draw(1, shared)
            if kind == Kind.LEARNED:
                row[Column.CODED_BASE] = end
                row[Column.CODED_BLOCKS] = 1 << bits
                end += chunks * (1 << bits) * step
            else:
                row[Column.CODE_SALT] = draw(0, 1) * int(row[Column.SALT])
        known.append(ids)
    for t, private in enumerate(privates):
        if private:
            layout[t, Column.PRIVATE_BASE] = end
            layout[t, Column.PRIVATE_DIM] = private
            layout[t, Column.NUM_PRIVATE] = draw(0, 10)
            end += (int(layout[t, Column.NUM_PRIVATE]) + 1) * private
    most = max(-(-(d - p) // chunk) for d, p in zip(dims, privates, strict=True))
    signed = layout[layout[:, Column.NUM_CODES] > 0, Column.NUM_CODES]
    fewest = int(signed.min()) if len(signed) else power
    draws = torch.stack(
        [torch.randperm(fewest, generator=generator)[:power] for _ in range(max(1, most))]
    )
    rule = Rule(
        layout,
        torch.randint(-(2**63), 2**63 - 1, (max(1, most),), generator=generator),
        draws.to(torch.uint8),
        torch.cat([*codes, torch.zeros(2, dtype=torch.uint8)]),
        torch.cat([torch.zeros(0, LANES, dtype=torch.int16), *fingerprints]),
        torch.cat([torch.zeros(0, dtype=torch.int64), *overflow]),
        chunk,
        step,
        int(any(privates)),
    )
    return Case(rule, -(-end // unit), unit, dims, privates, known)


PREFIX, MARKS = "prefix", "fingerprint"
KINDS = {
    "unsigned": [(Kind.UNSIGNED, PREFIX)] * 2,
    "random": [(Kind.RANDOM, PREFIX), (Kind.RANDOM, PREFIX)],
    "random by fingerprint": [(Kind.RANDOM, MARKS), (Kind.RANDOM, MARKS)],
    "learned": [(Kind.LEARNED, PREFIX), (Kind.LEARNED, MARKS)],
    "whole": [(Kind.WHOLE, PREFIX), (Kind.UNSIGNED, PREFIX)],
    "all": [
        (Kind.UNSIGNED, PREFIX), (Kind.RANDOM, MARKS), (Kind.LEARNED, PREFIX),
        (Kind.WHOLE, PREFIX), (Kind.RANDOM, PREFIX), (Kind.LEARNED, MARKS),
    ],
}  # fmt: skip


def named_case(name: str, chunk: int, seed: int = 0, private: bool = False) -> Case:
    """A case of `KINDS`, dimensions not all equal and not all whole chunks."""
    kinds = KINDS[name]
    dims = [3 * chunk + (t % 3) for t in range(len(kinds))]
    privates = [0] * len(kinds)
    if private:
        # A part, the whole vector, none.
        privates = [(2, dims[t], 0)[t % 3] for t in range(len(kinds))]
    return make_case(seed, kinds, dims, privates, chunk)


def bag_offsets(features: int, batch: int, longest: int, generator: torch.Generator) -> Tensor:
    """Random bags, empty ones among them."""
    lengths = torch.randint(0, longest + 1, (features * batch,), generator=generator)
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def bag_ids(case: Case, offsets: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Ids of every feature's bags, feature after feature."""
    ends = offsets[::batch] if batch else torch.zeros(len(case.dims) + 1, dtype=torch.int64)
    counts = ends.diff().tolist()
    return torch.cat([case.ids(t, count, generator) for t, count in enumerate(counts)])


def one_hot_ids(case: Case, batch: int, generator: torch.Generator) -> Tensor:
    """One id per row and feature, row after row."""
    return torch.stack([case.ids(t, batch, generator) for t in range(len(case.dims))], 1).reshape(
        -1
    )
