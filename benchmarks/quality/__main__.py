"""The ranking on MovieLens-1M, in some minutes on two cores.

    python benchmarks/quality --quick [MOVIELENS] [FOLDER]

One seed, two epochs, 16x; MOVIELENS is the folder of `ratings.dat` (default: $LMA_DATA/ml-1m),
FOLDER is where the prepared log and the result lines go (default: runs/quick). Stopped, it goes on
where it was. Without --quick it says which command makes which table of `docs/results/`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Prepare the log unless it is there, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movielens", type=Path, nargs="?")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/quick"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if not arguments.quick:
        for config in sorted(HERE.glob("*.toml")):
            lines = config.read_text().splitlines()
            print(f"{config.name}: {lines[0].lstrip('# ')}")
        return
    source = arguments.movielens
    if source is None:
        if "LMA_DATA" not in os.environ:
            parser.error("say where MovieLens-1M is, or set LMA_DATA")
        source = Path(os.environ["LMA_DATA"]) / "ml-1m"
    log = arguments.folder / "ml-1m"
    if not (log / "meta.json").exists():
        lma("prepare", "movielens", source, log)
    lma("compare", log, arguments.folder / "results.jsonl", "-c", HERE / "quick.toml")


def lma(*arguments: str | Path) -> None:
    """Run the command line, and end with its status where it fails."""
    status = subprocess.run([sys.executable, "-m", "lma", *map(str, arguments)], check=False)
    if status.returncode:
        sys.exit(status.returncode)


if __name__ == "__main__":
    main()
