"""`EmbeddingBagCollection`: all categorical features of a model over one shared memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lma.allocation import Table
from lma.allocation.base import Allocation
from lma.buffers import FixedBuffers
from lma.kernels.rule import Rule
from lma.nn.bags import check_tensor, check_weights, checked_offsets, set_aside
from lma.nn.embedding import MODES, pooled
from lma.nn.memory import MemoryReport, SharedMemory


@dataclasses.dataclass(frozen=True)
class EmbeddingBagConfig:
    """One table and the features that read it; TorchRec's words.

    Attributes:
        num_embeddings: Ids are 0 ... num_embeddings - 1; None: any int64 is an id.
        embedding_dim: Floats of a vector.
        name: The table's name; signatures know it by that.
        feature_names: Features that read the table; the table's own name unless given.
        pooling: "sum", "mean" or "max" over a feature's bag.
    """

    num_embeddings: int | None
    embedding_dim: int
    name: str
    feature_names: tuple[str, ...] = ()
    pooling: str = "sum"

    def __post_init__(self) -> None:
        if self.pooling not in MODES:
            raise ValueError(
                f"table {self.name!r}: pooling must be one of {MODES}, found {self.pooling!r}"
            )
        object.__setattr__(self, "feature_names", tuple(self.feature_names) or (self.name,))


class EmbeddingBagCollection(FixedBuffers):
    """Pooled vectors of all features, concatenated, from one lookup per step.

    Input, either of:

    * `values` int64 [batch, features]: one id per feature ("one-hot");
    * `values` [total] with `offsets` [features * batch + 1], feature after feature (the layout of
      TorchRec's KeyedJaggedTensor):

                      row 0     row 1     row 2
          feature 0   [ 7 ]     [ 2 ]     [ 2 ]
          feature 1   [ 1, 4 ]  [ ]       [ 9 ]

          values  = [ 7, 2, 2,  1, 4, 9 ]    offsets = [ 0, 1, 2, 3, 5, 5, 6 ]

    * an object with `keys()`, `values()`, `offsets()` and `weights_or_none()`, such as a
      KeyedJaggedTensor; its keys are matched to the features by name.

    Output: float [batch, sum of the features' dimensions], feature after feature.

    Bags whose poolings or dimensions differ may take several lookups. Under `torch.compile`, where
    shapes are fixed, each of them goes over all entries, and one that finds none of its own lists
    blocks of an id 0 in a sparse gradient, with zeros. Keys that no feature reads break the graph.

    Args:
        tables: Configs; features are numbered in their order.
        memory: An existing memory with these tables, owned by this module from now on.
        memory_arguments: Else one is made: `method`, `budget` or `compression`, `signatures`,
            `stats`, `out_of_range`, `sparse`, `init_std`, `device`, `dtype` of `SharedMemory`.
    """

    def __init__(
        self,
        tables: Sequence[EmbeddingBagConfig],
        *,
        memory: SharedMemory | None = None,
        **memory_arguments: Any,
    ) -> None:
        super().__init__()
        if not tables:
            raise ValueError("EmbeddingBagCollection needs at least one table")
        features = [name for config in tables for name in config.feature_names]
        if len(set(features)) != len(features):
            raise ValueError(f"feature names must differ, found {features}")
        if memory is not None and memory_arguments:
            raise ValueError(f"{list(memory_arguments)} belong to the memory, which is given")
        self.configs = tuple(tables)
        self.features = tuple(features)
        self.memory = memory or SharedMemory(
            [Table(c.name, c.num_embeddings, c.embedding_dim) for c in tables],
            **memory_arguments,
        )
        allocation = self.memory.allocation
        numbers = [allocation.number(c.name) for c in tables for _ in c.feature_names]
        modes = [c.pooling for c in tables for _ in c.feature_names]
        self.embedding_dims = tuple(allocation.tables[n].embedding_dim for n in numbers)
        self._modes = modes
        self.register_buffer("_numbers", torch.tensor(numbers), persistent=False)
        keys = [(allocation.group(n), mode) for n, mode in zip(numbers, modes, strict=True)]
        # Features looked up by one call: those of equal dimension, parts and pooling.
        distinct = list(dict.fromkeys(keys))
        self._groups = [
            (*key, [i for i, other in enumerate(keys) if other == key]) for key in distinct
        ]
        for i, (_, _, members) in enumerate(self._groups):
            self.register_buffer(f"_members_{i}", torch.tensor(members), persistent=False)
        # For compiled graphs: every feature's group, and of every group a table that has an id 0.
        owners = [distinct.index(key) for key in keys]
        self.register_buffer("_owners", torch.tensor(owners), persistent=False)
        filled = [n for n in numbers if allocation.tables[n].num_embeddings != 0]
        self._spares = [
            next((numbers[m] for m in members if numbers[m] in filled), None)
            for *_, members in self._groups
        ]
        # For the one fused lookup of all groups: where each feature's columns begin, how it pools.
        ends = list(itertools.accumulate(self.embedding_dims, initial=0))
        self._width = ends[-1]
        self.register_buffer("_columns", torch.tensor(ends), persistent=False)
        means = [int(mode == "mean") for mode in modes]
        self.register_buffer("_means", torch.tensor(means), persistent=False)

    _numbers: Tensor
    _owners: Tensor
    _columns: Tensor
    _means: Tensor

    @classmethod
    def for_schema(cls, schema: Any, embedding_dim: int = 16, **arguments: Any) -> Any:
        """A collection with one table per feature of a dataset's schema."""
        configs = [
            EmbeddingBagConfig(feature.num_embeddings, embedding_dim, feature.name)
            for feature in schema.features
        ]
        return cls(configs, **arguments)

    @property
    def embedding_dim(self) -> int:
        """The dimension of all features; an error where they differ."""
        if len(set(self.embedding_dims)) != 1:
            raise ValueError(f"features have different dimensions: {self.embedding_dims}")
        return self.embedding_dims[0]

    @property
    def allocation(self) -> Allocation:
        """The memory's allocation."""
        return self.memory.allocation

    def memory_report(self) -> MemoryReport:
        """What was spent on what, and what the full tables would take."""
        return self.memory.memory_report()

    def forward(
        self,
        values: Any,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Pooled vectors [batch, sum of dims]; see the class for the inputs."""
        if not isinstance(values, Tensor):
            values, offsets, per_sample_weights = self._from_keyed(values)
        if per_sample_weights is not None and set(self._modes) != {"sum"}:
            raise ValueError("per_sample_weights need pooling 'sum' in every table")
        if per_sample_weights is not None:
            check_weights(per_sample_weights, values, "values")
        if offsets is None:
            return self._one_hot(values, per_sample_weights)
        return self._bags(values, offsets, per_sample_weights)

    def _one_hot(self, values: Tensor, weights: Tensor | None) -> Tensor:
        if values.dim() != 2 or values.shape[1] != len(self.features):
            raise ValueError(
                f"values must be [batch, {len(self.features)}], or [total] with offsets; "
                f"found {list(values.shape)}"
            )
        ids = self.memory.accept(values, self._numbers)
        if self._rule() is not None:
            factors = None if weights is None else weights.reshape(-1)
            return self._fused(ids.reshape(-1), None, factors)
        if len(self._groups) == 1:
            vectors = self.memory.lookup(ids, self._numbers, self._groups[0][0])
            if weights is not None:
                vectors = vectors * weights.unsqueeze(-1)
            return vectors.flatten(1)
        pieces: list[Tensor] = [ids] * len(self.features)
        for i, (group, _, members) in enumerate(self._groups):
            chosen = getattr(self, f"_members_{i}")
            vectors = self.memory.lookup(ids[:, chosen], self._numbers[chosen], group)
            if weights is not None:
                vectors = vectors * weights[:, chosen].unsqueeze(-1)
            for place, member in enumerate(members):
                pieces[member] = vectors[:, place]
        return torch.cat(pieces, 1)

    def _bags(self, values: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
        if values.dim() != 1:
            raise ValueError(f"values must be [total] with offsets, found {list(values.shape)}")
        features = len(self.features)
        bounds = checked_offsets(offsets, values, include_last=True)
        if (len(bounds) - 1) % features:
            raise ValueError(
                f"offsets must be [{features} features * batch + 1], found {len(bounds)} entries"
            )
        batch = (len(bounds) - 1) // features
        lengths = bounds.diff().view(features, batch)
        ends = bounds[::batch] if batch else bounds.expand(features + 1)
        entry_numbers = torch.repeat_interleave(self._numbers, ends.diff(), output_size=len(values))
        ids = self.memory.accept(values, entry_numbers)
        if self._rule() is not None and "max" not in self._modes:
            return self._fused(ids, bounds, weights)
        if len(self._groups) == 1:
            group, mode, _ = self._groups[0]
            out = pooled(self.memory, ids, entry_numbers, group, bounds, mode, weights)
            return out.view(features, batch, out.shape[1]).transpose(0, 1).flatten(1)
        if self.memory.update is not None and torch.is_grad_enabled():
            raise RuntimeError(
                "FusedOptimizer: max beside another pooling or dimension takes several lookups, "
                "and only one may wait for its backward pass: use the memory's dense gradient"
            )
        pieces: list[Tensor] = [ids] * features
        starts = None if torch.compiler.is_compiling() else ends.tolist()
        for i, (group, mode, members) in enumerate(self._groups):
            part_lengths = lengths[getattr(self, f"_members_{i}")].flatten()
            part = torch.cat([part_lengths.new_zeros(1), part_lengths.cumsum(0)])
            if starts is None:
                owners = torch.repeat_interleave(self._owners, ends.diff(), output_size=len(ids))
                chosen, numbers, factors, part = _aside(
                    owners == i, part, ids, entry_numbers, weights, self._spares[i]
                )
            else:
                spans = [slice(starts[m], starts[m + 1]) for m in members]
                chosen = torch.cat([ids[span] for span in spans])
                numbers = torch.cat([entry_numbers[span] for span in spans])
                factors = None if weights is None else torch.cat([weights[s] for s in spans])
            out = pooled(self.memory, chosen, numbers, group, part, mode, factors)
            own = [batch] * len(members)
            parts = out.split_with_sizes([*own, len(out) - sum(own)])
            for member, vectors in zip(members, parts, strict=False):
                pieces[member] = vectors
        return torch.cat(pieces, 1)

    def _rule(self) -> Rule | None:
        """What the fused kernels read; None where a method has no such."""
        return self.memory.allocation.rule()

    def _fused(self, ids: Tensor, offsets: Tensor | None, factors: Tensor | None) -> Tensor:
        """All features in one call: [batch, sum of dims]."""
        return self.memory.fused_lookup(
            ids,
            self._numbers,
            self._columns,
            self._means,
            [group for group, _, _ in self._groups],
            self._width,
            offsets,
            factors,
        )

    def _from_keyed(self, keyed: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, offsets and weights of a KeyedJaggedTensor, in this collection's order."""
        try:
            keys, values, offsets = list(keyed.keys()), keyed.values(), keyed.offsets()
            weights = keyed.weights_or_none()
        except AttributeError:
            raise TypeError(
                "values must be a tensor or an object like TorchRec's KeyedJaggedTensor, "
                f"found {type(keyed).__name__}"
            ) from None
        check_tensor("values", values)
        if weights is not None:
            check_weights(weights, values, "values")
        missing = [name for name in self.features if name not in keys]
        if missing:
            raise ValueError(f"features {missing} are missing; the input has {keys}")
        if keys == list(self.features):
            return values, offsets, weights
        bounds = checked_offsets(offsets, values, include_last=True)
        if (len(bounds) - 1) % len(keys):
            raise ValueError(
                f"offsets must be [{len(keys)} keys * batch + 1], found {len(bounds)} entries"
            )
        batch = (len(bounds) - 1) // len(keys)
        order = [keys.index(name) for name in self.features]
        lengths, starts = (
            bags.view(len(keys), batch)[order].flatten() for bags in (bounds.diff(), bounds[:-1])
        )
        new_offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        # How many entries are read is known where every key is.
        total = len(values) if len(order) == len(keys) else None
        shift = torch.repeat_interleave(starts - new_offsets[:-1], lengths, output_size=total)
        entries = shift + torch.arange(len(shift), device=shift.device)
        return values[entries], new_offsets, None if weights is None else weights[entries]


def _aside(
    keep: Tensor,
    offsets: Tensor,
    ids: Tensor,
    numbers: Tensor,
    weights: Tensor | None,
    spare: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Ids, tables, weights and offsets of one group by `set_aside`: others' entries in bags behind.

    `spare` is a table of the group that has an id 0; None: all its tables are of no tokens.
    """
    if spare is None:
        # Accepted ids hold none of theirs.
        return ids[:0], numbers[:0], None if weights is None else weights[:0], offsets
    entries, bounds = set_aside(keep, offsets)
    # Without a single entry of the group there is only another's to read, whose size may differ.
    empty = offsets[-1] == 0
    return (
        ids[entries].masked_fill(empty, 0),
        numbers[entries].masked_fill(empty, spare),
        None if weights is None else weights[entries],
        bounds,
    )
