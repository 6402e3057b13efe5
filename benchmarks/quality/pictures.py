"""Draw the pictures of README and docs from the result lines.

python benchmarks/quality/pictures.py
"""

import dataclasses
from pathlib import Path

from lma.report import save_plot
from lma.results import RunResult, read_results

ROOT = Path(__file__).resolve().parents[2]
LINES, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
# Prepared before `lma prepare` was told a name; pictures call the log by its own.
NAMES = {"interactions": "amazon-book"}


def load(name: str) -> list[RunResult]:
    """Result lines of one file, under the names that pictures print."""
    return [
        dataclasses.replace(result, dataset=NAMES.get(result.dataset, result.dataset))
        for result in read_results(LINES / f"{name}.jsonl")
    ]


def main() -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    amazon, movielens = load("amazon-book"), load("movielens-1m")
    save_plot(amazon + movielens, IMAGES / "serving.png", size=(720, 430))
    save_plot(amazon, IMAGES / "amazon-book.png")
    save_plot(movielens, IMAGES / "movielens-1m.png")
    save_plot(load("movielens-1m-weights"), IMAGES / "movielens-1m-weights.png", x="weights")


if __name__ == "__main__":
    main()
