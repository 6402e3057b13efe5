"""LMA: embedding tables compressed by letting similar tokens share memory.

    import lma

    signatures = lma.fit_signatures(log)                       # what tokens are like
    embeddings = lma.EmbeddingBagCollection(tables, budget="64MB", signatures=signatures)

The guide, formulas and file formats are under `docs/`.
"""

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
from lma.training import Bundle, load, save
from lma.version import __version__

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
]
