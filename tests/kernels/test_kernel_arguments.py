"""Tensors of another dtype, shape or device get no further than the kernels' doors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_cases import bag_ids, bag_offsets, named_case
from torch import Tensor

from lma.kernels.lookup import chunk_starts, lookup
from lma.kernels.reference.quantised import Quantised, quantise
from lma.kernels.rule import Rule
from lma.kernels.touched import lookup_touched

CASE = named_case("all", 3, private=True)
OFFSETS = bag_offsets(len(CASE.dims), 2, 3, torch.Generator().manual_seed(0))
IDS = bag_ids(CASE, OFFSETS, 2, torch.Generator().manual_seed(0))
WEIGHT, INT8 = CASE.weight(), quantise(CASE.weight())
NUMBERS, COLUMNS, SUMS = CASE.numbers, CASE.columns, torch.zeros_like(CASE.numbers)
GOOD: dict[str, Any] = {
    "weight": WEIGHT, "rule": CASE.rule, "ids": IDS, "numbers": NUMBERS, "columns": COLUMNS,
    "modes": SUMS, "pieces": CASE.pieces, "width": CASE.width, "offsets": OFFSETS,
    "factors": torch.ones(len(IDS)),
}  # fmt: skip
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ids": IDS.int()}, "ids must be int64 with 1 dimension, found torch.int32 ["),
    ({"numbers": NUMBERS.view(1, -1)}, "numbers must be int64 with 1 dimension, found torch.int64"),
    ({"columns": COLUMNS.float()}, "columns must be int64"),
    ({"modes": SUMS.bool()}, "modes must be int64"),
    ({"offsets": OFFSETS.int()}, "offsets must be int64"),
    ({"offsets": OFFSETS[:0]}, "-1 bags are no multiple of 6 features"),
    ({"columns": COLUMNS[:-1]}, "6 features have 7 columns and 6 modes, found 6 and 6"),
    ({"modes": SUMS[:-1]}, "6 features have 7 columns and 6 modes, found 7 and 5"),
    ({"numbers": NUMBERS[:0]}, "at least one feature"),
    ({"width": 59}, "columns end at 60, width is 59"),
    ({"width": 61}, "columns end at 60, width is 61"),
    ({"modes": SUMS + 1}, "factors need sums"),
    ({"factors": SUMS}, "factors must be ["),
    ({"factors": torch.ones_like(IDS)}, "factors must be floats, found torch.int64"),
    ({"weight": WEIGHT.view(-1)}, "weights must be floats [num_blocks, block_size], found"),
    ({"weight": INT8.values}, "int8 comes with scales"),
]
WRONG_INT8 = [
    (Quantised(INT8.values.short(), INT8.scales), "weights must be int8 with 2 dimensions"),
    (Quantised(INT8.values.view(-1), INT8.scales), "weights must be int8 with 2 dimensions"),
    (Quantised(INT8.values, INT8.scales.float()), "must be float16 with 1 dimension"),
    (Quantised(INT8.values, INT8.scales[:-1]), "scales of 9 groups must be float16"),
    (Quantised(INT8.values.to("meta"), INT8.scales), "weights are on meta, ids on cpu"),
    (Quantised(INT8.values, INT8.scales.to("meta")), "groups are on meta, ids on cpu"),
]
WRONG_RULES = [
    ({"layout": CASE.rule.layout.int()}, "layout must be int64 with 2 dimensions"),
    ({"seeds": CASE.rule.seeds.double()}, "seeds must be int64"),
    ({"draws": CASE.rule.draws.view(-1)}, "draws must be uint8 with 2 dimensions"),
    ({"codes": CASE.rule.codes.char()}, "codes must be uint8"),
    ({"fingerprints": CASE.rule.fingerprints.int()}, "fingerprints must be int16"),
    ({"overflow_keys": CASE.rule.overflow_keys.float()}, "overflow_keys must be int64"),
]


def starts(rule: Rule, ids: Tensor = IDS[:6], numbers: Tensor = NUMBERS) -> Tensor:
    return chunk_starts(rule, ids, numbers, CASE.unit, CASE.pieces)


@pytest.mark.parametrize("function", [lookup, lookup_touched])
@pytest.mark.parametrize(("change", "text"), WRONG, ids=[text for _, text in WRONG])
def test_the_wrong_tensor_is_named(
    function: Callable[..., Tensor], change: dict[str, Any], text: str
) -> None:
    function(**GOOD)
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        function(**{**GOOD, **change})


@pytest.mark.parametrize("name", ["weight", "numbers", "columns", "modes", "offsets", "factors"])
def test_one_tensor_on_another_device(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}s? are on meta, ids on cpu: move one of them"):
        lookup(**{**GOOD, name: GOOD[name].to("meta")})


@pytest.mark.parametrize(("weight", "text"), WRONG_INT8)
def test_quantised_weights(weight: Quantised, text: str) -> None:
    lookup(**{**GOOD, "weight": INT8})
    with pytest.raises((TypeError, ValueError), match=text):
        lookup(**{**GOOD, "weight": weight})


@pytest.mark.parametrize(("change", "text"), WRONG_RULES)
def test_tensors_of_the_rule(change: dict[str, Tensor], text: str) -> None:
    starts(CASE.rule)
    (name,) = change
    meta = CASE.rule._replace(**{name: getattr(CASE.rule, name).to("meta")})
    for rule, message in (
        (CASE.rule._replace(**change), text),
        (meta, f"{name} are on meta, ids on cpu"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            lookup(**{**GOOD, "rule": rule})
        with pytest.raises((TypeError, ValueError), match=message):
            starts(rule)


def test_starts_of_ids_without_features() -> None:
    with pytest.raises(ValueError, match="6 ids are no multiple of 0 features"):
        starts(CASE.rule, numbers=NUMBERS[:0])
    with pytest.raises(ValueError, match="numbers are on meta, ids on cpu"):
        starts(CASE.rule, numbers=NUMBERS.to("meta"))
