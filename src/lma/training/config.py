"""Frozen settings of a run, to and from TOML; unknown keys name the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib as tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

MODELS = ("dlrm", "gmf")
OPTIMIZERS = ("adam", "adamw", "adagrad", "sgd")


class ConfigError(ValueError):
    """A setting that does not exist or does not fit."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model around the embeddings.

    Attributes:
        name: "dlrm", or "gmf" for logs of two features and no dense one.
        embedding_dim: Floats per vector.
        bottom: Hidden sizes of the DLRM's bottom MLP.
        top: Hidden sizes of the DLRM's top MLP.
        init_std: Standard deviation of initial vectors; None: 0.01.
    """

    name: str = "dlrm"
    embedding_dim: int = 16
    bottom: tuple[int, ...] = (64,)
    top: tuple[int, ...] = (64, 32)
    init_std: float | None = None

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise ConfigError(f"model.name must be one of {MODELS}, found {self.name!r}")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How it is trained; the same for every method that is compared.

    Attributes:
        epochs: Passes over the training rows at most.
        batch_size: Rows per step.
        optimizer: "adam", "adamw", "adagrad" or "sgd".
        learning_rate: Of the MLPs, and of the embeddings unless the next one says otherwise.
        embedding_learning_rate: Of the embeddings; None: `learning_rate`.
        weight_decay: As the optimizer defines it.
        warmup_steps: Steps over which the rate rises linearly from 0.
        decay: Final rate over the first one, reached linearly at the last step; 1 keeps it.
        evaluations_per_epoch: Validations per epoch.
        patience: Stop after so many evaluations without a better validation AUC; 0 never stops.
    """

    epochs: int = 4
    batch_size: int = 2048
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    embedding_learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup_steps: int = 0
    decay: float = 1.0
    evaluations_per_epoch: int = 1
    patience: int = 2

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"training.optimizer must be one of {OPTIMIZERS}, found {self.optimizer!r}"
            )
        for name in ("epochs", "batch_size", "evaluations_per_epoch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"training.learning_rate must be > 0, found {self.learning_rate}")


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """Which compression, and in how many bytes.

    Attributes:
        name: A name of `lma.training.methods.METHODS`, such as "full" or "lma-labelled-context".
        budget: "16x", "64MB" or bytes; "" for the full tables.
        counts: What the budget pays for: "serving" bytes or "weights" alone (as the paper does).
        settings: Of the method's allocation and signatures, such as power or num_codes.
    """

    name: str = "lma"
    budget: str = "16x"
    counts: str = "serving"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything one run needs beside the data.

    Attributes:
        method, model, training: The three parts.
        seed: Of initial weights and row order.
        max_rows: Training rows to use at most; None all.
    """

    method: MethodConfig = MethodConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = 0
    max_rows: int | None = None


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """A table of runs: methods x budgets x what each method tries x seeds.

    Attributes:
        methods: Names of methods; "full" is run once per seed, without a budget.
        budgets: Budgets for every other method.
        counts: As in `MethodConfig`.
        learning_rates, weight_decays: Tried for every method, chosen on validation; () takes
            training's own.
        seeds: Repetitions.
        repeat_chosen: Whether the first seed tries everything and the others repeat what its
            validation rows chose; else every seed tries everything.
        grid: Per method, or per method and budget, lists of values to try for its settings, beside
            what `settings` says; in turn with the rates and decays, see `cells`.
        settings: Per method, or per method and budget ("lma-rows@64x"), what differs from its
            defaults; the budget's own replace the method's. Beside the method's own settings
            there is `embedding_dim`: another virtual dimension than the model's.
        model, training, max_rows: Common to all runs.
    """

    methods: tuple[str, ...] = (
        "full",
        "hashing-trick",
        "hashed",
        "low-dimension",
        "frequency-cutoff",
        "lma-rows",
        "lma-labelled-context",
        "lma",
    )
    budgets: tuple[str, ...] = ("16x", "64x")
    counts: str = "serving"
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    repeat_chosen: bool = False
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    max_rows: int | None = None


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A config from plain values; `ConfigError` names an unknown key and the nearest known one."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        check_key(key, known, where)
        path = f"{where}.{key}" if where else key
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}: expected a table, found {value!r}")
            arguments[key] = from_dict(typing.cast("type[Any]", hint), value, path)
        else:
            arguments[key] = _fit(value, hint, path)
    return cls(**arguments)


def check_key(key: str, known: typing.Iterable[str], where: str) -> None:
    """Raise `ConfigError` for a key that is not known, with the nearest one that is."""
    known = sorted(known)
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1)
    place = f" in [{where}]" if where else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    raise ConfigError(f"unknown key {key!r}{place}: {hint}")


def _fit(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotated type; numbers and lists are converted, nothing else."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option) or option
        if option is type(None) and value is None:
            return None
        if origin is tuple and isinstance(value, (list, tuple)):
            item = typing.get_args(option)[0]
            return tuple(_fit(v, item, f"{path}[{i}]") for i, v in enumerate(value))
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin is str and isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
        if origin is bool and isinstance(value, bool):
            return value
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return dict(value)
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ConfigError(f"{path}: expected {names}, found {value!r}")


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as plain values; errors name the file."""
    try:
        with open(path, "rb") as handle:
            return tomllib.load(handle)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain values without None, which TOML cannot hold."""
    return _without_none(dataclasses.asdict(config))  # type: ignore[no-any-return]


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, tuple):
        return [_without_none(v) for v in value]
    return value


def to_toml(config: Any) -> str:
    """The whole config as TOML text, which `from_dict(cls, read_toml(...))` reads back."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))
