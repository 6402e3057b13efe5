"""`lma signatures`: fit the signatures of a dataset and keep them in a folder."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.progress import Progress, TaskID

from lma.cli.console import out, progress, size

CHECKPOINT = "checkpoint.pickle"


def signatures(
    dataset: Path = typer.Argument(help="A prepared dataset."),
    target: Path = typer.Argument(metavar="OUT", help="Folder for signatures.safetensors."),
    method: str = typer.Option("lma-learned", help="The method they are for."),
    setting: list[str] = typer.Option(
        [], "--set", "-s", help="A setting of the method, key=value: num_codes=32."
    ),
    budget: str = typer.Option(
        "", help="Bytes for codes and index, such as 20MB; else all tokens with enough support."
    ),
    max_tokens: int = typer.Option(
        0, help="Most tokens to hold per table of hashed ids while counting; 0: all."
    ),
    keep_ids: bool = typer.Option(
        False, help="Keep hashed ids beside the codes, for `SignatureTable.neighbours`."
    ),
    checkpoint_rows: int = typer.Option(1 << 24, help="Rows between two checkpoints."),
) -> None:
    """Fit signatures on the training rows of a dataset.

    Stopped or killed, the same command goes on from its last checkpoint and ends in the same bits.

    Examples:

        lma signatures data/movielens runs/signatures

        lma signatures data/criteo runs/rows --method lma-rows --set num_codes=32

        lma signatures data/hashed runs/small --budget 20MB --max-tokens 50000000
    """
    from lma.allocation.tables import parse_bytes
    from lma.cli.settings import parse_options
    from lma.data import Dataset
    from lma.signatures import FitCheckpoint, TableStats, fit_signatures
    from lma.training import ConfigError, method_spec
    from lma.training.experiment import dataset_fingerprint

    _, config = method_spec(method).configure(parse_options(setting))
    if config is None:
        raise ConfigError(f"method {method!r} has no signatures")
    data = Dataset.open(dataset)
    budget_bytes = parse_bytes(budget) if budget else None
    identity = f"{data.schema.name} {dataset_fingerprint(data)}, {config}, {budget}, {max_tokens}"
    checkpoint = FitCheckpoint(target / CHECKPOINT, identity, checkpoint_rows)
    signed = None
    if budget_bytes is None:
        # A dictionary knows supports beforehand: no memory goes to tokens that get no signature.
        signed = {
            f.name: TableStats(f.name, *data.support_histogram(f.name)).tokens_with(
                config.min_support
            )
            for f in data.schema.features
            if f.num_embeddings is not None
        }
    with progress() as bars:
        bar = StageBars(bars, data.num_rows("train"))
        table = fit_signatures(
            data,
            config,
            num_signed=signed,
            budget_bytes=budget_bytes,
            max_tokens=max_tokens or None,
            keep_ids=keep_ids,
            progress=bar.rows_done,
            stage=bar.begin,
            checkpoint=checkpoint,
        )
        bar.end()
    # Dictionary ids mean something beside the same dictionary alone (`lma drift` checks).
    if any(section.index == "prefix" for section in table.sections):
        table.provenance["dictionaries"] = data.meta["encoder"]
    table.save(target)
    checkpoint.remove()
    out.print(
        f"{target}: {sum(s.num_signed for s in table.sections):,} tokens signed, "
        f"{size(table.signature_bytes)} of codes, {size(table.index_bytes)} of index"
    )
    for name, rows in table.provenance.get("may_miss_tokens_of_rows", {}).items():
        out.print(f"{name}: tokens of up to {rows} rows may be missing; raise --max-tokens")


class StageBars:
    """A bar for every pass over the log, with rows per second, and one for what lies between."""

    def __init__(self, bars: Progress, rows: int) -> None:
        self._bars, self._rows = bars, rows
        self._task: TaskID | None = None

    def begin(self, name: str) -> None:
        """The next stage; the one before is over."""
        self.end()
        self._task = self._bars.add_task(name, total=None, note="")

    def end(self) -> None:
        """Stop the clock of the last stage."""
        if self._task is not None and self._bars.tasks[-1].total is None:
            # A stage that counts nothing has a bar all the same, which is full now.
            self._bars.update(self._task, completed=1, total=1)

    def rows_done(self, done: int, total: int, tokens: int) -> None:
        """Rows of all passes so far, rows in all, tokens seen."""
        if self._task is None:
            return
        here = done % self._rows or self._rows if done else 0
        self._bars.update(self._task, completed=here, total=self._rows)
        speed = self._bars.tasks[-1].speed or 0.0
        self._bars.update(self._task, note=f"{speed / 1000:,.0f}k rows/s, {tokens:,} tokens")
