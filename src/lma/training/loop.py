"""The training loop: read it from top to bottom."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from lma.training.adapting import Adapting
from lma.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from lma.training.config import TrainingConfig
from lma.training.interrupt import DeferredInterrupt
from lma.training.metrics import Metrics, evaluate, score
from lma.training.optimizers import make_optimizer, rate_factor, training_extra_bytes

SAVE_EVERY_S = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What training gave; the model holds the weights of the best evaluation.

    Attributes:
        curve: One entry per evaluation: epoch, step, train_loss, auc, log_loss (validation).
        best: Validation metrics of the weights kept.
        train_seconds: Time in training steps and adaptation, without evaluations.
        training_extra: Bytes of the embeddings' gradients, optimizer state and adaptation.
    """

    curve: tuple[dict[str, float], ...]
    best: Metrics
    train_seconds: float
    training_extra: int


Progress = Callable[[int, int, TrainingState], None]


def train(
    model: torch.nn.Module,
    embeddings: torch.nn.Module,
    dataset: Any,
    config: TrainingConfig,
    *,
    seed: int = 0,
    max_rows: int | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> Outcome:
    """Train on "train" rows, validate, keep the best weights, stop early.

    Args:
        model: Called as model(dense, values, offsets) -> logits [batch].
        embeddings: The part of it that holds the tokens' vectors; where its allocation follows
            training (`Allocation.adaptation`), it is told of every step and epoch.
        dataset: A prepared `lma.data.Dataset`.
        config: Epochs, optimizer, rates, patience.
        seed: Order of rows: epoch e is shuffled by (seed, e).
        max_rows: Training rows to use at most.
        device: Where the model is.
        checkpoint: File to continue from, written after every evaluation and every minute.
        identity: What the checkpoint must have been written for.
        progress: Called after every step with (step, steps in all, state).
    """
    if dataset.num_rows("validation") == 0:
        raise ValueError("train: the log has no validation rows to choose the best weights by")
    rows = dataset.num_rows("train")
    rows = rows if max_rows is None else min(rows, max_rows)
    if rows == 0:
        raise ValueError("train: the log has no training rows")
    steps_per_epoch = math.ceil(rows / config.batch_size)
    total_steps = steps_per_epoch * config.epochs
    evaluate_at = {
        math.ceil(steps_per_epoch * (i + 1) / config.evaluations_per_epoch)
        for i in range(config.evaluations_per_epoch)
    }
    optimizer = make_optimizer(model, embeddings, config)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    adapting = Adapting(embeddings, optimizer)
    state = None
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity, model, optimizer, adapting)
    state = state or TrainingState()

    saved_at = time.monotonic()
    # torch's Adagrad, given sparse gradients, wants to be told that they need no check.
    unchecked = torch.sparse.check_sparse_tensor_invariants(enable=False)  # type: ignore[no-untyped-call]
    with DeferredInterrupt() as interrupt, unchecked, adapting:
        while state.epoch < config.epochs and not _finished(state, config):
            batches = dataset.batches(
                "train",
                config.batch_size,
                shuffle=True,
                seed=seed,
                epoch=state.epoch,
                start_batch=state.batch,
                max_rows=max_rows,
            )
            model.train()
            for batch in batches:
                started = time.perf_counter()
                factor = rate_factor(state.step, total_steps, config)
                for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                    group["lr"] = rate * factor
                loss = F.binary_cross_entropy_with_logits(
                    score(model, batch, device), batch.labels.to(device)
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                adapting.after_step()
                state.loss_sum += float(loss.detach()) * len(batch.labels)
                state.loss_rows += len(batch.labels)
                state.step += 1
                state.batch += 1
                state.train_seconds += time.perf_counter() - started
                if not state.training_extra:
                    extra = training_extra_bytes(embeddings, optimizer)
                    state.training_extra = extra + adapting.num_bytes
                if progress is not None:
                    progress(state.step, total_steps, state)
                due = state.batch in evaluate_at
                if due:
                    _evaluate(model, dataset, state, device)
                # Between steps only: a checkpoint is always of a whole step.
                old = time.monotonic() - saved_at > SAVE_EVERY_S
                if checkpoint and (due or old or interrupt.requested):
                    save_checkpoint(checkpoint, identity, model, optimizer, adapting, state)
                    saved_at = time.monotonic()
                interrupt.obey()
                if due and _finished(state, config):
                    break
            else:
                state.epoch, state.batch = state.epoch + 1, 0
                if state.epoch < config.epochs:
                    started = time.perf_counter()
                    adapting.after_epoch(state.epoch)
                    state.train_seconds += time.perf_counter() - started
    if state.best is not None:
        model.load_state_dict(state.best)
    best = max(state.curve, key=_quality)
    return Outcome(
        tuple(state.curve),
        Metrics(best["auc"], best["log_loss"], int(best["rows"])),
        state.train_seconds,
        state.training_extra,
    )


def _quality(point: Mapping[str, float]) -> float:
    """What is to be high: validation AUC, or, where one class gives none, minus the log-loss."""
    return -point["log_loss"] if math.isnan(point["auc"]) else point["auc"]


def _finished(state: TrainingState, config: TrainingConfig) -> bool:
    return bool(config.patience) and state.stale >= config.patience


def _evaluate(
    model: torch.nn.Module, dataset: Any, state: TrainingState, device: torch.device | str
) -> None:
    metrics = evaluate(model, dataset, "validation", device=device)
    loss = state.loss_sum / state.loss_rows
    if not math.isfinite(loss):
        raise ValueError(f"training diverged: loss {loss} at step {state.step}; lower the rate")
    state.curve.append(
        {
            "epoch": state.epoch + 1,
            "step": state.step,
            "train_loss": loss,
            "auc": metrics.auc,
            "log_loss": metrics.log_loss,
            "rows": metrics.rows,
        }
    )
    state.loss_sum, state.loss_rows = 0.0, 0
    quality = _quality(state.curve[-1])
    if quality > state.best_quality or state.best is None:
        state.best_quality, state.stale = quality, 0
        state.best = copy.deepcopy(model.state_dict())
    else:
        state.stale += 1
