"""One cell of a comparison: a dataset, a config and a seed in, a model and a result line out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lma.allocation import Auto, Budget, Method, Table
from lma.allocation.fitted import fitted_allocation
from lma.allocation.learned_plan import affordable_code_bits
from lma.allocation.lma import Lma
from lma.allocation.tables import FLOAT_BYTES, REFERENCE_DIM
from lma.models import DLRM, GMF
from lma.nn import EmbeddingBagCollection
from lma.nn.for_log import choose_for_log
from lma.results import RunResult, cell_id
from lma.signatures import LogStats, SignatureConfig, SignatureTable, fit_signatures
from lma.training.config import ConfigError, ModelConfig, RunConfig, to_dict
from lma.training.from_contexts import FromContexts
from lma.training.loop import Outcome, Progress, train
from lma.training.methods import method_spec
from lma.training.metrics import evaluate
from lma.training.optimizers import use_sparse_gradients
from lma.version import __version__


class SignatureShelf:
    """Signatures of one dataset, fitted once per config and cut to each budget's plan.

    Args:
        dataset: A prepared `lma.data.Dataset`.
        progress: Called as progress(rows done, rows in all, tokens seen) while fitting.
        fitted: Signatures fitted before, which then serve every config.
    """

    def __init__(
        self, dataset: Any, progress: Any = None, *, fitted: SignatureTable | None = None
    ) -> None:
        self.dataset = dataset
        self.stats = LogStats.from_dataset(dataset)
        self.progress = progress
        self._given = fitted
        self._fitted: dict[Any, SignatureTable] = {}

    @property
    def is_given(self) -> bool:
        """Whether the signatures were fitted before, by somebody else."""
        return self._given is not None

    def get(
        self, config: SignatureConfig, num_signed: Mapping[str, int] | None = None
    ) -> SignatureTable:
        """Signatures of `num_signed` tokens per table; None: of all with enough support."""
        if self._given is not None:
            _check_given(self._given, config)
            return self._given
        least = config.support_to_sign(self.stats.num_rows)
        signed = num_signed or {
            name: stats.tokens_with(least) for name, stats in self.stats.tables.items()
        }
        key = config, tuple(signed.items())
        if key not in self._fitted:
            self._fitted[key] = fit_signatures(
                self.dataset, config, num_signed=signed, progress=self.progress
            )
        return self._fitted[key]


def _check_given(signatures: SignatureTable, config: SignatureConfig) -> None:
    """Refuse signatures of another similarity or kind than the method's own."""
    for section in signatures.sections:
        found, wanted = (section.similarity, section.kind), (config.similarity, config.kind)
        if found != wanted and section.similarity != "vectors":
            raise ValueError(
                f"the signatures given are {found[0]} ({found[1]}), the method uses {wanted[0]} "
                f"({wanted[1]}): name the method they were fitted for, or fit others"
            )


def reference_bytes(stats: LogStats) -> int:
    """Training vocabulary x 16 floats: what "16x" is relative to."""
    return stats.num_tokens * REFERENCE_DIM * FLOAT_BYTES


def build_model(dataset: Any, config: RunConfig, shelf: SignatureShelf) -> DLRM | GMF:
    """The model of a config, its embeddings laid out in the budget."""
    spec = method_spec(config.method.name)
    method: Method
    method, signature_config = spec.configure(config.method.settings)
    if hasattr(method, "seed"):
        method = dataclasses.replace(method, seed=config.seed)  # type: ignore[type-var]
    budget = None
    if spec.takes_budget:
        budget = Budget.of(config.method.budget, None, shelf.stats.num_tokens)
        if budget is None:
            raise ValueError(f"method {config.method.name!r} needs a budget")
        budget = dataclasses.replace(budget, counts=config.method.counts, precision=spec.precision)
    dim = config.model.embedding_dim
    if isinstance(method, Auto) and budget is not None:
        if shelf.is_given:
            raise ConfigError(
                f"method {config.method.name!r} fits its own signatures; name the method that "
                "these were fitted for, such as lma-learned"
            )
        choice, allocation = choose_for_log(
            dataset, method, _tables(dataset, dim), budget, shelf.stats, shelf.get
        )
        budget, dim = choice.budget, choice.tables[0].embedding_dim
    else:
        tables = _tables(dataset, dim)
        learned = spec.signatures is not None and spec.signatures.kind == "learned"
        bits_open = learned and "code_bits" not in config.method.settings
        if bits_open and signature_config and budget and isinstance(method, Lma):
            signature_config = affordable_code_bits(
                budget, shelf.stats, tables, method, signature_config
            )
        allocation = fitted_allocation(
            method, signature_config, tables, budget, shelf.stats, shelf.get
        )
    torch.manual_seed(config.seed)
    embeddings = EmbeddingBagCollection.for_schema(
        dataset.schema,
        dim,
        allocation=allocation,
        precision=budget.precision if budget else spec.precision,
        init_std=config.model.init_std,
    )
    memory = embeddings.memory
    if isinstance(method, FromContexts):
        method.fill_(memory, dataset, shelf.stats)
    memory.sparse = memory.bits == 32 and use_sparse_gradients(
        memory.weight.numel(),
        memory.weight.shape[1],
        sum(embeddings.embedding_dims),
        config.training,
    )
    return make_model(config.model, embeddings, len(dataset.schema.dense))


def _tables(dataset: Any, dim: int) -> list[Table]:
    return [Table(f.name, f.num_embeddings, dim) for f in dataset.schema.features]


def make_model(config: ModelConfig, embeddings: Any, num_dense: int) -> DLRM | GMF:
    """The model that a config names, around any embeddings."""
    if config.name == "gmf":
        return GMF(embeddings, num_dense)
    return DLRM(embeddings, num_dense, bottom=config.bottom, top=config.top)


def run(
    dataset: Any,
    config: RunConfig,
    shelf: SignatureShelf | None = None,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[DLRM | GMF, RunResult]:
    """Build, train, and read the test split once."""
    shelf = shelf or SignatureShelf(dataset)
    model = build_model(dataset, config, shelf).to(device)
    identity = identity_of(dataset, config)
    outcome = train(
        model,
        model.embeddings,
        dataset,
        config.training,
        seed=config.seed,
        max_rows=config.max_rows,
        device=device,
        checkpoint=checkpoint,
        identity=identity,
        progress=progress,
    )
    memory = model.embeddings.memory
    if memory.bits < 32:
        # The floats that training rounds from are training bytes, not serving bytes.
        extra = outcome.training_extra + memory.weight.nbytes
        outcome = dataclasses.replace(outcome, training_extra=extra)
        memory.quantise_()
    test = evaluate(model, dataset, "test", device=device)
    return model, _result(dataset, config, shelf, model, outcome, test.to_dict())


def identity_of(dataset: Any, config: RunConfig) -> str:
    """The cell that a run of this config fills in a results file."""
    return cell_id(dataset.schema.name, config_of(dataset, config), config.seed)


def config_of(dataset: Any, config: RunConfig) -> dict[str, Any]:
    """What a result line keeps of the config; the seed stands beside it."""
    values = to_dict(config)
    values.pop("seed")
    # Left out where it says nothing new, so that lines from before there was a choice stay valid.
    if values["model"]["name"] == "dlrm":
        values["model"].pop("name")
    values["data"] = {
        "name": dataset.schema.name,
        "description": dataset.schema.description,
        "fingerprint": dataset_fingerprint(dataset),
        "rows": {split: dataset.num_rows(split) for split in ("train", "validation", "test")},
    }
    return values


def dataset_fingerprint(dataset: Any) -> str:
    """Sixteen hex digits of what a dataset was made from and how; "" where it does not say."""
    meta = getattr(dataset, "meta", {})
    keys = ("sources", "format", "ids", "min_count", "max_rows", "split", "schema")
    known = {key: meta[key] for key in keys if key in meta}
    text = json.dumps(known, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if known else ""


def _result(
    dataset: Any,
    config: RunConfig,
    shelf: SignatureShelf,
    model: DLRM | GMF,
    outcome: Outcome,
    test: Mapping[str, float],
) -> RunResult:
    spec = method_spec(config.method.name)
    count = model.embeddings.memory.num_bytes()
    count = dataclasses.replace(count, training_extra=outcome.training_extra)
    return RunResult(
        dataset=dataset.schema.name,
        method=spec.label,
        target=config.method.budget if spec.takes_budget else "",
        seed=config.seed,
        bytes=count.to_dict(),
        reference_bytes=reference_bytes(shelf.stats),
        validation=outcome.best.to_dict(),
        test=test,
        curve=outcome.curve,
        train_seconds=outcome.train_seconds,
        config=config_of(dataset, config),
        environment=environment(),
    )


def environment() -> dict[str, Any]:
    """Machine, versions, threads, commit."""
    names = ("numpy", "numba", "polars", "pyarrow", "scikit-learn")
    return {
        "lma": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in names},
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _commit() -> str:
    """The commit of the source tree that runs, "" for an installed package."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
