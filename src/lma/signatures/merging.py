"""Which builders may be merged, and what is said of those that may not."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from lma.errors import LmaError
from lma.signatures.config import SignatureConfig

MOST_SHOWN = 80  # characters of a setting


class Mergeable(Protocol):
    """A builder that says what others must have in common with it."""

    def settings(self) -> dict[str, object]:
        """Compared one by one."""
        ...


def check_mergeable(mine: Mergeable, other: Mergeable, advice: str = "") -> None:
    """Whether what two builders saw may be added up.

    Raises:
        LmaError: They are one and the same, or their settings differ; names those that do.
    """
    if mine is other:
        raise LmaError("cannot merge a builder with itself: what it saw would count twice")
    unlike = differences(mine.settings(), other.settings())
    if unlike:
        said = "; ".join(unlike)
        raise LmaError(f"cannot merge builders of different settings: {said}{advice}")


def differences(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Every setting that differs, as `name: a and b`; of configs field by field."""
    found = []
    for name in dict.fromkeys((*mine, *other)):
        a, b = mine.get(name), other.get(name)
        if a == b:
            continue
        if isinstance(a, SignatureConfig) and isinstance(b, SignatureConfig):
            fields = [f.name for f in dataclasses.fields(a)]
            parts = [{n: getattr(c, n) for n in fields} for c in (a, b)]
            found += differences(*parts)
        else:
            found.append(f"{name}: {' and '.join(_unlike_parts(repr(a), repr(b)))}")
    return found


def _unlike_parts(a: str, b: str) -> list[str]:
    """Two texts; where they are long, from shortly before they differ."""
    if max(len(a), len(b)) <= MOST_SHOWN:
        return [a, b]
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    start = max(0, same - MOST_SHOWN // 4)
    return [
        ("... " if start else "")
        + text[start : start + MOST_SHOWN]
        + (" ..." if len(text) > start + MOST_SHOWN else "")
        for text in (a, b)
    ]


__all__ = ["check_mergeable", "differences"]
