"""The one Parameter that all tables read, and the report of its bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lma.allocation import Allocation, Budget, Lma, Method, Table
from lma.allocation.base import Group
from lma.allocation.planning import default_method
from lma.allocation.tables import FLOAT_BYTES, PRECISIONS, REFERENCE_DIM, count_tokens
from lma.buffers import FixedBuffers
from lma.errors import StateMismatchError, UnsupportedError
from lma.kernels import ops
from lma.kernels.lookup import lookup
from lma.kernels.reference.quantised import (
    Quantised,
    fake_quantise,
    num_groups,
    quantise,
)
from lma.kernels.touched import Traced, Update, lookup_touched
from lma.nn.bags import check_tensor
from lma.results import ByteCount
from lma.signatures import LogStats, SignatureTable

POLICIES = ("error", "wrap", "clamp")
_DTYPES = {torch.int8: 8, torch.uint8: 4}  # of quantised weights, and their bits
_INFERENCE = "a quantised memory has no gradients: call .eval() on it, or train a memory in floats"


class SharedMemory(FixedBuffers):
    """A memory of `num_blocks x block_size` floats and the allocation that says who reads what.

    It is the sole owner of its weights: modules made with `memory=` refer to it without
    registering it again, so a state dict holds each tensor once.

    Args:
        tables: The tables that share it.
        method: A config of `lma.allocation`; unless given, `Lma` with blocks whose size follows
            from the budget (`fast_block_size`).
        budget: Serving bytes (`64_000_000`, "64MB"), "16x", or a `Budget`.
        compression: Instead of a budget: 16 means 1/16 of all tokens' rows of 16 floats.
        signatures: Needed by `Lma`.
        stats: The log's statistics, needed by some methods, used by `Lma`'s plan.
        out_of_range: What an id outside a table with `num_embeddings` does: "error", "wrap"
            (id modulo size) or "clamp" (the nearest end). Tables with None take any int64.
        init_std: Standard deviation of initial vectors; 0.01 unless given.
        sparse: Gradients as sparse tensors of touched blocks.
        precision: "int8" or "int4" trains with the rounding in (`fake_quantise`), so that
            `quantise_` changes nothing any more; "float32": what `dtype` says. The budget's own
            unless given.
        device, dtype: Of the weights. `torch.int8` (8 bits) or `torch.uint8` (4) makes a memory of
            zeros in the form that `quantise_` gives, to load a quantised state into.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        method: Method | None = None,
        *,
        budget: int | str | Budget | None = None,
        compression: float | None = None,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
        allocation: Allocation | None = None,
        out_of_range: str = "error",
        init_std: float | None = None,
        sparse: bool = False,
        precision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if out_of_range not in POLICIES:
            raise ValueError(f"out_of_range must be one of {POLICIES}, found {out_of_range!r}")
        if allocation is None:
            tokens = stats.num_tokens if stats is not None else count_tokens(tables)
            resolved = Budget.of(budget, compression, tokens)
            if resolved is not None and precision is not None:
                resolved = dataclasses.replace(resolved, precision=precision)
            if resolved is not None:
                precision = resolved.precision
            if method is None:
                learned = (
                    any(s.kind == "learned" for s in signatures.sections) if signatures else False
                )
                method = (
                    Lma() if resolved is None else default_method(resolved, tables, learned=learned)
                )
            allocation = method.allocate(tables, resolved, signatures=signatures, stats=stats)
        elif budget is not None or compression is not None or method is not None:
            raise ValueError("give an allocation, or a method with its budget, not both")
        self.allocation = allocation.to(device)
        self.out_of_range = out_of_range
        self.sparse = sparse
        self.bits = PRECISIONS[precision or "float32"]
        if self.bits == 4 and allocation.block_size % 2:
            raise UnsupportedError(
                "int4 needs blocks of an even number of floats, the memory of "
                f"{type(allocation).__name__} has {allocation.block_size}"
            )
        if self.bits < 32 and dtype in (torch.bfloat16, torch.float16):
            raise ValueError(f"{precision} is rounded from float32 weights, found dtype {dtype}")
        if sparse and self.bits < 32:
            raise ValueError(f"sparse gradients have no {precision}: its rounding needs dense ones")
        # Set by a FusedOptimizer: makes what one backward pass calls.
        self.update: Callable[[], Update | Traced] | None = None
        self.init_std = 0.01 if init_std is None else init_std
        shape = allocation.num_blocks, allocation.block_size
        self.weight: Tensor
        self.register_buffer("scales", None)
        if dtype in _DTYPES:
            scales = torch.zeros(num_groups(*shape), dtype=torch.float16, device=device)
            stored = shape[0], shape[1] * _DTYPES[dtype] // 8
            self._keep(Quantised(torch.zeros(stored, dtype=dtype, device=device), scales))
        else:
            self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        sizes = [-1 if t.num_embeddings is None else t.num_embeddings for t in allocation.tables]
        # Where the allocation is: beside the weights, unless those are on the meta device.
        self.register_buffer(
            "sizes",
            torch.tensor(sizes, dtype=torch.int64, device=allocation.header.device),
            persistent=False,
        )
        self._bounded = any(size >= 0 for size in sizes)
        # A table of no tokens has no id to mend a wrong one to.
        self._has_empty = 0 in sizes
        self._names = "\n".join(table.name for table in allocation.tables)
        if not self.quantised:
            self.reset_parameters()

    sizes: Tensor
    scales: Tensor | None

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables, with the dimensions they really have."""
        return self.allocation.tables

    @property
    def quantised(self) -> bool:
        """Whether the memory is kept in 8 or 4 bits, for inference only."""
        return self.scales is not None

    @property
    def stored(self) -> Tensor | Quantised:
        """What lookups read: floats, rounded where `precision` says so, or values and scales."""
        if self.scales is not None:
            return Quantised(self.weight, self.scales)
        return self.floats

    @property
    def precision(self) -> str:
        """What weights are, or will be, served in: "float32", "int8" or "int4"."""
        return next(name for name, bits in PRECISIONS.items() if bits == self.bits)

    @property
    def floats(self) -> Tensor:
        """The weights that training sees: rounded where `precision` says so."""
        return self.weight if self.bits == 32 else fake_quantise(self.weight, self.bits)

    def quantise_(self, bits: int | None = None) -> SharedMemory:
        """Turn the trained memory into 8 or 4 bits, in place, for inference only.

        Groups of 64 neighbouring floats share a float16 scale, and every float moves by half a
        scale at most; see `lma.nn.quantise`. Lookups read the values as they are and return
        float32. The weights become buffers, so that optimizers made before no longer reach them.

        Args:
            bits: 8 or 4; of the memory's `precision` unless given, else 8.
        """
        if not self.quantised:
            self._keep(quantise(self.weight, bits or min(self.bits, 8)))
            self.update = None
        return self

    def _keep(self, stored: Quantised) -> None:
        self._parameters.pop("weight", None)
        self.register_buffer("weight", stored.values)
        self.scales = stored.scales
        self.bits = stored.bits
        self.eval()

    def reset_parameters(self) -> None:
        """Fresh initial weights."""
        if self.quantised:
            raise RuntimeError(f"reset_parameters: {_INFERENCE}")
        with torch.no_grad():
            self.allocation.reset_weight(self.weight, self.init_std)

    def check_ids(self, ids: Tensor) -> None:
        """Ids must be whole numbers beside the weights, whatever their values."""
        check_tensor("ids", ids)
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int32 or int64, found {ids.dtype}")
        if ids.device != self.weight.device:
            raise ValueError(
                f"ids are on {ids.device}, the memory on {self.weight.device}: move one of them"
            )

    def accept(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """Ids as int64, within their tables: checked or mended by `out_of_range`.

        Args:
            ids: int32 or int64 [...].
            numbers: Table numbers, broadcastable against ids.
        """
        self.check_ids(ids)
        ids = ids.long()
        if not self._bounded or ids.numel() == 0:
            return ids
        last = ids.shape[-1] if ids.dim() else 1
        if numbers.dim() != 1 or len(numbers) not in (1, last):
            numbers = numbers.expand(ids.shape)
        accepted = ops.accept_ids(
            ids.reshape(-1),
            numbers.reshape(-1),
            self.sizes,
            POLICIES.index(self.out_of_range),
            self.out_of_range == "error" or self._has_empty,
            self._names,
        )
        return accepted.view(ids.shape)  # type: ignore[no-any-return]

    def lookup(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Vectors of accepted ids: [..., dim]."""
        if self.allocation.rule() is not None:
            return self.allocation.fused_vectors(self.fused_lookup, ids, numbers, group)
        stored = self.stored
        if isinstance(stored, Quantised):
            self._refuse_training()
            return self.allocation.quantised_vectors(stored, ids, numbers, group)
        return self.allocation.vectors(stored, ids, numbers, group, self.sparse)

    def fused_lookup(
        self,
        ids: Tensor,
        numbers: Tensor,
        columns: Tensor,
        means: Tensor,
        groups: Sequence[Group],
        width: int,
        offsets: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> Tensor:
        """`lma.kernels.lookup.lookup` of accepted ids, for methods that have a rule."""
        rule = self.allocation.rule()
        if rule is None:
            raise ValueError(f"{type(self.allocation).__name__} has no rule for the fused kernels")
        rest = (
            rule, ids, numbers, columns, means, self.allocation.pieces(groups), width, offsets,
            factors,
        )  # fmt: skip
        stored = self.stored
        if isinstance(stored, Quantised):
            self._refuse_training()
            return lookup(stored, *rest)
        arguments = (stored, *rest)
        if self.update is None and not self.sparse:
            return lookup(*arguments)
        if self.update is None or not torch.is_grad_enabled():
            return lookup_touched(*arguments)
        return lookup_touched(*arguments, update=self.update())

    def _refuse_training(self) -> None:
        if self.training and torch.is_grad_enabled():
            raise RuntimeError(f"lookup in training mode: {_INFERENCE}")

    def num_bytes(self) -> ByteCount:
        """Serving bytes: the one function that counts them, for every method."""
        scales = 0 if self.scales is None else self.scales.nbytes
        weights = self.weight.nbytes + scales
        return dataclasses.replace(self.allocation.num_bytes(), weights=weights)

    def memory_report(self) -> MemoryReport:
        """What was spent on what, and what the full tables would take."""
        dims = [
            (table.num_embeddings or 0, table.embedding_dim)
            for table in self.tables
            if table.num_embeddings is not None
        ]
        return MemoryReport(
            self.num_bytes(),
            self.allocation.num_blocks,
            self.allocation.block_size,
            sum(size * dim * FLOAT_BYTES for size, dim in dims),
            sum(size * REFERENCE_DIM * FLOAT_BYTES for size, _ in dims),
            len(dims) < len(self.tables),
        )

    def extra_repr(self) -> str:
        """One line."""
        return f"{self.num_bytes().serving} serving bytes, out_of_range={self.out_of_range!r}"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # The allocation's own check names what differs; sizes would only say that they do.
        own = {prefix + "allocation." + k for k in self.allocation.state_dict()}
        if own & set(state_dict):
            self.allocation._load_from_state_dict(
                state_dict, prefix + "allocation.", {}, True, [], [], []
            )
        saved = state_dict.get(prefix + "weight")
        if saved is not None:
            theirs, mine = (_DTYPES.get(w.dtype, 0) for w in (saved, self.weight))
            if theirs != mine:
                cure = f"call quantise_({theirs}) on it first" if theirs else "make one in floats"
                raise StateMismatchError(
                    f"{prefix}weight: the saved weights are {_form(theirs)}, this memory is "
                    f"{_form(mine)}: {cure}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _form(bits: int) -> str:
    return f"int{bits}" if bits else "floats"


@dataclasses.dataclass(frozen=True)
class MemoryReport:
    """Bytes of one memory.

    Attributes:
        bytes: Weights, signatures, index.
        num_blocks, block_size: Shape of the weights.
        full_bytes: The same tables in full, at their dimensions, float32.
        reference_bytes: The same tokens at 16 dimensions: what "16x" is relative to.
        unbounded: Some tables take any id; they are not in the two figures before.
    """

    bytes: ByteCount
    num_blocks: int
    block_size: int
    full_bytes: int
    reference_bytes: int
    unbounded: bool = False

    @property
    def compression(self) -> float:
        """Reference bytes over serving bytes."""
        return self.reference_bytes / max(1, self.bytes.serving)

    def __str__(self) -> str:
        lines = [
            f"weights    {self.bytes.weights:>15,} bytes  "
            f"({self.num_blocks:,} blocks of {self.block_size})",
            f"signatures {self.bytes.signatures:>15,} bytes",
            f"index      {self.bytes.index:>15,} bytes",
            f"serving    {self.bytes.serving:>15,} bytes",
        ]
        if self.full_bytes:
            lines.append(
                f"full       {self.full_bytes:>15,} bytes at these dimensions, "
                f"{self.compression:.1f}x smaller than at {REFERENCE_DIM}"
            )
        if self.unbounded:
            lines.append("(tables without num_embeddings have no full size)")
        return "\n".join(lines)
