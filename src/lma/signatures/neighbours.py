"""How alike the codes of tokens are: equal random codes, or the vectors learned codes stand for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lma.signatures.quantise import Codebooks

BLOCK = 1 << 16  # tokens decoded at a time


def likeness(codes: Tensor, own: Tensor, books: Codebooks | None) -> Tensor:
    """Likeness of every token to one, float64 [tokens].

    Args:
        codes: Of the tokens, int64 [tokens, num_codes].
        own: Of the one, int64 [num_codes].
        books: The codebooks of learned codes: the cosine of decoded vectors, 0 for a vector of
            length 0. None: the share of equal codes.
    """
    if books is None:
        return (codes == own).double().mean(1)
    mine = books.decode(own[None].numpy())[0].astype(np.float64)
    out = np.empty(len(codes))
    for start in range(0, len(codes), BLOCK):
        theirs = books.decode(codes[start : start + BLOCK].numpy()).astype(np.float64)
        lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(mine)
        out[start : start + BLOCK] = theirs @ mine / np.maximum(lengths, 1e-300)
    return torch.from_numpy(out)


def nearest(alike: Tensor, k: int) -> list[int]:
    """Positions of the `k` largest values; among equals the first comes first."""
    order: list[int] = torch.argsort(alike, descending=True, stable=True)[:k].tolist()
    return order


__all__ = ["likeness", "nearest"]
