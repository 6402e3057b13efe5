"""`compress_`: a model's embedding modules replaced by ones over a shared memory, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lma.allocation import Table
from lma.nn.embedding import Embedding, EmbeddingBag
from lma.nn.memory import SharedMemory
from lma.signatures import SignatureTable

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
    signatures = memory_arguments.get("signatures")
    if isinstance(signatures, SignatureTable):
        strangers = sorted(set(names.values()) - set(signatures.tables))
        if strangers:
            raise ValueError(
                f"tables: the signatures have no {strangers}; there are {list(signatures.tables)}"
            )
    if not found:
        raise ValueError("compress_: the model has no nn.Embedding or nn.EmbeddingBag to replace")
    if "" in found:
        raise ValueError(
            "compress_: the model itself is an embedding; make an lma.EmbeddingBag instead"
        )
    if isinstance(model, nn.Sequential):
        raise ValueError(
            "compress_: the memory would become the last layer of this nn.Sequential; make it a "
            "part of a module of yours and compress that"
        )
    if hasattr(model, MEMORY_NAME):
        raise ValueError(
            f"compress_: the model has a {MEMORY_NAME} already; compress all modules in one call"
        )
    if len({module.sparse for module in found.values()}) > 1 and "sparse" not in memory_arguments:
        raise ValueError(
            "compress_: some modules have sparse gradients and some have not, and they will share "
            "one memory; give sparse=True or sparse=False"
        )
    table_names = _table_names(found, names)
    wanted = _wanted_tables(found, table_names)
    first = next(iter(found.values()))
    settings = {
        "device": first.weight.device,
        "dtype": first.weight.dtype,
        "sparse": first.sparse,
        **memory_arguments,
    }
    memory = SharedMemory(wanted, budget=budget, compression=compression, **settings)
    replacements: dict[int, nn.Module] = {}
    for module in found.values():
        if id(module) not in replacements:
            replacements[id(module)] = _replacement(module, table_names[id(module)], memory)
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacements[id(module)])
    model.add_module(MEMORY_NAME, memory)
    return model


def _table_names(found: Mapping[str, nn.Module], names: Mapping[str, str]) -> dict[int, str]:
    """The table of every module, by the module's id: one, however many names it goes by."""
    chosen: dict[int, str] = {}
    for name, module in found.items():
        table = names.get(name)
        if table is not None and chosen.setdefault(id(module), table) != table:
            raise ValueError(
                f"tables: {name!r} is {table!r}, and the same module elsewhere is "
                f"{chosen[id(module)]!r}"
            )
    for name, module in found.items():
        chosen.setdefault(id(module), name)
    return chosen


def _wanted_tables(
    found: Mapping[str, nn.Embedding | nn.EmbeddingBag], table_names: Mapping[int, str]
) -> list[Table]:
    """The tables to lay out; modules given the same table must have the same shape."""
    wanted: dict[str, Table] = {}
    for name, module in found.items():
        table = table_names[id(module)]
        own = Table(table, module.num_embeddings, module.embedding_dim)
        other = wanted.setdefault(table, own)
        if own != other:
            raise ValueError(
                f"tables: {name!r} is [{own.num_embeddings}, {own.embedding_dim}], another module "
                f"of table {table!r} is [{other.num_embeddings}, {other.embedding_dim}]"
            )
    return list(wanted.values())


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
