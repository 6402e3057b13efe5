"""`lma inspect`: the tokens that share most memory with a given one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import out


def inspect(
    signatures: Path = typer.Argument(help="Folder that `lma signatures` wrote."),
    dataset: Path = typer.Argument(help="The dataset it was fitted on."),
    token: str = typer.Argument(help="Name of the token, a part of it, or its id."),
    table: str = typer.Option(..., help="The token's table."),
    k: int = typer.Option(10, "-k", help="How many neighbours."),
) -> None:
    """List a token's nearest tokens, and the share of codes, so of shared memory, that agree.

    Learned codes are decoded and compared by cosine. Random codes are compared by the share that
    agrees; there many codes tell neighbours apart better than few: 64 or more for looking at.

    Examples:

        lma signatures data/movielens runs/look --set similarity=positive_context

        lma inspect runs/look data/movielens "Toy Story" --table movie
    """
    import torch
    from rich.table import Table

    from lma.data import Dataset
    from lma.signatures import SignatureTable

    data, fitted = Dataset.open(dataset), SignatureTable.load(signatures)
    titles = data.titles(table)
    number = find_token(token, titles)
    shown = Table(title=f"{name_of(number, titles)} (id {number})")
    for column in ("token", "likeness", "shared codes"):
        shown.add_column(column, justify="left" if column == "token" else "right")
    found = fitted.neighbours(table, number, k)
    codes = fitted.codes_of(table, torch.tensor([number, *(other for other, _ in found)]))
    shared = (codes[1:] == codes[0]).double().mean(1).tolist()
    for (other, likeness), share in zip(found, shared, strict=True):
        shown.add_row(name_of(other, titles), f"{likeness:.2f}", f"{share:.0%}")
    out.print(shown)


def find_token(text: str, titles: list[str] | None) -> int:
    """The id of a token by name, by the beginning or a part of it, or by number."""
    names = [title.casefold() for title in titles or ()]
    wanted = text.casefold()
    for fits in (str.__eq__, str.startswith, str.__contains__):
        for number, name in enumerate(names):
            if fits(name, wanted):
                return number
    if text.isdigit() and (titles is None or int(text) < len(titles)):
        return int(text)
    raise ValueError(f"no token is called {text!r}")


def name_of(number: int, titles: Any) -> str:
    """A token's title, or its id."""
    return titles[number] if titles is not None and number < len(titles) else str(number)
