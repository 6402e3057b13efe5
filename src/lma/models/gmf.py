"""GMF: generalised matrix factorisation (He et al. 2017, Neural Collaborative Filtering, 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lma.buffers import FixedBuffers


class GMF(FixedBuffers):
    """Elementwise product of two features' vectors, a linear layer to one logit.

        logit = h . (p_user * q_item) + b

    h begins as ones and b as zero: the plain product of a matrix factorisation.

    Args:
        embeddings: Module with `embedding_dim` and two `features`; see `lma.models.DLRM`.
        num_dense: Must be 0: the model has no place for dense features.
    """

    def __init__(self, embeddings: Any, num_dense: int = 0) -> None:
        super().__init__()
        features = list(embeddings.features)
        if len(features) != 2:
            raise ValueError(
                f"GMF multiplies the vectors of two features, found {len(features)}: {features}; "
                "use a DLRM"
            )
        if num_dense:
            raise ValueError(f"GMF has no dense features, found {num_dense}; use a DLRM")
        self.embeddings = embeddings
        self.config = {"num_dense": 0}
        self.output = nn.Linear(embeddings.embedding_dim, 1)
        nn.init.ones_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, dense: Tensor, values: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Logits [batch].

        Args:
            dense: float [batch, 0]; there for the interface that all models share.
            values, offsets: Ids of the two features; see `lma.EmbeddingBagCollection`.
        """
        vectors = self.embeddings(values, offsets).to(self.output.weight.dtype)
        users, items = torch.chunk(vectors, 2, dim=1)
        logits: Tensor = self.output(users * items).squeeze(1)
        return logits
