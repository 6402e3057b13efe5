"""The frozen result of a builder: a few small codes per signed token, and how to find them."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.errors import FormatError
from lma.hashing import hash_string, table_salt, to_signed, token_keys_t
from lma.kernels.layout import Column, Kind
from lma.kernels.reference.addresses import LANES, find_slots, read_codes
from lma.signatures.neighbours import likeness, nearest
from lma.signatures.quantise import Codebooks
from lma.signatures.section import Section
from lma.signatures.table_file import TENSORS, read_table, write_table

CODE_PADDING = 2  # spare bytes behind the codes, so that 16 bits can be read anywhere
PACK_BLOCK = 1 << 16  # signatures packed at a time


class SignatureTable:
    """Codes of the signed tokens of any number of tables; frozen, versioned, compact.

    Tensors (names and dtypes are the file format, `docs/file-formats.md`):

    * `codes`: uint8 [bytes + 2]; the sections' signatures one after the other, each
      `num_codes * code_bits` bits little-endian padded to bytes, slot after slot.
    * `fingerprints`: int16 [buckets, 8]; 0 is an empty lane. Empty with prefix indexes.
    * `overflow_keys`: int64 [n]; token keys that fingerprints cannot tell apart.

    Args:
        sections: One per table, in the order of the tensors' contents.
        codes, fingerprints, overflow_keys: As above.
        seed: Seed of the hash functions that made the codes.
        provenance: How it was made, for people and result lines; any JSON.
        codebooks: Centroids of tables with learned codes, for comparing tokens; a model needs
            none, so they count nowhere.
        ids: The signed tokens of tables with a `fingerprint` index, int64 [num_signed], where a
            builder was told to keep them; for `neighbours` alone, so they count nowhere either.
    """

    def __init__(
        self,
        sections: Sequence[Section],
        codes: Tensor,
        fingerprints: Tensor | None = None,
        overflow_keys: Tensor | None = None,
        *,
        seed: int = 0,
        provenance: Mapping[str, Any] | None = None,
        codebooks: Mapping[str, Codebooks] | None = None,
        ids: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.sections = tuple(sections)
        self.codes = codes
        self.fingerprints = (
            torch.empty(0, LANES, dtype=torch.int16) if fingerprints is None else fingerprints
        )
        self.overflow_keys = (
            torch.empty(0, dtype=torch.int64) if overflow_keys is None else overflow_keys
        )
        self.seed = seed
        self.provenance = dict(provenance or {})
        self.codebooks = dict(codebooks or {})
        self.ids = dict(ids or {})
        self._check()
        self._numbers = {section.table: i for i, section in enumerate(self.sections)}
        self.rows = self._layout_rows()

    def _check(self) -> None:
        names = [section.table for section in self.sections]
        if len(set(names)) != len(names):
            raise ValueError(f"SignatureTable: table names must differ, found {names}")
        wanted = {
            "codes": (sum(s.num_slots * s.row_bytes for s in self.sections) + CODE_PADDING,),
            "fingerprints": (sum(s.num_buckets for s in self.sections), LANES),
            "overflow_keys": (sum(s.num_overflow for s in self.sections),),
        }
        dtypes = {"codes": torch.uint8, "fingerprints": torch.int16, "overflow_keys": torch.int64}
        for name in TENSORS:
            tensor = getattr(self, name)
            if tuple(tensor.shape) != wanted[name] or tensor.dtype != dtypes[name]:
                raise FormatError(
                    f"SignatureTable.{name}: expected {dtypes[name]} {wanted[name]} for its "
                    f"sections, found {tensor.dtype} {tuple(tensor.shape)}"
                )

    def _layout_rows(self) -> Tensor:
        rows = np.zeros((len(self.sections), len(Column)), np.int64)
        byte = bucket = overflow = 0
        for row, section in zip(rows, self.sections, strict=True):
            row[Column.SALT] = to_signed(table_salt(section.table))
            row[Column.KIND] = Kind[section.kind.upper()]
            row[Column.NUM_SIGNED] = section.num_signed if section.index == "prefix" else -1
            row[Column.CODE_BASE] = byte
            row[Column.NUM_CODES] = section.num_codes
            row[Column.CODE_BITS] = section.code_bits
            row[Column.BUCKET_BASE] = bucket
            row[Column.NUM_BUCKETS] = section.num_buckets
            row[Column.OVERFLOW_BASE] = overflow
            row[Column.NUM_OVERFLOW] = section.num_overflow
            byte += section.num_slots * section.row_bytes
            bucket += section.num_buckets
            overflow += section.num_overflow
        return torch.from_numpy(rows)

    # --- reading ---------------------------------------------------------------------------

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that have signatures."""
        return tuple(self._numbers)

    def section(self, table: str) -> Section:
        """The section of a table; `KeyError` names the tables there are."""
        return self.sections[self._number(table)]

    @property
    def signature_bytes(self) -> int:
        """Bytes of the codes."""
        return self.codes.nbytes

    @property
    def index_bytes(self) -> int:
        """Bytes of the fingerprint index and its overflow list."""
        return self.fingerprints.nbytes + self.overflow_keys.nbytes

    def find(self, table: str, ids: Tensor) -> Tensor:
        """Slot within the table of every token id, or -1 for a token without a signature."""
        row = self.rows[self._number(table)]
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            found = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(
                f"SignatureTable.find: ids must be an int64 or int32 tensor, found {found}"
            )
        if row[Column.NUM_SIGNED] < 0 and ids.device.type == "cpu":
            from lma.kernels.cpu.signatures_find import find_by_key

            return find_by_key(ids, row, self.fingerprints, self.overflow_keys)
        keys = token_keys_t(row[Column.SALT], ids)
        row = row.expand(*ids.shape, -1)
        return find_slots(ids, keys, row, self.fingerprints, self.overflow_keys)

    def codes_of(self, table: str, ids: Tensor) -> Tensor:
        """Codes of the given tokens, int64 [..., num_codes]; -1 throughout where unsigned."""
        number = self._number(table)
        slot = self.find(table, ids).unsqueeze(-1)
        which = torch.arange(self.sections[number].num_codes)
        row = self.rows[number].expand(*slot.shape, -1)
        codes = read_codes(self.codes, row[..., Column.CODE_BASE], slot.clamp(min=0), row, which)
        return torch.where(slot < 0, -1, codes)

    def similarity(
        self, a: tuple[str, int | str], b: tuple[str, int | str], *, corrected: bool = True
    ) -> float:
        """Estimated similarity of two tokens.

        Random codes: the share of codes that agree. Learned codes: the cosine of the vectors that
        the codes stand for, which have a common space within one table only (the share of equal
        codes where the table has no codebooks). Codes of unlike kinds or similarities do not
        compare, nor do learned codes of two tables.

        Args:
            a, b: (table, id); a string id is hashed as raw values are.
            corrected: Take out the chance agreement 2^-code_bits of random codes:
                (share - 2^-bits) / (1 - 2^-bits), which makes the estimate unbiased.

        Returns:
            A number in [0, 1] (below 0 by chance when corrected, or by opposite vectors); nan if
            either is unsigned or the two do not compare.
        """
        one, two = (self.codes_of(table, _id_of(token)) for table, token in (a, b))
        section, other = self.section(a[0]), self.section(b[0])
        alike = (section.kind, section.similarity) == (other.kind, other.similarity)
        if not alike or one.shape != two.shape or bool((one < 0).any() | (two < 0).any()):
            return float("nan")
        books = self.codebooks.get(a[0])
        if books is not None and a[0] != b[0]:
            return float("nan")
        found = float(likeness(one, two[0], books)[0])
        if not corrected or section.kind != "random":
            return found
        chance = 2.0**-section.code_bits
        return (found - chance) / (1 - chance)

    def neighbours(
        self, table: str, token: int | str, k: int = 10, *, among: Tensor | None = None
    ) -> list[tuple[int, float]]:
        """The `k` signed tokens of the same table most like a given one, most alike first.

        Args:
            table, token: The token; a string id is hashed as raw values are.
            k: How many, 0 or more.
            among: The ids to look among, int64 [n]. None: all signed tokens, which with a
                `fingerprint` index must have been kept (`keep_ids` of the builder's `finish`).

        Returns:
            (id, likeness): the share of equal codes, or the cosine of decoded vectors as
            `similarity`; among equals the earlier id of `among`, or the more frequent one.
        """
        section = self.section(table)
        if k < 0:
            raise ValueError(f"neighbours: k must be 0 or more, found {k}")
        if among is None:
            if section.index != "prefix" and table not in self.ids:
                raise ValueError(
                    f"neighbours: table {table!r} is indexed by fingerprints, which cannot be "
                    "turned back into tokens; say among which ids to look, with among=, or "
                    "fit with keep_ids=True"
                )
            among = self.ids.get(table, torch.arange(section.num_signed))
        own_id = _id_of(token)
        own = self.codes_of(table, own_id)
        if bool((own < 0).any()):
            raise ValueError(
                f"neighbours: token {token} of table {table!r} has no signature (support too low)"
            )
        others = among[(self.find(table, among) >= 0) & (among != own_id)]
        alike = likeness(self.codes_of(table, others), own[0], self.codebooks.get(table))
        return [(int(others[i]), float(alike[i])) for i in nearest(alike, k)]

    def _held(self, number: int) -> Tensor:
        """Slots of a section that have a token, ascending; with fingerprints lanes may be empty."""
        section, row = self.sections[number], self.rows[number].tolist()
        if section.index == "prefix":
            return torch.arange(section.num_signed)
        first = row[Column.BUCKET_BASE]
        lanes = self.fingerprints[first : first + section.num_buckets].reshape(-1)
        overflow = torch.arange(len(lanes), section.num_slots)
        return torch.cat([lanes.nonzero()[:, 0], overflow])

    def _number(self, table: str) -> int:
        if table not in self._numbers:
            raise KeyError(f"no signatures for table {table!r}; there are {list(self._numbers)}")
        return self._numbers[table]

    # --- changing: always a new table ---------------------------------------------------------

    def truncate(self, num_signed: Mapping[str, int]) -> SignatureTable:
        """Keep the first `num_signed[table]` tokens of each table (0 drops it).

        Raises:
            ValueError: Fewer than all tokens of a table with a `fingerprint` index are wanted,
                whose slots are in no order of support.
        """
        kept = []
        for i, section in enumerate(self.sections):
            keep = min(num_signed.get(section.table, 0), section.num_signed)
            if keep <= 0:
                continue
            if section.index != "prefix" and keep < section.num_signed:
                raise ValueError(
                    f"truncate: table {section.table!r} is indexed by fingerprints and has "
                    f"{section.num_signed} signed tokens, {keep} are wanted; fit it again with "
                    f"num_signed={{{section.table!r}: {keep}}}"
                )
            row = self.rows[i].tolist()
            short = (
                section
                if section.index != "prefix"
                else dataclasses.replace(section, num_signed=keep)
            )
            base, bucket, over = (
                row[c] for c in (Column.CODE_BASE, Column.BUCKET_BASE, Column.OVERFLOW_BASE)
            )
            kept.append(
                SignatureTable(
                    [short],
                    torch.cat(
                        [
                            self.codes[base : base + short.num_slots * short.row_bytes],
                            torch.zeros(CODE_PADDING, dtype=torch.uint8),
                        ]
                    ),
                    self.fingerprints[bucket : bucket + section.num_buckets],
                    self.overflow_keys[over : over + section.num_overflow],
                )
            )
        joined = SignatureTable.join(kept)
        return SignatureTable(
            joined.sections,
            joined.codes,
            joined.fingerprints,
            joined.overflow_keys,
            seed=self.seed,
            provenance=self.provenance,
            codebooks={n: self.codebooks[n] for n in joined.tables if n in self.codebooks},
            ids={n: self.ids[n] for n in joined.tables if n in self.ids},
        )

    def permuted(self, seed: int) -> SignatureTable:
        """The same signatures dealt out at random among each table's tokens: a control."""
        parts = []
        generator = torch.Generator().manual_seed(seed)
        for i, section in enumerate(self.sections):
            base = int(self.rows[i, Column.CODE_BASE])
            size = section.num_slots * section.row_bytes
            part = self.codes[base : base + size].view(-1, section.row_bytes).clone()
            held = self._held(i)
            part[held] = part[held[torch.randperm(len(held), generator=generator)]]
            parts.append(part.reshape(-1))
        parts.append(self.codes[-CODE_PADDING:])
        return SignatureTable(
            self.sections,
            torch.cat(parts),
            self.fingerprints,
            self.overflow_keys,
            seed=self.seed,
            provenance={**self.provenance, "permuted": seed},
            codebooks=self.codebooks,
            ids=self.ids,
        )

    @staticmethod
    def join(tables: Iterable[SignatureTable]) -> SignatureTable:
        """One table of several, of one seed, that cover different tables, as of a kind each."""
        tables = list(tables)
        if len(seeds := {t.seed for t in tables}) > 1:
            raise ValueError(f"join: tables must be of one seed, found {sorted(seeds)}")
        codes = [t.codes[:-CODE_PADDING] for t in tables]
        return SignatureTable(
            [section for t in tables for section in t.sections],
            torch.cat([*codes, torch.zeros(CODE_PADDING, dtype=torch.uint8)]),
            torch.cat([t.fingerprints for t in tables]) if tables else None,
            torch.cat([t.overflow_keys for t in tables]) if tables else None,
            seed=tables[0].seed if tables else 0,
            provenance={"joined": [t.provenance for t in tables]},
            codebooks={name: books for t in tables for name, books in t.codebooks.items()},
            ids={name: ids for t in tables for name, ids in t.ids.items()},
        )

    # --- files -----------------------------------------------------------------------------

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `signatures.safetensors` (its JSON header inside) into a folder, atomically.

        And beside it `tokens.safetensors`, where ids were kept.
        """
        write_table(
            Path(directory),
            {name: getattr(self, name) for name in TENSORS},
            self.sections,
            self.codebooks,
            seed=self.seed,
            provenance=self.provenance,
            ids=self.ids,
        )

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> SignatureTable:
        """Read what `save` wrote; memory-mapped. `FormatError` if altered or of another version."""
        return read_table(Path(directory), cls)

    def __repr__(self) -> str:
        signed = sum(section.num_signed for section in self.sections)
        return (
            f"SignatureTable({len(self.sections)} tables, {signed} signed tokens, "
            f"{self.signature_bytes + self.index_bytes} bytes)"
        )


def _id_of(token: int | str) -> Tensor:
    """A token's id, int64 [1]; of a raw value, its hash."""
    number = to_signed(hash_string(token)) if isinstance(token, str) else operator.index(token)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"SignatureTable: token ids are int64, found {number}")
    return torch.tensor([number])


def pack_codes(codes: np.ndarray[Any, np.dtype[Any]], code_bits: int) -> Tensor:
    """Codes [tokens, num_codes] as the bytes of a section, uint8 [tokens * row_bytes].

    Where they are such bytes already, the result is the caller's own memory.
    """
    codes = np.ascontiguousarray(codes)
    whole = codes.dtype == np.uint16 and code_bits == 16
    if codes.size and not whole and not 0 <= codes.min() <= codes.max() < 1 << code_bits:
        raise ValueError(f"pack_codes: a code does not fit in {code_bits} bits")
    if code_bits in (8, 16):
        return torch.from_numpy(
            codes.astype(f"<u{code_bits // 8}", copy=False).view(np.uint8).reshape(-1)
        )
    packed = np.empty((len(codes), (codes.shape[1] * code_bits + 7) // 8), np.uint8)
    places = np.arange(code_bits, dtype=np.uint32)
    for start in range(0, len(codes), PACK_BLOCK):
        block = slice(start, start + PACK_BLOCK)
        bits = ((codes[block, :, None].astype(np.uint32) >> places) & 1).astype(np.uint8)
        packed[block] = np.packbits(bits.reshape(len(bits), -1), axis=1, bitorder="little")
    return torch.from_numpy(packed.reshape(-1))


__all__ = ["CODE_PADDING", "TENSORS", "Section", "SignatureTable", "pack_codes"]
