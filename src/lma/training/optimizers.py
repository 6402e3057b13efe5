"""Optimizers by name, and the bytes that training with them takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lma.allocation import gradient_mode
from lma.training.config import TrainingConfig


def make_optimizer(
    model: nn.Module, embeddings: nn.Module, config: TrainingConfig
) -> torch.optim.Optimizer:
    """An optimizer with one group for the embeddings and one for everything else."""
    own = {id(parameter) for parameter in embeddings.parameters()}
    rest = [p for p in model.parameters() if id(p) not in own]
    rate = config.learning_rate
    groups = [
        {"params": list(embeddings.parameters()), "lr": config.embedding_learning_rate or rate},
        {"params": rest, "lr": rate},
    ]
    arguments: dict[str, Any] = {"lr": rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, **arguments)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, **arguments)
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, eps=1e-8, **arguments)
    return torch.optim.SGD(groups, **arguments)


def use_sparse_gradients(
    weight_floats: int, block_size: int, floats_per_row: int, config: TrainingConfig
) -> bool:
    """Whether the memory's gradients should be sparse: same steps, less time and memory.

    The crossover is that of `lma.allocation.gradient_mode`, for the optimizers of torch that the
    loop uses. Only where the optimizer leaves untouched floats alone, so that both give the same
    result.

    Args:
        weight_floats: Floats of the memory.
        block_size: Floats of one block.
        floats_per_row: Floats that a log row reads, over all features.
        config: Optimizer and batch size.
    """
    same = config.optimizer in ("sgd", "adagrad") and not config.weight_decay
    floats_per_step = floats_per_row * config.batch_size
    mode = gradient_mode(weight_floats, block_size, floats_per_step, fused=False)
    return same and mode == "sparse"


def rate_factor(step: int, total: int, config: TrainingConfig) -> float:
    """Learning rate at `step` of `total`, over its base: linear warm-up, linear decay."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return 1 - (1 - config.decay) * min(1.0, done)


def training_extra_bytes(embeddings: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of gradients and optimizer state of the embeddings, read off the real tensors."""
    total = 0
    for parameter in embeddings.parameters():
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse:
            total += gradient._values().nbytes + gradient._indices().nbytes
        else:
            total += parameter.nbytes
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, torch.Tensor):
                total += value.nbytes
    return total
