"""`lma prepare`: a raw click log becomes a dataset."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import counter, out, progress


def prepare(
    format: str = typer.Argument(help="Format of the log, such as criteo or movielens."),
    paths: list[Path] = typer.Argument(
        help="INPUT... OUT: files or folders of the log in the order of time, then the dataset.",
        metavar="INPUT... OUT",
    ),
    ids: str = typer.Option(
        "dictionary", help="dictionary: exact ids ranked by frequency; hashed: 64-bit, no pass."
    ),
    split: str = typer.Option(
        None, help="time: the last day validates and tests; random: 80/10/10 by a seeded hash."
    ),
    seed: int = typer.Option(0, help="Seed of the random split and of sampled negatives."),
    min_count: int = typer.Option(1, help="Tokens seen less often share the unseen token's id."),
    max_rows: int = typer.Option(None, help="Read only the first so many rows."),
    on_error: str = typer.Option("fail", help="fail at the first bad row, or skip it."),
    max_bad: str = typer.Option("0.1%", help="With skip: how many rows, or what share, at most."),
    option: list[str] = typer.Option(
        [], "--option", "-o", help="The format's own options, key=value; see docs/data.md."
    ),
    verify: bool = typer.Option(False, "--verify", help="Check an existing OUT; read no input."),
) -> None:
    """Prepare a raw click log for training.

    Examples:

        lma prepare criteo train.txt data/criteo --split time

        lma prepare criteo day_0.gz day_1.gz data/terabyte --on-error skip --max-bad 0.01%

        lma prepare movielens ml-1m data/movielens
    """
    import lma.data

    if verify:
        dataset = lma.data.verify(paths[-1])
        out.print(f"{paths[-1]} is whole: {dataset.num_rows('train'):,} training rows")
        return
    if len(paths) < 2:
        raise typer.BadParameter("give at least one input and the folder to write, in that order")
    *inputs, target = paths
    from lma.cli.settings import parse_options

    with progress() as bars:
        tick = counter(bars, "reading bytes")
        dataset = lma.data.prepare(
            format,
            inputs,
            target,
            ids=ids,
            split=split,
            seed=seed,
            min_count=min_count,
            max_rows=max_rows,
            on_error=on_error,
            max_bad=int(max_bad) if max_bad.isdigit() else max_bad,
            progress=lambda rows, done, total: tick(done, total),
            **parse_options(option),
        )
    rows = {name: dataset.num_rows(name) for name in ("train", "validation", "test")}
    # Counting hashed ids would take another pass over the log.
    tokens = "hashed ids" if ids == "hashed" else f"{dataset.num_tokens():,} tokens"
    out.print(f"{target}: {dataset.schema.name}, {tokens}")
    out.print("rows: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()))
    bad = dataset.meta.get("bad_rows") or 0
    if bad:
        out.print(f"[yellow]{bad:,} bad rows left out[/], kept in {target}.rejects.jsonl")
