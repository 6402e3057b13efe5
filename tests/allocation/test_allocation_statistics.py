"""LMA's shared fractions against the formulas of SCMA, over sets of known Jaccard similarity.

For two tokens whose sets have Jaccard similarity psi, codes agree with probability

    p = psi + (1 - psi) / 2^code_bits

and a chunk that draws `power` distinct codes is shared with probability p^power, or else by
chance, 1 / num_blocks. The mean over n pairs has standard error sigma / sqrt(n), where sigma^2 is
the exact variance of one pair's shared fraction (`exact_variance`); five of them are allowed.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lma.allocation import LmaAllocation, Plan, Table, TablePlan, shared_fraction
from lma.allocation.lma import draw_codes
from lma.signatures import MinHashBuilder, SignatureConfig, SignatureTable
from signature_cases import random_signatures, signatures_of

SEED = 20
CHUNK_NUMBERS = 64


def fractions(
    allocation: LmaAllocation, a: tuple[str, np.ndarray], b: tuple[str, np.ndarray]
) -> np.ndarray:
    """Shared fraction of every pair (a[i], b[i])."""
    first, second = (allocation.places(t, torch.from_numpy(ids)) for t, ids in (a, b))
    return (first == second).double().mean(1).numpy()


def lay_out(
    signatures: SignatureTable,
    power: int,
    num_blocks: int,
    *,
    names: tuple[str, ...],
    block_size: int = 1,
    hashed: int = 0,
    seed: int = SEED,
) -> LmaAllocation:
    section = signatures.sections[0]
    plan = Plan(
        tuple(TablePlan(name) for name in names),
        num_blocks, hashed, block_size, power, section.num_codes, section.code_bits,
    )  # fmt: skip
    tables = [Table(name, None, CHUNK_NUMBERS * block_size) for name in names]
    return LmaAllocation(tables, plan, signatures, seed)


def exact_mean(p: float, power: int, num_blocks: int) -> float:
    return p**power + (1 - p**power) / num_blocks


def exact_variance(p: float, power: int, num_blocks: int, draws: np.ndarray) -> float:
    """Variance of one pair's shared fraction, codes agreeing independently with probability p.

    E[X_j X_k] = P(both hands agree) + chance terms, and two hands agree with probability
    p^|union of the hands|: chunks that draw the same codes are not independent.
    """
    q, chunks = 1 / num_blocks, len(draws)
    hands = [frozenset(map(int, hand)) for hand in draws]
    mean = exact_mean(p, power, num_blocks)
    total = 0.0
    for j, k in itertools.product(range(chunks), repeat=2):
        if j == k:
            total += mean - mean**2
            continue
        both = p ** len(hands[j] | hands[k])
        one = p**power - both
        total += both + 2 * one * q + (1 - both - 2 * one) * q * q - mean**2
    return total / chunks**2


def assert_as_derived(
    found: np.ndarray, psi: float, allocation: LmaAllocation, code_bits: int
) -> None:
    """Mean within five standard errors; variance within five of its own, and within the bound."""
    power, num_blocks = allocation.plan.power, allocation.plan.num_blocks
    p = psi + (1 - psi) / 2**code_bits
    draws = allocation.draws.numpy()
    variance = exact_variance(p, power, num_blocks, draws)
    mean = exact_mean(p, power, num_blocks)
    n = len(found)
    assert abs(found.mean() - mean) <= 5 * math.sqrt(variance / n) + 1e-12
    # Var(s^2) is about (mu_4 - sigma^4) / n, with the fourth moment taken from the sample. Where
    # shares are rare events, so is their fourth moment, and the sample says nothing of it.
    fourth = ((found - mean) ** 4).mean()
    if n * mean > 100 and n * (1 - mean) > 100:
        error = math.sqrt(max(fourth - variance**2, 0) / n)
        assert abs(((found - mean) ** 2).mean() - variance) <= 5 * error + 1e-12
    # Efron and Stein: each of num_codes independent codes moves the chunks that draw it.
    uses = np.bincount(draws.ravel(), minlength=allocation.plan.num_codes) / len(draws)
    bound = p * (1 - p) * float((uses**2).sum()) + mean / len(draws)
    assert variance <= bound + 1e-12


# --- logs whose tokens have sets of known similarity ------------------------------------------


def rows_log(pairs: int, both: int, only: int) -> Iterator[np.ndarray]:
    """Features a and b; token i of a and token i of b share `both` of `both + 2 only` rows.

    Token `pairs` of either table fills the rows in which its partner stands alone.
    """
    token = np.arange(pairs)
    filler = np.full(pairs, pairs)
    for _ in range(both):
        yield np.stack([token, token], 1)
    for _ in range(only):
        yield np.stack([token, filler], 1)
        yield np.stack([filler, token], 1)


def rows_signatures(
    pairs: int, both: int, only: int, config: SignatureConfig
) -> tuple[SignatureTable, float]:
    builder = MinHashBuilder({"a": pairs + 1, "b": pairs + 1}, config)
    for batch in rows_log(pairs, both, only):
        builder.update(batch)
    signed = {"a": pairs, "b": pairs}
    return builder.finish(signed), both / (both + 2 * only)


def context_signatures(
    pairs: int, both: int, only: int, config: SignatureConfig, tables: tuple[str, str] = ("t", "t")
) -> tuple[SignatureTable, float]:
    """Tokens 2 i and 2 i + 1 of t (or i of t and i of u) meet `both` common tokens of c."""
    union = both + 2 * only
    same = tables[0] == tables[1]
    names = dict.fromkeys(tables)
    sizes = dict.fromkeys(names, 2 * pairs if same else pairs + 1)
    builder = MinHashBuilder({**sizes, "c": pairs * union}, config)
    i = np.arange(pairs)
    for element in range(union):
        members = [0] * (element < both + only) + [1] * (element < both or element >= both + only)
        for member in members:
            columns = np.full((pairs, len(names) + 1), pairs)
            offsets = np.zeros((len(names) + 1, pairs), np.int64)
            column = 0 if same else member
            columns[:, column] = 2 * i + member if same else i
            columns[:, -1] = i * union + element
            offsets[[column, -1]] = 1
            values = columns.T[offsets == 1]
            bounds = np.concatenate([[0], np.cumsum(offsets.ravel())])
            builder.update(values, bounds, np.zeros(pairs, np.int64))
    signed = {**dict.fromkeys(names, 2 * pairs if same else pairs), "c": 0}
    return builder.finish(signed), both / union


# --- the formula ------------------------------------------------------------------------------


@pytest.mark.parametrize(("both", "only"), [(0, 6), (2, 5), (4, 4), (6, 1), (5, 0)])
@pytest.mark.parametrize(("power", "num_codes"), [(1, 16), (2, 8), (3, 8), (4, 4)])
def test_rows_share_as_derived(both: int, only: int, power: int, num_codes: int) -> None:
    config = SignatureConfig("rows", num_codes, 16, min_support=1, seed=3)
    signatures, psi = rows_signatures(3000, both, only, config)
    allocation = lay_out(signatures, power, 50, names=("a", "b"))
    i = np.arange(3000)
    assert_as_derived(fractions(allocation, ("a", i), ("b", i)), psi, allocation, 16)


@pytest.mark.parametrize(("both", "only"), [(0, 6), (4, 4), (6, 1)])
@pytest.mark.parametrize("code_bits", [1, 3, 8])
@pytest.mark.parametrize("similarity", ["context", "labelled_context"])
def test_contexts_share_as_derived_with_short_codes(
    both: int, only: int, code_bits: int, similarity: str
) -> None:
    config = SignatureConfig(similarity, 8, code_bits, min_support=1, seed=4)
    signatures, psi = context_signatures(2000, both, only, config)
    allocation = lay_out(signatures, 2, 1000, names=("t",))
    even = np.arange(0, 4000, 2)
    found = fractions(allocation, ("t", even), ("t", even + 1))
    assert_as_derived(found, psi, allocation, code_bits)


@pytest.mark.parametrize(("both", "only"), [(0, 10_000), (5000, 2500), (9000, 500)])
def test_sets_of_ten_thousand(both: int, only: int) -> None:
    # Sets as large as this made min-hash values of disjoint sets collide in earlier programs.
    pairs, num_codes = 12, 128
    config = SignatureConfig("rows", num_codes, 16, min_support=1, seed=5)
    signatures, psi = rows_signatures(pairs, both, only, config)
    p = psi + (1 - psi) / 2**16
    codes = [signatures.codes_of(name, torch.arange(pairs)) for name in ("a", "b")]
    agree = int((codes[0] == codes[1]).sum())
    trials = pairs * num_codes
    assert abs(agree - trials * p) <= 5 * math.sqrt(trials * p * (1 - p)) + 1
    i = np.arange(pairs)
    allocation = lay_out(signatures, 2, 10_000, names=("a", "b"))
    found = fractions(allocation, ("a", i), ("b", i))
    variance = exact_variance(p, 2, 10_000, allocation.draws.numpy())
    assert abs(found.mean() - exact_mean(p, 2, 10_000)) <= 5 * math.sqrt(variance / pairs)


def test_large_disjoint_contexts_do_not_share() -> None:
    config = SignatureConfig("context", 128, 16, min_support=1, seed=6)
    signatures, _ = context_signatures(2, 0, 10_000, config)
    codes = signatures.codes_of("t", torch.arange(4))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    agree = sum(int((codes[a] == codes[b]).sum()) for a, b in pairs)
    # 6 * 128 trials of probability 2^-16: more than two agreements have probability 3e-7.
    assert agree <= 2


# --- who shares with whom ---------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["rows", "context"])
def test_tables_share_by_similarity_under_rows_only(similarity: str) -> None:
    pairs, num_blocks = 2000, 40
    config = SignatureConfig(similarity, 8, 16, min_support=1, seed=7)
    if similarity == "rows":
        signatures, psi = rows_signatures(pairs, 5, 0, config)
        names = ("a", "b")
    else:
        signatures, psi = context_signatures(pairs, 5, 0, config, ("a", "b"))
        names = ("a", "b")
    i = torch.arange(pairs)
    assert psi == 1
    assert torch.equal(signatures.codes_of("a", i), signatures.codes_of("b", i))
    allocation = lay_out(signatures, 2, num_blocks, names=names)
    found = fractions(allocation, ("a", i.numpy()), ("b", i.numpy()))
    if similarity == "rows":
        assert (found == 1).all()
    else:
        assert_chance(found, num_blocks)


def assert_chance(found: np.ndarray, num_blocks: int) -> None:
    """Every chunk of every pair is an independent event of probability 1 / num_blocks."""
    trials, q = found.size * CHUNK_NUMBERS, 1 / num_blocks
    assert abs(found.mean() - q) <= 5 * math.sqrt(q * (1 - q) / trials)
    # A sum of independent events: binomial, so its variance is known too.
    variance = q * (1 - q) / CHUNK_NUMBERS
    fourth = ((found - q) ** 4).mean()
    error = math.sqrt((fourth - variance**2) / found.size)
    assert abs(((found - q) ** 2).mean() - variance) <= 5 * error


@pytest.mark.parametrize("num_blocks", [2, 40, 1000])
def test_unsigned_tokens_share_by_chance(num_blocks: int) -> None:
    signatures = random_signatures({"a": 2000, "b": 2000})
    allocation = lay_out(signatures, 2, num_blocks, names=("a", "b", "c"))
    signed, unsigned = np.arange(2000), np.arange(2000) + 5000
    assert_chance(fractions(allocation, ("a", unsigned), ("a", unsigned + 2000)), num_blocks)
    assert_chance(fractions(allocation, ("a", unsigned), ("b", unsigned)), num_blocks)
    assert_chance(fractions(allocation, ("c", signed), ("b", unsigned)), num_blocks)
    assert_chance(fractions(allocation, ("a", signed), ("a", unsigned)), num_blocks)
    assert_chance(fractions(allocation, ("c", -signed - 1), ("c", signed)), num_blocks)


def test_a_region_for_unsigned_tokens_is_theirs_alone() -> None:
    signatures = random_signatures({"a": 2000})
    allocation = lay_out(signatures, 2, 50, names=("a",), hashed=20)
    signed, unsigned = np.arange(2000), np.arange(2000) + 5000
    assert int(allocation.places("a", torch.from_numpy(signed)).max()) < 30
    assert int(allocation.places("a", torch.from_numpy(unsigned)).min()) >= 30
    assert (fractions(allocation, ("a", signed), ("a", unsigned)) == 0).all()
    assert_chance(fractions(allocation, ("a", unsigned), ("a", unsigned + 2000)), 20)
    # All blocks are reached.
    reached = torch.cat([allocation.places("a", torch.from_numpy(i)) for i in (signed, unsigned)])
    assert len(reached.unique()) == 50


def test_chunks_of_one_token_are_independent() -> None:
    signatures = random_signatures({"a": 4000}, num_codes=4)
    for ids in (torch.arange(4000), torch.arange(4000) + 10_000):
        places = lay_out(signatures, 4, 40, names=("a",)).places("a", ids)
        # Hands of all four codes are equal for all chunks, yet every chunk hashes by itself.
        same = (places[:, 1:] == places[:, :-1]).double().mean()
        assert abs(float(same) - 1 / 40) <= 5 * math.sqrt(1 / 40 / (4000 * (CHUNK_NUMBERS - 1)))


def test_seed_moves_every_place() -> None:
    signatures = random_signatures({"a": 2000})
    ids = torch.arange(4000)
    one, two = (lay_out(signatures, 2, 40, names=("a",), seed=s).places("a", ids) for s in (0, 1))
    share = float((one == two).double().mean())
    assert abs(share - 1 / 40) <= 5 * math.sqrt(1 / 40 / one.numel())


def test_shared_fraction_is_the_share_of_equal_places() -> None:
    codes = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9, 9]])
    signatures = signatures_of({"a": codes, "b": codes}, similarity="context")
    allocation = lay_out(signatures, 2, 1 << 30, names=("a", "b"), block_size=2)
    assert shared_fraction(allocation, ("a", 0), ("a", 1)) == 1
    hands = [set(hand) for hand in allocation.draws.tolist()]
    expected = sum(hand == {0, 1} for hand in hands) / len(hands)
    assert shared_fraction(allocation, ("a", 0), ("a", 2)) == expected
    assert shared_fraction(allocation, ("a", 0), ("b", 0)) == 0
    assert shared_fraction(allocation, ("a", 7), ("a", 7)) == 1


def test_shared_fraction_needs_equal_dimensions() -> None:
    plan = Plan((TablePlan("a"), TablePlan("b")), 10, 0, 1, 1, 4, 8)
    signatures = random_signatures({"a": 3}, 4, 8)
    tables = [Table("a", None, 4), Table("b", None, 6)]
    allocation = LmaAllocation(tables, plan, signatures, 0)
    with pytest.raises(ValueError, match="'a' has 4 dimensions, 'b' 6"):
        shared_fraction(allocation, ("a", 0), ("b", 0))
    with pytest.raises(KeyError, match=r"no table 'x'; there are \['a', 'b'\]"):
        shared_fraction(allocation, ("x", 0), ("b", 0))


# --- hands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("num_codes", [1, 2, 4, 7, 8, 12])
@pytest.mark.parametrize("chunks", [0, 1, 4, 16, 64, 128])
def test_hands_are_distinct_codes_used_equally(chunks: int, num_codes: int, power: int) -> None:
    draws = draw_codes(chunks, num_codes, power, 9)
    power = min(power, num_codes)
    assert draws.shape == (chunks, power)
    assert draws.dtype == np.uint8
    hands = [tuple(hand) for hand in draws.tolist()]
    assert all(len(set(hand)) == power and max(hand) < num_codes for hand in hands)
    # No hand comes back before all were dealt.
    possible = math.comb(num_codes, power)
    for first in range(0, chunks, possible):
        block = hands[first : first + possible]
        assert len(set(block)) == len(block)
    uses = np.bincount(draws.ravel(), minlength=num_codes) if chunks else np.zeros(num_codes)
    assert uses.max() - uses.min() <= (2 if chunks <= possible / 2 else 3)


def test_hands_depend_on_the_seed_alone() -> None:
    assert np.array_equal(draw_codes(32, 8, 2, 1), draw_codes(32, 8, 2, 1))
    assert np.array_equal(draw_codes(16, 8, 2, 1), draw_codes(32, 8, 2, 1)[:16])
    assert not np.array_equal(draw_codes(32, 8, 2, 1), draw_codes(32, 8, 2, 2))
