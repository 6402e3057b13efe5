"""Modules: the shared memory and torch's embedding modules over it."""

from lma.kernels.reference.quantised import Quantised, dequantise, quantise
from lma.nn.collection import EmbeddingBagCollection, EmbeddingBagConfig
from lma.nn.compress import compress_
from lma.nn.embedding import Embedding, EmbeddingBag
from lma.nn.for_log import embeddings_for
from lma.nn.fused import FusedOptimizer
from lma.nn.memory import MemoryReport, SharedMemory

__all__ = [
    "Embedding",
    "EmbeddingBag",
    "EmbeddingBagCollection",
    "EmbeddingBagConfig",
    "FusedOptimizer",
    "MemoryReport",
    "Quantised",
    "SharedMemory",
    "compress_",
    "dequantise",
    "embeddings_for",
    "quantise",
]
