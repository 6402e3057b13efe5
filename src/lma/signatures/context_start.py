"""From the counting pass to the first vectors: tokens are chosen, directions found in memory."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from lma.signatures.config import SignatureConfig
from lma.signatures.context_count import ContextCount
from lma.signatures.context_state import ContextState
from lma.signatures.sections import most_frequent
from lma.signatures.tokens import KeyedTokens, RankedTokens, Tokens

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

# Tokens of a table without signatures still tell about the tokens they meet; so many of its most
# frequent ones keep a vector while building.
CONTEXT_TOKENS = 16_384
# Iterations on the sampled rows at most, and the gain below which they end.
ITERATIONS = 60
LEAST_GAIN = 1e-3


def start(
    config: SignatureConfig,
    tokens: dict[str, Tokens],
    count: ContextCount,
    num_signed: dict[str, int],
) -> ContextState:
    """Choose the tokens to store, and give them vectors made of the rows kept in memory.

    Args:
        config: Of the builder.
        tokens: All that were counted, per table; becomes those to store, which count no more.
        count: Of the counting pass; its labels and rows are used up.
        num_signed: Tokens to sign, per table; all of enough support where it has no table.
            Filled in.
    """
    labels, supports = {}, {}
    for name, table in tokens.items():
        num_signed[name] = len(most_frequent(table, num_signed.get(name), config.min_support))
        slots = most_frequent(table, max(num_signed[name], CONTEXT_TOKENS), 1)
        labels[name] = count.labels.pop(name)[slots]
        supports[name] = table.supports[slots]
        if isinstance(table, RankedTokens):
            tokens[name] = RankedTokens(name, table.size, len(slots))
        else:
            tokens[name] = KeyedTokens(name, table.ids()[slots])
        del table
    state = ContextState.start(config, tokens, supports, labels, count.base_rate)
    rows = SampledSlots.of(state, tokens, count)
    # Before anybody writes to the sums, which take as much.
    labels.clear()
    supports.clear()
    give_back_freed()
    converge(state, rows, count.longest)
    del rows
    give_back_freed()
    return state


@dataclasses.dataclass(frozen=True)
class SampledSlots:
    """The sampled rows as stored tokens: an eighth to a third of the memory of ids and bags.

    Attributes:
        num_features: Features of a row.
        pieces: Stored token of every entry, -1 for none, and where the bags begin, as `RowBatch`
            has them; None where every bag has one entry.
    """

    num_features: int
    pieces: list[tuple[I32, I32 | None]]

    @classmethod
    def of(
        cls, state: ContextState, tokens: Mapping[str, Tokens], count: ContextCount
    ) -> SampledSlots:
        """Of the rows that counting sampled, which are taken away from it."""
        taken = []
        sample = count.sample.pieces
        sample.reverse()
        while sample:
            batch, _ = sample.pop()
            slots = state.slots(tokens, batch).astype(np.int32)
            one_hot = len(slots) == len(batch.offsets) - 1 and bool(
                (np.diff(batch.offsets) == 1).all()
            )
            taken.append((slots, None if one_hot else batch.offsets.astype(np.int32)))
        return cls(len(tokens), taken)

    def __iter__(self) -> Iterator[tuple[I64, I64]]:
        """(slots, offsets) of every piece."""
        for slots, offsets in self.pieces:
            wide = np.arange(len(slots) + 1) if offsets is None else offsets.astype(np.int64)
            yield slots.astype(np.int64), wide


def give_back_freed() -> None:
    """Return freed memory to the system, where the C library can.

    The sample is many pieces of less than the C library gives back by itself: 100 MB and more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def converge(state: ContextState, rows: SampledSlots, longest: int) -> None:
    """Iterate on the sampled rows until the directions no longer gain."""
    last = 0.0
    for iteration in range(ITERATIONS):
        state.restart(longest, labelled=False)
        for slots, offsets in rows:
            num_rows = (len(offsets) - 1) // max(rows.num_features, 1)
            targets = np.zeros(num_rows, np.float32)
            state.add(slots, offsets, np.arange(num_rows), targets, False)
        energy = state.sharpen()
        if energy <= last * (1 + LEAST_GAIN):
            break
        # The first is of random signs, which are not orthonormal.
        last = energy if iteration else 0.0


__all__ = ["give_back_freed", "start"]
