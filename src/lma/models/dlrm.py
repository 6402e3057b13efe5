"""DLRM: deep learning recommendation model (Naumov et al. 2019, arXiv 1906.00091)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lma.buffers import FixedBuffers


class EmbeddingModule(Protocol):
    """What the model asks of its embeddings; `lma.EmbeddingBagCollection` is one."""

    @property
    def embedding_dim(self) -> int:
        """Dimension of every feature's vector."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """Names of the features, in the order of the output."""
        ...


class DLRM(FixedBuffers):
    """Bottom MLP on dense features, pairwise dots of all vectors, top MLP to one logit.

        dense ------> bottom MLP --> x_0 --+
        features --> embeddings --> x_1..F +--> {x_i . x_j : i < j} ++ x_0 --> top MLP --> logit

    A log without dense features feeds the bottom MLP a constant one: x_0 is then a learned
    vector, whose dots with the others are first-order terms.

    Args:
        embeddings: Module with `embedding_dim` and `features`; called as `embeddings(values,
            offsets)` it gives [batch, features * embedding_dim].
        num_dense: Number of dense features, may be 0.
        bottom: Hidden sizes of the bottom MLP; its output has `embedding_dim`.
        top: Hidden sizes of the top MLP; its output is one logit.
    """

    def __init__(
        self,
        embeddings: Any,
        num_dense: int,
        *,
        bottom: Sequence[int] = (64,),
        top: Sequence[int] = (64, 32),
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.num_dense = num_dense
        dim = embeddings.embedding_dim
        self.vectors = vectors = len(embeddings.features) + 1
        self.config = {"num_dense": num_dense, "bottom": tuple(bottom), "top": tuple(top)}
        self.bottom = _mlp([max(1, num_dense), *bottom, dim], last_relu=True)
        pairs = torch.tril_indices(vectors, vectors, offset=-1)
        self.register_buffer("_pairs", pairs[0] * vectors + pairs[1], persistent=False)
        self.top = _mlp([dim + pairs.shape[1], *top, 1], last_relu=False)

    _pairs: Tensor

    def forward(self, dense: Tensor, values: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Logits [batch].

        Args:
            dense: float [batch, num_dense].
            values, offsets: Ids of the features; see `lma.EmbeddingBagCollection`.
        """
        if dense.dim() != 2 or dense.shape[1] != self.num_dense:
            raise ValueError(f"dense must be [batch, {self.num_dense}], found {list(dense.shape)}")
        batch = len(dense)
        if not self.num_dense:
            dense = dense.new_ones(batch, 1)
        x0 = self.bottom(dense)
        embedded = self.embeddings(values, offsets).to(x0.dtype)
        vectors = torch.cat([x0, embedded], 1).view(batch, self.vectors, x0.shape[1])
        dots = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)[:, self._pairs]
        logits: Tensor = self.top(torch.cat([x0, dots], 1)).squeeze(1)
        return logits


def _mlp(sizes: Sequence[int], *, last_relu: bool) -> nn.Sequential:
    """Linear layers with ReLU between; Glorot-normal weights and 1/sqrt(out) biases as in DLRM."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=(2 / (inputs + outputs)) ** 0.5)
        nn.init.normal_(linear.bias, std=(1 / outputs) ** 0.5)
        layers.append(linear)
        if last_relu or i < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
