"""Numbers as people read them: bytes, ratios, scores, seconds."""

from __future__ import annotations

import math

NOTHING = "\N{EN DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(count: float) -> str:
    """Bytes with three significant digits; MB = 10^6 bytes.

    >>> human_bytes(1_240_000), human_bytes(999_700), human_bytes(512), human_bytes(0)
    ('1.24 MB', '1.00 MB', '512 B', '0 B')
    """
    if not math.isfinite(count):
        return NOTHING
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{_three_digits(value)} {_UNITS[unit]}"


def human_ratio(ratio: float) -> str:
    """A compression such as "16x"; at most three significant digits below 1000.

    >>> human_ratio(16.0), human_ratio(15.24), human_ratio(0.972), human_ratio(1023.6)
    ('16x', '15.2x', '0.972x', '1024x')
    """
    if not math.isfinite(ratio):
        return NOTHING
    text = _three_digits(ratio)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text}x"


def score(value: float, digits: int = 4) -> str:
    """An AUC or a log-loss with four digits."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NOTHING


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign, a true minus included.

    >>> signed(0.00123), signed(-0.5)
    ('+0.0012', '\N{MINUS SIGN}0.5000')
    """
    if not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def seconds(value: float) -> str:
    """Seconds, with one decimal below a hundred."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _three_digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)
    # 9.999 rounds to 10.0, which has a digit more before the point.
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:.{max(0, min(decimals, 9))}f}"
