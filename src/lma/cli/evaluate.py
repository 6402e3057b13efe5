"""`lma evaluate`: a saved model on a prepared dataset."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import checked_device, out


def evaluate(
    model: Path = typer.Argument(help="Folder of a saved model, such as runs/x/model."),
    dataset: Path = typer.Argument(help="The dataset it was trained on."),
    split: str = typer.Option("test", help="train, validation or test."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
) -> None:
    """AUC and log-loss of a saved model.

    Example:

        lma evaluate runs/movielens/model data/movielens --split validation
    """
    from lma.data import Dataset
    from lma.training import evaluate as measure
    from lma.training import load
    from lma.training.bundle import check_same_ids

    bundle, data = load(model, device=checked_device(device)), Dataset.open(dataset)
    check_same_ids(bundle, data)
    metrics = measure(bundle.model, data, split, device=device)
    out.print(
        f"{split}: AUC {metrics.auc:.4f}, log-loss {metrics.log_loss:.4f}, {metrics.rows:,} rows"
    )
