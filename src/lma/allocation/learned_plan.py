"""Who gets what of a budget when codes are learned: private floats, codes, codebooks, the rest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from lma.allocation.frequency_cutoff import kept_tokens
from lma.allocation.planning import (
    Plan,
    TablePlan,
    fixed_bytes,
    private_row_bytes,
    smallest_tables,
)
from lma.allocation.tables import Budget, Table
from lma.errors import BudgetError
from lma.signatures.budget import signature_bytes
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats

if TYPE_CHECKING:
    from lma.allocation.lma import Lma


def make_learned_plan(
    budget: Budget,
    stats: LogStats,
    tables: Sequence[Table],
    method: Lma,
    signatures: SignatureConfig,
    available: Mapping[str, int] | None = None,
    hashed: Collection[str] = (),
) -> Plan:
    """`make_plan` for learned codes; see there for the arguments.

    1. Private rows to tables that fit `private_share` of the budget, smallest first, and to every
       table with no more tokens than a codebook has entries: its rows cost less than the codebook.
    2. One codebook entry of `embedding_dim` floats per code value to each other table.
    3. Codes to its most frequent tokens, within `signature_share` of what is then left.
    4. `hashed_share` of the rest, at least one vector, to blocks that unsigned tokens hash into,
       never more than a row for each of them.
    5. What remains to private floats, one or more for every token seen `private_support` times, or
       one for the most frequent of them.

    Raises:
        BudgetError: The private tables and codebooks alone exceed the budget.
    """
    if budget.precision != "float32" and method.block_size & (method.block_size - 1):
        raise ValueError(
            f"lma: {budget.precision} weights need a block_size that is a power of two, found "
            f"{method.block_size}"
        )
    entries = 1 << signatures.code_bits
    code_bytes = signature_bytes(signatures, bool(hashed))
    ranked = [t for t in tables if t.name not in hashed]
    float_bytes = budget.float_bytes(method.block_size)
    left = budget.weight_bytes(fixed_bytes(len(tables)))
    private = smallest_tables(ranked, stats, int(left * method.private_share), float_bytes)
    private |= {t.name for t in ranked if stats.tables[t.name].num_tokens <= entries}
    left -= sum(private_row_bytes(t, stats, float_bytes) for t in tables if t.name in private)
    coded = [t for t in tables if t.name not in private]
    codebook_bytes = {
        t.name: math.ceil(entries * _chunked(t.embedding_dim, method) * float_bytes) for t in coded
    }
    codebooks = sum(codebook_bytes.values())
    widest = max((_chunked(t.embedding_dim, method) for t in coded), default=0)
    least = math.ceil(widest * float_bytes)
    if left < codebooks + least:
        raise BudgetError(
            f"lma: {budget.bytes} bytes do not hold {len(coded)} codebooks of {entries} entries "
            f"({codebooks} bytes) beside private rows of {len(private)} small tables; use fewer "
            "code_bits or a larger budget"
        )
    left -= codebooks
    coded_stats = LogStats.of([stats.tables[t.name] for t in coded])
    threshold = signatures.min_support
    if budget.counts == "serving" and coded:
        affordable = max(0, min(int(left * method.signature_share), left - least) // code_bytes)
        threshold = max(threshold, coded_stats.threshold(affordable))
    signed = {t.name: stats.tables[t.name].tokens_with(threshold) for t in coded}
    if available is not None:
        signed = {name: min(count, available[name]) for name, count in signed.items()}
    if budget.counts == "serving":
        left -= sum(signed.values()) * code_bytes
    # A table none of whose tokens is signed has no codebook either.
    left += sum(codebook_bytes[t.name] for t in coded if not signed[t.name])
    block_bytes = method.block_size * float_bytes
    num_blocks = int(_hashed_bytes(left, coded, signed, stats, method, least) // block_bytes)
    left -= math.ceil(num_blocks * block_bytes)
    places = int(left // budget.float_bytes()) - len(coded)
    shares = _private_floats(places, [t for t in coded if t.name not in hashed], stats, method)
    if coded and not shares and method.private_support == 1:
        num_blocks += int(left // block_bytes)
    return Plan(
        tuple(
            TablePlan(t.name, 0, stats.tables[t.name].num_tokens, t.embedding_dim)
            if t.name in private
            else TablePlan(t.name, signed[t.name], *shares.get(t.name, (0, 0)))
            for t in tables
        ),
        num_blocks,
        0,
        method.block_size,
        min(method.power, signatures.num_codes),
        signatures.num_codes,
        signatures.code_bits,
    )


def affordable_code_bits(
    budget: Budget,
    stats: LogStats,
    tables: Sequence[Table],
    method: Lma,
    signatures: SignatureConfig,
) -> SignatureConfig:
    """`signatures` with the most code bits, 8 to 2, whose codebooks take a quarter of the budget.

    Wide codes tell more tokens apart, and their codebooks grow as 2^code_bits; beyond a quarter
    they crowd out the codes themselves. Tables with fewer tokens than entries need no codebook.
    """
    for bits in range(8, 1, -1):
        coded = [t for t in tables if stats.tables[t.name].num_tokens > 1 << bits]
        floats = sum((1 << bits) * _chunked(t.embedding_dim, method) for t in coded)
        if floats * budget.float_bytes(method.block_size) * 4 <= budget.bytes:
            break
    return dataclasses.replace(signatures, code_bits=bits)


def _chunked(dim: int, method: Lma) -> int:
    """Floats of one codebook entry of all chunks: `dim` rounded up to whole blocks."""
    return -(-dim // method.block_size) * method.block_size


def _hashed_bytes(
    left: int,
    coded: Sequence[Table],
    signed: Mapping[str, int],
    stats: LogStats,
    method: Lma,
    least: int,
) -> int:
    """For blocks of unsigned tokens: a share of what is left, at most a row for each of them."""
    if not coded:
        return 0
    unsigned = sum(stats.tables[t.name].num_tokens - signed[t.name] + 1 for t in coded)
    return max(least, min(int(left * method.hashed_share), unsigned * least))


def _private_floats(
    places: int, coded: Sequence[Table], stats: LogStats, method: Lma
) -> dict[str, tuple[int, int]]:
    """(tokens, floats each) per table: some for all allowed any, or one for the most frequent."""
    allowed = {t.name: stats.tables[t.name].tokens_with(method.private_support) for t in coded}
    coded = [t for t in coded if allowed[t.name]]
    tokens = sum(allowed.values())
    if places < 1 or not tokens:
        return {}
    each = (places + len(coded)) // (tokens + len(coded))
    if each:
        half = min(t.embedding_dim for t in coded) // 2
        each = min(each, half, half if method.most_private is None else method.most_private)
        return {t.name: (allowed[t.name], each) for t in coded} if each else {}
    counts = kept_tokens([stats.tables[t.name] for t in coded], places)
    # A table with no frequent token would only lose a dimension to the float its tokens share.
    return {t.name: (count, 1) for t, count in zip(coded, counts, strict=True) if count}
