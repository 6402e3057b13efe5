"""HotSketch: who is important, in little memory (Zhang et al. 2024, 2312.03256, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.hashing import stream_seeds

SLOTS = 4  # per bucket, as in the paper


class HotSketch:
    """Approximate sums of scores per token, for the tokens of largest sums.

    A hash table of buckets of four slots, each bucket a SpaceSaving summary of the tokens that
    hash to it. Without hot tokens and decay, a kept token's sum is at least its exact one and at
    most a quarter of its bucket's total above it. Hot tokens keep their slots.

    Attributes:
        keys: Tokens, int64 [buckets, 4]; -1 where empty.
        sums: float32 [buckets, 4].
        hot: bool [buckets, 4].
        mass: Scores inserted since the last decay, float64 [].
    """

    def __init__(self, num_buckets: int, seed: int) -> None:
        self.keys = torch.full((num_buckets, SLOTS), -1, dtype=torch.int64)
        self.sums = torch.zeros(num_buckets, SLOTS)
        self.hot = torch.zeros(num_buckets, SLOTS, dtype=torch.bool)
        self.mass = torch.zeros((), dtype=torch.float64)
        self._seed = stream_seeds(seed, 1)[0]

    def update(self, tokens: Tensor, scores: Tensor) -> None:
        """Add scores, float32 [n] >= 0, of tokens, int64 [n], in this order."""
        from lma.kernels.cpu.hot_sketch import insert

        insert(
            tokens.numpy(), scores.numpy(), self._seed,
            self.keys.numpy(), self.sums.numpy(), self.hot.numpy(),
        )  # fmt: skip
        self.mass += scores.sum(dtype=torch.float64)

    def decay(self, factor: float) -> None:
        """Multiply all sums."""
        self.sums *= factor
        self.mass.zero_()

    def elect(self, threshold: float, places: int) -> Tensor:
        """Who is hot from now on: int64, ascending.

        Hot tokens stay so down to the threshold; others whose sum has reached it become hot,
        the largest first, while there are places.
        """
        reached = self.sums >= threshold
        self.hot &= reached
        waiting = (reached & ~self.hot).flatten().nonzero().squeeze(1)
        free = places - int(self.hot.sum())
        if len(waiting) > free:
            order = self.sums.flatten()[waiting].argsort(descending=True, stable=True)
            waiting = waiting[order[:free]]
        self.hot.view(-1)[waiting] = True
        return self.keys[self.hot].sort().values
