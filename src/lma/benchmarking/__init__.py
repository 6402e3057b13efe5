"""What `lma bench` and `benchmarks/kernels` measure, and how."""

from lma.benchmarking.embedding_speed import EmbeddingSpeed, Ratios, measure, ratios
from lma.benchmarking.timing import circumstances, interleaved

__all__ = ["EmbeddingSpeed", "Ratios", "circumstances", "interleaved", "measure", "ratios"]
