"""`Embedding` and `EmbeddingBag`: torch's modules over a shared memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lma.allocation import Table
from lma.kernels.reference.pooling import pool
from lma.nn.bags import check_weights, checked_offsets, drop_entries
from lma.nn.memory import SharedMemory

MODES = ("sum", "mean", "max")


class _TableModule(nn.Module):
    """One table of a memory: its own, or one that another module owns."""

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        *,
        table: str,
        memory: SharedMemory | None,
        padding_idx: int | None,
        refused: dict[str, bool],
        **memory_arguments: Any,
    ) -> None:
        super().__init__()
        for name, given in refused.items():
            if given:
                raise ValueError(
                    f"{name} is not supported: rows of a shared memory belong to many tokens"
                )
        if padding_idx is not None and num_embeddings is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"padding_idx must be within num_embeddings {num_embeddings}, "
                    f"found {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.table = table
        if memory is None:
            wanted = Table(table, num_embeddings, embedding_dim)
            self.own_memory: SharedMemory | None = SharedMemory([wanted], **memory_arguments)
            self._borrowed: tuple[SharedMemory, ...] = ()
        else:
            extra = [name for name, value in memory_arguments.items() if value]
            if extra:
                raise ValueError(f"{', '.join(extra)} belong to the memory, which is given")
            self.own_memory = None
            # In a tuple, so that torch does not register it a second time.
            self._borrowed = (memory,)
        self._number = self.memory.allocation.number(table)
        found = self.memory.tables[self._number]
        if found != Table(table, num_embeddings, found.embedding_dim):
            raise ValueError(
                f"the memory's table {table!r} has num_embeddings {found.num_embeddings}, "
                f"found {num_embeddings}"
            )
        self.embedding_dim = found.embedding_dim
        self._group = self.memory.allocation.group(self._number)

    @property
    def memory(self) -> SharedMemory:
        """The memory that is read."""
        return self._borrowed[0] if self.own_memory is None else self.own_memory

    @property
    def allocation(self) -> Any:
        """The memory's allocation."""
        return self.memory.allocation

    def memory_report(self) -> Any:
        """The memory's bytes, those of its other tables included."""
        return self.memory.memory_report()

    def _numbers(self, ids: Tensor) -> Tensor:
        shape = (1,) * min(1, ids.dim())
        return torch.full(shape, self._number, dtype=torch.int64, device=ids.device)

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}, table={self.table!r}{padding}"


class Embedding(_TableModule):
    """`torch.nn.Embedding` over a shared memory: ids [...] -> vectors [..., embedding_dim].

    `padding_idx` gives zeros and no gradient (torch's own row may be overwritten, a shared one
    cannot). `max_norm` and `scale_grad_by_freq` are refused. Under `torch.compile` a batch of
    nothing but padding lists the padding's blocks in a sparse gradient or update, with zeros.

    Args:
        num_embeddings: Ids are 0 ... num_embeddings - 1; None takes any int64.
        embedding_dim: Floats of a vector.
        padding_idx: Id whose vector is zero.
        max_norm, scale_grad_by_freq: Refused, with the reason.
        sparse: Gradients as sparse tensors of touched blocks.
        table: Name of the table in the memory and its signatures.
        memory: Read that memory; else one is made from `memory_arguments` (`method`, `budget`,
            `compression`, `signatures`, `stats`, `out_of_range`, ...), see `SharedMemory`.
    """

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        table: str = "table",
        memory: SharedMemory | None = None,
        **memory_arguments: Any,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            table=table,
            memory=memory,
            padding_idx=padding_idx,
            refused={"max_norm": max_norm is not None, "scale_grad_by_freq": scale_grad_by_freq},
            sparse=sparse,
            **memory_arguments,
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors [..., embedding_dim] of ids [...], int32 or int64."""
        self.memory.check_ids(ids)
        numbers = self._numbers(ids)
        if self.padding_idx is None:
            ids = self.memory.accept(ids, numbers)
            return self.memory.lookup(ids, numbers, self._group)
        padding = ids == self.padding_idx
        # Left out, as in torch: a zero in a gradient of touched blocks still moves Adam's state.
        touched = self.memory.sparse or self.memory.update is not None
        if touched and not torch.compiler.is_compiling():
            (kept,) = (~padding.reshape(-1)).nonzero(as_tuple=True)
            numbers = self._numbers(kept)
            found = self.memory.accept(ids.reshape(-1)[kept], numbers)
            vectors = self.memory.lookup(found, numbers, self._group)
            out = vectors.new_zeros(ids.numel(), self.embedding_dim)
            return out.index_put((kept,), vectors).view(*ids.shape, self.embedding_dim)
        # Any id in place of the padding: its vector is masked, and so is the gradient to it. In a
        # compiled graph, whose shapes are fixed, one that is touched anyhow.
        flat = ids.reshape(-1)
        fill: int | Tensor = 0
        if touched and len(flat):
            first = (flat != self.padding_idx).int().argmax(0, keepdim=True)
            fill = flat.gather(0, first).squeeze()
        ids = self.memory.accept(torch.where(padding, fill, ids), numbers)
        vectors = self.memory.lookup(ids, numbers, self._group)
        return vectors.masked_fill(padding.unsqueeze(-1), 0.0)


class EmbeddingBag(_TableModule):
    """`torch.nn.EmbeddingBag` over a shared memory: bags of ids -> one vector per bag.

    Inputs, `mode`, `per_sample_weights`, `include_last_offset` and `padding_idx` mean what they
    mean in torch; an empty bag gives zeros. `max_norm` and `scale_grad_by_freq` are refused. Under
    `torch.compile` a batch of nothing but padding lists the padding's blocks in a sparse gradient
    or update, with zeros.

        ids     = [ 3, 7, 7, 1, 4 ]       bag 0: 3, 7   bag 1: (empty)   bag 2: 7, 1, 4
        offsets = [ 0,    2, 2 ]          (with include_last_offset: 0, 2, 2, 5)

    Args:
        num_embeddings, embedding_dim, mode, sparse, include_last_offset, padding_idx: As in torch.
        max_norm, scale_grad_by_freq: Refused, with the reason.
        table: Name of the table in the memory and its signatures.
        memory: Read that memory; else one is made from `memory_arguments`, see `SharedMemory`.
    """

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        table: str = "table",
        memory: SharedMemory | None = None,
        **memory_arguments: Any,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, found {mode!r}")
        if mode == "max" and sparse:
            raise ValueError("mode 'max' has no sparse gradient, as in torch")
        super().__init__(
            num_embeddings,
            embedding_dim,
            table=table,
            memory=memory,
            padding_idx=padding_idx,
            refused={"max_norm": max_norm is not None, "scale_grad_by_freq": scale_grad_by_freq},
            sparse=sparse,
            **memory_arguments,
        )
        self.mode = mode
        self.include_last_offset = include_last_offset
        self._padding_row: int | None = None
        if self.padding_idx is not None and self.allocation.private_rows:
            device = self.allocation.header.device
            ids, number = torch.tensor([[self.padding_idx], [self._number]], device=device)
            self._padding_row = int(self.allocation.blocks(ids, number, self._group))

    def forward(
        self,
        ids: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Pooled vectors [bags, embedding_dim].

        Args:
            ids: int32 or int64, [bags, length] (all bags of one length), or [total] with offsets.
            offsets: Where each bag begins, [bags], or [bags + 1] with include_last_offset.
            per_sample_weights: Factors of the shape of `ids`; only with mode "sum".
        """
        self.memory.check_ids(ids)
        if per_sample_weights is not None:
            if self.mode != "sum":
                raise ValueError(f"per_sample_weights need mode 'sum', found {self.mode!r}")
            check_weights(per_sample_weights, ids, "ids")
            per_sample_weights = per_sample_weights.reshape(-1)
        if ids.dim() == 2:
            if offsets is not None:
                raise ValueError("offsets must be None when ids are [bags, length]")
            bags, length = ids.shape
            bounds = torch.arange(bags + 1, device=ids.device) * length
            ids = ids.reshape(-1)
        elif ids.dim() == 1:
            if offsets is None:
                raise ValueError("ids [total] need offsets")
            bounds = checked_offsets(offsets, ids, include_last=self.include_last_offset)
        else:
            raise ValueError(f"ids must have 1 or 2 dimensions, found {list(ids.shape)}")
        bags = len(bounds) - 1
        pooled_by_torch = self._padding_row is not None and not self.memory.quantised
        if self.padding_idx is not None and not pooled_by_torch:
            keep = ids != self.padding_idx
            ids, bounds, per_sample_weights = drop_entries(keep, ids, bounds, per_sample_weights)
        numbers = self._numbers(ids)
        ids = self.memory.accept(ids, numbers)
        out = pooled(
            self.memory, ids, numbers, self._group, bounds, self.mode, per_sample_weights,
            self._padding_row,
        )  # fmt: skip
        # No slice: Inductor cannot follow its gradient into a sparse one.
        return out if len(out) == bags else out.split_with_sizes([bags, len(out) - bags])[0]


def pooled(
    memory: SharedMemory,
    ids: Tensor,
    numbers: Tensor,
    group: tuple[int, ...],
    offsets: Tensor,
    mode: str,
    weights: Tensor | None,
    padding_row: int | None = None,
) -> Tensor:
    """Look up accepted ids [total] and pool them by offsets [bags + 1]: [bags, dim].

    `padding_row` is a row of the memory to leave out, where no two tokens share a row.
    """
    fused = len(numbers) == 1 and mode != "max"
    if fused and memory.allocation.rule() is not None:
        columns = torch.arange(2, device=ids.device) * group[0]
        means = torch.full_like(numbers, int(mode == "mean"))
        return memory.fused_lookup(
            ids, numbers, columns, means, [group], group[0], offsets, weights
        )
    if memory.allocation.whole_rows and not memory.quantised:
        # One row per token: torch's own kernel, bit for bit what nn.EmbeddingBag does.
        rows = memory.allocation.blocks(ids, numbers, group).squeeze(-1)
        return F.embedding_bag(
            rows,
            memory.floats,
            offsets,
            mode=mode,
            sparse=memory.sparse,
            per_sample_weights=weights,
            include_last_offset=True,
            padding_idx=padding_row,
        )
    return pool(memory.lookup(ids, numbers, group), offsets, mode, weights)
