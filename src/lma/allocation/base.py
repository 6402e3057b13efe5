"""What every allocation is: a rule from tokens to places in one memory, and nothing that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lma.allocation.adaptation import Adaptation
from lma.allocation.tables import Budget, Table
from lma.buffers import FixedBuffers
from lma.errors import StateMismatchError
from lma.hashing import HASH_VERSION, hash_string, table_salt, to_signed
from lma.kernels.lookup import chunk_starts, lookup
from lma.kernels.reference.quantised import Quantised, dequantise, read_floats, read_rows
from lma.kernels.rule import Rule
from lma.kernels.touched import lookup_touched
from lma.results import ByteCount
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

Group = tuple[int, ...]


class Method(Protocol):
    """A frozen config that makes an `Allocation`: one class per method, in a file of its own."""

    name: ClassVar[str]

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> Allocation:
        """Lay the tables out in `budget`; `BudgetError` where it cannot hold anything."""
        ...


class Allocation(FixedBuffers):
    """A map from tokens to places in a memory of `num_blocks` x `block_size` floats.

    Subclasses give `blocks`: the memory blocks whose concatenation is a token's vector. Those
    whose places are not whole blocks override `locations` and `vectors` instead.

    Everything that decides a place is in `header` and other buffers, hence in the `state_dict`;
    loading a state whose places were computed otherwise raises `StateMismatchError`.

    Args:
        tables: The tables laid out, numbered by position.
        num_blocks: Rows of the memory, below 2^31.
        block_size: Floats per row.
        settings: Whatever else the places depend on; integers, by name.
    """

    header: Tensor
    salts: Tensor
    # Saved buffers, one number per table, that a loaded state must agree with as with `header`.
    fixed: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        tables: Sequence[Table],
        num_blocks: int,
        block_size: int,
        settings: Mapping[str, int],
    ) -> None:
        super().__init__()
        names = [table.name for table in tables]
        if len(set(names)) != len(names):
            raise ValueError(f"tables must have different names, found {names}")
        if num_blocks >= 1 << 31:
            raise ValueError(
                f"a memory has less than 2^31 blocks, found {num_blocks}: use larger blocks"
            )
        self.tables = tuple(tables)
        # What `lma.allocation.recipes` needs to make the same allocation again; plain JSON.
        self.arguments: dict[str, Any] = {}
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._numbers = {table.name: number for number, table in enumerate(self.tables)}
        self._header_names = (
            "hash_version", "tables", "num_blocks", "block_size", *settings,
        )  # fmt: skip
        identity = "|".join(f"{t.name}:{t.num_embeddings}:{t.embedding_dim}" for t in tables)
        header = [
            HASH_VERSION, to_signed(hash_string(identity)), num_blocks, block_size,
            *settings.values(),
        ]  # fmt: skip
        self.register_buffer("header", torch.tensor(header, dtype=torch.int64))
        self._derived("salts", [to_signed(table_salt(name)) for name in names])

    def _derived(self, name: str, values: Sequence[Any] | Tensor) -> None:
        """A buffer of integers that follows from the configuration and is not saved."""
        tensor = torch.as_tensor(values, dtype=torch.int64)
        self.register_buffer(name, tensor, persistent=False)

    # --- places ----------------------------------------------------------------------------

    def number(self, table: str) -> int:
        """Position of a table; `KeyError` names the tables there are."""
        if table not in self._numbers:
            raise KeyError(f"no table {table!r}; there are {list(self._numbers)}")
        return self._numbers[table]

    def group(self, number: int) -> Group:
        """Tables of equal groups can be looked up by one call; begins with the dimension."""
        return (self.tables[number].embedding_dim,)

    def rule(self) -> Rule | None:
        """The places as a table that the fused kernels read; None where they cannot."""
        return None

    def pieces(self, groups: Sequence[Group]) -> int:
        """Starts of the longest vector of these groups: private part and chunks."""
        rule = self.rule()
        if rule is None:
            raise ValueError(f"{type(self).__name__} has no rule for the fused kernels")
        return max(rule.pieces(group[0], sum(group[1:])) for group in groups)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Memory blocks of every token: int64 [..., chunks].

        Args:
            ids: Token ids, int64 [...], within their tables.
            numbers: Their tables' numbers, int64, broadcastable.
            group: The `group` that all those tables belong to.
        """
        raise NotImplementedError

    def locations(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Places of every float of every vector in the flat memory: int64 [..., dim]."""
        blocks = self.blocks(ids, numbers, group)
        inside = torch.arange(self.block_size, device=ids.device)
        return (blocks.unsqueeze(-1) * self.block_size + inside).flatten(-2)

    def places(self, table: str, ids: Tensor) -> Tensor:
        """`locations` of tokens of one table by its name: int64 [..., dim]."""
        number = self.number(table)
        numbers = torch.full_like(ids, number)
        return self.locations(ids, numbers, self.group(number))

    def vectors(
        self, weight: Tensor, ids: Tensor, numbers: Tensor, group: Group, sparse: bool
    ) -> Tensor:
        """Vectors of tokens, [..., dim], differentiable in `weight` [num_blocks, block_size]."""
        rule = self.rule()
        if rule is not None:
            function = lookup_touched if sparse else lookup

            def fused(ids: Tensor, numbers: Tensor, *rest: Any) -> Tensor:
                columns, means, groups, width = rest
                return function(
                    weight, rule, ids, numbers, columns, means, self.pieces(groups), width
                )

            return self.fused_vectors(fused, ids, numbers, group)
        if self.block_size == 1:
            return gather_floats(weight, self.locations(ids, numbers, group), sparse)
        return F.embedding(self.blocks(ids, numbers, group), weight, sparse=sparse).flatten(-2)

    def quantised_vectors(
        self, weight: Quantised, ids: Tensor, numbers: Tensor, group: Group
    ) -> Tensor:
        """`vectors` of an int8 memory, of methods without a `rule`: float32 [..., dim].

        Where vectors are rows, only those are turned into floats; a method that computes vectors
        in its own way gets the floats of its whole memory, unless it knows better.
        """
        if type(self).vectors is Allocation.vectors:
            if self.block_size == 1:
                return read_floats(weight, self.locations(ids, numbers, group))
            return read_rows(weight, self.blocks(ids, numbers, group)).flatten(-2)
        return self.vectors(dequantise(*weight), ids, numbers, group, False)

    def fused_vectors(
        self, fused_lookup: Callable[..., Tensor], ids: Tensor, numbers: Tensor, group: Group
    ) -> Tensor:
        """`vectors` through `fused_lookup(ids, numbers, columns, means, groups, width)`."""
        # Tables repeat with the last dimension of ids, or there is one for every id.
        last = ids.shape[-1] if ids.dim() else 1
        if numbers.numel() > 1 and numbers.shape != (last,):
            numbers = numbers.expand(ids.shape)
        numbers = numbers.reshape(-1)
        if not ids.numel():
            numbers = numbers.new_zeros(1)
        columns = torch.arange(len(numbers) + 1, device=ids.device) * group[0]
        width = len(numbers) * group[0]
        out = fused_lookup(
            ids.reshape(-1), numbers, columns, torch.zeros_like(numbers), [group], width
        )
        return out.view(*ids.shape, group[0])

    def _chunk_starts(self, rule: Rule, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """First floats of the semantic part's chunks, by the kernel: int64 [..., chunks]."""
        numbers = numbers.expand(ids.shape)
        if not ids.numel():
            return ids.new_zeros(*ids.shape, self.pieces([group]) - rule.lead)
        units = chunk_starts(
            rule, ids.reshape(-1), numbers.reshape(-1), self.block_size, self.pieces([group])
        )
        return (units[:, rule.lead :].long() * self.block_size).view(*ids.shape, -1)

    @property
    def whole_rows(self) -> bool:
        """Whether a vector is one block, so that torch's own embedding_bag can pool it."""
        return all(table.embedding_dim == self.block_size for table in self.tables)

    @property
    def private_rows(self) -> bool:
        """Whether a vector is one block that no other token reads."""
        return False

    # --- weights and bytes -----------------------------------------------------------------

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """Initial weights: N(0, std^2) for every vector's every float."""
        nn.init.normal_(weight, std=std)

    @property
    def signature_names(self) -> tuple[str, ...]:
        """Names of the buffers that count as signatures; the others count as index."""
        return ()

    def num_bytes(self, float_bytes: float = 4) -> ByteCount:
        """Bytes of a memory laid out so, with floats of `float_bytes` bytes."""
        signatures = index = 0
        for name, tensor in self.state_dict().items():
            if name in self.signature_names:
                signatures += tensor.nbytes
            else:
                index += tensor.nbytes
        return ByteCount(
            math.ceil(self.num_blocks * self.block_size * float_bytes), signatures, index
        )

    # --- training --------------------------------------------------------------------------

    def adaptation(self) -> Adaptation | None:
        """What is to be told of steps and epochs, for methods whose places follow training."""
        return None

    # --- state -----------------------------------------------------------------------------

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(prefix + "header")
        if saved is not None and not torch.equal(saved.cpu(), self.header.cpu()):
            raise StateMismatchError(
                f"{prefix or 'allocation'}: the saved weights belong to other places than this "
                f"module computes: {self._differences(saved)}"
            )
        for name in self.fixed:
            old, new = state_dict.get(prefix + name), getattr(self, name)
            if old is not None and not torch.equal(old.cpu(), new.cpu()):
                raise StateMismatchError(
                    f"{prefix or 'allocation'}: the saved weights belong to other places than this "
                    f"module computes: {name} was {old.tolist()}, is {new.tolist()}"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _differences(self, saved: Tensor) -> str:
        if len(saved) != len(self.header):
            return f"saved by another method ({len(saved)} settings, here {len(self.header)})"
        return ", ".join(
            f"{name} was {int(old)}, is {int(new)}"
            for name, old, new in zip(self._header_names, saved, self.header, strict=True)
            if old != new
        )

    def extra_repr(self) -> str:
        """One line of what is laid out."""
        return f"tables={len(self.tables)}, memory={self.num_blocks}x{self.block_size}"


def gather_floats(weight: Tensor, places: Tensor, sparse: bool) -> Tensor:
    """`weight.view(-1)[places]`; a sparse gradient has the shape of blocks, [num_blocks, block]."""
    block = weight.shape[1]
    if not sparse:
        # index_select's backward is a plain indexed addition, far faster than embedding's here.
        return weight.view(-1).index_select(0, places.reshape(-1)).view(places.shape)
    rows = F.embedding(places // block, weight, sparse=True)
    return rows.gather(-1, (places % block).unsqueeze(-1)).squeeze(-1)


def largest_block(dims: Sequence[int], wanted: int | None = None) -> int:
    """The block size: `wanted` where it divides all dimensions, else an error; gcd if None."""
    divisor = math.gcd(*dims) if dims else 1
    if wanted is None:
        return divisor
    if wanted < 1 or divisor % wanted:
        raise ValueError(
            f"block_size must divide every embedding_dim {sorted(set(dims))}, found {wanted}"
        )
    return wanted


def shared_fraction(allocation: Allocation, a: tuple[str, int], b: tuple[str, int]) -> float:
    """Share of dimensions in which two tokens read the same place (SCMA, section 3).

    f(a, b) = |{i : A(a, i) = A(b, i)}| / d. The two tables must have the same dimension.

    Args:
        allocation: Any allocation, or a module that has one as `.allocation`.
        a, b: (table, id).
    """
    allocation = getattr(allocation, "allocation", allocation)
    places = [allocation.places(table, torch.tensor([token]))[0] for table, token in (a, b)]
    if len(places[0]) != len(places[1]):
        raise ValueError(
            f"shared_fraction: {a[0]!r} has {len(places[0])} dimensions, {b[0]!r} {len(places[1])}"
        )
    return float((places[0] == places[1]).double().mean())
