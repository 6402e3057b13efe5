"""The Numba kernels against the NumPy reference: equal bits on any number of threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from set_oracle import as_batch, random_rows

from lma.hashing import combine, table_salt
from lma.kernels.reference import minhash as reference
from lma.signatures import MinHashBuilder, SignatureConfig
from lma.signatures.minhash import code_multipliers

cpu = pytest.importorskip("lma.kernels.cpu.signatures_minhash")


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def problem(seed, num_rows, sizes, longest, codes):
    rng = np.random.default_rng(seed)
    rows = [[sorted(set(bag)) for bag in row] for row in random_rows(rng, num_rows, sizes, longest)]
    values, offsets = as_batch(rows, len(sizes))
    # A quarter of the tokens has no slot.
    feature = np.repeat(np.arange(len(sizes)), num_rows)
    size = np.repeat(np.array(sizes)[feature], np.diff(offsets))
    slots = np.where(values < size * 3 // 4, values, -1)
    chosen = np.nonzero(rng.random(num_rows) < 0.8)[0]
    elements = rng.integers(0, 2**64, num_rows, dtype=np.uint64)
    salts = np.array([table_salt(str(f)) for f in range(len(sizes))], np.uint64)
    states = rng.integers(0, 2**64, num_rows, dtype=np.uint64)
    minima = [np.full((size, codes), reference.NOTHING) for size in sizes]
    sampled = [np.zeros(size, np.int64) for size in sizes]
    return values, offsets, slots, chosen, elements, salts, states, minima, sampled


SHAPES = [
    (0, (5,), (1,), 8),
    (1, (1,), (1,), 8),
    (63, (4, 9), (1, 1), 16),
    (9000, (40, 7, 300), (1, 4, 1), 8),
    (500, (20,), (6,), 24),
    (700, (90, 2000), (5, 1), 40),
]


@pytest.mark.parametrize(("num_rows", "sizes", "longest", "codes"), SHAPES)
@pytest.mark.parametrize("similarity", ["rows", "context", "context of some"])
def test_kernel_equals_reference(threads, similarity, num_rows, sizes, longest, codes):
    told = np.arange(len(sizes)) % 2 == (similarity == "context of some")
    told |= similarity == "context"
    results = []
    for module in (reference, cpu):
        values, offsets, slots, chosen, elements, salts, states, minima, sampled = problem(
            num_rows, num_rows, sizes, longest, codes
        )
        multipliers = code_multipliers(5, codes)
        if similarity == "rows":
            module.update_row_minima(offsets, slots, chosen, elements, multipliers, minima, sampled)
        else:
            module.update_context_minima(
                values, offsets, slots, chosen, salts, told, states, multipliers, minima, sampled
            )
        results.append((minima, sampled))
    for mine, wanted in zip(results[1], results[0], strict=True):
        for a, b in zip(mine, wanted, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("codes", [32, 40, 128])
def test_sorting_in_pieces_equals_reference(threads, codes, share, monkeypatch):
    """Groups of few rows, bags longer than eight, all rows and a sample of them."""
    monkeypatch.setattr(cpu, "GROUP_ENTRIES", 64)
    monkeypatch.setattr(cpu, "GROUP_DEPTH", 1)
    results = []
    for module in (reference, cpu):
        _, offsets, slots, _, elements, _, _, minima, sampled = problem(
            1, 500, (40, 7), (20, 3), codes
        )
        rows = np.flatnonzero(np.random.default_rng(2).random(500) <= share)
        module.update_row_minima(
            offsets, slots, rows, elements, code_multipliers(5, codes), minima, sampled
        )
        results.append([*minima, *sampled])
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_a_long_bag_of_tokens_that_are_mostly_not_signed(monkeypatch):
    """Its entries, more than signed tokens could have, were once written past an array's end."""
    monkeypatch.setattr(cpu, "GROUP_ENTRIES", 64)
    values = np.arange(30_000)
    offsets = np.array([0, 10_000, 10_002, 30_000])
    config = SignatureConfig("rows", num_codes=64, min_support=1)
    builder = MinHashBuilder({"a": 30_000}, config, num_signed={"a": 100})
    builder.update(values, offsets)
    monkeypatch.setattr(cpu, "GROUPED_CODES", 1 << 20)  # one entry at a time
    plain = MinHashBuilder({"a": 30_000}, config, num_signed={"a": 100})
    plain.update(values, offsets)
    assert torch.equal(builder.finish().codes, plain.finish().codes)


def test_row_elements_are_hashes_of_row_numbers(threads):
    found = cpu.row_elements(7, 2**40, 50_000)
    assert np.array_equal(found, combine(np.uint64(7), np.arange(50_000) + 2**40))


@pytest.mark.parametrize("code_bits", [1, 9, 16])
def test_winning_codes_equal_reference(threads, code_bits):
    rng = np.random.default_rng(4)
    minima = rng.integers(0, 2**32, (300, 16), dtype=np.uint32)
    minima[::7] = reference.NOTHING
    minima[3, :15] = reference.NOTHING  # a set of one element, which happens to hash to it
    sampled = rng.integers(0, 4, 300)
    slots = rng.permutation(300)[:250]
    own = rng.integers(0, 2**64, 250, dtype=np.uint64)
    mine, wanted = (
        module.winning_codes(
            minima, sampled, slots, own, code_multipliers(1, 13),
            min_support=2, state=9, code_bits=code_bits,
        )
        for module in (cpu, reference)
    )  # fmt: skip
    assert mine.dtype == np.uint16
    assert np.array_equal(mine, wanted)


def codes_of_log(seed):
    rng = np.random.default_rng(seed)
    builder = MinHashBuilder({"a": 50, "b": 9}, SignatureConfig("context", num_codes=4))
    builder.update(np.stack([rng.integers(0, 50, 9000), rng.integers(0, 9, 9000)], 1))
    return builder.finish().codes.tolist()


def test_eight_builders_at_once():
    alone = [codes_of_log(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(codes_of_log, range(8))) == alone


FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_minhash_kernel import codes_of_log
wanted = codes_of_log(1)
child = os.fork()
if child == 0:
    os._exit(0 if codes_of_log(1) == wanted else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_builds_too():
    from pathlib import Path

    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, folder], timeout=120)
    assert done.returncode == 0


def test_importing_lma_loads_no_numba():
    code = "import sys, lma; sys.exit('numba' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
