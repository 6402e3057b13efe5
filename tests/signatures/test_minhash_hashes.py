"""The hash functions of min-hash: by hand, pinned, and as independent as their theory says."""

from __future__ import annotations

import numpy as np
import pytest
from set_oracle import hash_of

from lma.kernels.reference.minhash import code_hashes
from lma.signatures.minhash import code_multipliers, no_minima


def test_a_hash_worked_by_hand():
    element = np.array([(3 << 32) | 5], np.uint64)
    multipliers = np.array([0, 7, 0xFFFFFFFF], np.uint32)
    assert code_hashes(element, multipliers).tolist() == [[3, 3 + 5 * 7, 2**32 + 3 - 5]]


def test_golden_hashes():
    multipliers = code_multipliers(7, 4)
    assert multipliers.tolist() == [1275772160, 2974126849, 714310146, 933185283]
    hashes = code_hashes(np.array([0x0123456789ABCDEF], np.uint64), multipliers)[0].tolist()
    assert hashes == [3615668327, 4068102230, 3377151813, 2226452532]
    assert hashes == [hash_of(0x0123456789ABCDEF, code, 7) for code in range(4)]


def test_multipliers_differ_by_at_most_seven_factors_of_two():
    multipliers = code_multipliers(0, 256).astype(np.int64)
    difference = (multipliers[:, None] - multipliers)[~np.eye(256, dtype=bool)]
    assert (difference % 256 != 0).all()


def test_minima_of_sixteen_codes_are_cache_lines():
    minima = no_minima(5, 16)
    assert minima.ctypes.data % 64 == 0
    assert minima.shape == (5, 16)
    assert (minima == 0xFFFFFFFF).all()


@pytest.mark.parametrize(("shared", "alone"), [(1, 1), (1, 4), (3, 2), (20, 40)])
def test_codes_are_unbiased_and_pairwise_independent(shared, alone):
    """Mean and variance of the share of equal minima are those of independent hash functions.

    10,000 pairs of sets with `shared` elements in common and `alone` more each, 64 codes. The
    squared error of a pair has the relative variance kurtosis - 1: 2 of a normal distribution,
    below 5 here. So the mean of 10,000 lies within 5 sqrt(5 / 10,000), 11 %, of its expectation.
    """
    pairs, codes = 10_000, 64
    rng = np.random.default_rng(shared)
    elements = rng.integers(0, 2**64, (pairs, shared + 2 * alone), dtype=np.uint64)
    hashes = code_hashes(elements, code_multipliers(shared, codes))
    both = hashes[:, :shared].min(1)
    one = hashes[:, shared : shared + alone].min(1)
    two = hashes[:, shared + alone :].min(1)
    equal = np.minimum(both, one) == np.minimum(both, two)
    psi = shared / (shared + 2 * alone)
    variance = psi * (1 - psi)
    assert abs(equal.mean() - psi) <= 5 * np.sqrt(variance / codes / pairs)
    error = np.mean((equal.mean(1) - psi) ** 2)
    assert abs(error / (variance / codes) - 1) <= 5 * np.sqrt(5 / pairs)
    # Two codes together, as `power` 2 draws them.
    together = equal[:, ::2] & equal[:, 1::2]
    spread = 5 * np.sqrt(psi**2 * (1 - psi**2) / pairs)
    assert abs(together.mean() - psi**2) <= spread
