"""Which tokens of a table a builder knows: where each has its slot, and how often it was seen."""

from __future__ import annotations

import operator
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lma.errors import LmaError
from lma.signatures.row_batch import RowBatch, check_ids

I64 = npt.NDArray[np.int64]

FIRST_ROOM = 1024
MOST_TOKENS = (1 << 31) - 1


class Tokens(ABC):
    """The tokens of one table. Slots are 0, 1, ... in an order that only this object knows.

    Attributes:
        name: The table's name.
        seen: Tokens counted at least once.
    """

    name: str
    seen: int = 0

    @abstractmethod
    def check(self, values: I64, who: str) -> None:
        """`ValueError` if an id cannot belong to the table; nothing is changed."""

    @abstractmethod
    def locate(self, values: I64, grow: bool = True, out: I64 | None = None) -> I64:
        """Slot of every id, -1 for a token that gets no signature; may learn new ids.

        Written into `out` where that is given.
        """

    @abstractmethod
    def rest(self) -> None:
        """Give up memory that the next `locate` makes anew."""

    @abstractmethod
    def count(self, values: I64, slots: I64) -> None:
        """Add one to the support of every token."""

    @abstractmethod
    def ids(self) -> I64:
        """Token id of every slot, int64 [slots]."""

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Slots in use."""

    @property
    @abstractmethod
    def supports(self) -> I64:
        """Rows in which each counted token occurs; the first `num_slots` belong to the slots."""

    @abstractmethod
    def merge(self, other: Tokens) -> I64:
        """Add another's supports; returns where each of its slots lies here."""


class RankedTokens(Tokens):
    """Dense ids 0 ... size - 1, most frequent first: an id is its own slot.

    Args:
        name: The table's name.
        size: Its ids.
        num_signed: The first so many have slots.
    """

    def __init__(self, name: str, size: int, num_signed: int) -> None:
        self.name, self.size = name, size
        self._slots = num_signed
        self._support = np.zeros(size, np.int64)

    def check(self, values: I64, who: str) -> None:
        """Ids must lie in [0, size)."""
        from lma.kernels.cpu.signatures_bags import first_outside

        bad = first_outside(values, self.size)
        if bad >= 0:
            raise ValueError(
                f"{who}.update: id {values[bad]} of table {self.name!r} is outside [0, {self.size})"
            )

    def locate(self, values: I64, grow: bool = True, out: I64 | None = None) -> I64:
        """The id itself, if below `num_signed`."""
        from lma.kernels.cpu.signatures_bags import ranked_slots

        slots = np.empty(len(values), np.int64) if out is None else out
        ranked_slots(values, self._slots, slots)
        return slots

    def rest(self) -> None:
        """There is none."""

    def count(self, values: I64, slots: I64) -> None:
        """Support of all ids, signed or not."""
        from lma.kernels.cpu.signatures_bags import count

        self.seen += count(values, self._support)

    def ids(self) -> I64:
        """0, 1, ..."""
        return np.arange(self._slots)

    @property
    def num_slots(self) -> int:
        """Tokens to sign."""
        return self._slots

    @property
    def supports(self) -> I64:
        """Support of every id, int64 [size]."""
        return self._support

    def merge(self, other: Tokens) -> I64:
        """Slots are the same on both sides."""
        self._support += other.supports
        self.seen = int(np.count_nonzero(self._support))
        return other.ids()


class KeyedTokens(Tokens):
    """Any 64-bit ids, found through a hash table of 4 bytes per place beside 8 per id.

    Args:
        name: The table's name.
        ids: The tokens to give slots to, all different; None: every token that is met.
        supports: What they have been counted so far; 0 unless given.
        grows: Whether ids met later get slots too.
    """

    def __init__(
        self,
        name: str,
        ids: npt.ArrayLike | None = None,
        supports: npt.ArrayLike | None = None,
        *,
        grows: bool = False,
    ) -> None:
        self.name = name
        self.grows = grows or ids is None
        given = np.zeros(0, np.int64) if ids is None else np.asarray(ids, dtype=np.int64)
        self._known = len(given)
        self._ids = np.concatenate([given, np.zeros(FIRST_ROOM if self.grows else 0, np.int64)])
        self._support = np.zeros(len(self._ids), np.int64)
        if supports is not None:
            self._support[: self._known] = supports
        self._table = np.full(FIRST_ROOM, -1, np.int32)
        if len(given):
            self._rebuild()

    def check(self, values: I64, who: str) -> None:
        """Every int64 is valid."""

    def locate(self, values: I64, grow: bool = True, out: I64 | None = None) -> I64:
        """Through the hash table; new ids are appended if this table grows."""
        from lma.kernels.cpu.signatures_map import find, insert

        slots = np.empty(len(values), np.int64) if out is None else out
        if not len(self._table):
            self._rebuild()
        if not (self.grows and grow):
            find(values, self._table, self._ids, slots)
            return slots
        done = 0
        while True:
            done, self._known = insert(values, done, self._table, self._ids, self._known, slots)
            if done == len(values):
                return slots
            self._make_room()

    def rest(self) -> None:
        """Give up the hash table: 5 to 11 bytes per token."""
        self._table = np.empty(0, np.int32)

    def _make_room(self) -> None:
        if self._known >= MOST_TOKENS:
            raise ValueError(
                f"table {self.name!r} has more than {MOST_TOKENS} tokens; count it with a "
                "bounded SupportCounter and sign the frequent ones"
            )
        if self._known == len(self._ids):
            room = len(self._ids) * 3 // 2
            # One array after the other, and no page of the new room touched before its use.
            ids = np.empty(room, np.int64)
            ids[: self._known] = self._ids
            self._ids = ids
            support = np.zeros(room, np.int64)
            support[: self._known] = self._support
            self._support = support
        if self._known >= len(self._table) // 4 * 3:
            self._rebuild()

    def _rebuild(self) -> None:
        from lma.kernels.cpu.signatures_map import fill

        # Three quarters full at most; a table that grows begins half full.
        places = max(FIRST_ROOM, self._known * 2 if self.grows else self._known // 3 * 4 + 8)
        # The old table is not needed to fill the new one: never both in memory.
        self._table = np.empty(0, np.int32)
        self._table = np.full(places, -1, np.int32)
        twice = fill(self._table, self._ids, self._known)
        if twice >= 0:
            raise ValueError(
                f"table {self.name!r}: token ids must be all different, found "
                f"{self._ids[twice]} twice"
            )

    def count(self, values: I64, slots: I64) -> None:
        """Support of the tokens that have slots."""
        from lma.kernels.cpu.signatures_bags import count

        self.seen += count(slots, self._support)

    def ids(self) -> I64:
        """In the order in which they were met."""
        return self._ids[: self._known]

    @property
    def num_slots(self) -> int:
        """Tokens known."""
        return self._known

    @property
    def supports(self) -> I64:
        """Support of every slot."""
        return self._support[: self._known]

    def merge(self, other: Tokens) -> I64:
        """Slots of the other's ids here, learning those that are new.

        Raises:
            LmaError: The ids were given, and others to the other one.
        """
        if not self.grows and not np.array_equal(self.ids(), other.ids()):
            raise LmaError(
                f"cannot merge builders of table {self.name!r} that were given different tokens: "
                f"{self.num_slots} and {other.num_slots} ids, or others in another order"
            )
        slots = self.locate(other.ids())
        self._support[slots] += other.supports
        self.seen = int(np.count_nonzero(self.supports))
        return slots


def token_sets(
    tables: Mapping[str, int | None],
    num_signed: Mapping[str, int],
    tokens: Mapping[str, npt.ArrayLike],
    who: str,
) -> dict[str, Tokens]:
    """One `Tokens` per table of a builder."""
    check_counts(num_signed, tables, who)
    unknown = [name for name in tokens if name not in tables]
    if unknown:
        raise ValueError(f"{who}: no tables {unknown}; there are {list(tables)}")
    sets: dict[str, Tokens] = {}
    for name, size in tables.items():
        if size is None:
            ids = tokens.get(name)
            if ids is not None and np.size(ids):
                ids = check_ids(ids, f"{who}: tokens of table {name!r}").reshape(-1)
            sets[name] = KeyedTokens(name, ids)
            continue
        if not _is_count(size):
            raise ValueError(f"{who}: table {name!r} needs a size >= 0 or None, found {size!r}")
        if name in tokens:
            raise ValueError(
                f"{who}: tokens are for tables of size None, table {name!r} has {size} ids; give "
                "num_signed instead"
            )
        sets[name] = RankedTokens(name, size, min(size, num_signed.get(name, size)))
    return sets


def check_counts(num_signed: Mapping[str, int], tables: Mapping[str, int | None], who: str) -> None:
    """`ValueError` unless these are numbers of tokens of some of the tables."""
    unknown = [name for name in num_signed if name not in tables]
    if unknown:
        raise ValueError(f"{who}: no tables {unknown}; there are {list(tables)}")
    for name, count in num_signed.items():
        if not _is_count(count):
            raise ValueError(
                f"{who}: num_signed must be integers >= 0, found {count!r} for table {name!r}"
            )


def _is_count(value: object) -> bool:
    try:
        return operator.index(value) >= 0  # type: ignore[arg-type]
    except TypeError:
        return False


def take_in(tokens: Mapping[str, Tokens], batch: RowBatch, who: str) -> I64:
    """Check, locate and count all entries of a batch: their slots, -1 for unsigned tokens.

    Not to be written to: where every id is its own slot, they are the batch's values.
    """
    from lma.kernels.cpu.threads import num_pieces, run_pieces

    same = all(isinstance(t, RankedTokens) and t.size == t.num_slots for t in tokens.values())
    slots = batch.values if same else np.empty(len(batch.values), np.int64)
    parts = [(table, batch.feature(f)) for f, table in enumerate(tokens.values())]
    for table, where in parts:
        table.check(batch.values[where], who)

    def run(first: int, last: int) -> None:
        # Every table belongs to one thread, which alone changes its counts.
        for table, where in parts[first:last]:
            if not same:
                table.locate(batch.values[where], out=slots[where])
            table.count(batch.values[where], slots[where])

    if len(batch.values):
        run_pieces(run, len(parts), num_pieces(len(parts), 1))
    return slots


def array_checksum(array: npt.ArrayLike) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


__all__ = [
    "KeyedTokens",
    "RankedTokens",
    "Tokens",
    "array_checksum",
    "check_counts",
    "take_in",
    "token_sets",
]
