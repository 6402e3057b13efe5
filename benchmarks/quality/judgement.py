"""What training rows say of codes and of rows: the judgement by which the default chooses.

    python benchmarks/quality/judgement.py runs/synthetic-small [LOG ...] [--budgets 16x 64x 256x]

A line per log and budget: AUC of naive Bayes over groups of tokens (`lma.allocation.judgement`),
for the codes that the default would make and for 8-bit rows of every width, without what
`lma.nn.for_log` adds to either. Only logs of real labels and of more than two features are judged.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from lma.allocation import Auto, Budget, Table
from lma.allocation.fitted import fitted_allocation
from lma.allocation.judgement import judge
from lma.allocation.tables import REFERENCE_DIM
from lma.data import Dataset
from lma.nn.for_log import similarity_of
from lma.signatures import LogStats, fit_signatures


def judged(log: Dataset, budget: str) -> dict[str, float]:
    """AUC of the codes and of rows, by their name."""
    stats = LogStats.from_dataset(log)
    tables = [Table(f.name, f.num_embeddings, REFERENCE_DIM) for f in log.schema.features]
    resolved = Budget.of(budget, None, stats.num_tokens)
    if resolved is None:
        raise ValueError(f"no budget: {budget!r}")
    method = dataclasses.replace(Auto(), similarity=similarity_of(log))
    choice = method.choose(tables, resolved, stats)
    layouts = {}
    if choice.signatures is not None:
        layouts["codes"] = fitted_allocation(
            choice.method, choice.signatures, choice.tables, choice.budget, stats,
            lambda config, signed: fit_signatures(log, config, num_signed=signed),
        )  # fmt: skip
    for rows in method.rows(tables, resolved, "int8"):
        name = f"rows of {rows.tables[0].embedding_dim}"
        layouts[name] = rows.method.allocate(rows.tables, rows.budget, stats=stats)
    return dict(zip(layouts, judge(log, list(layouts.values())), strict=True))


def main() -> None:
    """Print a line per log and budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", type=Path, nargs="+", help="prepared logs")
    parser.add_argument("--budgets", nargs="+", default=["16x", "64x", "256x"])
    words = parser.parse_args()
    for path in words.logs:
        log = Dataset.open(path)
        if similarity_of(log) != "context":
            parser.error(f"{path}: labels of this log judge nothing, see lma.nn.for_log")
        for budget in words.budgets:
            found = judged(log, budget)
            print(
                path.name, budget, *(f"{name} {auc:.4f}" for name, auc in found.items()), sep="  "
            )


if __name__ == "__main__":
    main()
