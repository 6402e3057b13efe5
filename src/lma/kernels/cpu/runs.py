"""Short runs of floats copied and added, the innermost steps of all gathers and scatters.

Places are unsigned here: Numba lets a signed index count from the array's end, and the test for
that costs more than the copy. Runs of 4, 8 and 16 floats, the usual ones, are written out so that
they become a few vector instructions; all loads stand before the stores because arrays may alias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.mix import inlined

_1, _2, _3, _4, _5, _6, _7, _8, _12 = (np.uint64(i) for i in (1, 2, 3, 4, 5, 6, 7, 8, 12))


@inlined
def copy_4(source: Any, s: Any, target: Any, t: Any) -> Any:
    """target[t + i] = source[s + i] for four floats."""
    a, b, c, d = source[s], source[s + _1], source[s + _2], source[s + _3]
    target[t] = a
    target[t + _1] = b
    target[t + _2] = c
    target[t + _3] = d


@inlined
def copy_8(source: Any, s: Any, target: Any, t: Any) -> Any:
    """target[t + i] = source[s + i] for eight floats."""
    a, b, c, d = source[s], source[s + _1], source[s + _2], source[s + _3]
    e, f, g, h = source[s + _4], source[s + _5], source[s + _6], source[s + _7]
    target[t] = a
    target[t + _1] = b
    target[t + _2] = c
    target[t + _3] = d
    target[t + _4] = e
    target[t + _5] = f
    target[t + _6] = g
    target[t + _7] = h


@inlined
def add_4(factor: Any, source: Any, s: Any, target: Any, t: Any) -> Any:
    """target[t + i] += factor * source[s + i] for four floats."""
    a = target[t] + factor * source[s]
    b = target[t + _1] + factor * source[s + _1]
    c = target[t + _2] + factor * source[s + _2]
    d = target[t + _3] + factor * source[s + _3]
    target[t] = a
    target[t + _1] = b
    target[t + _2] = c
    target[t + _3] = d


@inlined
def add_8(source: Any, s: Any, target: Any, t: Any) -> Any:
    """target[t + i] += source[s + i] for eight floats."""
    add_4(np.float32(1), source, s, target, t)
    add_4(np.float32(1), source, s + _4, target, t + _4)


@inlined
def copy_inside(source: Any, s: Any, count: Any, target: Any, t: Any) -> Any:
    """target[t + i] = source[s + i] for i < count; s and t are uint64."""
    if count == 4:
        copy_4(source, s, target, t)
    elif count == 8:
        copy_8(source, s, target, t)
    elif count == 16:
        copy_8(source, s, target, t)
        copy_8(source, s + _8, target, t + _8)
    else:
        for i in range(count):
            target[t + np.uint64(i)] = source[s + np.uint64(i)]


@inlined
def copy_vector(source: Any, s: Any, count: Any, target: Any, t: Any) -> Any:
    """target[t + i] = source[s + i] for i < count."""
    for _ in range(count >> 3):
        copy_8(source, s, target, t)
        s += _8
        t += _8
    for i in range(count & 7):
        target[t + np.uint64(i)] = source[s + np.uint64(i)]


@inlined
def add_vector(source: Any, s: Any, count: Any, target: Any, t: Any) -> Any:
    """target[t + i] += source[s + i] for i < count."""
    for _ in range(count >> 3):
        add_8(source, s, target, t)
        s += _8
        t += _8
    for i in range(count & 7):
        target[t + np.uint64(i)] += source[s + np.uint64(i)]


@inlined
def copy_run(source: Any, start: Any, count: Any, target: Any, place: Any) -> Any:
    """target[place + i] = source[(start + i) % len(source)] for i < count."""
    s, t = np.uint64(start), np.uint64(place)
    size = source.shape[0]
    if start + count > size:
        for i in range(count):
            target[t + np.uint64(i)] = source[(s + np.uint64(i)) % np.uint64(size)]
    else:
        copy_inside(source, s, count, target, t)


@inlined
def add_run(
    factor: Any, source: Any, start: Any, count: Any, target: Any, place: Any
) -> Any:  # fmt: skip
    """target[place + i] += factor * source[(start + i) % len(source)] for i < count."""
    s, t = np.uint64(start), np.uint64(place)
    size = source.shape[0]
    if start + count > size:
        for i in range(count):
            value = source[(s + np.uint64(i)) % np.uint64(size)]
            target[t + np.uint64(i)] += factor * value
    elif count == 4:
        add_4(factor, source, s, target, t)
    elif count == 8:
        add_4(factor, source, s, target, t)
        add_4(factor, source, s + _4, target, t + _4)
    elif count == 16:
        add_4(factor, source, s, target, t)
        add_4(factor, source, s + _4, target, t + _4)
        add_4(factor, source, s + _8, target, t + _8)
        add_4(factor, source, s + _12, target, t + _12)
    else:
        for i in range(count):
            target[t + np.uint64(i)] += factor * source[s + np.uint64(i)]


@inlined
def scatter_run(
    factor: Any, source: Any, start: Any, count: Any, target: Any, place: Any
) -> Any:  # fmt: skip
    """target[(place + i) % len(target)] += factor * source[start + i] for i < count."""
    size = target.shape[0]
    if place + count > size:
        for i in range(count):
            t = (np.uint64(place) + np.uint64(i)) % np.uint64(size)
            target[t] += factor * source[np.uint64(start) + np.uint64(i)]
    else:
        add_run(factor, source, start, count, target, place)
