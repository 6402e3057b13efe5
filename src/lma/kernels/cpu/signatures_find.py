"""Slots of token ids through one table's fingerprint index, for `SignatureTable.find`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu import mix
from lma.kernels.cpu.address_kernel import find_slot
from lma.kernels.cpu.mix import token_key
from lma.kernels.cpu.threads import num_pieces, run_pieces
from lma.kernels.layout import Column

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint

SALT = int(Column.SALT)
GRAIN = 4096


@kernel
def _find(begin, end, ids, rows, fingerprints, overflow, slots):  # type: ignore[no-untyped-def]
    salt = np.uint64(rows[0, SALT])
    for i in range(begin, end):
        key = token_key(salt, np.uint64(ids[i]))
        slots[i] = find_slot(key, rows, 0, fingerprints, overflow)


def find_by_key(ids: Tensor, row: Tensor, fingerprints: Tensor, overflow_keys: Tensor) -> Tensor:
    """Slot of every id, or -1; int64, shape of `ids`.

    Args:
        ids: int64 [...].
        row: The table's layout row, int64 [columns].
        fingerprints, overflow_keys: As `SignatureTable`.
    """
    flat = ids.to(torch.int64).contiguous().view(-1).numpy()
    slots = np.empty(len(flat), np.int64)
    rows = row.contiguous().view(1, -1).numpy()
    prints, overflow = fingerprints.numpy(), overflow_keys.numpy()

    def run(begin: int, end: int) -> None:
        _find(begin, end, flat, rows, prints, overflow, slots)

    run_pieces(run, len(flat), num_pieces(len(flat), GRAIN))
    return torch.from_numpy(slots).view(ids.shape)


__all__ = ["find_by_key"]
