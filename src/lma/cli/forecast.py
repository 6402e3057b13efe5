"""What a comparison will take, said before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lma.cli.console import out, size
from lma.cli.preset import LogConfig

# Preparing with a dictionary, measured on two busy cores: docs/results/data.md.
PREPARE_ROWS_PER_S = 98_000
PREPARE_BYTES, PREPARE_TOKEN_BYTES = 840_000_000, 80
ID_BYTES, FLOAT_BYTES, LABEL_BYTES, DICTIONARY_BYTES = 8, 4, 1, 32


def print_forecast(config: Any, log_size: Any) -> None:
    """Runs, time, memory and disk of a comparison's training."""
    from lma.training.forecast import forecast

    expected = forecast(config, log_size)
    speeds = ", ".join(
        f"{rate:,.0f} rows/s at {dim} dimensions" for dim, rate in expected.rows_per_second.items()
    )
    out.print(
        f"training: {expected.cells} runs of at most {config.training.epochs} epochs, "
        f"{expected.rows:,} rows each; measured here just now: {speeds}; at most about "
        f"{duration(expected.train_s)} in all, evaluations not counted"
    )
    out.print(
        f"the largest run: about {size(expected.memory_bytes)} of memory for the embeddings' "
        f"weights, copies and gradients, {size(expected.disk_bytes)} of disk for its checkpoint"
    )


def print_preparation(log: LogConfig, path: Path) -> Any:
    """Time, memory and disk of preparing a preset's log; returns what is known of its size."""
    from lma.data.formats import open_log
    from lma.data.text_blocks import estimated_lines
    from lma.training.forecast import LogSize

    reader = open_log(log.format, path)
    rows = sum(estimated_lines(file) for file in reader.files)
    # Fewer rows have fewer tokens, though not in proportion: rare ones are most of them.
    tokens = min(log.tokens, round(log.tokens * rows / log.rows))
    features, dense = len(reader.schema.features), 2 * len(reader.schema.dense)
    row_bytes = ID_BYTES * features + FLOAT_BYTES * dense + LABEL_BYTES
    out.print(
        f"preparing {path}: about {rows:,} rows, {duration(rows / PREPARE_ROWS_PER_S)}, "
        f"{size(PREPARE_BYTES + PREPARE_TOKEN_BYTES * tokens)} of memory, "
        f"{size(row_bytes * rows + DICTIONARY_BYTES * tokens)} of disk; once"
    )
    return LogSize(rows, tokens, features, dense)


def duration(seconds: float) -> str:
    """Seconds for people: 40 s, 12 min, 5.1 h, 3.2 days."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
