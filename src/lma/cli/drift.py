"""`lma drift`: how many tokens' places would move under signatures that were fitted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import out


def drift(
    old: Path = typer.Argument(help="The signatures that a model was trained with."),
    new: Path = typer.Argument(help="Signatures fitted again, on more rows."),
    dataset: Path = typer.Argument(help="The dataset of the new ones."),
    power: int = typer.Option(2, min=1, help="Codes that a chunk of the model draws."),
    freeze: Path = typer.Option(
        None, help="Folder for the new signatures with the old codes of tokens that had some."
    ),
) -> None:
    """Tell how many tokens' places would move if a trained model were given new signatures.

    For random codes. Learned ones are numbered anew by every fit, so that all of them move; there
    `ContextCodeBuilder.encode` gives codes to new tokens.

    Examples:

        lma drift runs/monday runs/tuesday data/tuesday

        lma drift runs/monday runs/tuesday data/tuesday --freeze runs/grown
    """
    from rich.table import Table

    from lma.cli.token_ids import ids_of_rows
    from lma.data import Dataset
    from lma.signatures import SignatureTable, freeze_old
    from lma.signatures import drift as compare

    before, after = SignatureTable.load(old), SignatureTable.load(new)
    check_dictionaries(before, after)
    hashed = [s.table for s in after.sections if s.index != "prefix"]
    ids = ids_of_rows(Dataset.open(dataset), hashed)
    shown = Table(title="signed tokens, and what changes for them")
    shown.add_column("table")
    for column in ("in both", "moved", "chunks moved", "new", "gone"):
        shown.add_column(column, justify="right")
    for name, found in compare(before, after, power=power, ids=ids).items():
        shown.add_row(
            name,
            f"{found.kept:,}",
            f"{found.moved:,}",
            f"{found.moved_chunks:.1%}",
            f"{found.added:,}",
            f"{found.dropped:,}",
        )
    out.print(shown)
    if freeze is not None:
        frozen = freeze_old(before, after, ids=ids)
        frozen.save(freeze)
        lost = tokens_not_met(before, after, ids)
        out.print(f"{freeze}: the old codes, and the new tokens' own")
        if lost:
            out.print(
                f"At least {lost:,} signed tokens of {old} are not in {dataset} and "
                "lost their codes: their places move. Give a dataset that holds the old rows, too."
            )
        else:
            out.print(
                "no token that had codes moves; one that had none, and was trained where its id "
                "hashes to, does if it is among the new"
            )


def tokens_not_met(before: Any, after: Any, ids: Any) -> int:
    """Signed tokens of hashed tables that are not among `ids`, less a false match in a thousand."""
    return sum(
        max(0, before.section(n).num_signed - int((before.codes_of(n, ids[n])[:, 0] >= 0).sum()))
        for n in before.tables
        if n in after.tables and n in ids
    )


def check_dictionaries(old: object, new: object) -> None:
    """`ValueError` where ids of the two folders do not mean the same tokens."""
    check_same_dictionaries(*(getattr(t, "provenance", {}).get("dictionaries") for t in (old, new)))


def check_same_dictionaries(one: object, two: object) -> None:
    """The same of what two folders say of their dictionaries; None: nothing."""
    if one is not None and two is not None and one != two:
        raise ValueError(
            "the two were made with other dictionaries, in which an id is another token; prepare "
            "logs that grow with --ids hashed"
        )
