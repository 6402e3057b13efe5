"""A synthetic click log in Criteo's shape, from a known latent model.

Every draw is a hash of (seed, stream, row number): the log does not depend on the chunk size, nor
on a library's random generator, and any part of it can be made without the rest.

The latent model. A row has a user cluster u and an ad cluster a out of `NUM_CLUSTERS` each. A
categorical field belongs to one side, and so do its tokens to that side's clusters: token t of a
field is in cluster t mod NUM_CLUSTERS (a field with fewer tokens than clusters shows only a coarse
group). A row draws its token from the row's own cluster, or, with the field's noise, from any
cluster; inside a cluster popularity is Zipf's. Some fields are a coarser function of another one.

    logit = bias + SIGNAL * (sqrt(s) * clustered(u, a) + sqrt(1 - s) * sum_f w_f effect_f(token_f))
            + dense effects + noise

with s = `semantic_strength` and both token terms of unit variance: at s = 0 clusters say nothing
about the label, at s = 1 they say all that tokens can say.
"""

from __future__ import annotations

import gzip
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from lma.hashing import combine, stream_seed

if TYPE_CHECKING:
    import polars as pl

GENERATOR_VERSION: Final = 1
CRITEO_CARDINALITIES: Final = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
NUM_CLUSTERS: Final = 32
AFFINITY_RANK: Final = 3
# A field never shrinks below this many tokens (or its published number, if smaller).
SMALLEST_FIELD: Final = 48
CHUNK_ROWS: Final = 16_384  # small enough for a chunk's arrays to stay in cache

BIAS: Final = -1.97
SIGNAL: Final = 2.0
DENSE_SIGNAL: Final = 0.5
NOISE: Final = 0.3

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Field:
    """How one categorical field is drawn: its side, or the field it is a function of."""

    side: str  # "user", "ad" or "none"
    parent: int | None = None  # index of the field whose token decides this one
    noise: float = 0.3  # probability that the token is drawn without regard to cluster or parent
    zipf: float = 1.1
    empty: float = 0.0
    weight: float = 0.0  # of the token's own effect on the label


# C3 is the user, C16 a household, C24 a region; C12 the ad, C21 its creative, C4 a campaign, C10
# an advertiser. The small fields are device, hour, format and the like.
_FIELDS: Final = (
    _Field("user", noise=0.5, weight=0.5),  # C1
    _Field("none", weight=0.6),  # C2
    _Field("user", noise=0.1, zipf=0.75, empty=0.02, weight=1.0),  # C3
    _Field("ad", parent=11, noise=0.1, zipf=0.9, empty=0.02, weight=0.8),  # C4
    _Field("none"),  # C5
    _Field("user", noise=0.6, weight=0.3),  # C6
    _Field("none", zipf=1.0, weight=0.6),  # C7
    _Field("ad", noise=0.7),  # C8
    _Field("none", weight=0.3),  # C9
    _Field("ad", parent=3, noise=0.4, weight=0.8),  # C10
    _Field("none", zipf=1.0, weight=0.5),  # C11
    _Field("ad", noise=0.1, zipf=0.8, empty=0.02, weight=1.0),  # C12
    _Field("none"),  # C13
    _Field("ad", noise=0.6, weight=0.3),  # C14
    _Field("user", noise=0.5, zipf=1.0, weight=0.5),  # C15
    _Field("user", parent=2, noise=0.05, zipf=0.8, empty=0.02, weight=0.9),  # C16
    _Field("none", weight=0.3),  # C17
    _Field("ad", noise=0.5, weight=0.4),  # C18
    _Field("none", empty=0.44),  # C19
    _Field("user", noise=0.7, empty=0.44),  # C20
    _Field("ad", parent=11, noise=0.05, zipf=0.8, empty=0.02, weight=0.9),  # C21
    _Field("none", empty=0.76),  # C22
    _Field("none", weight=0.3),  # C23
    _Field("user", parent=15, noise=0.4, zipf=1.0, empty=0.03, weight=0.6),  # C24
    _Field("none", empty=0.44),  # C25
    _Field("ad", noise=0.5, zipf=1.0, empty=0.3, weight=0.5),  # C26
)

# Per integer column: mean and spread of log(1 + value), share missing, effect on the label.
_INTEGERS: Final = (
    (0.9, 1.1, 0.45, 0.6),
    (2.0, 2.2, 0.0, 0.1),
    (2.0, 1.4, 0.21, 0.2),
    (1.7, 1.0, 0.22, -0.3),
    (7.5, 2.4, 0.026, -0.5),
    (3.3, 1.9, 0.22, -0.3),
    (1.6, 1.4, 0.043, 0.5),
    (2.2, 1.1, 0.0005, 0.0),
    (3.6, 1.7, 0.043, 0.1),
    (0.4, 0.5, 0.45, 0.2),
    (0.9, 0.8, 0.043, 0.6),
    (0.2, 0.6, 0.765, 0.0),
    (1.7, 1.1, 0.22, -0.2),
)
_NEGATIVE_COLUMN: Final = 1  # I2: Criteo has values down to -2 there


def write_synthetic(
    path: str | os.PathLike[str],
    *,
    rows: int,
    scale: float = 1 / 256,
    seed: int = 0,
    semantic_strength: float = 0.8,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a synthetic click log in Criteo's TSV shape.

    Tab-separated without a header: label, 13 integers (may be empty or negative), 26 categories
    of 8 hex digits (may be empty). The label rate is about 0.25. The same arguments give the same
    bytes. The file appears under its name only when complete.

    Args:
        path: The file to write; gzip where the name ends in `.gz`.
        rows: Number of rows.
        scale: Share of Criteo Kaggle's published cardinalities, in (0, 1]. The default, with 200
            thousand rows, gives some 110 thousand tokens, most of them rare.
        seed: Seed of the latent model and of the rows.
        semantic_strength: How much of the tokens' signal lies in their clusters, in [0, 1].
        progress: Called with (rows written, rows) after every chunk.

    Returns:
        The path.

    Raises:
        ValueError: An argument is out of its range.
    """
    if rows < 0:
        raise ValueError(f"write_synthetic: rows must be >= 0, found {rows}")
    generator = SyntheticLog(scale=scale, seed=seed, semantic_strength=semantic_strength)
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _open_for_writing(partial, compressed=target.suffix == ".gz") as file:
            for first, frame in generator.frames(rows):
                text = io.BytesIO()
                frame.write_csv(text, separator="\t", include_header=False)
                file.write(text.getbuffer())
                if progress is not None:
                    progress(first + len(frame), rows)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _open_for_writing(path: Path, *, compressed: bool) -> IO[bytes]:
    if not compressed:
        return path.open("wb")
    # No time and no name in the header, so that equal logs are equal files.
    raw = path.open("wb")
    file = gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)
    file.myfileobj = cast(Any, raw)  # closed together with the gzip stream
    return cast("IO[bytes]", file)


class SyntheticLog:
    """The latent model and its rows; see the module's text.

    Args:
        scale: Share of the published cardinalities, in (0, 1].
        seed: Seed of model and rows.
        semantic_strength: In [0, 1].
    """

    def __init__(self, *, scale: float, seed: int, semantic_strength: float) -> None:
        if not 0 < scale <= 1:
            raise ValueError(
                "write_synthetic: scale is the share of Criteo's cardinalities, in (0, 1], "
                f"found {scale}"
            )
        if not 0 <= semantic_strength <= 1:
            raise ValueError(
                f"write_synthetic: semantic_strength must be in [0, 1], found {semantic_strength}"
            )
        self.seed = seed
        self.strength = semantic_strength
        self.cardinalities = tuple(
            max(round(n * scale), min(n, SMALLEST_FIELD)) for n in CRITEO_CARDINALITIES
        )
        sides = np.arange(NUM_CLUSTERS, dtype=np.int64)
        interests = [
            np.stack([self._normal(f"interest {k} of {side}", sides) for k in range(AFFINITY_RANK)])
            for side in ("users", "ads")
        ]
        self._affinity = _unit_variance(
            0.6 * self._normal("affinity of users", sides)[:, None]
            + 0.6 * self._normal("affinity of ads", sides)[None, :]
            + 0.6 * interests[0].T @ interests[1] / math.sqrt(AFFINITY_RANK)
        )

    def frames(self, rows: int, first_row: int = 0) -> Iterator[tuple[int, pl.DataFrame]]:
        """Rows `first_row` to `first_row + rows` in chunks: (first row of the chunk, frame).

        The frame has Criteo's columns: label, I1..I13 (int64, null = missing), C1..C26 (strings
        of 8 hex digits, null = empty).
        """
        import polars as pl

        for start in range(first_row, first_row + rows, CHUNK_ROWS):
            row = np.arange(start, min(start + CHUNK_ROWS, first_row + rows), dtype=np.int64)
            labels, integers, tokens = self.draw(row)
            columns: dict[str, Any] = {"label": labels}
            for j, (values, missing) in enumerate(integers):
                columns[f"I{j + 1}"] = pl.Series(values).set(pl.Series(missing), None)
            for f, (ids, empty) in enumerate(tokens):
                columns[f"C{f + 1}"] = _hex_strings(self._names(f, ids), empty)
            yield start, pl.DataFrame(columns)

    def draw(
        self, row: I64
    ) -> tuple[
        npt.NDArray[np.int8],
        list[tuple[I64, npt.NDArray[np.bool_]]],
        list[tuple[I64, npt.NDArray[np.bool_]]],
    ]:
        """Labels, (value, missing) per integer column and (token, empty) per field of `row`."""
        logit, integers, tokens = self.draw_logits(row)
        labels = self._uniform("label", row) < 1 / (1 + np.exp(-logit))
        return labels.astype(np.int8), integers, tokens

    def draw_logits(
        self, row: I64
    ) -> tuple[
        F64, list[tuple[I64, npt.NDArray[np.bool_]]], list[tuple[I64, npt.NDArray[np.bool_]]]
    ]:
        """As `draw`, with the logit (noise included) in place of the label."""
        clusters = {
            "user": self._cluster("user", row),
            "ad": self._cluster("ad", row),
        }
        tokens = self._tokens(row, clusters)
        logit = np.full(len(row), BIAS)
        clustered = self._affinity[clusters["user"], clusters["ad"]]
        own = np.zeros(len(row))
        total = math.sqrt(sum(field.weight**2 for field in _FIELDS))
        for f, field in enumerate(_FIELDS):
            if field.weight:
                own += field.weight / total * self._normal(f"effect of C{f + 1}", tokens[f][0])
        logit += SIGNAL * (
            math.sqrt(self.strength) * clustered + math.sqrt(1 - self.strength) * own
        )
        integers = []
        for j, (mean, spread, missing_share, effect) in enumerate(_INTEGERS):
            z = self._normal(f"I{j + 1}", row)
            value = np.floor(np.expm1(np.maximum(mean + spread * z, 0.0))).astype(np.int64)
            if j == _NEGATIVE_COLUMN:
                value -= (self._uniform("negative", row) < 0.1) * (value + 1)
            missing = self._uniform(f"missing I{j + 1}", row) < missing_share
            integers.append((value, missing))
            # The effect is that of the latent value: where it is missing, it is noise.
            logit += DENSE_SIGNAL * effect * z
        logit += NOISE * self._normal("noise", row)
        return logit, integers, tokens

    def _tokens(
        self, row: I64, clusters: dict[str, I64]
    ) -> list[tuple[I64, npt.NDArray[np.bool_]]]:
        drawn: dict[int, I64] = {}
        # Parents come before the fields that are functions of them.
        order = sorted(range(len(_FIELDS)), key=lambda f: (self._depth(f), f))
        for f in order:
            field, size = _FIELDS[f], self.cardinalities[f]
            stray = self._uniform(f"stray C{f + 1}", row) < field.noise
            any_cluster = (self._uniform(f"any C{f + 1}", row) * NUM_CLUSTERS).astype(np.int64)
            if field.side == "none":
                drawn[f] = _zipf(self._uniform(f"C{f + 1}", row), size, field.zipf)
                continue
            cluster = np.where(stray, any_cluster, clusters[field.side])
            if size <= NUM_CLUSTERS:
                drawn[f] = cluster % size
                continue
            # Token = rank inside the cluster * NUM_CLUSTERS + cluster.
            per_cluster = (size - 1 - cluster) // NUM_CLUSTERS + 1
            rank = _zipf(self._uniform(f"C{f + 1}", row), per_cluster, field.zipf)
            token = rank * NUM_CLUSTERS + cluster
            if field.parent is not None:
                above = drawn[field.parent]
                # A popular parent has a popular child: ranks shrink in proportion.
                shrink = size / self.cardinalities[field.parent]
                rank = np.floor(above // NUM_CLUSTERS * shrink).astype(np.int64)
                same = above % NUM_CLUSTERS
                child = np.minimum(rank, (size - 1 - same) // NUM_CLUSTERS) * NUM_CLUSTERS + same
                token = np.where(stray, token, child)
            drawn[f] = token
        return [
            (drawn[f], self._uniform(f"empty C{f + 1}", row) < field.empty)
            for f, field in enumerate(_FIELDS)
        ]

    def _depth(self, field: int) -> int:
        parent = _FIELDS[field].parent
        return 0 if parent is None else 1 + self._depth(parent)

    def _cluster(self, side: str, row: I64) -> I64:
        # Mildly skewed: the largest cluster is some eight times the smallest.
        u = self._uniform(f"cluster of {side}", row)
        return np.minimum((NUM_CLUSTERS * u**1.5).astype(np.int64), NUM_CLUSTERS - 1)

    def _names(self, field: int, token: I64) -> npt.NDArray[np.uint32]:
        """32-bit names of tokens, distinct within the field (Murmur3's finaliser, a bijection)."""
        h = token.astype(np.uint32) ^ np.uint32(stream_seed(self.seed, 1 + field) & 0xFFFFFFFF)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return np.asarray(h ^ (h >> np.uint32(16)), dtype=np.uint32)

    def _uniform(self, stream: str, index: I64) -> F64:
        """Uniform draws in [0, 1), one per index, of the named stream."""
        bits = combine(_stream_state(self.seed, stream), index) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53

    def _normal(self, stream: str, index: I64) -> F64:
        """Nearly normal draws of unit variance: the sum of four 16-bit uniforms of one hash."""
        bits = combine(_stream_state(self.seed, stream), index)
        total = np.zeros(len(index))
        for shift in (0, 16, 32, 48):
            total += (bits >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.float64)
        # A 16-bit uniform has mean 32767.5 and variance (2^32 - 1) / 12.
        return np.asarray((total - 4 * 32767.5) / math.sqrt(4 * (2.0**32 - 1) / 12))


def _stream_state(seed: int, stream: str) -> np.uint64:
    from lma.hashing import hash_string

    return np.uint64(stream_seed(seed, hash_string(stream)))


def _unit_variance(matrix: F64) -> F64:
    return np.asarray((matrix - matrix.mean()) / matrix.std())


def _zipf(u: F64, size: int | I64, exponent: float) -> I64:
    """Ranks in [0, size) with P(rank) about (1 + rank)^-exponent, from uniforms `u`.

    Inverse of the continuous distribution on [1, size + 1).
    """
    top = np.asarray(size, dtype=np.float64) + 1
    if exponent == 1:
        x = np.exp(u * np.log(top))
    else:
        power = 1 - exponent
        x = (1 + u * (top**power - 1)) ** (1 / power)
    return np.asarray(np.minimum(np.floor(x).astype(np.int64) - 1, np.asarray(size) - 1))


_HEX_PAIRS: Final = np.frombuffer(
    b"".join(f"{byte:02x}".encode() for byte in range(256)), dtype=np.uint16
)


def _hex_strings(values: npt.NDArray[np.uint32], empty: npt.NDArray[np.bool_]) -> pl.Series:
    """The values as strings of 8 hex digits; null where `empty`."""
    import polars as pl
    import pyarrow as pa

    digits = _HEX_PAIRS[values.astype(">u4").view(np.uint8)]
    offsets = np.arange(len(values) + 1, dtype=np.int64) * 8
    strings = pa.LargeStringArray.from_buffers(
        len(values), pa.py_buffer(offsets), pa.py_buffer(digits)
    )
    return pl.Series(strings).set(pl.Series(empty), None)
