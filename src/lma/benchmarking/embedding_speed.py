"""Forward and training step of the embedding, side by side with its rivals."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lma.benchmarking.criteo_shape import CARDINALITIES, draw_ids, lma_collection, sizes
from lma.benchmarking.rivals import (
    FullTables,
    Step,
    bare_gather,
    bare_moves,
    fbgemm_tables,
    in_turn,
)
from lma.benchmarking.timing import interleaved
from lma.kernels.reference import lookup as reference
from lma.nn import EmbeddingBagCollection, FusedOptimizer

ROTATION = 8  # different batches, so that none stays in cache by repetition alone
FULL, SPARSE, FBGEMM = "EmbeddingBag", "EmbeddingBag sparse + Adagrad", "FBGEMM Adagrad"


@dataclasses.dataclass(frozen=True)
class EmbeddingSpeed:
    """What is measured.

    Attributes:
        dim: Floats of a vector.
        popularity: Ids are drawn "zipf" or "uniform".
        batch: Rows, of 26 ids each.
        scale: Criteo's cardinalities are divided by it.
        compression: Full tables' floats over the memory's.
        blocks: Block sizes.
        kinds: Signatures, "random" or "learned".
        repeats: Timed calls of everything.
        fbgemm: Measure FBGEMM where it is installed.
        clock: `time.thread_time` leaves out a busy machine's other work, with one thread.
    """

    dim: int = 16
    popularity: str = "zipf"
    batch: int = 2048
    scale: int = 16
    compression: float = 16
    blocks: tuple[int, ...] = (4, 16)
    kinds: tuple[str, ...] = ("random", "learned")
    repeats: int = 15
    fbgemm: bool = True
    clock: Callable[[], float] = time.perf_counter


@dataclasses.dataclass(frozen=True)
class Ratios:
    """One kind of signature and block size: milliseconds, and over what each rival takes.

    Attributes:
        method: Its name.
        forward_ms, to_select, to_bags: The lookup, against a bare gather of the same blocks and
            `nn.EmbeddingBag` per full table.
        step_ms, to_sparse, to_fbgemm: Forward, backward and optimizer, against sparse gradients
            with `torch.optim.Adagrad` and FBGEMM's fused Adagrad (None: not measured).
    """

    method: str
    forward_ms: float
    to_select: float
    to_bags: float
    step_ms: float
    to_sparse: float
    to_fbgemm: float | None


def measure(config: EmbeddingSpeed) -> list[dict[str, Any]]:
    """One line of plain JSON per method and step: configuration, median, 20 % and 80 %.

    Every module's vectors are compared with the reference first: no speed is reported of kernels
    that are wrong.
    """
    tokens = sizes(config.scale)
    batches = [draw_ids(tokens, config.batch, config.popularity, s) for s in range(ROTATION)]
    modules = {
        f"lma {kind} block {block}": lma_collection(
            tokens, config.dim, block, config.compression, kind
        )
        for block in config.blocks
        for kind in config.kinds
    }
    for module in modules.values():
        _check(module, batches[0][:64])
    full = FullTables(tokens, config.dim)
    with torch.no_grad():
        forward = interleaved(
            _forward_steps(modules, full, batches), config.repeats, clock=config.clock
        )
    for module in modules.values():
        method = "block_adagrad" if module.allocation.block_size > 1 else "adagrad"
        FusedOptimizer(module.memory, method, lr=0.01)
    grad = torch.randn(config.batch, config.dim * len(tokens))
    fbgemm = fbgemm_tables(tokens, config.dim) if config.fbgemm else None
    with warnings.catch_warnings():
        # Torch's Adagrad makes sparse tensors without saying whether to check them.
        warnings.filterwarnings("ignore", message="Sparse invariant checks")
        training = interleaved(
            _training_steps(modules, full, fbgemm, grad, batches),
            config.repeats,
            clock=config.clock,
        )
    settings = dataclasses.asdict(config)
    for name in ("blocks", "kinds", "fbgemm", "clock"):
        del settings[name]
    settings |= {
        "features": len(CARDINALITIES),
        "clock": "wall" if config.clock is time.perf_counter else "cpu",
        "signed_share": signed_share(tokens, batches),
    }
    return [
        {"benchmark": "kernels/lookup_speed", "what": what, "method": method, **settings, **figures}
        for what, times in (("forward", forward), ("training step", training))
        for method, figures in times.items()
    ]


def ratios(lines: list[dict[str, Any]]) -> list[Ratios]:
    """What `measure` gave, as ratios side by side."""
    times = {(line["what"], line["method"]): line["median_ms"] for line in lines}
    found = []
    for what, method in times:
        if what != "forward" or not method.startswith("lma "):
            continue
        forward, step = times["forward", method], times["training step", method]
        fbgemm = times.get(("training step", FBGEMM))
        found.append(
            Ratios(
                method,
                forward,
                forward / times["forward", f"index_select {method}"],
                forward / times["forward", FULL],
                step,
                step / times["training step", SPARSE],
                None if fbgemm is None else step / fbgemm,
            )
        )
    return found


def signed_share(tokens: list[int], batches: list[Tensor]) -> float:
    """Share of lookups whose token has a signature."""
    half = torch.tensor([-(-s // 2) for s in tokens])
    return float(torch.stack([(ids < half).double().mean() for ids in batches]).mean())


def _check(module: EmbeddingBagCollection, ids: Tensor) -> None:
    allocation = module.allocation
    rule = allocation.rule()
    if rule is None:
        raise ValueError(f"{type(allocation).__name__} has no fused kernels")
    features = ids.shape[1]
    columns = torch.tensor([0, *module.embedding_dims]).cumsum(0)
    wanted, _ = reference.lookup(
        module.memory.weight.detach(), ids.reshape(-1), None, None, torch.arange(features), columns,
        torch.zeros(features, dtype=torch.int64), *rule, allocation.pieces([allocation.group(0)]),
        int(columns[-1]), False,
    )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(module(ids), wanted)


def _forward_steps(
    modules: dict[str, EmbeddingBagCollection], full: FullTables, batches: list[Tensor]
) -> dict[str, Step]:
    steps: dict[str, Step] = {FULL: in_turn(full, batches)}
    for name, module in modules.items():
        steps[name] = in_turn(module, batches)
        steps[f"index_select {name}"] = bare_gather(module, batches)
    return steps


def _training_steps(
    modules: dict[str, EmbeddingBagCollection],
    full: FullTables,
    fbgemm: Any,
    grad: Tensor,
    batches: list[Tensor],
) -> dict[str, Step]:
    adagrad = torch.optim.Adagrad(full.parameters(), lr=0.01)

    def step_full(ids: Tensor) -> None:
        adagrad.zero_grad()
        full(ids).backward(grad)
        adagrad.step()

    steps: dict[str, Step] = {SPARSE: in_turn(step_full, batches)}
    if fbgemm is not None:
        features, batch = batches[0].shape[1], len(batches[0])
        offsets = torch.arange(features * batch + 1)
        columns = [ids.t().contiguous().view(-1) for ids in batches]
        steps[FBGEMM] = in_turn(lambda values: fbgemm(values, offsets).backward(grad), columns)
    for name, module in modules.items():
        steps[name] = in_turn(functools.partial(_fused_step, module, grad), batches)
        steps[f"bare moves {name}"] = bare_moves(module, grad, batches)
    return steps


def _fused_step(module: EmbeddingBagCollection, grad: Tensor, ids: Tensor) -> None:
    module(ids).backward(grad)
