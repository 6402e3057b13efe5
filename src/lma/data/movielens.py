"""MovieLens-1M from a folder with `ratings.parquet`, `users.parquet` and `movies.parquet`.

The label is rating >= 4. The year is taken from the end of the title, "Toy Story (1995)".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.parquet_rows import ParquetRows
from lma.data.raw import LABEL, RawChunk, RawFeature, RawSchema
from lma.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from lma.data.splits import Split

LIKED: Final = 4
CHUNK_ROWS: Final = 1 << 18
_COLUMNS: Final = {
    "ratings": ("user", "movie", "rating"),
    "users": ("user", "gender", "age", "occupation", "zip"),
    "movies": ("movie", "title", "genres"),
}

SCHEMA: Final = RawSchema(
    name="movielens-1m",
    dense=(),
    features=(
        *(RawFeature(n) for n in ("user", "movie", "gender", "age", "occupation", "zip", "year")),
        RawFeature("genres", multi_hot=True),
    ),
    description="MovieLens-1M (GroupLens); label: rating >= 4",
)


def _read(file: Path) -> pl.DataFrame:
    """The columns that matter of one of the three files.

    Raises:
        DataError: The file is damaged, lacks a column or has no rows.
    """
    import polars as pl

    source, wanted = ParquetRows(), _COLUMNS[file.stem]
    names = source.header(file)
    for name in wanted:
        if name not in names:
            raise DataError(f"{file}: column {name!r} is missing; there are {', '.join(names)}")
    frames = [rows.frame for rows in source.read(file, wanted, BadRows())]
    if not frames:
        raise DataError(f"{file}: the file has no rows")
    return pl.concat(frames)


class MovieLensReader:
    """Reads the folder's three tables and joins them, in the order of the ratings.

    Args:
        inputs: The folder, alone.

    Raises:
        DataError: A file or a column is missing.
    """

    schema = SCHEMA
    default_split = "random"

    def __init__(self, inputs: Sequence[Path]) -> None:
        if len(inputs) != 1 or not inputs[0].is_dir():
            raise DataError(
                "movielens: expected one folder with ratings.parquet, users.parquet and "
                f"movies.parquet, found {', '.join(map(str, inputs)) or 'nothing'}"
            )
        self.files = tuple(inputs[0] / f"{name}.parquet" for name in _COLUMNS)
        for file in self.files:
            if not file.exists():
                raise DataError(f"{file}: no such file")

    @cached_property
    def _tables(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        users, movies, ratings = (_read(self.files[n]) for n in (1, 2, 0))
        return ratings, users, movies

    def titles(self) -> dict[str, dict[str, str]]:
        """Movie titles by movie."""
        movies = self._tables[2]
        return {"movie": dict(zip(movies["movie"].cast(str), movies["title"], strict=True))}

    def time_split(self, max_rows: int | None = None) -> Split:
        """This copy of MovieLens has no timestamps."""
        raise ValueError('movielens: the log has no timestamps; use split="random"')

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """The ratings with their users' and movies' columns.

        Raises:
            DataError: A file is unusable, or a row is bad and `bad` fails.
        """
        import polars as pl

        ratings, users, movies = self._tables
        features = [feature.name for feature in SCHEMA.features]
        movies = movies.with_columns(
            pl.col("title").str.extract(r"\((\d{4})\)\s*$").alias("year"),
            # An empty text is an empty bag, not a bag of one empty genre.
            pl.when(pl.col("genres").str.len_bytes() > 0)
            .then(pl.col("genres").str.split("|"))
            .otherwise(pl.lit([], pl.List(pl.String)))
            .alias("genres"),
        )
        ratings = ratings if max_rows is None else ratings.head(max_rows)
        size = sum(file.stat().st_size for file in self.files)
        for start in range(0, len(ratings), CHUNK_ROWS):
            rows = (
                ratings.slice(start, CHUNK_ROWS)
                .join(users, on="user", how="left", maintain_order="left")
                .join(movies, on="movie", how="left", maintain_order="left")
            )
            unusable = rows["rating"].is_null() | ~rows["rating"].is_between(1, 5)
            for index in unusable.fill_null(True).arg_true():
                bad.add(
                    "the rating must be 1 to 5",
                    file=self.files[0],
                    line=start + index + 1,
                    column_name="rating",
                    text=str(rows["rating"][index]),
                )
            usable = ~unusable.fill_null(True)
            kept = np.flatnonzero(usable.to_numpy()).astype(np.int64)
            rows = rows.filter(usable).select(
                (pl.col("rating") >= LIKED).cast(pl.Float32).alias(LABEL),
                *(pl.col(n).cast(pl.String) for n in features if n != "genres"),
                "genres",
            )
            table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
            done = min(start + CHUNK_ROWS, len(ratings)) / len(ratings)
            yield RawChunk(table, start + kept, int(size * done))
