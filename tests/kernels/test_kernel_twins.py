"""Tokens met again copy the vector of their earlier row: the same bits as computing it."""

from __future__ import annotations

import pytest
import torch
from rule_cases import KINDS, named_case, one_hot_ids
from torch import Tensor

from lma.kernels import ops
from lma.kernels.cpu import lookup as launcher
from lma.kernels.cpu import twin_kernel
from lma.kernels.reference import lookup as reference


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("keep", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("name", KINDS)
def test_twins_are_the_reference_s_vectors(
    name: str, chunk: int, keep: bool, threads: int, monkeypatch: pytest.MonkeyPatch,
    torch_threads: None,
) -> None:  # fmt: skip
    monkeypatch.setattr(launcher, "TWIN_CHUNKS", 0)
    torch.set_num_threads(threads)
    case = named_case(name, chunk, private=True)
    for rows in (0, 1, 2, 3 * twin_kernel.MEMO + 5):
        ids = one_hot_ids(case, rows, torch.Generator().manual_seed(0)).view(rows, len(case.dims))
        # Tokens that come back soon, late, and all at once.
        for repeated in (ids, ids[torch.arange(rows) % 7], ids[torch.arange(rows) // 9]):
            zeros = torch.zeros(len(case.dims), dtype=torch.int64)
            call = (
                case.weight(), repeated.reshape(-1).contiguous(), None, None, case.numbers,
                case.columns, zeros, *case.rule, case.pieces, case.width, keep,
            )  # fmt: skip
            for found, wanted in zip(ops.lookup(*call), reference.lookup(*call), strict=True):
                assert torch.equal(found, wanted)


def tokens_of_one_place(count: int) -> Tensor:
    """Different ids that are remembered in the same place, so that each forgets the one before."""
    ids = torch.arange(1, 200_000)
    place = (ids.numpy().astype("uint64") * 0x9E3779B97F4A7C15) >> (64 - 9)
    return ids[torch.from_numpy(place.astype("int64")) == 3][:count]


def test_forgotten_tokens_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "TWIN_CHUNKS", 0)
    case = named_case("unsigned", 4)
    few = tokens_of_one_place(3)
    ids = few[torch.arange(300) % 3].repeat_interleave(len(case.dims))
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    call = (
        case.weight(), ids, None, None, case.numbers, case.columns, zeros, *case.rule, case.pieces,
        case.width, True,
    )  # fmt: skip
    for found, wanted in zip(ops.lookup(*call), reference.lookup(*call), strict=True):
        assert torch.equal(found, wanted)
