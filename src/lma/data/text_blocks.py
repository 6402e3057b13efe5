"""Text files, plain or compressed, as blocks of whole lines."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from lma.errors import DataError

BLOCK_BYTES = 1 << 24
LONGEST_LINE = 1 << 26

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class TextBlock:
    """Whole lines of a file.

    Attributes:
        data: The bytes; every line ends with a newline, carriage returns before it removed.
        lines: Number of lines.
        first_line: Number of the first line in its file, from 1.
        bytes_done: Bytes of the file itself (compressed, if it is) consumed so far.
    """

    data: bytes
    lines: int
    first_line: int
    bytes_done: int


def read_text_blocks(
    path: Path, block_bytes: int | None = None, quote: bytes = b""
) -> Generator[TextBlock, None, None]:
    """The file's lines in blocks of about `block_bytes` (`BLOCK_BYTES`).

    With `quote`, a block does not end within quotes, where line ends are part of a value.
    Gzip (several members too) and zstd are told by their first bytes, not by the name.

    Raises:
        DataError: The file cannot be opened, is empty, a compressed stream is damaged or ends
            early, or a line is absurdly long.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with raw:
        head = raw.read(4)
        raw.seek(0)
        if not head:
            raise DataError(f"{path}: the file is empty")
        stream: Any = raw
        if head.startswith(_GZIP_MAGIC):
            stream = gzip.GzipFile(fileobj=raw)
        elif head == _ZSTD_MAGIC:
            import pyarrow as pa

            stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        line = 1
        rest = b""
        while True:
            read = _read(stream, block_bytes or BLOCK_BYTES, path, line)
            if read:
                rest += read
                cut = _last_end(rest, quote)
                if not cut and len(rest) > LONGEST_LINE:
                    cut = rest.rfind(b"\n") + 1
                    if not cut:
                        raise DataError(
                            f"{path}, line {line:,}: longer than {LONGEST_LINE:,} bytes: "
                            f"{rest[:60]!r}"
                        )
                if not cut:
                    continue
                data, rest = rest[:cut], rest[cut:]
            elif rest:
                # The last line of a file need not end with a newline.
                data, rest = rest if rest.endswith(b"\n") else rest + b"\n", b""
            else:
                if line == 1:
                    raise DataError(f"{path}: the file is empty")
                return
            if line == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
            if b"\r" in data:
                data = data.replace(b"\r\n", b"\n")
            lines = data.count(b"\n")
            yield TextBlock(data, lines, line, raw.tell())
            line += lines


def estimated_lines(path: Path) -> int:
    """About how many lines a file has, from its first block; exact where that is all of it."""
    with contextlib.closing(read_text_blocks(path)) as blocks:
        block = next(blocks)
    return round(block.lines * path.stat().st_size / block.bytes_done)


def _last_end(data: bytes, quote: bytes) -> int:
    """The place after the last line end outside quotes, 0 if there is none."""
    if not quote or quote not in data:
        return data.rfind(b"\n") + 1
    view = np.frombuffer(data, np.uint8)
    (ends,) = np.nonzero(view == ord("\n"))
    (quotes,) = np.nonzero(view == ord(quote))
    outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _read(stream: Any, size: int, path: Path, line: int) -> bytes:
    try:
        return cast(bytes, stream.read(size))
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise DataError(
            f"{path}, after line {line:,}: the file is damaged or ends early: {error}"
        ) from None


def count_lines(path: Path) -> int:
    """Number of lines of a text file, plain or compressed."""
    return sum(block.lines for block in read_text_blocks(path))
