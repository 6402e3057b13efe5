"""Buffers that are computed, not trained: they survive what torch does to trained ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class FixedBuffers(nn.Module):
    """A module whose own buffers follow from its configuration.

    `to_empty` leaves uninitialised memory in every tensor, and places computed from that would
    read anywhere. These buffers are moved between devices with their values instead; on the meta
    device, which holds none, they stay where they were.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in kept.items():
            new = self._buffers[name]
            if old is not None and new is not None:
                self._buffers[name] = old if new.is_meta else old.to(new.device)
        return self
