"""DHE: vectors as a network's function of hashes of the token (Kang et al. 2021, 2010.10784)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lma.allocation.computed import MAX_MULTIPLY_ADDS, ComputedAllocation, Tokens
from lma.allocation.tables import FLOAT_BYTES, Budget, Table, shared_dim
from lma.errors import BudgetError
from lma.hashing import combine_t, reduce_range_t, stream_seeds, token_keys_t
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

BUCKETS = 10**6  # m of the paper
MAX_HASHES = 1024  # its k
MOMENTUM = 0.1  # of the running moments, and the epsilon: torch's own
EPSILON = 1e-5
MISH_SQUARE = 0.4523  # E[mish(z)^2] of a standard normal z, which normalised units start as


@dataclasses.dataclass(frozen=True)
class DeepHash:
    """vector = network(H_1(key), ..., H_k(key)), one network for all tables.

    A token's key is a mix of its id and its table's name, so the network tells fields apart. Hidden
    layers have one width, the largest that the budget and `max_multiply_adds` allow. A table of
    no more tokens than that width is held whole: it takes no more than the network's last layer.

    Attributes:
        hidden_layers: Linear, batch normalisation, Mish; a last linear layer follows.
        hashes_per_unit: Least k over the width, as long as k is below the paper's 1024.
        max_multiply_adds: Of one vector.
        seed: Seed of the hash functions.
    """

    name: ClassVar[str] = "deep hash"
    hidden_layers: int = 2
    hashes_per_unit: int = 16
    max_multiply_adds: int = MAX_MULTIPLY_ADDS
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "seed" and getattr(self, field.name) < 1:
                raise ValueError(
                    f"DeepHash.{field.name} must be at least 1, found {getattr(self, field.name)}"
                )

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> DeepHashAllocation:
        """The widest network, or whole tables where all of them fit."""
        if budget is None:
            raise ValueError("deep hash needs a budget or a compression")
        dim = shared_dim(tables, "deep hash")

        def hashes_for(width: int) -> int:
            return min(self.hashes_per_unit * width, MAX_HASHES)

        def fits(width: int, hashes: int) -> bool:
            network = NetworkShape(hashes, width, self.hidden_layers, dim)
            room = budget.floats(8 * 9 + network.moment_bytes)
            whole = sum(_is_whole(table, width) * (table.num_embeddings or 0) for table in tables)
            return (
                network.multiply_adds <= self.max_multiply_adds
                and network.floats + whole * dim <= room
            )

        sizes = [table.num_embeddings for table in tables]
        if None not in sizes:
            rows = sum(size for size in sizes if size is not None)
            if rows * dim <= budget.floats(8 * 9):
                return DeepHashAllocation(tables, 0, 0, self.hidden_layers, self.seed)
        if not fits(1, hashes_for(1)):
            raise BudgetError(
                f"deep hash: {budget.bytes} bytes hold no network of one unit per layer with "
                f"{self.hidden_layers} hidden layers"
            )
        # Bytes never fall as the width grows.
        width, too_wide = 1, 2
        while fits(too_wide, hashes_for(too_wide)):
            width, too_wide = too_wide, 2 * too_wide
        while too_wide - width > 1:
            middle = (width + too_wide) // 2
            if fits(middle, hashes_for(middle)):
                width = middle
            else:
                too_wide = middle
        # What one more unit would not fit in pays for more hashes.
        hashes = hashes_for(width)
        while hashes < MAX_HASHES and fits(width, hashes + 1):
            hashes += 1
        return DeepHashAllocation(tables, width, hashes, self.hidden_layers, self.seed)


def _is_whole(table: Table, width: int) -> bool:
    return table.num_embeddings is not None and table.num_embeddings <= width


class NetworkShape(NamedTuple):
    """Sizes of the embedding network."""

    hashes: int
    width: int
    hidden_layers: int
    dim: int

    def arrays(self) -> list[tuple[int, ...]]:
        """Per hidden layer weights, scale and shift; weights and bias of the last layer."""
        shapes: list[tuple[int, ...]] = []
        for layer in range(self.hidden_layers):
            inputs = self.width if layer else self.hashes
            # No bias: the normalisation would take it off again.
            shapes += [(self.width, inputs), (self.width,), (self.width,)]
        return [*shapes, (self.dim, self.width), (self.dim,)]

    @property
    def floats(self) -> int:
        """Weights of all layers."""
        return sum(math.prod(shape) for shape in self.arrays())

    @property
    def moment_bytes(self) -> int:
        """Bytes of the running mean and variance of all hidden units."""
        return 2 * FLOAT_BYTES * self.hidden_layers * self.width

    @property
    def multiply_adds(self) -> int:
        """Of one vector."""
        return sum(math.prod(shape) for shape in self.arrays() if len(shape) == 2)


class DeepHashAllocation(ComputedAllocation):
    """Arrays: the network's (`NetworkShape.arrays`), then the rows of each whole table.

    The running moments of the batch normalisation are buffers, counted as index bytes. Modules in
    training mode normalise by the moments of the tokens of one lookup, and move the running ones.

    Args:
        tables: The tables, of one dimension.
        width: Units of a hidden layer; 0 where every table is whole and there is no network.
        hashes: k.
        hidden_layers: How many.
        seed: Of the hash functions.
    """

    seeds: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, tables: Sequence[Table], width: int, hashes: int, hidden_layers: int, seed: int
    ) -> None:
        dim = shared_dim(tables, "deep hash")
        whole = [t for t, table in enumerate(tables) if not width or _is_whole(table, width)]
        network = NetworkShape(hashes, width, hidden_layers, dim).arrays() if width else []
        rows = [(tables[t].num_embeddings or 0, dim) for t in whole]
        settings = {"width": width, "hashes": hashes, "hidden_layers": hidden_layers, "seed": seed}
        super().__init__(tables, [*network, *rows], {"method": 8, **settings})
        self.arguments = settings
        self._layers = len(network)
        # Which array holds a whole table's rows.
        self._whole = {t: len(network) + i for i, t in enumerate(whole)}
        self._derived("seeds", torch.from_numpy(stream_seeds(seed, hashes).view("int64")))
        units = (hidden_layers if width else 0, width)
        self.register_buffer("running_mean", torch.zeros(units))
        self.register_buffer("running_var", torch.ones(units))

    def compute(self, arrays: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
        """Rows of whole tables; the network's outputs for the tokens of all others together."""
        rows = {
            number: arrays[self._whole[number]].index_select(0, ids)
            for number, ids, _ in tokens
            if number in self._whole
        }
        hashed = [t for t in tokens if t.number not in rows]
        if hashed:
            keys = torch.cat([token_keys_t(self.salts[t.number], t.ids) for t in hashed])
            codes = hash_encoding(keys, self.seeds).to(arrays[0].dtype)
            counts = torch.cat([t.counts for t in hashed])
            found = self._network(arrays[: self._layers], codes, counts)
            parts = torch.split(found, [len(t.ids) for t in hashed])
            rows |= {t.number: part for t, part in zip(hashed, parts, strict=True)}
        return torch.cat([rows[t.number] for t in tokens])

    def _network(self, layers: Sequence[Tensor], x: Tensor, counts: Tensor) -> Tensor:
        """Section "Deep embedding network": linear, batch normalisation, Mish; then linear."""
        # The moments of a single occurrence say nothing.
        by_batch = self.training and int(counts.sum()) > 1
        for i, (weights, scale, shift) in enumerate(_hidden(layers)):
            x = F.linear(x, weights)
            if by_batch:
                mean, var = moments(x, counts)
                self._follow(i, mean, var, counts)
            else:
                mean, var = self.running_mean[i].to(x.dtype), self.running_var[i].to(x.dtype)
            x = F.mish((x - mean) * torch.rsqrt(var + EPSILON) * scale + shift)
        return F.linear(x, *layers[-2:])

    @torch.no_grad()
    def _follow(self, layer: int, mean: Tensor, var: Tensor, counts: Tensor) -> None:
        """Move the running moments, as `torch.nn.BatchNorm1d` does: by the unbiased variance."""
        total = counts.sum()
        self.running_mean[layer].lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
        unbiased = var * total / (total - 1)
        self.running_var[layer].lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """He's start of hidden layers, scales 1, shifts 0; outputs of variance std^2 (bias 0)."""
        arrays = self.arrays(weight)
        layers = arrays[: self._layers]
        for weights, scale, shift in _hidden(layers):
            nn.init.kaiming_normal_(weights, nonlinearity="relu")
            nn.init.ones_(scale)
            nn.init.zeros_(shift)
        if layers:
            weights, bias = layers[-2:]
            nn.init.normal_(weights, std=std / (MISH_SQUARE * weights.shape[1]) ** 0.5)
            nn.init.zeros_(bias)
        for rows in arrays[self._layers :]:
            nn.init.normal_(rows, std=std)
        self.running_mean.zero_()
        self.running_var.fill_(1.0)


def _hidden(layers: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Weights, scale and shift of every hidden layer; two arrays of the last layer follow them."""
    return list(zip(layers[:-2:3], layers[1:-2:3], layers[2:-2:3], strict=True))


def hash_encoding(keys: Tensor, seeds: Tensor) -> Tensor:
    """Section "Dense hash encoding", uniform: H_i(key) / (m - 1) * 2 - 1, H_i in {0, ..., m - 1}.

    Args:
        keys: Token keys, int64 [n].
        seeds: States of the k hash functions, int64 [k].

    Returns:
        float32 [n, k], in [-1, 1].
    """
    buckets = reduce_range_t(combine_t(seeds, keys.unsqueeze(1)), BUCKETS)
    return buckets.float() * (2 / (BUCKETS - 1)) - 1


def moments(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of rows x [n, units], row i taken counts[i] times: [units] each."""
    share = counts.to(x.dtype) / counts.sum()
    mean = share @ x
    return mean, share @ (x - mean).square()
