"""Configs, the training loop, checkpoints, and one cell of a comparison."""

from lma.training.bundle import Bundle, load, save
from lma.training.comparison import compare
from lma.training.config import (
    CompareConfig,
    ConfigError,
    MethodConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from lma.training.experiment import SignatureShelf, build_model, run
from lma.training.loop import Outcome, train
from lma.training.methods import METHODS, method_spec
from lma.training.metrics import Metrics, evaluate, metrics_of, predict

__all__ = [
    "METHODS",
    "Bundle",
    "CompareConfig",
    "ConfigError",
    "MethodConfig",
    "Metrics",
    "ModelConfig",
    "Outcome",
    "RunConfig",
    "SignatureShelf",
    "TrainingConfig",
    "build_model",
    "compare",
    "evaluate",
    "load",
    "method_spec",
    "metrics_of",
    "predict",
    "run",
    "save",
    "train",
]
