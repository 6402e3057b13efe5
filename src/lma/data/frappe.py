"""Frappe: which app was used in which context (Baltrunas et al. 2015).

Positives only; two negatives per row have the same user and context and another app, which the
user has never used. The column `cost` (free or paid) is a property of the app: copying it from
the positive, as the usual protocol does, would tell negatives by apps with a wrong price, so a
negative has its own app's cost. `cnt`, how often the app was used, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lma.data.interactions import InteractionsReader
from lma.errors import DataError

CONTEXT: Final = ("daytime", "weekday", "isweekend", "homework", "weather", "country", "city")


class FrappeReader(InteractionsReader):
    """Reads `frappe.parquet` (or a CSV, TSV or JSON lines file of the same columns).

    Args:
        inputs: The file, or the folder that holds `frappe.parquet`.
        labelled: True adds labels and negatives; `None` (prediction) gives the rows alone.
        seed: Seed of the negatives.
        negatives: Negatives per positive.
        sampling: "uniform" (the usual protocol) or "popularity".

    Raises:
        DataError: There is not one file, or it cannot be read or lacks a column.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        labelled: bool | None = True,
        seed: int = 0,
        *,
        negatives: int = 2,
        sampling: str = "uniform",
    ) -> None:
        if len(inputs) != 1:
            raise DataError(f"frappe: expected one file or folder, found {len(inputs)}")
        file = inputs[0] / "frappe.parquet" if inputs[0].is_dir() else inputs[0]
        if not file.exists():
            raise DataError(f"{file}: no such file")
        super().__init__(
            [file],
            labelled,
            seed,
            context=CONTEXT,
            item_columns=("cost",),
            negatives=negatives,
            sampling=sampling,
            name="frappe",
            description="Frappe app usage in context, with sampled negatives",
        )
