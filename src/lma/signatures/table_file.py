"""`signatures.safetensors`: the tensors of a `SignatureTable`, its header and their checksums."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lma.errors import FormatError
from lma.files import replace_file, save_tensors
from lma.hashing import HASH_VERSION
from lma.signatures import token_file
from lma.signatures.quantise import Codebooks
from lma.signatures.section import Section
from lma.signatures.tokens import array_checksum

FORMAT = 2  # 2: min-hash codes are hashes of 32-bit minima
FILE_NAME = "signatures.safetensors"
TENSORS = ("codes", "fingerprints", "overflow_keys")
HEADER = "header"  # its own checksum's name among those of the tensors

T = TypeVar("T")


def write_table(
    directory: Path,
    tensors: Mapping[str, Tensor],
    sections: Sequence[Section],
    codebooks: Mapping[str, Codebooks],
    *,
    seed: int,
    provenance: Mapping[str, Any],
    ids: Mapping[str, Tensor],
) -> None:
    """Write a table's file, atomically: a failure leaves an old one as it was."""
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for number, books in enumerate(codebooks.values()):
        for code, (centroids, dims) in enumerate(zip(books.centroids, books.dims, strict=True)):
            held[f"codebooks.{number}.{code}.centroids"] = torch.from_numpy(centroids)
            held[f"codebooks.{number}.{code}.dims"] = torch.from_numpy(dims)
    header: dict[str, Any] = {
        "format": FORMAT,
        "hash_version": HASH_VERSION,
        "seed": seed,
        "sections": [dataclasses.asdict(section) for section in sections],
        "codebooks": [
            {"table": table, "codes": len(books.dims), "residual": books.residual}
            for table, books in codebooks.items()
        ],
        "checksums": {name: array_checksum(tensor.numpy()) for name, tensor in held.items()},
        "provenance": provenance,
    }
    header["checksums"][HEADER] = _header_checksum(header)
    with replace_file(directory / FILE_NAME) as target:
        save_tensors(held, target, {"lma": json.dumps(header)})
        # Before the new codes are in place, so that nothing finds them beside the old tokens.
        (directory / token_file.FILE_NAME).unlink(missing_ok=True)
    if ids:
        token_file.write_tokens(directory, ids, header["checksums"]["codes"])


def read_table(directory: Path, make: Callable[..., T]) -> T:
    """`make` called with what `write_table` was given.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is damaged, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"no signatures in {directory}: {FILE_NAME} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["lma"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version, format_ = header["hash_version"], header["format"]
        if (format_, version) != (FORMAT, HASH_VERSION):
            raise FormatError(
                f"{path}: signatures of format {format_}, hash_version {version}; this lma "
                f"reads format {FORMAT}, hash_version {HASH_VERSION}: fit them again"
            )
        _check_header(header, held, path)
        for name, tensor in held.items():
            if array_checksum(tensor.numpy()) != header["checksums"][name]:
                raise FormatError(f"{path}: checksum of {name!r} does not match its contents")
        return make(
            [Section(**section) for section in header["sections"]],
            *(held[name] for name in TENSORS),
            seed=header["seed"],
            provenance=header["provenance"],
            codebooks=_codebooks(header.get("codebooks", []), held),
            ids=token_file.read_tokens(directory, header["checksums"]["codes"]),
        )
    except FormatError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path}: not signatures, or damaged ({error})") from error


def _codebooks(rows: Sequence[Mapping[str, Any]], held: Mapping[str, Tensor]) -> dict[str, Any]:
    books = {}
    for number, row in enumerate(rows):
        names = [f"codebooks.{number}.{code}" for code in range(row["codes"])]
        books[row["table"]] = Codebooks(
            tuple(held[f"{name}.centroids"].numpy() for name in names),
            tuple(held[f"{name}.dims"].numpy() for name in names),
            row["residual"],
        )
    return books


def _check_header(header: Mapping[str, Any], held: Mapping[str, Tensor], path: Path) -> None:
    """`FormatError` if the header was altered, or a tensor has no checksum."""
    checksums = header["checksums"]
    missing = {*held} ^ ({*checksums} - {HEADER})
    if missing:
        raise FormatError(f"{path}: damaged: tensors and checksums differ in {sorted(missing)}")
    # Files of earlier builds of format 2 have none.
    if HEADER in checksums and checksums[HEADER] != _header_checksum(header):
        raise FormatError(f"{path}: checksum of the header does not match its contents")


def _header_checksum(header: Mapping[str, Any]) -> int:
    """CRC-32 of all but the checksums, as JSON with sorted keys."""
    # To text and back first: keys that are numbers become texts, and sort as such.
    content = json.loads(json.dumps({k: v for k, v in header.items() if k != "checksums"}))
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


__all__ = ["FILE_NAME", "FORMAT", "TENSORS", "read_table", "write_table"]
