"""Who owns a row in CAFE, as gradients come in (Zhang et al. 2024, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lma.allocation.hot_sketch import HotSketch

if TYPE_CHECKING:
    from lma.allocation.cafe import CafeAllocation

DECAY_EVERY = 10  # thresholds per own row between two decays: the authors' code


class Migration:
    """Scores of a step go into the sketch, and rows to the tokens it then holds to be hot.

    A lookup's score is the norm of its vector's gradient over the mean norm in its table this
    step, as in the authors' code, so that a threshold means the same whatever the loss's scale.
    The gradient of the *memory* would not do: a hashed row's is the sum over all its tokens.
    """

    def __init__(self, allocation: CafeAllocation) -> None:
        settings = allocation.arguments
        self.allocation = allocation
        self.threshold: float = settings["threshold"]
        self.decay: float = settings["decay"]
        buckets = max(1, allocation.own * settings["buckets_per_row"])
        self.sketch = HotSketch(buckets, settings["seed"])

    def start(self) -> None:
        """Lookups report from now on."""
        self.allocation.observed = []

    def stop(self) -> None:
        """Lookups report no more."""
        self.allocation.observed = None

    def after_step(self, blocks: Sequence[Tensor]) -> None:
        """Insert the step's scores, then move rows."""
        observed = self.allocation.observed
        if not observed:
            return
        tokens, tables, norms = (
            torch.cat([part.flatten() for part in parts]) for parts in zip(*observed, strict=True)
        )
        observed.clear()
        count = len(self.allocation.tables)
        sums = torch.zeros(count, device=norms.device).index_add_(0, tables, norms)
        means = sums / tables.bincount(minlength=count)
        # A whole table's tokens have rows of their own; one without gradients has no mean.
        counted = (self.allocation.whole[tables] == 0) & (means[tables] > 0)
        scores = (norms / means[tables])[counted]
        if self.sketch.mass > DECAY_EVERY * self.threshold * self.allocation.own:
            self.sketch.decay(self.decay)
        self.sketch.update(tokens[counted].cpu(), scores.cpu())
        hot = self.sketch.elect(self.threshold, self.allocation.own).to(tokens.device)
        if not torch.equal(hot, self.allocation.hot_tokens()):
            self.allocation.settle(hot, blocks)

    def after_epoch(self, epoch: int, blocks: Sequence[Tensor]) -> None:
        """Nothing more between epochs."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The sketch."""
        return {name: getattr(self.sketch, name) for name in ("keys", "sums", "hot", "mass")}
