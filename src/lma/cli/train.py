"""`lma train`: one model, trained, validated, tested and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import checked_device, out, progress, size


def train(
    dataset: Path = typer.Argument(help="A prepared dataset."),
    target: Path = typer.Argument(metavar="OUT", help="Folder of the run."),
    config: Path = typer.Option(None, "--config", "-c", help="TOML file; flags override it."),
    method: str = typer.Option(None, help="Such as lma-labelled-context, hashed, full."),
    budget: str = typer.Option(None, help="Serving bytes: 64MB, or 16x smaller: 16x."),
    epochs: int = typer.Option(None, help="Passes over the training rows at most."),
    learning_rate: float = typer.Option(None, help="Of the optimizer."),
    batch_size: int = typer.Option(None, help="Rows per step."),
    seed: int = typer.Option(None, help="Of initial weights and row order."),
    max_rows: int = typer.Option(None, help="Training rows to use at most."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    signatures: Path = typer.Option(None, help="Signatures fitted before; else they are fitted."),
    setting: list[str] = typer.Option(
        [],
        "--set",
        "-s",
        help="Any key of the config: model.embedding_dim=32, method.settings.power=3",
    ),
) -> None:
    """Train a DLRM whose embeddings fit a budget.

    OUT receives config.toml (all settings used), results.jsonl (one line), model/ (for
    `lma evaluate` and `lma predict`). Killed or stopped, the same command goes on from the last
    checkpoint.

    Examples:

        lma train data/movielens runs/movielens --budget 16x

        lma train data/criteo runs/criteo --method full --epochs 1 --batch-size 8192
    """
    from lma.cli.settings import load_config
    from lma.data import Dataset
    from lma.files import replace_file
    from lma.results import append_result, read_results
    from lma.signatures import SignatureTable
    from lma.training import RunConfig, SignatureShelf, run, save
    from lma.training.checkpoint import check_checkpoint
    from lma.training.config import to_dict, to_toml
    from lma.training.experiment import identity_of

    flags = {
        "method.name": method,
        "method.budget": budget,
        "training.epochs": epochs,
        "training.learning_rate": learning_rate,
        "training.batch_size": batch_size,
        "seed": seed,
        "max_rows": max_rows,
    }
    checked_device(device)
    run_config = load_config(RunConfig, config, flags, setting)
    data = Dataset.open(dataset)
    fitted = None if signatures is None else SignatureTable.load(signatures)
    if (target / "meta.json").exists():
        raise ValueError(f"{target} is a dataset: choose another folder for the run")
    checkpoint, lines = target / "checkpoint.pt", target / "results.jsonl"
    identity = identity_of(data, run_config)
    check_checkpoint(checkpoint, identity)
    if lines.exists() and any(line.cell == identity for line in read_results(lines)):
        out.print(f"{target} holds this run already; nothing was done")
        return
    with replace_file(target / "config.toml") as file:
        file.write_text(to_toml(run_config), encoding="utf-8")
    with progress() as bars:
        fit = bars.add_task("signatures", total=None, note="", visible=False)
        shelf = SignatureShelf(
            data,
            lambda done, total, *_: bars.update(fit, completed=done, total=total, visible=True),
            fitted=fitted,
        )
        model, result = run(
            data,
            run_config,
            shelf,
            device=device,
            checkpoint=checkpoint,
            progress=training_bar(bars, "training"),
        )
    save(
        model,
        target / "model",
        encoder=data.encoder,
        info={"config": to_dict(run_config), "test": dict(result.test)},
    )
    append_result(lines, result)
    checkpoint.unlink(missing_ok=True)
    out.print(str(model.embeddings.memory_report()), highlight=False)
    folder = target / "model" / "encoder"
    dictionary = sum(f.stat().st_size for f in folder.iterdir() if f.suffix == ".arrow")
    out.print(f"(raw value -> id dictionaries, the same for every method: {size(dictionary)})")
    out.print(
        f"test AUC {result.test['auc']:.4f}, log-loss {result.test['log_loss']:.4f} "
        f"(validation {result.validation['auc']:.4f}); model in {target / 'model'}"
    )


def training_bar(bars: Any, title: str) -> Any:
    """A progress callable for `train`: one bar of steps, with the last validation AUC."""
    task = bars.add_task(title, total=None, note="")

    def update(step: int, total: int, state: Any) -> None:
        note = f"auc {state.curve[-1]['auc']:.4f}" if state.curve else ""
        bars.update(task, completed=step, total=total, note=note)
        if step == total:
            bars.update(task, visible=False)

    return update
