"""The frozen result of a builder: a few small codes per signed token, and how to find them."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.errors import FormatError
from lma.files import replace_file
from lma.hashing import HASH_VERSION, hash_string, table_salt, to_signed, token_keys_t
from lma.kernels.layout import Column, Kind
from lma.kernels.reference.addresses import LANES, find_slots, read_codes

FORMAT = 2  # 2: min-hash codes are hashes of 32-bit minima
FILE_NAME = "signatures.safetensors"
TENSORS = ("codes", "fingerprints", "overflow_keys")
CODE_PADDING = 2  # spare bytes behind the codes, so that 16 bits can be read anywhere


@dataclasses.dataclass(frozen=True)
class Section:
    """One table's part of a `SignatureTable`.

    Attributes:
        table: The table's name.
        kind: "random" (min-hash, SimHash) or "learned" (quantised vectors).
        similarity: What the codes estimate: "rows", "context", "labelled_context", ...
        num_codes: Codes per token.
        code_bits: Bits per code, 1 to 16.
        num_signed: Tokens with a signature.
        index: "prefix" (ids below `num_signed` are the signed ones) or "fingerprint".
        num_buckets: Buckets of the fingerprint index, 0 with a prefix.
        num_overflow: Entries of the exact overflow list.
    """

    table: str
    kind: str
    similarity: str
    num_codes: int
    code_bits: int
    num_signed: int
    index: str = "prefix"
    num_buckets: int = 0
    num_overflow: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("random", "learned"):
            raise ValueError(f"Section.kind must be 'random' or 'learned', found {self.kind!r}")
        if self.index not in ("prefix", "fingerprint"):
            raise ValueError(f"Section.index: 'prefix' or 'fingerprint', found {self.index!r}")
        if not 1 <= self.code_bits <= 16:
            raise ValueError(f"code_bits must be 1 to 16, found {self.code_bits}")
        if not 1 <= self.num_codes <= 255:
            raise ValueError(f"num_codes must be 1 to 255, found {self.num_codes}")
        if self.num_signed < 1:
            raise ValueError(f"Section {self.table!r}: num_signed must be >= 1; leave it out")

    @property
    def row_bytes(self) -> int:
        """Bytes of one signature."""
        return (self.num_codes * self.code_bits + 7) // 8

    @property
    def num_slots(self) -> int:
        """Rows of codes held: signed tokens, and with fingerprints the empty lanes too."""
        if self.index == "prefix":
            return self.num_signed
        return self.num_buckets * LANES + self.num_overflow


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
        rows = torch.zeros(len(self.sections), len(Column), dtype=torch.int64)
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
        return rows

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
        """Estimated similarity of two tokens: the share of their codes that agree.

        Args:
            a, b: (table, id); a string id is hashed as raw values are.
            corrected: Take out the chance agreement 2^-code_bits of random codes:
                (share - 2^-bits) / (1 - 2^-bits), which makes the estimate unbiased.

        Returns:
            A number in [0, 1] (below 0 by chance when corrected); nan if either is unsigned.
        """
        codes = []
        for table, token in (a, b):
            token_id = to_signed(hash_string(token)) if isinstance(token, str) else token
            codes.append(self.codes_of(table, torch.tensor([token_id]))[0])
        if len(codes[0]) != len(codes[1]) or bool((codes[0] < 0).any() | (codes[1] < 0).any()):
            return float("nan")
        share = float((codes[0] == codes[1]).double().mean())
        section = self.section(a[0])
        if not corrected or section.kind != "random":
            return share
        chance = 2.0**-section.code_bits
        return (share - chance) / (1 - chance)

    def neighbours(self, table: str, token: int, k: int = 10) -> list[tuple[int, float]]:
        """The `k` signed tokens of the same table that share most codes, most alike first.

        Only with a `prefix` index, whose slots are ids.
        """
        section = self.section(table)
        if section.index != "prefix":
            raise ValueError(
                f"neighbours: table {table!r} is indexed by fingerprints, which cannot be turned "
                "back into tokens; build it with ids ranked by support"
            )
        own = self.codes_of(table, torch.tensor([token]))
        if bool((own < 0).any()):
            raise ValueError(
                f"neighbours: token {token} of table {table!r} has no signature (support too low)"
            )
        others = self.codes_of(table, torch.arange(section.num_signed))
        share = (others == own).double().mean(1)
        share[token] = -1
        # A stable sort: among equals the more frequent token comes first.
        order = torch.argsort(share, descending=True, stable=True)[:k]
        return [(int(i), float(share[i])) for i in order if share[i] >= 0]

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
        )

    def permuted(self, seed: int) -> SignatureTable:
        """The same signatures dealt out at random among each table's tokens: a control."""
        parts = []
        generator = torch.Generator().manual_seed(seed)
        for i, section in enumerate(self.sections):
            base = int(self.rows[i, Column.CODE_BASE])
            size = section.num_slots * section.row_bytes
            part = self.codes[base : base + size].view(-1, section.row_bytes)
            parts.append(part[torch.randperm(len(part), generator=generator)].reshape(-1))
        parts.append(self.codes[-CODE_PADDING:])
        return SignatureTable(
            self.sections,
            torch.cat(parts),
            self.fingerprints,
            self.overflow_keys,
            seed=self.seed,
            provenance={**self.provenance, "permuted": seed},
        )

    @staticmethod
    def join(tables: Iterable[SignatureTable]) -> SignatureTable:
        """One table of several that cover different tables, such as different kinds per field."""
        tables = list(tables)
        codes = [t.codes[:-CODE_PADDING] for t in tables]
        return SignatureTable(
            [section for t in tables for section in t.sections],
            torch.cat([*codes, torch.zeros(CODE_PADDING, dtype=torch.uint8)]),
            torch.cat([t.fingerprints for t in tables]) if tables else None,
            torch.cat([t.overflow_keys for t in tables]) if tables else None,
            seed=tables[0].seed if tables else 0,
            provenance={"joined": [t.provenance for t in tables]},
        )

    # --- files -----------------------------------------------------------------------------

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `signatures.safetensors` (its JSON header inside) into a folder, atomically."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
        header = {
            "format": FORMAT,
            "hash_version": HASH_VERSION,
            "seed": self.seed,
            "sections": [dataclasses.asdict(section) for section in self.sections],
            "checksums": {name: _checksum(tensor) for name, tensor in tensors.items()},
            "provenance": self.provenance,
        }
        with replace_file(Path(directory) / FILE_NAME) as target:
            save_file(tensors, target, metadata={"lma": json.dumps(header)})

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> SignatureTable:
        """Read what `save` wrote; memory-mapped. `FormatError` if altered or of another version."""
        from safetensors import SafetensorError, safe_open

        path = Path(directory) / FILE_NAME
        if not path.exists():
            raise FileNotFoundError(f"no signatures in {directory}: {FILE_NAME} is missing")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["lma"])
                tensors = {name: file.get_tensor(name) for name in TENSORS}
            version, format_ = header["hash_version"], header["format"]
            if (format_, version) != (FORMAT, HASH_VERSION):
                raise FormatError(
                    f"{path}: signatures of format {format_}, hash_version {version}; this lma "
                    f"reads format {FORMAT}, hash_version {HASH_VERSION}: fit them again"
                )
            for name in TENSORS:
                if _checksum(tensors[name]) != header["checksums"][name]:
                    raise FormatError(f"{path}: checksum of {name!r} does not match its contents")
            return cls(
                [Section(**section) for section in header["sections"]],
                *(tensors[name] for name in TENSORS),
                seed=header["seed"],
                provenance=header["provenance"],
            )
        except FormatError:
            raise
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise FormatError(f"{path}: not signatures, or damaged ({error})") from error

    def __repr__(self) -> str:
        signed = sum(section.num_signed for section in self.sections)
        return (
            f"SignatureTable({len(self.sections)} tables, {signed} signed tokens, "
            f"{self.signature_bytes + self.index_bytes} bytes)"
        )


def pack_codes(codes: np.ndarray[Any, np.dtype[Any]], code_bits: int) -> Tensor:
    """Codes [tokens, num_codes] as the bytes of a section, uint8 [tokens * row_bytes]."""
    codes = np.ascontiguousarray(codes)
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << code_bits:
        raise ValueError(f"pack_codes: a code does not fit in {code_bits} bits")
    if code_bits in (8, 16):
        return torch.from_numpy(codes.astype(f"<u{code_bits // 8}").view(np.uint8).reshape(-1))
    bits = (codes[:, :, None].astype(np.uint32) >> np.arange(code_bits, dtype=np.uint32)) & 1
    packed = np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return torch.from_numpy(packed.reshape(-1))


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().numpy().data)
