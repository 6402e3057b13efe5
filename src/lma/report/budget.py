"""What a target such as "16x" or "64MB" allows in bytes, and the order in which targets stand."""

from __future__ import annotations

import math
import re

_RATIO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*[xX]\s*")
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(|[kmgt]i?)b\s*", re.IGNORECASE)
_FACTOR = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_FACTOR |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
TOLERANCE = 0.05
"""Share by which serving bytes may exceed a budget before a run counts as over it."""


def budget_bytes(target: str, reference_bytes: float) -> float | None:
    """Bytes that a target allows; None where the target sets no budget that we can read.

    >>> budget_bytes("16x", 16_000), budget_bytes("64MB", 0), budget_bytes("64KiB", 0)
    (1000.0, 64000000.0, 65536.0)
    >>> budget_bytes("", 5) is None
    True
    """
    if match := _RATIO.fullmatch(target):
        ratio = float(match.group(1))
        return reference_bytes / ratio if ratio > 0 else None
    if match := _BYTES.fullmatch(target):
        return float(match.group(1)) * _FACTOR[match.group(2).lower()]
    return None


def is_over(target: str, reference_bytes: float, serving_bytes: float) -> bool:
    """Whether serving bytes exceed the target's budget by more than the tolerance."""
    allowed = budget_bytes(target, reference_bytes)
    if allowed is None or not math.isfinite(serving_bytes):
        return False
    return serving_bytes > allowed * (1 + TOLERANCE)
