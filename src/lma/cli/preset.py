"""Published experiments by name: TOML files beside this one, each with the log it is made for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lma.training.config import check_key, from_dict, read_toml

FOLDER = Path(__file__).parent / "presets"


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """The log that a preset reads.

    Attributes:
        format, split: As `lma prepare` takes them.
        rows, tokens: As published: what a forecast starts from before the log is prepared.
    """

    format: str
    split: str
    rows: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class Preset:
    """One of the files.

    Attributes:
        name: Of the file.
        log: Its `[log]`.
        comparison: Everything else, plain values of a `CompareConfig`.
    """

    name: str
    log: LogConfig
    comparison: Mapping[str, Any]


def preset_names() -> list[str]:
    """All presets."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_preset(name: str) -> Preset:
    """A preset by its name; `ConfigError` names the nearest."""
    check_key(name, preset_names(), "--preset")
    values = read_toml(FOLDER / f"{name}.toml")
    return Preset(name, from_dict(LogConfig, values.pop("log"), "log"), values)
