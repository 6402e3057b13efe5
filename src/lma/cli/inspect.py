"""`lma inspect`: the tokens that share most memory with a given one, and those most like it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from lma.cli.console import out


def inspect(
    signatures: Path = typer.Argument(help="Folder that `lma signatures` wrote."),
    dataset: Path = typer.Argument(help="The dataset it was fitted on."),
    token: str = typer.Argument(help="Name of the token, a part of it, or its id."),
    table: str = typer.Option(..., help="The token's table."),
    k: int = typer.Option(10, "-k", min=1, help="How many neighbours."),
    power: int = typer.Option(
        2, min=1, help="Random codes that must agree for a chunk to be shared."
    ),
) -> None:
    """List the tokens that share most memory with a given one, and those most like it.

    *Shared memory*: the share of the coded part's floats that both tokens read, that is the share
    of equal codes; with random codes (equal codes)^power, which is expected and not exact.

    *Likeness*: the cosine of the vectors that learned codes stand for; with random codes the
    share of equal codes. Learned codes of like tokens may differ, so there are two lists.

    Where ids are hashed, TOKEN is a raw value of the log if that has a signature, else an id.
    Ids may be negative: write `--` before them.

    Examples:

        lma signatures data/movielens runs/look --set similarity=positive_context

        lma inspect runs/look data/movielens "Toy Story" --table movie
    """
    import torch

    from lma.cli.drift import check_same_dictionaries
    from lma.cli.token_ids import ids_of_rows
    from lma.data import Dataset
    from lma.signatures import SignatureTable

    data, fitted = Dataset.open(dataset), SignatureTable.load(signatures)
    check_same_dictionaries(fitted.provenance.get("dictionaries"), data.meta["encoder"])
    titles, section = data.titles(table), fitted.section(table)
    among = fitted.ids.get(table)
    if section.index != "prefix" and among is None:
        among = ids_of_rows(data, [table])[table]
    number = find_token(token, titles, lambda n: bool(fitted.find(table, torch.tensor([n])) >= 0))
    ids, equal, alike = compare(fitted, table, number, among)
    shared = equal if section.kind == "learned" else equal**power
    # Sorted by likeness first, which decides among tokens that share as much.
    orders = {"share most memory with": nearest_of(alike, shared, k)}
    if section.kind == "learned":
        orders["are most like"] = nearest_of(shared, alike, k)
    for what, order in orders.items():
        rows = zip(*(x[order].tolist() for x in (ids, shared, equal, alike)), strict=True)
        show(f"tokens that {what} {name_of(number, titles)} (id {number})", rows, titles)


def compare(fitted: Any, table: str, number: int, among: Any) -> tuple[Any, Any, Any]:
    """Every other signed token of `among` (all, if None): ids, share of equal codes, likeness."""
    import torch

    from lma.signatures.neighbours import likeness

    own = fitted.codes_of(table, torch.tensor([number]))[0]
    if bool((own < 0).any()):
        raise ValueError(f"token {number} of table {table!r} has no signature: too few rows")
    ids = torch.arange(fitted.section(table).num_signed) if among is None else among
    ids = ids[(fitted.find(table, ids) >= 0) & (ids != number)]
    codes = fitted.codes_of(table, ids)
    alike = likeness(codes, own, fitted.codebooks.get(table))
    return ids, (codes == own).double().mean(1), alike


def nearest_of(second: Any, first: Any, k: int) -> Any:
    """Positions of the `k` largest of `first`; among equals the largest of `second`."""
    order = second.argsort(descending=True, stable=True)
    return order[first[order].argsort(descending=True, stable=True)[:k]]


def show(title: str, rows: Iterable[tuple[int, float, float, float]], titles: Any) -> None:
    """Print (id, shared memory, equal codes, likeness) of some tokens."""
    from rich.table import Table

    shown = Table(title=title)
    for column in ("token", "shared memory", "equal codes", "likeness"):
        shown.add_column(column, justify="left" if column == "token" else "right")
    for other, shared, equal, likeness in rows:
        shown.add_row(name_of(other, titles), f"{shared:.0%}", f"{equal:.0%}", f"{likeness:.2f}")
    out.print(shown)


def find_token(text: str, titles: list[str] | None, signed: Callable[[int], bool]) -> int:
    """The id of a token by name, by the beginning or a part of it, or by number.

    Without titles, where ids are hashed, the text is hashed as raw values are, whatever they look
    like; a number is an id only where no signed token has that raw value.

    Args:
        text: What the user wrote.
        titles: Names in id order; None where ids are hashed.
        signed: Whether an id has a signature (an unsigned one may be mistaken, as in lookups).
    """
    is_number = text.removeprefix("-").isdecimal()
    if titles is None:
        from lma.hashing import hash_string, to_signed

        hashed = to_signed(hash_string(text))
        if signed(hashed) or not is_number or not -(1 << 63) <= int(text) < 1 << 63:
            return hashed
        return int(text) if signed(int(text)) else hashed
    wanted = text.casefold()
    names = [title.casefold() for title in titles]
    for fits in (str.__eq__, str.startswith, str.__contains__):
        for number, name in enumerate(names):
            if fits(name, wanted):
                return number
    if is_number and 0 <= int(text) < len(titles):
        return int(text)
    raise ValueError(f"no token is called {text!r}")


def name_of(number: int, titles: Any) -> str:
    """A token's title, or its id."""
    return titles[number] if titles is not None and 0 <= number < len(titles) else str(number)
