"""What changes for a trained model when signatures are built again on more rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lma.signatures.section import Section
from lma.signatures.sections import SectionParts, make_table
from lma.signatures.table import SignatureTable, pack_codes


@dataclasses.dataclass(frozen=True)
class TableDrift:
    """Old signatures of one table against new ones.

    Attributes:
        table: Its name.
        kept: Tokens signed in both.
        added: Tokens signed in the new one alone: they leave their plain hash.
        dropped: Tokens signed in the old one alone: they fall back to it.
        moved: Tokens of `kept` of which at least one code changed.
        changed_codes: Share of the codes of `kept` that changed, 0 to 1.
        moved_chunks: Expected share of their chunks that read another place under `power` codes
            per chunk: 1 - mean(share of equal codes ^ power).
    """

    table: str
    kept: int
    added: int
    dropped: int
    moved: int
    changed_codes: float
    moved_chunks: float


def drift(
    old: SignatureTable,
    new: SignatureTable,
    *,
    power: int = 2,
    ids: Mapping[str, Tensor] | None = None,
) -> dict[str, TableDrift]:
    """How many tokens' places would move if a model trained with `old` were given `new`.

    Codes of kind "learned" are numbers of k-means centroids, which a new fit numbers anew: there
    everything moves. Encode new tokens with the old builder (`ContextCodeBuilder.encode`) instead.

    Args:
        old, new: Of the same seed; a table that one of them lacks has no signed tokens there.
        power: Codes that a chunk draws (`Lma.power`).
        ids: Tokens to compare per table; needed where an index is by fingerprints.

    Raises:
        ValueError: A table cannot be compared; says why.
    """
    if power < 1:
        raise ValueError(f"drift: power must be at least 1, found {power}")
    report = {}
    for name in dict.fromkeys((*old.tables, *new.tables)):
        if name not in old.tables or name not in new.tables:
            added = new.section(name).num_signed if name in new.tables else 0
            dropped = old.section(name).num_signed if name in old.tables else 0
            report[name] = TableDrift(name, 0, added, dropped, 0, 0.0, 0.0)
            continue
        before, after = old.section(name), new.section(name)
        shapes = [(s.kind, s.similarity, s.num_codes, s.code_bits) for s in (before, after)]
        if shapes[0] != shapes[1] or old.seed != new.seed:
            raise ValueError(
                f"drift: codes of table {name!r} do not compare: old {shapes[0]} with seed "
                f"{old.seed}, new {shapes[1]} with seed {new.seed}"
            )
        if ids is not None and name in ids:
            tokens = ids[name]
            if tokens.ndim != 1:
                raise ValueError(
                    f"drift: ids of table {name!r} must be [tokens], found {list(tokens.shape)}"
                )
        elif before.index == after.index == "prefix":
            tokens = torch.arange(max(before.num_signed, after.num_signed))
        else:
            raise ValueError(f"drift: table {name!r} is indexed by fingerprints; pass its ids")
        a, b = old.codes_of(name, tokens), new.codes_of(name, tokens)
        in_old, in_new = a[:, 0] >= 0, b[:, 0] >= 0
        both = in_old & in_new
        equal = (a == b)[both].double()
        share = equal.mean(1) if len(equal) else torch.zeros(0, dtype=torch.float64)
        report[name] = TableDrift(
            name,
            int(both.sum()),
            int((in_new & ~in_old).sum()),
            int((in_old & ~in_new).sum()),
            int((share < 1).sum()),
            float(1 - share.mean()) if len(share) else 0.0,
            float(1 - (share**power).mean()) if len(share) else 0.0,
        )
    return report


def freeze_old(
    old: SignatureTable, new: SignatureTable, *, ids: Mapping[str, Tensor] | None = None
) -> SignatureTable:
    """The codes of `old`, and those of `new` for tokens that had none.

    So no token that had codes moves. One that had none was trained where its id hashes to, and
    moves to where its codes lie. Tables that `new` lacks stay as they were.

    Args:
        old, new: As `drift`. Ids under prefix indexes must have kept their meaning, new tokens
            having been appended.
        ids: Tokens per table, all that are signed in either; needed where an index is by
            fingerprints. A token that is left out loses its codes.

    Raises:
        ValueError: Codes do not compare (see `drift`), or are learned, so that old and new ones
            are numbers of unlike centroids.
    """
    drift(old, new, ids=ids)
    parts = []
    for section in new.sections:
        name = section.table
        if section.kind == "learned":
            raise ValueError(
                f"freeze_old: codes of table {name!r} are learned, and a new fit numbers them "
                "anew; give codes to new tokens with ContextCodeBuilder.encode"
            )
        if section.index != "prefix" and name not in (ids or {}):
            raise ValueError(f"freeze_old: table {name!r} is indexed by fingerprints; pass its ids")
        signed = max(t.section(name).num_signed for t in (old, new) if name in t.tables)
        tokens = torch.arange(signed) if section.index == "prefix" else (ids or {})[name]
        codes = new.codes_of(name, tokens)
        if name in old.tables:
            before = old.codes_of(name, tokens)
            codes = torch.where(before >= 0, before, codes)
        parts.append(_signed_part(section, tokens, codes))
    frozen = make_table(parts, new.seed, {**new.provenance, "frozen": old.provenance})
    gone = {s.table: s.num_signed for s in old.sections if s.table not in new.tables}
    return _with_tables(frozen, old.truncate(gone)) if gone else frozen


def _with_tables(table: SignatureTable, more: SignatureTable) -> SignatureTable:
    """A table and the sections of another; seed and provenance stay its own."""
    joined = SignatureTable.join([table, more])
    joined.provenance = table.provenance
    return joined


def _signed_part(section: Section, tokens: Tensor, codes: Tensor) -> SectionParts:
    """The section of those tokens that have codes, with the kind of index it had."""
    if section.index == "prefix":
        return SectionParts(
            dataclasses.replace(section, num_signed=len(codes)),
            pack_codes(codes.numpy(), section.code_bits),
        )
    has_codes = codes[:, 0] >= 0
    packed = codes[has_codes].numpy().astype(np.uint16)
    return SectionParts.indexed(section, tokens[has_codes].numpy(), packed)


__all__ = ["TableDrift", "drift", "freeze_old"]
