"""AUC and log-loss, from stored predictions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Quality on one split.

    Attributes:
        auc: Area under the ROC curve; nan where the split holds one class only.
        log_loss: Mean negative log-likelihood, nats per row.
        rows: Rows scored.
    """

    auc: float
    log_loss: float
    rows: int

    def to_dict(self) -> dict[str, float]:
        """For a result line."""
        return dataclasses.asdict(self)


def metrics_of(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Metrics:
    """Metrics of logits and 0/1 labels, both [rows]."""
    from sklearn.metrics import roc_auc_score

    logits = np.asarray(logits, np.float64)
    labels = np.asarray(labels)
    if np.isnan(labels).any():
        raise ValueError("metrics: some labels are missing")
    if not np.isfinite(logits).all():
        raise ValueError("metrics: some predictions are not finite: training has diverged")
    if len(labels) == 0:
        return Metrics(float("nan"), float("nan"), 0)
    both = 0 < labels.sum() < len(labels)
    auc = float(roc_auc_score(labels, logits)) if both else float("nan")
    # log(1 + e^-|x|) + max(x, 0) - x y never overflows.
    loss = np.logaddexp(0, logits) - logits * labels
    return Metrics(auc, float(loss.mean()), len(labels))


def predict(
    model: torch.nn.Module,
    dataset: Any,
    split: str,
    *,
    batch_size: int = 16_384,
    device: torch.device | str = "cpu",
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits and labels of a split, in the log's order, both [rows]."""
    logits, labels = [], []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in dataset.batches(split, batch_size):
                logits.append(score(model, batch, device).float().cpu().numpy())
                labels.append(batch.labels.numpy())
    finally:
        model.train(was_training)
    empty = np.empty(0, np.float32)
    return np.concatenate([empty, *logits]), np.concatenate([empty, *labels])


def score(model: torch.nn.Module, batch: Any, device: torch.device | str) -> torch.Tensor:
    """A model's logits for one batch."""
    offsets = None if batch.offsets is None else batch.offsets.to(device)
    result: torch.Tensor = model(batch.dense.to(device), batch.values.to(device), offsets)
    return result


def evaluate(
    model: torch.nn.Module,
    dataset: Any,
    split: str,
    *,
    device: torch.device | str = "cpu",
) -> Metrics:
    """Metrics of a model on a split."""
    return metrics_of(*predict(model, dataset, split, device=device))
