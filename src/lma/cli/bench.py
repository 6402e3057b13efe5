"""`lma bench`: the embedding's speed on this machine, against full tables."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lma.cli.console import out, progress
from lma.cli.settings import comma_list, numbers

if TYPE_CHECKING:
    from lma.benchmarking import EmbeddingSpeed, Ratios


def bench(
    target: Path = typer.Option(
        Path("runs/bench.jsonl"), "--out", help="JSON lines are added to this file."
    ),
    dims: str = typer.Option("16", help="Floats of a vector; several with commas."),
    blocks: str = typer.Option("1,4,16", help="Floats of a block; several with commas."),
    kinds: str = typer.Option("random,learned", help="Signatures: random, learned."),
    popularity: str = typer.Option("zipf,uniform", help="How ids are drawn: zipf, uniform."),
    batch: int = typer.Option(2048, min=1, help="Rows of a batch."),
    compression: float = typer.Option(16, min=1, help="Full tables' floats over the memory's."),
    scale: int = typer.Option(16, min=1, help="Criteo's cardinalities are divided by it."),
    repeats: int = typer.Option(15, min=2, help="Timed calls of every method."),
    threads: int = typer.Option(0, min=0, help="Threads; 0 takes torch's number."),
) -> None:
    """Time forward and training step against nn.EmbeddingBag, sparse Adagrad and FBGEMM.

    Tables have Criteo's shape, divided by `--scale`. FBGEMM is measured where `fbgemm-gpu-cpu` is
    installed. Close other programs: the methods take turns, but a busy machine blurs them all.

    Examples:

        lma bench

        lma bench --dims 16,64 --blocks 4,16 --batch 16384 --scale 32
    """
    import torch

    from lma.benchmarking import EmbeddingSpeed, circumstances, measure, ratios

    if threads:
        torch.set_num_threads(threads)
    configs = [
        EmbeddingSpeed(
            dim, drawn, batch, scale, compression, tuple(numbers(blocks, int, "--blocks") or ()),
            tuple(comma_list(kinds) or ()), repeats,
        )
        for dim in numbers(dims, int, "--dims") or ()
        for drawn in comma_list(popularity) or ()
    ]  # fmt: skip
    for config in configs:
        _check(config)
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress() as bars:
        task = bars.add_task("measuring", total=len(configs), note="")
        for config in configs:
            bars.update(task, note=f"dim {config.dim}, {config.popularity} ids")
            lines = measure(config)
            with target.open("a", encoding="utf-8") as file:
                for line in lines:
                    file.write(json.dumps({**line, **circumstances()}) + "\n")
            bars.advance(task)
            _print(config, ratios(lines), lines[0]["signed_share"])
    out.print(f"all figures: [bold]{target}[/]")


def _check(config: EmbeddingSpeed) -> None:
    for name, found, known in (
        ("--kinds", config.kinds, ("random", "learned")),
        ("--popularity", (config.popularity,), ("zipf", "uniform")),
    ):
        wrong = [value for value in found if value not in known]
        if wrong or not found:
            raise ValueError(f"{name}: expected {' or '.join(known)}, found {wrong or 'none'}")
    for block in config.blocks:
        if block < 1 or config.dim < 1 or config.dim % block:
            raise ValueError(f"--blocks: {block} does not divide --dims {config.dim}")


def _print(config: EmbeddingSpeed, rows: list[Ratios], signed: float) -> None:
    """One table: milliseconds, and what they are of each rival's."""
    from rich.table import Table

    table = Table(
        title=f"dim {config.dim}, {config.popularity} ids ({signed:.0%} signed), "
        f"batch {config.batch}, {config.compression:g}x",
        caption="forward, step: milliseconds; below 1: faster than torch.index_select of the same "
        "blocks, nn.EmbeddingBag per full table, sparse gradients with torch.optim.Adagrad, FBGEMM",
    )
    table.add_column("", no_wrap=True)
    for heading in ("forward", "/select", "/bags", "step", "/Adagrad", "/FBGEMM"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        name, *figures = dataclasses.astuple(row)
        table.add_row(
            name.removeprefix("lma "), *("-" if f is None else f"{f:.2f}" for f in figures)
        )
    out.print(table)
