"""Vectors of a bag -> one vector, in plain torch, with the semantics of `torch.nn.EmbeddingBag`."""

from __future__ import annotations

import torch
from torch import Tensor


def bag_numbers(offsets: Tensor, total: int) -> Tensor:
    """The bag of every entry: int64 [total], from offsets int64 [bags + 1]."""
    bags = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(bags, offsets.diff(), output_size=total)


def pool(vectors: Tensor, offsets: Tensor, mode: str, weights: Tensor | None = None) -> Tensor:
    """Reduce the vectors of every bag; an empty bag gives zeros.

    Args:
        vectors: [total, dim], any float dtype; sums are taken in float32 (float64 stays).
        offsets: int64 [bags + 1], ascending, from 0 to total.
        mode: "sum", "mean" or "max".
        weights: Per-entry factors [total]; only with "sum", as in torch.

    Returns:
        [bags, dim] in the dtype of `vectors`.
    """
    dtype = vectors.dtype
    wide = vectors if dtype == torch.float64 else vectors.float()
    bags = bag_numbers(offsets, len(vectors))
    num_bags = len(offsets) - 1
    if weights is not None:
        wide = wide * weights.unsqueeze(-1)
    if mode == "max":
        return _first_maximum(wide, bags, num_bags).to(dtype)
    out = wide.new_zeros(num_bags, vectors.shape[1]).index_add(0, bags, wide)
    if mode == "mean":
        out = out / offsets.diff().clamp(min=1).unsqueeze(-1)
    return out.to(dtype)


def _first_maximum(vectors: Tensor, bags: Tensor, num_bags: int) -> Tensor:
    """Maximum per bag and dimension; its gradient goes to the first entry that attains it."""
    total, dim = vectors.shape
    index = bags.unsqueeze(-1).expand(total, dim)
    detached = vectors.detach()
    top = detached.new_full((num_bags, dim), -torch.inf)
    top = top.scatter_reduce(0, index, detached, "amax")
    # NaN is never equal to itself, yet a bag that holds one must give NaN.
    attains = (detached == top[bags]) | detached.isnan()
    entry = torch.arange(total, device=vectors.device).unsqueeze(-1).expand(total, dim)
    first = torch.full((num_bags, dim), total, dtype=torch.int64, device=vectors.device)
    first = first.scatter_reduce(0, index, torch.where(attains, entry, total), "amin")
    padded = torch.cat([vectors, vectors.new_zeros(1, dim)])
    return padded.gather(0, first)
