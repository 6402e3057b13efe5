"""The synthetic log of `lma.data.synthetic` as a CSV file in Avazu's shape."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lma.data.synthetic import SyntheticLog
from lma.files import replace_file

# Which field of the synthetic log stands in which column: users are devices, ads are sites.
_HEX: Final = {
    "site_id": "C12", "site_domain": "C4", "site_category": "C10",
    "app_id": "C21", "app_domain": "C15", "app_category": "C6",
    "device_id": "C16", "device_ip": "C3", "device_model": "C24",
}  # fmt: skip
_BEFORE: Final = {"C1": "C9", "banner_pos": "C20"}
_AFTER: Final = {
    "device_type": "C17", "device_conn_type": "C23", "C14": "C11", "C15": "C13", "C16": "C19",
    "C17": "C7", "C18": "C22", "C19": "C18", "C20": "C26", "C21": "C1",
}  # fmt: skip
HOURS: Final = 240
FIRST_DAY: Final = 141021


def write_synthetic_avazu(
    path: str | os.PathLike[str],
    *,
    rows: int,
    scale: float = 1 / 256,
    seed: int = 0,
    semantic_strength: float = 0.8,
) -> Path:
    """Write a synthetic click log in the shape of Avazu's `train.csv`: ten days, 24 columns.

    The numbers of the synthetic log, which Avazu has none of, are left out; what they add to the
    label is noise here.

    Args:
        path, rows, scale, seed, semantic_strength: As `lma.data.write_synthetic`.
    """
    import polars as pl

    log = SyntheticLog(scale=scale, seed=seed, semantic_strength=semantic_strength)
    with replace_file(Path(path)) as target, open(target, "wb") as file:
        for first, frame in log.frames(rows):
            row = pl.int_range(first, first + len(frame), dtype=pl.Int64)
            hour = row * HOURS // rows
            tokens = [pl.col(c).fill_null("0" * 8).alias(name) for name, c in _HEX.items()]
            before, after = (
                [
                    pl.col(c).fill_null("0").str.to_integer(base=16).alias(name)
                    for name, c in names.items()
                ]
                for names in (_BEFORE, _AFTER)
            )
            frame.select(
                row.alias("id"),
                pl.col("label").alias("click"),
                ((FIRST_DAY + hour // 24) * 100 + hour % 24).alias("hour"),
                *before,
                *tokens,
                *after,
            ).write_csv(file, include_header=first == 0)
    return Path(path)
