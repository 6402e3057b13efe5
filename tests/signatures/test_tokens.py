"""Where tokens have their slots."""

from __future__ import annotations

import numpy as np
import pytest

from lma.signatures.tokens import KeyedTokens, RankedTokens


@pytest.mark.parametrize("given", [True, False], ids=["given", "as they come"])
def test_a_rested_table_finds_the_same_slots(given):
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 3000)
    tokens = KeyedTokens("t", ids if given else None)
    wanted = tokens.locate(ids)
    assert np.array_equal(wanted, np.arange(3000))
    tokens.rest()
    assert np.array_equal(tokens.locate(ids), wanted)
    tokens.rest()
    more = np.append(ids[::-1], 12345)
    found = tokens.locate(more)
    assert np.array_equal(found[:-1], wanted[::-1])
    assert found[-1] == (-1 if given else 3000)
    assert np.array_equal(tokens.locate(more), found)


def test_ranked_tokens_have_nothing_to_give_up():
    tokens = RankedTokens("t", 5, 3)
    tokens.rest()
    assert tokens.locate(np.array([0, 2, 3])).tolist() == [0, 2, -1]
