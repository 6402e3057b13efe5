"""Three gloo processes, each with a share of the rows, against one process with all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from lma.errors import LmaError
from lma.signatures import (
    ContextCodeBuilder,
    MinHashBuilder,
    SignatureConfig,
    SimHashBuilder,
    SupportCounter,
    all_reduce,
)

WORLD = 3
SIZES = {"user": 40, "movie": 25}
CUTS = (0, 100, 430, 900)
SIMILARITIES = ("rows", "context", "labelled_context")


def log():
    rng = np.random.default_rng(0)
    ids = np.stack([rng.zipf(1.3, 900) % 40, rng.integers(0, 25, 900)], 1)
    return ids, rng.integers(0, 2, 900)


def learned_config(similarity="labelled_context"):
    return SignatureConfig(
        similarity, kind="learned", num_codes=2, code_bits=3, dim=6, passes=2, min_support=1
    )


def min_hash(similarity, first, last, reduce=lambda builder: None):
    ids, labels = log()
    builder = MinHashBuilder(SIZES, SignatureConfig(similarity, num_codes=4))
    builder.update(ids[first:last], None, labels[first:last], first_row=first)
    reduce(builder)
    return builder.finish()


def learned(similarity, first, last, reduce=lambda builder: None):
    ids, labels = log()
    builder = ContextCodeBuilder(SIZES, learned_config(similarity))
    for _ in range(builder.num_passes):
        builder.update(ids[first:last], None, labels[first:last])
        reduce(builder)
        builder.next_pass()
    return builder.finish(), builder.vectors("user")


def hashed(first, last, reduce=lambda builder: None):
    """Ids of any value: counted, then built, both over all processes."""
    ids, labels = log()
    ids = ids * 0x9E3779B97F4A7C1
    counters = {name: SupportCounter(name) for name in SIZES}
    for name, column in zip(counters, ids[first:last].T, strict=True):
        counters[name].update(column)
        reduce(counters[name])
    tokens = {name: counter.most_frequent(min_support=2)[0] for name, counter in counters.items()}
    builder = MinHashBuilder(dict.fromkeys(SIZES), SignatureConfig(num_codes=4), tokens=tokens)
    builder.update(ids[first:last], None, labels[first:last], first_row=first)
    reduce(builder)
    return builder.finish()


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    first, last = CUTS[rank], CUTS[rank + 1]
    found = {}
    for similarity in SIMILARITIES:
        found["random", similarity] = min_hash(similarity, first, last, all_reduce).codes
        if similarity != "rows":
            table, vectors = learned(similarity, first, last, all_reduce)
            found["learned", similarity] = table.codes
            found["vectors", similarity] = torch.from_numpy(vectors)
    found["hashed", ""] = hashed(first, last, all_reduce).codes
    for number, (builder, match) in enumerate(mistakes(rank)):
        found["told", number] = match in said(builder)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def said(builder):
    try:
        all_reduce(builder)
    except LmaError as error:
        return str(error)
    return ""


def mistakes(rank):
    """Builders that do not add up, and a part of what is to be said."""
    yield MinHashBuilder(SIZES, SignatureConfig(seed=min(rank, 1))), "seed=1"
    other = MinHashBuilder(SIZES, SignatureConfig())
    other.hash_version = 90 + min(rank, 1)
    yield other, "'hash_version': 91"
    yield MinHashBuilder({"a": None}, SignatureConfig()), "give tokens= to every builder"


@pytest.mark.slow
def test_processes_reduce_to_the_whole(tmp_path):
    multiprocessing.start_processes(process, (str(tmp_path),), WORLD, start_method="spawn")
    every = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    expected = {("hashed", ""): hashed(0, 900).codes}
    for similarity in SIMILARITIES:
        expected["random", similarity] = min_hash(similarity, 0, 900).codes
        if similarity != "rows":
            table, vectors = learned(similarity, 0, 900)
            expected["learned", similarity] = table.codes
            expected["vectors", similarity] = torch.from_numpy(vectors)
    for found in every:
        for what, wanted in expected.items():
            assert torch.equal(found[what], wanted), what
        assert [found["told", number] for number in range(3)] == [True] * 3


def test_builders_of_other_versions_do_not_merge():
    for make in (
        lambda: MinHashBuilder(SIZES, SignatureConfig()),
        lambda: ContextCodeBuilder(SIZES, learned_config()),
        lambda: SimHashBuilder(["a"], 2),
    ):
        one, two = make(), make()
        two.hash_version = 99
        with pytest.raises(LmaError, match=rf"settings: hash_version: {one.hash_version} and 99"):
            one.merge(two)
