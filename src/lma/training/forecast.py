"""What a comparison will take - time, memory, disk - before it starts."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
import torch.nn.functional as F

from lma.allocation import Budget, Hashed
from lma.allocation.tables import FLOAT_BYTES
from lma.nn import EmbeddingBagCollection, EmbeddingBagConfig
from lma.training.cells import cells
from lma.training.config import CompareConfig, ModelConfig, RunConfig, TrainingConfig
from lma.training.experiment import make_model
from lma.training.optimizers import make_optimizer, use_sparse_gradients

# Tensors of the weights' size that a run holds: the weights, the best so far, optimizer state.
COPIES = {"sgd": 2, "adagrad": 3, "adam": 4, "adamw": 4}
PROBE_TOKENS, PROBE_BYTES = 1_000_000, 64_000_000
WARM_UP, STEPS = 2, 5


@dataclasses.dataclass(frozen=True)
class LogSize:
    """What a forecast must know of a log.

    Attributes:
        rows: Training rows.
        tokens: Training vocabulary, all features.
        features, dense: Number of features and of dense columns.
    """

    rows: int
    tokens: int
    features: int
    dense: int

    @classmethod
    def of(cls, dataset: Any) -> LogSize:
        """Of a prepared `lma.data.Dataset`."""
        schema = dataset.schema
        return cls(
            dataset.num_rows("train"),
            dataset.num_tokens(),
            len(schema.features),
            len(schema.dense),
        )


@dataclasses.dataclass(frozen=True)
class Forecast:
    """An estimate; a run that stops early, or whose method is faster than hashing, takes less.

    Attributes:
        cells: Runs.
        rows: Training rows of an epoch.
        rows_per_second: Measured now on this machine; mean of a virtual dimension's runs.
        train_s: Training steps of all cells for all their epochs.
        memory_bytes: Embedding weights of the largest cell, its copies and gradients.
        disk_bytes: The largest cell's checkpoint.
    """

    cells: int
    rows: int
    rows_per_second: dict[int, float]
    train_s: float
    memory_bytes: int
    disk_bytes: int


def forecast(config: CompareConfig, log: LogSize) -> Forecast:
    """Time the model's steps over random ids, once per kind of memory, and multiply."""
    runs = list(cells(config))
    rows = log.rows if config.max_rows is None else min(log.rows, config.max_rows)
    weights = [_weight_bytes(run, log.tokens) for run in runs]
    sparse = [_sparse(run, log, size) for run, size in zip(runs, weights, strict=True)]
    probes = [
        (run.model, min(size, PROBE_BYTES), touched)
        for run, size, touched in zip(runs, weights, sparse, strict=True)
    ]
    speed = {probe: _rows_per_second(*probe, config.training, log) for probe in set(probes)}
    seconds: dict[int, list[float]] = {}
    for model, size, touched in probes:
        seconds.setdefault(model.embedding_dim, []).append(1 / speed[model, size, touched])
    copies = COPIES[config.training.optimizer]
    return Forecast(
        len(runs),
        rows,
        {dim: len(times) / sum(times) for dim, times in sorted(seconds.items())},
        rows * config.training.epochs * sum(sum(times) for times in seconds.values()),
        # Dense gradients are one copy more.
        max((s * (copies + (not t)) for s, t in zip(weights, sparse, strict=True)), default=0),
        max(weights, default=0) * copies,
    )


def _weight_bytes(run: RunConfig, tokens: int) -> int:
    budget = Budget.of(run.method.budget or None, None, tokens)
    return tokens * run.model.embedding_dim * FLOAT_BYTES if budget is None else budget.bytes


def _sparse(run: RunConfig, log: LogSize, weight_bytes: int) -> bool:
    dim = run.model.embedding_dim
    # Which blocks a method makes of a budget is its own matter: single floats are the worst case.
    block_size = 1 if run.method.budget else dim
    floats = weight_bytes // FLOAT_BYTES
    return use_sparse_gradients(floats, block_size, log.features * dim, run.training)


def _rows_per_second(
    model: ModelConfig, memory_bytes: int, sparse: bool, training: TrainingConfig, log: LogSize
) -> float:
    """Speed of training steps over random ids, all tables element-hashed into one memory."""
    generator = torch.Generator().manual_seed(0)
    tables = [
        EmbeddingBagConfig(PROBE_TOKENS, model.embedding_dim, f"feature {i}")
        for i in range(log.features)
    ]
    embeddings = EmbeddingBagCollection(
        tables, method=Hashed(), budget=Budget(memory_bytes, "weights"), sparse=sparse
    )
    probe = make_model(model, embeddings, log.dense)
    optimizer = make_optimizer(probe, embeddings, training)
    batch = training.batch_size
    dense = torch.rand(batch, log.dense, generator=generator)
    labels = torch.randint(0, 2, (batch,), generator=generator).float()
    times = []
    for _ in range(WARM_UP + STEPS):
        ids = torch.randint(0, PROBE_TOKENS, (batch, log.features), generator=generator)
        started = time.perf_counter()
        loss = F.binary_cross_entropy_with_logits(probe(dense, ids), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.perf_counter() - started)
    return batch / sorted(times[WARM_UP:])[STEPS // 2]
