"""One training run is one JSON line; this file is the only reader and writer of that line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lma.errors import FormatError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ByteCount:
    """Where the bytes of an embedding are (DESIGN: serving and training bytes).

    Attributes:
        weights: Bytes of trained floats.
        signatures: Bytes of codes.
        index: Bytes that find a token's codes or row, and of the small address parameters.
        training_extra: Bytes of gradients and optimizer state that training adds.
    """

    weights: int
    signatures: int = 0
    index: int = 0
    training_extra: int = 0

    @property
    def serving(self) -> int:
        """Bytes that a serving machine holds: weights + signatures + index."""
        return self.weights + self.signatures + self.index

    @property
    def training(self) -> int:
        """Serving bytes plus gradients and optimizer state."""
        return self.serving + self.training_extra

    def to_dict(self) -> dict[str, int]:
        """All figures, the two sums included, for a result line."""
        return {
            **dataclasses.asdict(self),
            "serving": self.serving,
            "training": self.training,
        }


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The record of one run.

    Attributes:
        dataset: Short name of the log, as figures print it.
        method: Short name of the method, as tables print it.
        target: The budget asked for, such as "16x" or "64MB"; "" for the full tables.
        seed: Seed of initial weights and of the order of rows.
        bytes: `ByteCount.to_dict()` of the embeddings (the MLPs are the same for every method).
        reference_bytes: Tokens of the training vocabulary x reference_dim x 4.
        validation: Metrics on validation rows: `auc`, `log_loss`, `rows`.
        test: The same on test rows, read once at the end of the run.
        curve: One entry per evaluation: `epoch`, `step`, `train_loss`, `auc`, `log_loss`.
        train_seconds: Wall-clock time spent in training steps.
        config: Everything that a repetition needs: method, model, training, data.
        environment: Machine, versions, threads, commit.
    """

    dataset: str
    method: str
    target: str
    seed: int
    bytes: Mapping[str, int]
    reference_bytes: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...]
    train_seconds: float
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def compression(self) -> float:
        """Reference bytes over serving bytes: the "16x" of the documentation."""
        return self.reference_bytes / max(1, self.bytes["serving"])

    @property
    def weight_compression(self) -> float:
        """Reference bytes over weights alone, as the paper counts."""
        return self.reference_bytes / max(1, self.bytes["weights"])

    @property
    def cell(self) -> str:
        """Identity of the run: equal for two runs of the same config and seed."""
        return cell_id(self.dataset, self.config, self.seed)

    def to_json(self) -> str:
        """The result as one line of JSON, without the line's end."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # JSON has no NaN: a metric that does not exist, such as the AUC of one class, is null.
        for name in ("validation", "test"):
            fields[name] = _without_nan(fields[name])
        fields["curve"] = [_without_nan(point) for point in fields["curve"]]
        return json.dumps({"format": FORMAT, **fields}, default=_plain, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> RunResult:
        """Read one line; `FormatError` if it is not one of ours."""
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise FormatError(f"result line is not JSON ({error}): {line[:80]!r}") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise FormatError(f"result line is not of format {FORMAT}: {line[:80]!r}")
        names = {f.name for f in dataclasses.fields(cls)}
        if set(fields) != names:
            missing, unknown = sorted(names - set(fields)), sorted(set(fields) - names)
            raise FormatError(f"result line: missing {missing}, unknown {unknown}")
        if not isinstance(fields["curve"], list):
            raise FormatError(f"result line: curve must be a list, found {fields['curve']!r}")
        try:
            fields["curve"] = tuple(_with_nan(point) for point in fields["curve"])
            for name in ("validation", "test"):
                fields[name] = _with_nan(fields[name])
        except AttributeError as error:
            raise FormatError(f"result line: metrics must be objects ({error})") from error
        return cls(**fields)


def cell_id(dataset: str, config: Mapping[str, Any], seed: int) -> str:
    """Sixteen hex digits that name (data, config, seed); equal for equal content."""
    text = json.dumps([dataset, config, seed], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def append_result(path: str | os.PathLike[str], result: RunResult) -> None:
    """Append one line durably: a crash leaves the file without it or with all of it.

    A line cut short by an earlier full disk is removed first, so that no run is lost after it.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    line = result.to_json().encode() + b"\n"
    # Unbuffered: closing a buffered file would write again what a full disk had just refused.
    with open(file, "a+b", buffering=0) as handle:
        handle.seek(0)
        content = handle.read()
        end = content.rfind(b"\n") + 1
        handle.truncate(end)
        try:
            written = 0
            while written < len(line):
                written += handle.write(line[written:])
            os.fsync(handle.fileno())
        except BaseException:
            handle.truncate(end)
            raise


def read_results(path: str | os.PathLike[str]) -> list[RunResult]:
    """All results of a file; a last line without its end (a killed writer) is left out."""
    return list(_iterate(Path(path)))


def _iterate(path: Path) -> Iterator[RunResult]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            yield RunResult.from_json(line.decode())
        except (FormatError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}:{number}: {error}") from error


def _without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in metrics.items()}


def _with_nan(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k: math.nan if v is None else v for k, v in metrics.items()}


def _plain(value: object) -> object:
    """JSON form of the few other types that configs hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a result cannot hold {type(value).__name__}: {value!r}")
