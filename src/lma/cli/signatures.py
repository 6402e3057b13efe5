"""`lma signatures`: fit the signatures of a dataset and keep them in a folder."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import counter, out, progress, size


def signatures(
    dataset: Path = typer.Argument(help="A prepared dataset."),
    target: Path = typer.Argument(metavar="OUT", help="Folder for signatures.safetensors."),
    setting: list[str] = typer.Option(
        [], "--set", "-s", help="A setting of SignatureConfig, key=value (similarity, num_codes)."
    ),
) -> None:
    """Fit signatures on the training rows of a dataset.

    Examples:

        lma signatures data/movielens runs/signatures

        lma signatures data/criteo runs/rows --set similarity=rows --set sample_rows=125000
    """
    from lma.cli.settings import load_config
    from lma.data import Dataset
    from lma.signatures import SignatureConfig
    from lma.training import SignatureShelf

    config = load_config(SignatureConfig, None, {}, setting)
    data = Dataset.open(dataset)
    with progress() as bars:
        shelf = SignatureShelf(data, counter(bars, "rows"))
        table = shelf.get(config)
    table.save(target)
    out.print(
        f"{target}: {sum(s.num_signed for s in table.sections):,} of {data.num_tokens():,} tokens "
        f"signed, {size(table.signature_bytes)} of codes, {size(table.index_bytes)} of index"
    )
