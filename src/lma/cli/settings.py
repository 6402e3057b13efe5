"""One config from a TOML file, flags and `--set key=value`, in rising order of precedence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lma.training.config import ConfigError, from_dict, read_toml, tomllib

T = TypeVar("T")


def load_config(
    cls: type[T],
    path: Path | None,
    flags: Mapping[str, Any],
    assignments: Iterable[str],
    base: Mapping[str, Any] | None = None,
) -> T:
    """A config of class `cls`.

    Args:
        cls: A config dataclass.
        path: TOML file, or None.
        flags: Values by dotted key, None where the flag was not given.
        assignments: "training.learning_rate=0.01" and the like; values as in TOML, a bare word
            is a string.
        base: Values that all others override; not changed.
    """
    values = _merged(base or {}, {} if path is None else read_toml(path))
    for key, value in flags.items():
        if value is not None:
            _put(values, key, value)
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected key=value")
        _put(values, key.strip(), _parse(value.strip()))
    return from_dict(cls, values)


def _merged(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `other` put over its own; shares no table with either."""
    merged = {k: _merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in other.items():
        old = merged.get(key)
        if isinstance(value, Mapping):
            value = _merged(old if isinstance(old, Mapping) else {}, value)
        merged[key] = value
    return merged


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {parent!r} is not a table")
    values[last] = value


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def comma_list(text: str | None) -> list[str] | None:
    """The parts of a text such as `a, b`; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str | None, kind: type, flag: str) -> list[Any] | None:
    """A comma list of numbers; an error names the flag."""
    try:
        return None if text is None else [kind(part) for part in comma_list(text) or ()]
    except ValueError:
        raise ConfigError(f"{flag}: expected numbers with commas, found {text!r}") from None


def parse_options(assignments: Iterable[str]) -> dict[str, Any]:
    """Texts such as `key=value` as keyword arguments; values as in TOML, a bare word a string."""
    options: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"option {text!r}: expected key=value")
        options[key.strip().replace("-", "_")] = _parse(value.strip())
    return options
