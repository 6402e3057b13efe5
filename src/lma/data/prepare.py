"""From a raw log to a prepared dataset, in one pass over the text and bounded memory.

Pass one reads the log, hashes every categorical value to 64 bits, and writes shards; with
dictionary ids it also counts the training rows' tokens. Pass two replaces hashes by ranks, shard
by shard. Everything happens in `OUT.partial`, which takes its final name when complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.column_hash import HashedRows, hash_rows, one_array
from lma.data.criteo_parser import texts_of_hashes
from lma.data.dataset import ENCODER_FOLDER, FORMAT_VERSION, META_FILE, Dataset
from lma.data.dictionary import Dictionary
from lma.data.encoder import RowEncoder
from lma.data.formats import PathLike, open_log
from lma.data.output_folder import OutputFolder
from lma.data.prefetch import prefetch
from lma.data.raw import LABEL, LogReader, RawChunk
from lma.data.shard_writer import ShardWriter
from lma.data.shards import checksum, file_pieces, read_shard
from lma.data.splits import SPLITS, RandomSplit, Split
from lma.data.token_counter import TokenCounter
from lma.errors import DataError
from lma.hashing import HASH_VERSION
from lma.version import __version__

MAX_TOKENS: Final = 50_000_000

Progress = Callable[[int, int, int], None]


def prepare(
    format: str,
    inputs: Sequence[PathLike] | PathLike,
    out: PathLike,
    *,
    ids: str = "dictionary",
    split: str | None = None,
    seed: int = 0,
    min_count: int = 1,
    max_rows: int | None = None,
    max_tokens: int = MAX_TOKENS,
    on_error: str = "fail",
    max_bad: int | float | str = "0.1%",
    name: str | None = None,
    description: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Prepare a raw log for training.

    Args:
        format: "criteo", "avazu", "movielens", "frappe", "interactions" or "table".
        inputs: Files or folders of the log, in the order of time.
        out: Folder of the dataset. A dataset that is there is replaced when the new one is
            complete; any other folder with something in it is refused.
        ids: "dictionary": ids ranked by training support, exact; "hashed": 64-bit string hashes,
            no vocabulary at all.
        split: "time" (last day: first half validation, second half test) or "random" (80/10/10
            by a seeded hash of the row number); default: the format's own.
        seed: Seed of the random split and of sampled negatives.
        min_count: Tokens with fewer training rows share the id of unseen values.
        max_rows: Read only the first so many rows.
        max_tokens: The most distinct tokens a dictionary may count (about 50 bytes of memory
            each).
        on_error: "fail" at the first bad row, or "skip" bad rows and write them to
            `OUT.rejects.jsonl`.
        max_bad: With "skip", how many rows (int), or which share of them ("0.1%"), may be bad.
        name: Name of the dataset, in place of the format's.
        description: One sentence in place of the format's; say there if a log is synthetic.
        progress: Called with (rows done, bytes done, bytes in all) after every chunk.
        options: The format's own options.

    Returns:
        The dataset, opened.

    Raises:
        ValueError: An argument is out of its range.
        DataError: The log is bad; nothing is left behind but the rejects.
    """
    if ids not in ("dictionary", "hashed"):
        raise ValueError(f'ids must be "dictionary" or "hashed", found {ids!r}')
    for argument, value in (("min_count", min_count), ("max_tokens", max_tokens)):
        if value < 1:
            raise ValueError(f"{argument} must be at least 1, found {value}")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, found {max_rows}")
    reader = open_log(format, inputs, seed=seed, **options)
    assigned = _choose_split(reader, split, seed, max_rows)
    target = Path(out)
    bad = BadRows(on_error, max_bad, target.with_name(target.name + ".rejects.jsonl"))
    try:
        with OutputFolder(target) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
            run = _Run(folder, reader, assigned, ids == "hashed", max_tokens, pool)
            run.read(bad, max_rows, progress)
            run.number_tokens(min_count)
            meta = run.finish(bad)
            meta["schema"]["name"] = name or meta["schema"]["name"]
            meta["schema"]["description"] = description or meta["schema"]["description"]
            meta = {
                "format_version": FORMAT_VERSION,
                "format": format,
                "ids": ids,
                "min_count": min_count,
                "max_rows": max_rows,
                "split": assigned.to_dict(),
                **meta,
                "sources": [_source(file) for file in reader.files],
                "versions": _versions(),
            }
            (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    finally:
        bad.close()
    return Dataset.open(target)


class _Run:
    """One preparation in its temporary folder."""

    def __init__(
        self,
        folder: Path,
        reader: LogReader,
        split: Split,
        hashed: bool,
        max_tokens: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._folder, self._reader, self._split = folder, reader, split
        self._hashed, self._max_tokens, self._pool = hashed, max_tokens, pool
        self._encoder = RowEncoder(reader.schema)
        self._raw = folder if hashed else folder / "hashed"
        self._values = folder / "values"
        for path in (self._raw, self._values):
            path.mkdir(exist_ok=True)
        self._writers = [
            ShardWriter(self._raw, name, self._encoder.schema, np.int64, pool) for name in SPLITS
        ]
        self._counters = [
            TokenCounter(self._values / f"{f}.arrow") for f in range(len(reader.schema.features))
        ]

    def read(self, bad: BadRows, max_rows: int | None, progress: Progress | None) -> None:
        """Pass one: text to shards of hashes, tokens counted."""
        total = sum(file.stat().st_size for file in self._reader.files)
        done = 0
        # Parsing, hashing and sorting into shards overlap.
        chunks = prefetch(_not_hopeless(self._reader.chunks(bad, max_rows), bad), 1)
        with contextlib.closing(prefetch(self._hash(chunks), 1)) as hashed:
            for chunk, rows in hashed:
                self._add(chunk, rows)
                done += len(chunk.rows)
                if progress is not None:
                    progress(done, chunk.bytes_done, total)
        for writer in self._writers:
            writer.close()
        bad.check(done + bad.count)
        if not self._writers[0].rows:
            raise DataError(
                f"{self._reader.files[0]}: no training rows: {done} usable rows, "
                f"{bad.count} bad ones"
            )

    def _hash(
        self, chunks: Iterator[RawChunk]
    ) -> Generator[tuple[RawChunk, HashedRows], None, None]:
        for chunk in chunks:
            rows = chunk.hashed
            if chunk.table is not None:
                if LABEL not in chunk.table.column_names:
                    raise DataError(f"{self._reader.files[0]}: there is no label column")
                rows = hash_rows(chunk.table, self._reader.schema, self._pool.map)
            if rows is None:
                raise DataError(f"{self._reader.files[0]}: a chunk without rows")
            if not np.isin(rows.labels, (0, 1)).all():
                raise DataError(f"{self._reader.files[0]}: labels must be 0 or 1")
            yield chunk, rows

    def _add(self, chunk: RawChunk, rows: HashedRows) -> None:
        part = self._split.assign(chunk.rows, chunk.times)
        counting = [] if self._hashed else self._count(chunk, rows, part == 0)
        for number, writer in enumerate(self._writers):
            chosen = np.flatnonzero(part == number)
            writer.append(rows, None if len(chosen) == len(rows) else chosen)
        for job in counting:
            job.result()
        tokens = sum(map(len, self._counters))
        if tokens > self._max_tokens:
            raise DataError(
                f"more than {self._max_tokens:,} distinct tokens (max_tokens) in the first "
                f'{int(chunk.rows[-1]) + 1:,} rows; use ids="hashed", which needs no dictionary, '
                "or raise max_tokens (about 50 bytes of memory each)"
            )

    def _count(self, chunk: RawChunk, rows: HashedRows, train: Any) -> list[Any]:
        """Start counting the training rows' tokens, one job per feature."""
        if not train.any():
            return []
        one_hot, bags = iter(rows.one_hot), iter(rows.bags)
        jobs = []
        for counter, feature in zip(self._counters, self._reader.schema.features, strict=True):
            strings = texts_of_hashes if chunk.table is None else chunk.table.column(feature.name)
            if feature.multi_hot:
                values, lengths = next(bags)
                jobs.append(
                    self._pool.submit(
                        _count_tokens, counter, values, strings, np.repeat(train, lengths)
                    )
                )
            else:
                jobs.append(
                    self._pool.submit(_count_tokens, counter, next(one_hot), strings, train)
                )
        return jobs

    def number_tokens(self, min_count: int) -> None:
        """Pass two: hashes to dictionary ids."""
        if self._hashed:
            shutil.rmtree(self._values)
            return
        titles = self._reader.titles()
        dictionaries = []
        for counter, feature in zip(self._counters, self._reader.schema.features, strict=True):
            dictionary = Dictionary.from_counter(counter, min_count)
            if feature.name in titles:
                dictionary.with_titles(titles[feature.name])
            dictionaries.append(dictionary)
        self._counters.clear()
        shutil.rmtree(self._values)
        hashed_schema = self._encoder.schema
        self._encoder = RowEncoder(self._reader.schema, dictionaries)
        largest = max((len(dictionary) for dictionary in dictionaries), default=0)
        id_type = np.int32 if largest < 2**31 else np.int64
        for number, split in enumerate(SPLITS):
            writer = ShardWriter(self._folder, split, self._encoder.schema, id_type, self._pool)
            for shard in self._writers[number].files:
                path = self._raw / shard["file"]
                for group in read_shard(path, hashed_schema):
                    writer.append(self._encoder.to_ids(group.columns(), self._pool.map))
                path.unlink()
            writer.close()
            self._writers[number] = writer
        self._raw.rmdir()

    def finish(self, bad: BadRows) -> dict[str, Any]:
        """Save the encoder; what there is to say about the dataset."""
        folder = self._folder / ENCODER_FOLDER
        self._encoder.save(folder)
        rows = sum(writer.rows for writer in self._writers)
        positives = sum(writer.positives for writer in self._writers)
        return {
            "schema": self._encoder.schema.to_dict(),
            "rows": rows,
            "bad_rows": bad.count,
            "label_rate": positives / rows,
            "splits": {
                split: {
                    "rows": writer.rows,
                    "label_rate": writer.positives / writer.rows if writer.rows else None,
                    "shards": writer.files,
                }
                for split, writer in zip(SPLITS, self._writers, strict=True)
            },
            "encoder": {
                f"{ENCODER_FOLDER}/{file.name}": checksum(file) for file in sorted(folder.iterdir())
            },
        }


def _count_tokens(counter: TokenCounter, ids: Any, column: Any, train: Any) -> None:
    import pyarrow as pa

    chosen = None if train.all() else np.flatnonzero(train)
    if callable(column):
        counter.update(ids, column, chosen)
        return
    strings = one_array(column)
    if pa.types.is_list(strings.type) or pa.types.is_large_list(strings.type):
        strings = strings.flatten()
    counter.update(ids, strings, chosen)


def _choose_split(reader: LogReader, split: str | None, seed: int, max_rows: int | None) -> Split:
    chosen = split or reader.default_split
    if chosen == "random":
        return RandomSplit(seed)
    if chosen == "time":
        return reader.time_split(max_rows)
    raise ValueError(f'split must be "time" or "random", found {chosen!r}')


def _source(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    for piece in file_pieces(file):
        digest.update(piece)
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": digest.hexdigest()}


def _versions() -> dict[str, Any]:
    import polars as pl
    import pyarrow as pa

    return {
        "lma": __version__,
        "hash": HASH_VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "polars": pl.__version__,
        "pyarrow": pa.__version__,
    }


def _not_hopeless(chunks: Iterator[RawChunk], bad: BadRows) -> Iterator[RawChunk]:
    """The chunks, until far too many rows were bad.

    Asked where chunks are parsed: further down the pipeline bad rows of later chunks have been
    counted already, and good ones not.
    """
    good = 0
    for chunk in chunks:
        good += len(chunk.rows)
        if bad.hopeless(good + bad.count):
            bad.check(good + bad.count)
        yield chunk
