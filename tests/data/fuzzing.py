"""Random damage to small logs: readers may refuse them, but only with a DataError.

As a program it runs for a while and keeps every input that breaks a rule in `fuzz_seeds/`, where
`test_fuzz.py` finds it:

    python tests/data/fuzzing.py --seconds 600
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from lma.data import TableSchema, prepare, read_raw
from lma.data import text_blocks as blocks_module
from lma.errors import DataError

SPLITS = ("train", "validation", "test")
SEEDS = Path(__file__).with_name("fuzz_seeds")

TABLE = TableSchema.from_dict(
    {
        **{"label": "y", "dense": ["x"], "one_hot": ["u"], "weight": "w", "time": "t"},
        "multi_hot": [{"name": "m", "separator": "|"}],
    }
)
_TIMES = ["2024-01-01 00:00:00", "2024-02-29 23:59:59"]
_CSV = ["y,x,u,m,w,t"] + [
    f'{n % 2},{n / 3},"u{n}",a|b,1,{_TIMES[n % 2]}' if n % 3 else f"{n % 2},,u,,2.5,{_TIMES[0]}"
    for n in range(30)
]
_JSON = [
    f'{{"y": {n % 2}, "x": {n}.5, "u": "u{n}", "m": ["a", {n}], "w": 1, "t": "{_TIMES[0]}"}}'
    for n in range(20)
]
_CRITEO = [
    "\t".join(["01"[n % 2], *(str(j * n - 5) if j % 4 else "" for j in range(13))])
    + "\t"
    + "\t".join(f"{n * 977 + f:08x}" if (n + f) % 5 else "" for f in range(26))
    for n in range(25)
]
_AVAZU_NAMES = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,"
    "app_category,device_id,device_ip,device_model,device_type,device_conn_type,"
    "C14,C15,C16,C17,C18,C19,C20,C21"
)
_AVAZU = [_AVAZU_NAMES] + [
    f"{n},{n % 2},141021{n % 24:02d},1005,0,"
    + ",".join(f"{n * 31 + f:08x}" for f in range(9))
    + ",1,0,15706,320,50,1722,0,35,-1,79"
    for n in range(20)
]
BASES = {
    "criteo": "\n".join(_CRITEO).encode() + b"\n",
    "avazu": "\n".join(_AVAZU).encode() + b"\n",
    "table.csv": "\n".join(_CSV).encode() + b"\n",
    "table.jsonl": "\n".join(_JSON).encode() + b"\n",
}
_PIECES = [
    *(b"\t", b"\n", b"\r\n", b"\r", b",", b'"', b'""', b"\\", b"|", b"\x00", b"\xff", b"\xc3"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b"nan", b"inf", b"-", b"--1", b"+1", b" 1", b"1_0", b"1e5"),
    *(b"1e999", b"9" * 25, b"0x1", b"null", b"NaN", b"[", b"{", b"}" * 5, b"\xe2\x80\xa8", b"\x0b"),
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"true", b"0.0", b"-0", b"deadbeef", b"DEADBEEF", b""),
]
_HEX = re.compile(rb"(?:[0-9a-fA-F]{8})?")
_INTEGER = re.compile(rb"(?:-?[0-9]{1,19})?")


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """A few random changes."""
    for _ in range(rng.integers(1, 6)):
        if not data:
            return data
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 12))
        kind = rng.integers(7)
        if kind == 0:
            data = data[:at] + bytes([rng.integers(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind in (2, 3):
            data = data[:at] + _PIECES[rng.integers(len(_PIECES))] + data[at:]
        elif kind == 4:
            data = data[:at] + data[at : at + 20 * length] + data[at:]
        elif kind == 5 and rng.integers(5) == 0:
            data = data[:at]
        elif kind == 6 and rng.integers(20) == 0:
            data = gzip.compress(data)
            data = data[: len(data) - int(rng.integers(0, 3))]
    return data


def run(kind: str, data: bytes, folder: Path, block_bytes: int = 1 << 24) -> str:
    """Read one input and compare what is read with a plain reading.

    Returns:
        "read" or "refused".

    Raises:
        Exception: A rule is broken.
    """
    path = folder / (kind if "." in kind else "log.txt")
    path.write_bytes(data)
    options = {"schema": TABLE} if kind.startswith("table") else {}
    usual, blocks_module.BLOCK_BYTES = blocks_module.BLOCK_BYTES, block_bytes
    try:
        frames = read_raw(kind.split(".")[0], path, on_error="skip", max_bad=10**9, **options)
        frame = pl.concat(list(frames))
    except DataError:
        return "refused"
    finally:
        blocks_module.BLOCK_BYTES = usual
    if kind == "criteo":
        compare_parsers(path, folder_of(path))
    if kind == "criteo" and data[:2] != b"\x1f\x8b" and data[:4] != b"\x28\xb5\x2f\xfd":
        compare_criteo(data, frame)
    elif "label" in frame.columns and not frame["label"].is_in([0.0, 1.0]).all():
        raise ValueError("a label is not 0 or 1")
    return "read"


def folder_of(path: Path) -> Path:
    """A fresh folder beside a file."""
    return Path(tempfile.mkdtemp(dir=path.parent))


def compare_parsers(path: Path, folder: Path) -> None:
    """Whether the compiled and the readable parser prepare the same dataset, or both refuse."""
    found = []
    for compiled in (False, True):
        try:
            data = prepare(
                "criteo",
                path,
                folder / str(compiled),
                on_error="skip",
                max_bad=10**9,
                compiled=compiled,
                split="random",
            )
        except DataError as error:
            found.append(("refused", str(error)))
            continue
        batches = [b for split in SPLITS for b in data.batches(split, 1 << 16)]
        tensors = [t.numpy().tobytes() for b in batches for t in (b.dense, b.values, b.labels)]
        found.append((data.meta["rows"], data.meta["bad_rows"], tensors))
    if found[0] != found[1]:
        raise ValueError(f"the parsers differ: {found[0][:2]} and {found[1][:2]}")


def compare_criteo(data: bytes, frame: pl.DataFrame) -> None:
    """Whether a frame holds exactly the good lines of a file."""
    labelled = "label" in frame.columns
    wanted = []
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    for line in data.removesuffix(b"\n").split(b"\n"):
        fields = line.split(b"\t")
        if labelled and fields.pop(0) not in (b"0", b"1"):
            continue
        good = len(fields) == 39 and all(map(_HEX.fullmatch, fields[13:]))
        good = good and all(map(_INTEGER.fullmatch, fields[:13]))
        if good and all(-(2**63) <= int(field or 0) < 2**63 for field in fields[:13]):
            numbers = [float(int(field)) if field else None for field in fields[:13]]
            wanted.append((*numbers, *(field.decode() for field in fields[13:])))
    found = frame.drop("label", strict=False).with_columns(pl.col(pl.String).fill_null(""))
    if found.rows() != wanted:
        raise ValueError(f"{len(found)} rows read, {len(wanted)} expected, or other values")


def main() -> None:
    """Fuzz for a while; report and keep what breaks a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    end, runs, read, broken = time.monotonic() + arguments.seconds, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            kind = list(BASES)[rng.integers(len(BASES))]
            data = mutate(rng, BASES[kind])
            block_bytes = int(rng.choice([64, 500, 1 << 24]))
            runs += 1
            try:
                read += run(kind, data, Path(folder), block_bytes) == "read"
            except Exception as error:
                broken += 1
                SEEDS.mkdir(exist_ok=True)
                name = f"{kind}@{block_bytes}@{hashlib.sha256(data).hexdigest()[:12]}"
                (SEEDS / name).write_bytes(data)
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
    print(f"seed {arguments.seed}: {runs} inputs, {read} read, {broken} broke a rule")


if __name__ == "__main__":
    main()
