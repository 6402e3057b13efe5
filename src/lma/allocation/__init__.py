"""From tokens to places in memory: one file per method, each a frozen config."""

from lma.allocation.auto import Auto
from lma.allocation.base import Allocation, Method, shared_fraction
from lma.allocation.cafe import Cafe
from lma.allocation.cce import Cce
from lma.allocation.deep_hash import DeepHash
from lma.allocation.frequency_cutoff import FrequencyCutoff
from lma.allocation.full import Full
from lma.allocation.hashed import Hashed
from lma.allocation.hashing_trick import HashingTrick
from lma.allocation.lma import Lma, LmaAllocation
from lma.allocation.low_dimension import LowDimension
from lma.allocation.mixed_dimension import MixedDimension
from lma.allocation.planning import Plan, TablePlan, plan
from lma.allocation.quotient_remainder import QuotientRemainder
from lma.allocation.robe import Robe
from lma.allocation.speed_rules import fast_block_size, gradient_mode
from lma.allocation.tables import Budget, Table, parse_bytes
from lma.allocation.tensor_train import TensorTrain

__all__ = [
    "Allocation",
    "Auto",
    "Budget",
    "Cafe",
    "Cce",
    "DeepHash",
    "FrequencyCutoff",
    "Full",
    "Hashed",
    "HashingTrick",
    "Lma",
    "LmaAllocation",
    "LowDimension",
    "Method",
    "MixedDimension",
    "Plan",
    "QuotientRemainder",
    "Robe",
    "Table",
    "TablePlan",
    "TensorTrain",
    "fast_block_size",
    "gradient_mode",
    "parse_bytes",
    "plan",
    "shared_fraction",
]
