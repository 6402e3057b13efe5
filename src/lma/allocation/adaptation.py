"""What an allocation that follows training asks of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Adaptation(Protocol):
    """The training half of an allocation whose places change; a served model has none.

    What decides a place lives in the allocation's saved buffers, so that it travels with the
    weights into every snapshot, checkpoint and saved model. What is only needed to decide on the
    next change lives here: it is in checkpoints and counts as training bytes.

    `blocks` is the memory [num_blocks, block_size] followed by those of the optimizer's tensors
    that have its shape (Adam's moments, Adagrad's sums), all to be changed in place: whatever
    moves a row moves what the optimizer remembers of it too.
    """

    def start(self) -> None:
        """Called before the first step of a run, or of a resumed one."""
        ...

    def stop(self) -> None:
        """Called when training is over, also by an exception."""
        ...

    def after_step(self, blocks: Sequence[Tensor]) -> None:
        """Called after every optimizer step."""
        ...

    def after_epoch(self, epoch: int, blocks: Sequence[Tensor]) -> None:
        """Called between epochs: `epoch` of them are over, and another one follows."""
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """The state to keep in checkpoints, by name; a resumed run copies into these tensors."""
        ...
