"""`tokens.safetensors`: which tokens are signed, beside signatures indexed by fingerprints.

Nothing but `neighbours` needs it: a model looks codes up by the token's key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lma.errors import FormatError
from lma.files import replace_file, save_tensors
from lma.signatures.tokens import array_checksum

FORMAT = 1
FILE_NAME = "tokens.safetensors"


def write_tokens(directory: Path, ids: Mapping[str, Tensor], codes: int) -> None:
    """Write the ids of every table, int64 [signed].

    Args:
        directory: The folder of the signatures.
        ids: By table.
        codes: Checksum of the codes that they belong to.
    """
    header = {
        "format": FORMAT,
        "codes": codes,
        "checksums": {name: array_checksum(values.numpy()) for name, values in ids.items()},
    }
    with replace_file(directory / FILE_NAME) as target:
        held = {name: values.contiguous() for name, values in ids.items()}
        save_tensors(held, target, {"lma": json.dumps(header)})


def read_tokens(directory: Path, codes: int) -> dict[str, Tensor]:
    """What `write_tokens` wrote, memory-mapped; empty where there is no such file.

    Raises:
        FormatError: It is damaged, or belongs to other codes.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / FILE_NAME
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["lma"])
            ids = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise FormatError(f"{path}: format {header['format']}; this lma reads {FORMAT}")
        if header["codes"] != codes:
            raise FormatError(f"{path}: tokens of other signatures; remove it, or fit them again")
        if {name: array_checksum(values.numpy()) for name, values in ids.items()} != header[
            "checksums"
        ]:
            raise FormatError(f"{path}: checksums do not match its contents")
    except FormatError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path}: not tokens, or damaged ({error})") from error
    return ids


__all__ = ["FILE_NAME", "read_tokens", "write_tokens"]
