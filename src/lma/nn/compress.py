"""`compress_`: a model's embedding modules replaced by ones over a shared memory, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lma.allocation import Table
from lma.nn.embedding import Embedding, EmbeddingBag
from lma.nn.memory import SharedMemory

MEMORY_NAME = "lma_memory"


def compress_(
    model: nn.Module,
    *,
    budget: int | str | None = None,
    compression: float | None = None,
    tables: Mapping[str, str] | None = None,
    min_embeddings: int = 0,
    **memory_arguments: Any,
) -> nn.Module:
    """Replace every `nn.Embedding` and `nn.EmbeddingBag` of a model by a compressed one.

    The vectors start anew: call it before training. The memory is registered once, as
    `model.lma_memory`.

    Args:
        model: Changed in place and returned.
        budget, compression: As in `SharedMemory`, for all replaced modules together.
        tables: Names of the tables (as signatures know them) by module name, such as
            {"emb.0": "C1"}; other modules' tables are called by their module names.
        min_embeddings: Modules with fewer rows are left alone.
        memory_arguments: `method`, `signatures`, `stats`, ... of `SharedMemory`.

    Raises:
        ValueError: Nothing to replace, a name in `tables` that no module has, or a module with
            an option that shared memory cannot honour; the model is then unchanged.
    """
    names = dict(tables or {})
    found = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        and module.num_embeddings >= min_embeddings
    }
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise ValueError(f"tables: no embedding modules {unknown}; there are {sorted(found)}")
    if not found:
        raise ValueError("compress_: the model has no nn.Embedding or nn.EmbeddingBag to replace")
    if "" in found:
        raise ValueError(
            "compress_: the model itself is an embedding; make an lma.EmbeddingBag instead"
        )
    wanted = {
        names.get(name, name): Table(names.get(name, name), m.num_embeddings, m.embedding_dim)
        for name, m in found.items()
    }
    first = next(iter(found.values())).weight
    memory = SharedMemory(
        list(wanted.values()),
        budget=budget,
        compression=compression,
        **{"device": first.device, "dtype": first.dtype, **memory_arguments},
    )
    replacements: dict[int, nn.Module] = {}
    for name, module in found.items():
        if id(module) not in replacements:
            replacements[id(module)] = _replacement(module, names.get(name, name), memory)
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacements[id(module)])
    model.add_module(MEMORY_NAME, memory)
    return model


def _replacement(
    module: nn.Embedding | nn.EmbeddingBag, table: str, memory: SharedMemory
) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return Embedding(
            module.num_embeddings,
            module.embedding_dim,
            module.padding_idx,
            module.max_norm,
            scale_grad_by_freq=module.scale_grad_by_freq,
            table=table,
            memory=memory,
        )
    return EmbeddingBag(
        module.num_embeddings,
        module.embedding_dim,
        module.max_norm,
        scale_grad_by_freq=module.scale_grad_by_freq,
        mode=module.mode,
        include_last_offset=module.include_last_offset,
        padding_idx=module.padding_idx,
        table=table,
        memory=memory,
    )
