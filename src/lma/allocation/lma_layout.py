"""Where the regions of LMA's memory lie: shared blocks, learned codebooks, private rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lma.allocation.planning import Plan, TablePlan
from lma.allocation.tables import Table
from lma.errors import BudgetError
from lma.hashing import table_salt, to_signed
from lma.kernels.layout import Column, Kind
from lma.signatures.table import SignatureTable

# Columns of the int32 buffer `plan`: what `layout` is derived from, and all of it that is saved.
PLAN_COLUMNS = (
    "kind", "num_signed", "num_codes", "code_bits", "num_buckets", "num_overflow",
    "num_private", "private_dim", "shares_across_tables",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout rows, the saved plan, and the memory's size in floats."""

    rows: Tensor
    plan_rows: Tensor
    end: int


def lay_out(tables: Sequence[Table], plan: Plan, signatures: SignatureTable) -> tuple[Layout, int]:
    """Give every region its place: (layout, floats of one row of the memory)."""
    shares = {share.table: share for share in plan.tables}
    unit = plan.block_size
    rows = torch.zeros(len(tables), len(Column), dtype=torch.int64)
    saved = torch.zeros(len(tables), len(PLAN_COLUMNS), dtype=torch.int32)
    size = plan.block_size
    end = plan.num_blocks * size
    for row, table in zip(rows, tables, strict=True):
        share = shares.get(table.name, TablePlan(table.name))
        if share.private_dim > table.embedding_dim:
            raise ValueError(
                f"plan: table {table.name!r} has {table.embedding_dim} dimensions, "
                f"{share.private_dim} of them private"
            )
        has_signature = table.name in signatures.tables
        if has_signature:
            number = signatures.tables.index(table.name)
            row.copy_(signatures.rows[number])
            _check_draws(plan, signatures, table.name)
            signed = signatures.section(table.name).num_signed
            if table.num_embeddings is not None and signed > table.num_embeddings:
                raise ValueError(
                    f"table {table.name!r} has {table.num_embeddings} ids and signatures of "
                    f"{signed}: they were fitted on other ids"
                )
        else:
            row[Column.SALT] = to_signed(table_salt(table.name))
        row[Column.DIM] = table.embedding_dim
        own = plan.num_blocks - plan.hashed_blocks
        row[Column.HASHED_BASE] = own * size if plan.hashed_blocks else 0
        row[Column.HASHED_BLOCKS] = plan.hashed_blocks or plan.num_blocks
        if int(row[Column.KIND]) == Kind.RANDOM:
            shares_across = signatures.section(table.name).similarity == "rows"
            row[Column.CODE_SALT] = 0 if shares_across else row[Column.SALT]
            row[Column.CODED_BLOCKS] = own
        elif int(row[Column.KIND]) == Kind.LEARNED:
            chunks = -(-(table.embedding_dim - share.private_dim) // size)
            row[Column.CODED_BASE] = end
            row[Column.CODED_BLOCKS] = 1 << int(row[Column.CODE_BITS])
            end += chunks * int(row[Column.CODED_BLOCKS]) * size
        if share.private_dim < table.embedding_dim and plan.num_blocks < 1:
            raise BudgetError(f"plan: table {table.name!r} needs shared blocks, there are none")
    for row, table in zip(rows, tables, strict=True):
        share = shares.get(table.name, TablePlan(table.name))
        if share.private_dim:
            unit = math.gcd(unit, share.private_dim)
            row[Column.PRIVATE_BASE] = end
            row[Column.NUM_PRIVATE] = share.num_private
            row[Column.PRIVATE_DIM] = share.private_dim
            end += (share.num_private + 1) * share.private_dim
    for target, row in zip(saved, rows, strict=True):
        columns = [
            Column.KIND, Column.NUM_SIGNED, Column.NUM_CODES, Column.CODE_BITS,
            Column.NUM_BUCKETS, Column.NUM_OVERFLOW, Column.NUM_PRIVATE, Column.PRIVATE_DIM,
        ]  # fmt: skip
        # CODE_SALT follows from this bit and the table's name.
        across = int(row[Column.KIND]) == Kind.RANDOM and int(row[Column.CODE_SALT]) == 0
        target.copy_(torch.stack([row[int(c)] for c in columns] + [torch.tensor(int(across))]))
    if plan.num_blocks == 0:
        unit = math.gcd(*(s.private_dim for s in plan.tables)) or 1
    return Layout(rows, saved, end), unit


def _check_draws(plan: Plan, signatures: SignatureTable, table: str) -> None:
    section = signatures.section(table)
    if section.kind == "random" and section.num_codes != plan.num_codes:
        raise ValueError(
            f"plan: num_codes is {plan.num_codes}, signatures of {table!r} have {section.num_codes}"
        )
    if section.kind == "random" and plan.power > section.num_codes:
        raise ValueError(
            f"power {plan.power} needs as many distinct codes, signatures of {table!r} have "
            f"{section.num_codes}"
        )


__all__ = ["PLAN_COLUMNS", "Layout", "lay_out"]
