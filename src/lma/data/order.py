"""The order of rows in an epoch: a pure function of (seed, epoch), made piece by piece.

A full permutation of a large log would not fit in memory. Rows are cut into blocks of
`BLOCK_ROWS`; the blocks are permuted; each `BUFFER_ROWS` rows in the new order form a buffer,
whose rows are permuted. A split of up to one buffer is shuffled completely. These numbers are
part of the order's definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lma.hashing import combine, hash_string, stream_seed

BLOCK_ROWS: Final = 512
BUFFER_ROWS: Final = 1 << 18

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A buffer: consecutive runs of rows to read, and the order in which to use them.

    Attributes:
        starts: First row of each run, int64 (runs,).
        stops: Row after each run, int64 (runs,).
        order: Permutation of the rows read, in the order of the runs; `None` keeps them.
    """

    starts: I64
    stops: I64
    order: I64 | None

    def __len__(self) -> int:
        return int((self.stops - self.starts).sum())


class EpochOrder:
    """The order of `rows` rows in one epoch.

    Args:
        rows: Number of rows.
        shuffle: Whether to shuffle at all.
        seed: Seed of the shuffle.
        epoch: Number of the epoch: another one, another order.
    """

    def __init__(self, rows: int, *, shuffle: bool, seed: int = 0, epoch: int = 0) -> None:
        self.rows = rows
        self._shuffle = shuffle
        self._state = stream_seed(stream_seed(seed, hash_string("shuffle")), epoch)
        self._blocks = np.arange(-(-rows // BLOCK_ROWS), dtype=np.int64)
        if shuffle:
            self._blocks = _permutation(len(self._blocks), self._state)
        sizes = np.minimum(self._blocks * BLOCK_ROWS + BLOCK_ROWS, rows)
        sizes -= self._blocks * BLOCK_ROWS
        # Only one block may be short; where it falls shifts the rows after it.
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        """Number of pieces."""
        return -(-self.rows // BUFFER_ROWS)

    def piece_of(self, position: int) -> tuple[int, int]:
        """The piece that holds the row at `position` of the epoch, and the position in it."""
        per_piece = BUFFER_ROWS // BLOCK_ROWS
        block = int(np.searchsorted(self._ends, position, side="right"))
        piece = block // per_piece
        before = int(self._ends[piece * per_piece - 1]) if piece else 0
        return piece, position - before

    def piece(self, number: int) -> Piece:
        """The runs and the order of one piece."""
        per_piece = BUFFER_ROWS // BLOCK_ROWS
        blocks = self._blocks[number * per_piece : (number + 1) * per_piece]
        starts = blocks * BLOCK_ROWS
        stops = np.minimum(starts + BLOCK_ROWS, self.rows)
        if not self._shuffle:
            return Piece(starts[:1], stops[-1:], None)
        count = int((stops - starts).sum())
        return Piece(starts, stops, _permutation(count, stream_seed(self._state, 1 + number)))


def _permutation(count: int, state: int) -> I64:
    """A permutation of [0, count): the numbers sorted by their hash under `state`.

    Our own hash, because a library's random generator may change between versions.
    """
    keys = combine(np.uint64(state), np.arange(count, dtype=np.int64))
    # The number in the low bits makes equal hashes impossible and saves the slower argsort.
    bits = max(1, count.bit_length())
    packed = (keys & ~np.uint64((1 << bits) - 1)) | np.arange(count, dtype=np.uint64)
    packed.sort()
    return (packed & np.uint64((1 << bits) - 1)).view(np.int64)
