"""Colours and markers: one look per method, the same in every figure and on every page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

INK = "#1f2329"
MUTED = "#5c6570"
GRID = "#dfe3e8"
PAPER = "#ffffff"

NEUTRALS = {
    INK: ("ink", INK, "#e8eaed"),
    MUTED: ("muted", MUTED, "#a3abb5"),
    GRID: ("grid", GRID, "#353b43"),
    PAPER: ("paper", PAPER, "#16191d"),
}
"""Hex in a figure -> (CSS variable, colour on light paper, colour on dark paper)."""


@dataclasses.dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    is_strong: bool = False


# Okabe and Ito's colour-blind safe set for the methods that matter most; marker and direct label
# tell apart what colour alone does not.
_LOOKS = {
    "full": Look(INK, "*", True),
    "lma": Look("#d55e00", "o", True),
    "lma labelled context": Look("#b5179e", "h", True),
    "lma context": Look("#e69f00", "s", True),
    "lma rows": Look("#cc79a7", "D", True),
    "low dimension": Look("#0072b2", "^"),
    "hashed": Look("#56b4e9", "v"),
    "frequency cut-off": Look("#009e73", "P"),
    "hashing trick": Look("#8b929c", "X"),
    "robe": Look("#6f4fb0", "<"),
    "quotient-remainder": Look("#8a6642", ">"),
}
_SPARE = (
    Look("#2a8c8c", "p"),
    Look("#7f8f1f", "d"),
    Look("#a8323e", "H"),
    Look("#3d5a98", "8"),
    Look("#c08a6a", "o"),
)
_DARK = {
    "#d55e00": "#ff8a3d",
    "#e69f00": "#f7c04a",
    "#cc79a7": "#e8a3c8",
    "#0072b2": "#4aa8e0",
    "#56b4e9": "#9bd6fb",
    "#009e73": "#37cc9c",
    "#8b929c": "#a7aeb8",
    "#6f4fb0": "#a98fe6",
    "#8a6642": "#c29b74",
    "#b5179e": "#ee6fdc",
    "#2a8c8c": "#5cc4c4",
    "#7f8f1f": "#b9c951",
    "#a8323e": "#ef7a84",
    "#3d5a98": "#86a4e6",
    "#c08a6a": "#dcae92",
}
WEIGHTS, SIGNATURES, INDEX = "#0072b2", "#e69f00", "#8b929c"


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look per method: fixed for the known ones, the next spare one for others.

    Methods whose name starts with "lma" are drawn strongly.
    """
    names = list(dict.fromkeys(methods))
    unknown = sorted(name for name in names if name not in _LOOKS)
    spare = {}
    for number, name in enumerate(unknown):
        look = _SPARE[number % len(_SPARE)]
        spare[name] = dataclasses.replace(look, is_strong=name.lower().startswith("lma"))
    return {name: _LOOKS.get(name) or spare[name] for name in names}


def css_variables() -> list[tuple[str, str, str, str]]:
    """(hex in a figure, CSS variable, light colour, dark colour) of every colour that is drawn."""
    series = [(light, f"c{light[1:]}", light, dark) for light, dark in _DARK.items()]
    return [(key, *value) for key, value in NEUTRALS.items()] + series
