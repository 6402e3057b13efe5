"""An allocation as plain JSON, and back: what a saved model's description holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lma.allocation.base import Allocation
from lma.allocation.cafe import CafeAllocation
from lma.allocation.cce import CceAllocation
from lma.allocation.deep_hash import DeepHashAllocation
from lma.allocation.frequency_cutoff import FrequencyCutoffAllocation
from lma.allocation.full import FullAllocation
from lma.allocation.hashed import HashedAllocation
from lma.allocation.hashing_trick import HashingTrickAllocation
from lma.allocation.lma import LmaAllocation
from lma.allocation.mixed_dimension import MixedDimensionAllocation
from lma.allocation.planning import Plan
from lma.allocation.quotient_remainder import QuotientRemainderAllocation
from lma.allocation.robe import RobeAllocation
from lma.allocation.tables import Table
from lma.allocation.tensor_train import TensorTrainAllocation
from lma.errors import FormatError
from lma.signatures.table import TENSORS, Section, SignatureTable

CLASSES: dict[str, type[Allocation]] = {
    "full": FullAllocation,
    "hashed": HashedAllocation,
    "hashing-trick": HashingTrickAllocation,
    "robe": RobeAllocation,
    "frequency-cutoff": FrequencyCutoffAllocation,
    "quotient-remainder": QuotientRemainderAllocation,
    "mixed-dimension": MixedDimensionAllocation,
    "tensor-train": TensorTrainAllocation,
    "deep-hash": DeepHashAllocation,
    "cce": CceAllocation,
    "cafe": CafeAllocation,
    "lma": LmaAllocation,
}


def to_recipe(allocation: Allocation) -> dict[str, Any]:
    """Plain JSON from which `from_recipe` makes the same allocation (with its tensors)."""
    names = [name for name, cls in CLASSES.items() if type(allocation) is cls]
    if not names:
        raise TypeError(f"to_recipe: no recipe for {type(allocation).__name__}")
    arguments = allocation.arguments
    if isinstance(allocation, LmaAllocation):
        signatures = allocation.signatures
        arguments = {
            "plan": allocation.plan.to_dict(),
            "seed": allocation.seed,
            "sections": [dataclasses.asdict(section) for section in signatures.sections],
            "signature_seed": signatures.seed,
        }
    return {
        "kind": names[0],
        "tables": [dataclasses.asdict(table) for table in allocation.tables],
        "arguments": arguments,
    }


def from_recipe(recipe: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Allocation:
    """The allocation of a recipe.

    Args:
        recipe: What `to_recipe` gave.
        tensors: The allocation's saved state, by name; signatures are taken from it.
    """
    kind = recipe["kind"]
    if kind not in CLASSES:
        raise FormatError(f"unknown allocation {kind!r}; known: {', '.join(CLASSES)}")
    tables = [Table(**table) for table in recipe["tables"]]
    arguments = dict(recipe["arguments"])
    if kind != "lma":
        return CLASSES[kind](tables, **arguments)
    signatures = SignatureTable(
        [Section(**section) for section in arguments["sections"]],
        *(tensors[name] for name in TENSORS),
        seed=arguments["signature_seed"],
    )
    return LmaAllocation(tables, Plan.from_dict(arguments["plan"]), signatures, arguments["seed"])
