"""Training state on disk, so that a killed run goes on bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from lma.errors import FormatError, StateMismatchError
from lma.files import replace_file
from lma.training.adapting import Adapting

FORMAT = 2


@dataclasses.dataclass
class TrainingState:
    """Where a run stands, beside the model's and the optimizer's own state.

    Attributes:
        epoch: Epochs completed.
        batch: Batches done of the next one.
        step: Steps done in all.
        curve: Evaluations so far.
        best_quality: Best validation AUC.
        best: Model state at that evaluation, or None.
        stale: Evaluations since the best one.
        loss_sum, loss_rows: Training loss since the last evaluation.
        train_seconds: Time spent in training steps.
        training_extra: Bytes of gradients and optimizer state.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    curve: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_quality: float = float("-inf")
    best: dict[str, torch.Tensor] | None = None
    stale: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    train_seconds: float = 0.0
    training_extra: int = 0


def save_checkpoint(
    path: Path,
    identity: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    adapting: Adapting,
    state: TrainingState,
) -> None:
    """Write atomically; `identity` names the run whose config may continue from it."""
    content = {
        "format": FORMAT,
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "adaptation": adapting.state_dict(),
        "state": vars(state),
    }
    with replace_file(path) as target:
        try:
            torch.save(content, target)
        except RuntimeError as error:  # how torch's zip writer says that the disk is full
            raise OSError(f"{path}: could not be written ({error})") from error


def check_checkpoint(path: Path, identity: str) -> None:
    """Refuse a checkpoint of another run before anything of it is overwritten."""
    if path.exists():
        _read(path, identity)


def load_checkpoint(
    path: Path,
    identity: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    adapting: Adapting,
) -> TrainingState | None:
    """Restore what `save_checkpoint` wrote; None where there is no file."""
    if not path.exists():
        return None
    content = _read(path, identity)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    adapting.load_state_dict(content["adaptation"])
    return TrainingState(**content["state"])


def _read(path: Path, identity: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if content["format"] != FORMAT:
            raise FormatError(f"{path}: checkpoint of format {content['format']}, not {FORMAT}")
    except FormatError:
        raise
    except Exception as error:  # torch.load raises whatever pickle, zip or the file gives it
        raise FormatError(
            f"{path}: not a checkpoint, or damaged ({error}); delete it to start anew"
        ) from error
    if content["identity"] != identity:
        raise StateMismatchError(
            f"{path} belongs to run {content['identity']}, this is run {identity}: "
            "the config has changed; delete the checkpoint to start anew"
        )
    return content
