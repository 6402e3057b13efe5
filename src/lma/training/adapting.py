"""Lets an allocation change its places while the model around it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lma.allocation.adaptation import Adaptation
from lma.errors import FormatError


class Adapting:
    """Calls the embeddings' `Adaptation`, with what the optimizer remembers of the memory.

    Most methods have none, and nothing happens.

    Args:
        embeddings: A module over a `SharedMemory`, or any other.
        optimizer: Trains it.
    """

    def __init__(self, embeddings: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._memory: Any = getattr(embeddings, "memory", None)
        self._optimizer = optimizer
        self._adaptation: Adaptation | None = None
        if self._memory is not None:
            self._adaptation = self._memory.allocation.adaptation()

    def __enter__(self) -> Adapting:
        if self._adaptation is not None:
            self._adaptation.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._adaptation is not None:
            self._adaptation.stop()

    def _blocks(self) -> list[Tensor]:
        """The memory, and the optimizer's tensors of its shape."""
        weight = self._memory.weight
        state = self._optimizer.state.get(weight, {}).values()
        moments = [s for s in state if isinstance(s, Tensor) and s.shape == weight.shape]
        return [weight.data, *moments]

    def after_step(self) -> None:
        """Tell the allocation that the weights have changed."""
        if self._adaptation is not None:
            self._adaptation.after_step(self._blocks())

    def after_epoch(self, epoch: int) -> None:
        """Tell the allocation that `epoch` epochs are over, and another one follows."""
        if self._adaptation is not None:
            self._adaptation.after_epoch(epoch, self._blocks())

    @property
    def num_bytes(self) -> int:
        """Bytes of what only training needs."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside model and optimizer."""
        return {} if self._adaptation is None else dict(self._adaptation.tensors())

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        mine = self.state_dict()
        if mine.keys() != saved.keys():
            raise FormatError(f"a checkpoint of {sorted(saved)}, this method has {sorted(mine)}")
        for name, tensor in mine.items():
            tensor.copy_(saved[name])
