"""The optional figures that come from a trained model rather than from result lines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Pairs of tokens: the similarity wanted and the fraction of places shared.

    Attributes:
        label: Which method and table; "" if not said.
        wanted: Similarity of each pair, in [0, 1].
        realised: Shared fraction of the same pairs.
    """

    label: str
    wanted: tuple[float, ...]
    realised: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """A token and those that share most memory with it.

    Attributes:
        token: The token as people know it.
        table: Its table; "" if not said.
        neighbours: (token, shared fraction), nearest first.
    """

    token: str
    table: str
    neighbours: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Extras:
    """All optional figures of a report."""

    sharing: tuple[Sharing, ...] = ()
    neighbours: tuple[Neighbours, ...] = ()


def read_extras(extras: Mapping[str, Any] | None) -> Extras:
    """Check the `extras` of `write_report`, as read from JSON.

    Args:
        extras: `{"sharing": {"wanted": [...], "realised": [...], "label": "..."}}`, or a list of
            such, and `{"neighbours": [{"token": ..., "table": ..., "neighbours": [[name,
            fraction], ...]}]}`; either may be missing.

    Raises:
        ValueError: A key is unknown, missing or of the wrong form; names it.
    """
    given = dict(extras or {})
    sharing = given.pop("sharing", None) or []
    neighbours = given.pop("neighbours", None) or []
    if given:
        raise ValueError(
            f"extras: unknown keys {sorted(map(str, given))}, expected 'sharing' or 'neighbours'"
        )
    if isinstance(sharing, Mapping):
        sharing = [sharing]
    return Extras(
        sharing=tuple(_sharing(entry) for entry in _entries(sharing, "sharing")),
        neighbours=tuple(_neighbours(entry) for entry in _entries(neighbours, "neighbours")),
    )


def _entries(value: object, name: str) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"extras[{name!r}]: expected a list of objects, got {value!r:.80}")
    for entry in value:
        if not isinstance(entry, Mapping):
            raise ValueError(f"extras[{name!r}]: expected an object, got {entry!r:.80}")
        yield entry


def _sharing(entry: Mapping[str, Any]) -> Sharing:
    columns = []
    for key in ("wanted", "realised"):
        if key not in entry:
            raise ValueError(f"extras['sharing']: {key!r} is missing, found {sorted(entry)}")
        try:
            columns.append([float(value) for value in entry[key]])
        except (TypeError, ValueError) as error:
            raise ValueError(f"extras['sharing'][{key!r}]: expected numbers ({error})") from error
    wanted, realised = columns
    if len(wanted) != len(realised):
        raise ValueError(
            "extras['sharing']: 'wanted' and 'realised' must be of equal length, got "
            f"{len(wanted)} and {len(realised)}"
        )
    pairs = zip(wanted, realised, strict=True)
    finite = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return Sharing(
        label=str(entry.get("label") or ""),
        wanted=tuple(a for a, _ in finite),
        realised=tuple(b for _, b in finite),
    )


def _neighbours(entry: Mapping[str, Any]) -> Neighbours:
    try:
        found = tuple((str(name), float(fraction)) for name, fraction in entry["neighbours"])
        return Neighbours(str(entry["token"]), str(entry.get("table") or ""), found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "extras['neighbours']: expected {'token': ..., 'table': ..., 'neighbours': "
            f"[[name, fraction], ...]}}, got {entry!r:.120}"
        ) from error
