"""What launchers must know of a layout, read from the device once and not at every call."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lma.kernels.layout import Column, Kind


class Facts(NamedTuple):
    """Of all tables of a layout.

    Attributes:
        dim: The dimension of every table, where all have the same and none a private part; else 0.
        most: The largest dimension.
        private: The largest private part.
        signed: Whether some table has signatures.
        marked: Whether some table finds them by fingerprint.
    """

    dim: int
    most: int
    private: int
    signed: bool
    marked: bool


_known: Any = WeakTensorKeyDictionary()


def facts(layout: Tensor) -> Facts:
    """The facts of a layout; a copy from the device waits for it, so they are kept.

    What changes a layout counts its versions, but for `.data`, memory shared with NumPy, and
    tensors made in inference mode, which have none and are read every time.
    """
    if layout.is_inference():
        return _read(layout)
    key = layout.data_ptr(), layout._version
    found: tuple[tuple[int, int], Facts] | None = _known.get(layout)
    if found is None or found[0] != key:
        found = key, _read(layout)
        _known[layout] = found
    return found[1]


def _read(layout: Tensor) -> Facts:
    rows = layout.tolist()
    dims = {row[Column.DIM] for row in rows}
    private = max((row[Column.PRIVATE_DIM] for row in rows), default=0)
    coded = [row for row in rows if row[Column.KIND] in (Kind.RANDOM, Kind.LEARNED)]
    return Facts(
        dims.pop() if len(dims) == 1 and not private else 0,
        max((row[Column.DIM] for row in rows), default=0),
        private,
        bool(coded),
        any(row[Column.NUM_SIGNED] < 0 for row in coded),
    )
