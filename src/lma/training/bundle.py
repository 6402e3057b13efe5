"""A trained model in one folder - weights, signatures, dictionaries - that scores raw values."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.allocation.recipes import from_recipe, to_recipe
from lma.data import RowEncoder
from lma.errors import FormatError
from lma.files import naming, replace_directory, save_tensors
from lma.hashing import HASH_VERSION
from lma.models import DLRM, GMF
from lma.nn import EmbeddingBagCollection, EmbeddingBagConfig, SharedMemory
from lma.training.metrics import score
from lma.version import __version__

FORMAT = 1
DESCRIPTION = "lma.json"
WEIGHTS = "model.safetensors"
ENCODER = "encoder"
MODELS = {"DLRM": DLRM, "GMF": GMF}


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded folder.

    Attributes:
        model: The model, in eval mode.
        encoder: Raw values -> tensors, or None where none was saved.
        info: What the saver wrote beside it: config, metrics, versions.
    """

    model: DLRM | GMF
    encoder: RowEncoder | None
    info: Mapping[str, Any]

    def predict(self, frame: Any) -> npt.NDArray[np.float64]:
        """Click probabilities of raw rows, float64 [rows].

        Args:
            frame: A polars frame with the log's raw columns; see `RowEncoder.encode`.
        """
        if self.encoder is None:
            raise ValueError(
                "this model was saved without an encoder: save it with encoder=dataset.encoder"
            )
        if not len(frame):
            return np.empty(0)
        with torch.inference_mode():
            logits = score(self.model, self.encoder.encode(frame), self.device)
        return torch.sigmoid(logits.double()).cpu().numpy()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def save(
    model: DLRM | GMF,
    directory: str | os.PathLike[str],
    *,
    encoder: RowEncoder | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a model into one folder, atomically: the old folder stays until the new is whole.

    Files: `lma.json` (what it is), `model.safetensors` (weights, signatures, index), `encoder/`
    (dictionaries and dense transformation).

    Args:
        model: A `DLRM` or `GMF` over an `EmbeddingBagCollection`.
        directory: A folder that does not exist, is empty, or holds a model of ours.
        encoder: `dataset.encoder`, so that raw values can be scored elsewhere.
        info: Any JSON worth keeping: config, metrics.

    Raises:
        TypeError: Another kind of model; keep its `state_dict` instead.
        FileExistsError: The folder holds something else.
    """
    known = isinstance(model, tuple(MODELS.values()))
    if not known or not isinstance(model.embeddings, EmbeddingBagCollection):
        raise TypeError(
            "lma.save writes a DLRM or GMF over an EmbeddingBagCollection, found "
            f"{type(model).__name__}; for your own model save model.state_dict()"
        )
    path = Path(directory)
    if path.exists() and (
        not path.is_dir() or (any(path.iterdir()) and not (path / DESCRIPTION).exists())
    ):
        raise FileExistsError(f"{path} exists and is not a saved model: choose another folder")
    description = {
        "format": FORMAT,
        "hash_version": HASH_VERSION,
        "lma": __version__,
        "model": {"class": type(model).__name__, **model.config},
        "tables": [dataclasses.asdict(config) for config in model.embeddings.configs],
        "allocation": to_recipe(model.embeddings.allocation),
        "out_of_range": model.embeddings.memory.out_of_range,
        "precision": model.embeddings.memory.precision,
        "dtype": str(model.embeddings.memory.weight.dtype).removeprefix("torch."),
        "info": dict(info or {}),
    }
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with replace_directory(path) as target:
        with naming(path / WEIGHTS):
            save_tensors(state, target / WEIGHTS)
        (target / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        if encoder is not None:
            encoder.save(target / ENCODER)


def load(directory: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Bundle:
    """Read a folder that `save` wrote.

    Raises:
        FileNotFoundError: There is no such folder.
        FormatError: It is damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(directory)
    if not (path / DESCRIPTION).exists():
        raise FileNotFoundError(f"no saved model in {path}: {DESCRIPTION} is missing")
    try:
        description = json.loads((path / DESCRIPTION).read_text())
        versions = description["format"], description["hash_version"]
        if versions != (FORMAT, HASH_VERSION):
            raise FormatError(
                f"{path}: saved as (format, hash_version) {versions}, this lma reads "
                f"{(FORMAT, HASH_VERSION)}: train the model again"
            )
        state = load_file(path / WEIGHTS)
        model = _rebuild(description, state)
        model.load_state_dict(state)
    except FormatError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FormatError(f"{path}: damaged model ({type(error).__name__}: {error})") from error
    encoder = RowEncoder.load(path / ENCODER) if (path / ENCODER).exists() else None
    return Bundle(model.to(device).eval(), encoder, description["info"])


def _rebuild(description: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> DLRM | GMF:
    prefix = "embeddings.memory.allocation."
    tensors = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    dtype = getattr(torch, description["dtype"])
    memory = SharedMemory(
        (),
        allocation=from_recipe(description["allocation"], tensors),
        out_of_range=description["out_of_range"],
        # Of floats that are still to be rounded; the type of quantised weights says their own.
        precision=description.get("precision") if dtype.is_floating_point else None,
        dtype=dtype,
    )
    configs = [EmbeddingBagConfig(**table) for table in description["tables"]]
    model = dict(description["model"])
    model_class = MODELS.get(model.pop("class"))
    if model_class is None:
        raise FormatError(f"unknown model class in {DESCRIPTION}")
    embeddings = EmbeddingBagCollection(configs, memory=memory)
    rebuilt: DLRM | GMF = model_class(embeddings, model.pop("num_dense"), **model)
    return rebuilt


def check_same_ids(bundle: Bundle, dataset: Any) -> None:
    """Refuse a dataset whose ids mean other tokens than the model's, with what differs."""
    if bundle.encoder is None:
        return
    mine, theirs = bundle.encoder.schema, dataset.encoder.schema
    if (mine.features, mine.dense) != (theirs.features, theirs.dense):
        raise ValueError(
            f"the model was trained on ids of {mine.name!r} {_sizes(mine)}, the dataset "
            f"{theirs.name!r} has {_sizes(theirs)}: use the dataset it was trained on"
        )
    for feature in mine.features:
        pair = [e.dictionary(feature.name) for e in (bundle.encoder, dataset.encoder)]
        # Keys tell raw values apart, in id order: no string of millions is compared. Hashed ids
        # have no dictionary, and mean the same everywhere.
        ours, others = (np.zeros(0, np.uint64) if d is None else d.keys for d in pair)
        if not np.array_equal(ours, others):
            raise ValueError(
                f"feature {feature.name!r}: the dataset's dictionary differs from the model's; "
                "use the dataset it was trained on"
            )


def _sizes(schema: Any) -> dict[str, int | None]:
    return {feature.name: feature.num_embeddings for feature in schema.features}
