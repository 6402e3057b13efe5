"""`lma signatures`: fit the signatures of a dataset and keep them in a folder."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import counter, out, progress, size


def signatures(
    dataset: Path = typer.Argument(help="A prepared dataset."),
    target: Path = typer.Argument(metavar="OUT", help="Folder for signatures.safetensors."),
    method: str = typer.Option("lma-learned", help="The method they are for."),
    setting: list[str] = typer.Option(
        [], "--set", "-s", help="A setting of the method, key=value: num_codes=32."
    ),
) -> None:
    """Fit signatures on the training rows of a dataset.

    Examples:

        lma signatures data/movielens runs/signatures

        lma signatures data/criteo runs/rows --method lma-rows --set num_codes=32
    """
    from lma.cli.settings import parse_options
    from lma.data import Dataset
    from lma.training import ConfigError, SignatureShelf, method_spec

    _, config = method_spec(method).configure(parse_options(setting))
    if config is None:
        raise ConfigError(f"method {method!r} has no signatures")
    data = Dataset.open(dataset)
    with progress() as bars:
        shelf = SignatureShelf(data, counter(bars, "rows"))
        table = shelf.get(config)
    table.save(target)
    out.print(
        f"{target}: {sum(s.num_signed for s in table.sections):,} of {data.num_tokens():,} tokens "
        f"signed, {size(table.signature_bytes)} of codes, {size(table.index_bytes)} of index"
    )
