"""The default beside the best alternative of the same bytes, for every log and budget: a table.

    python benchmarks/quality/summary.py

Reads `benchmarks/results/`. The alternative is the one with the best validation AUC, mean over
seeds, of all methods but LMA's within the budget; differences are of test AUC, paired by seed, with
their 95 % interval (Student's t). One seed has none.
"""

import statistics
from collections import defaultdict
from pathlib import Path

from scipy.stats import t

from lma.results import RunResult, read_results

RESULTS = Path(__file__).resolve().parents[1] / "results"
LOGS = {
    "movielens-1m": "MovieLens-1M",
    "frappe": "Frappe",
    "amazon-book": "Amazon-book",
    "synthetic-small": "synthetic, small",
    "synthetic-small-0": "the same, strength 0",
    "synthetic": "synthetic, 2 million rows",
}
FILES = ("movielens-1m", "frappe", "amazon-book", "synthetic-small", "synthetic")
NAMES = {"interactions": "amazon-book"}  # prepared before `lma prepare` was told a name
CONTROL = "lma, codes permuted"
Runs = dict[int, RunResult]


def main() -> None:
    """Print the table as Markdown."""
    cells: dict[tuple[str, str], dict[str, Runs]] = defaultdict(lambda: defaultdict(dict))
    for name in FILES:
        for result in read_results(RESULTS / f"{name}.jsonl"):
            key = NAMES.get(result.dataset, result.dataset), result.target
            cells[key][result.method][result.seed] = result
    print("| log | budget | `lma` | best alternative | difference | full | to full | permuted |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for log, label in LOGS.items():
        full = cells[log, ""].get("full", {})
        for target in ("16x", "64x", "256x"):
            methods = cells.get((log, target), {})
            if "lma" in methods:
                print("| " + " | ".join(row(label, target, methods, full)) + " |")


def row(label: str, target: str, methods: dict[str, Runs], full: Runs) -> list[str]:
    """One line of the table."""
    own = methods["lma"]
    others = {name: runs for name, runs in methods.items() if not name.startswith("lma")}
    best = max(others, key=lambda name: mean(others[name], "validation"), default="")
    found = [label, target, f"{mean(own):.4f}"]
    found += (
        [f"{best} {mean(others[best]):.4f}", difference(own, others[best])] if best else [""] * 2
    )
    found += [f"{mean(full):.4f}", difference(own, full)] if full else [""] * 2
    return [*found, f"{mean(methods[CONTROL]):.4f}" if CONTROL in methods else ""]


def mean(runs: Runs, split: str = "test") -> float:
    """AUC, mean over seeds."""
    return statistics.mean(getattr(result, split)["auc"] for result in runs.values())


def difference(one: Runs, other: Runs) -> str:
    """Mean test AUC of `one` less that of `other` over the seeds that both have."""
    pairs = [one[s].test["auc"] - other[s].test["auc"] for s in one.keys() & other.keys()]
    if not pairs:
        return ""
    text = f"{statistics.mean(pairs):+.4f}"
    if len(pairs) > 1:
        error = statistics.stdev(pairs) / len(pairs) ** 0.5
        text += f" ± {error * float(t.ppf(0.975, len(pairs) - 1)):.4f}"
    return text.replace("-", "\N{MINUS SIGN}")


if __name__ == "__main__":
    main()
