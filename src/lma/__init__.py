"""LMA: embedding tables compressed by letting similar tokens share memory.

    import lma

    signatures = lma.fit_signatures(log)                       # what tokens are like
    embeddings = lma.EmbeddingBagCollection(tables, budget="64MB", signatures=signatures)

The guide, formulas and file formats are under `docs/`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lma import allocation, models, nn
from lma.allocation import Plan, plan, shared_fraction
from lma.errors import BudgetError, DataError, FormatError, LmaError, StateMismatchError
from lma.hashing import HASH_VERSION, token_key
from lma.nn import (
    Embedding,
    EmbeddingBag,
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    FusedOptimizer,
    SharedMemory,
    compress_,
    embeddings_for,
)
from lma.signatures import (
    ContextCodeBuilder,
    LogStats,
    MinHashBuilder,
    SignatureConfig,
    SignatureTable,
    SimHashBuilder,
    TableStats,
    drift,
    fit_signatures,
)
from lma.version import __version__

if TYPE_CHECKING:
    from lma import data, training
    from lma.training import Bundle, load, save

# Loaded when first asked for: who puts embeddings into a model of their own needs no logs.
_LATER = {"data": "", "training": "", "Bundle": "training", "load": "training", "save": "training"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name] or name}")
    return getattr(module, name) if _LATER[name] else module


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "HASH_VERSION",
    "BudgetError",
    "Bundle",
    "ContextCodeBuilder",
    "DataError",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingBagCollection",
    "EmbeddingBagConfig",
    "FormatError",
    "FusedOptimizer",
    "LmaError",
    "LogStats",
    "MinHashBuilder",
    "Plan",
    "SharedMemory",
    "SignatureConfig",
    "SignatureTable",
    "SimHashBuilder",
    "StateMismatchError",
    "TableStats",
    "__version__",
    "allocation",
    "compress_",
    "data",
    "drift",
    "embeddings_for",
    "fit_signatures",
    "load",
    "models",
    "nn",
    "plan",
    "save",
    "shared_fraction",
    "token_key",
    "training",
]
