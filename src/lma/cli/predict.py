"""`lma predict`: a saved model scores a raw log."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import counter, out, progress


def predict(
    model: Path = typer.Argument(help="Folder of a saved model, such as runs/x/model."),
    format: str = typer.Argument(help="Format of the raw log, such as criteo."),
    inputs: list[Path] = typer.Argument(help="Files or folders, in order."),
    target: Path = typer.Option(..., "--out", help="CSV file to write: probability[,label]."),
    on_error: str = typer.Option("fail", help="fail at the first bad row, or skip it."),
    max_rows: int = typer.Option(None, help="Read only the first so many rows."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
) -> None:
    """Score raw rows: one line of probability (and label, where the log has it) per row.

    Example:

        lma predict runs/criteo/model criteo test.txt --out scores.csv
    """
    import polars as pl

    from lma.data import read_raw
    from lma.files import replace_file
    from lma.training import load

    bundle, rows = load(model, device=device), 0
    if bundle.encoder is None:
        raise ValueError(f"{model} was saved without an encoder and cannot read raw values")
    with progress() as bars, replace_file(target) as temporary, open(temporary, "wb") as file:
        tick = counter(bars, "rows")
        for frame in read_raw(format, inputs, on_error=on_error, max_rows=max_rows):
            columns = {"probability": bundle.predict(frame)}
            if "label" in frame.columns:
                columns["label"] = frame["label"].to_numpy()
            pl.DataFrame(columns).write_csv(file, include_header=rows == 0)
            rows += len(frame)
            tick(rows, 0)
    out.print(f"{target}: {rows:,} rows")
