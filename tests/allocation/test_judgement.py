"""Naive Bayes over groups: by hand, and which layout it lets a log have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import lma
from lma.allocation import Auto, Budget, FrequencyCutoff, Lma, Table
from lma.allocation.judgement import PRIOR, STRIDE, judge
from lma.allocation.lma import LmaAllocation
from lma.allocation.planning import Plan, TablePlan
from lma.nn.for_log import choose_for_log
from lma.signatures import LogStats, SignatureTable, TableStats, fit_signatures
from lma.signatures.section import Section


class Log:
    """Rows in memory, two features of one id each or, as offsets, in bags."""

    def __init__(self, ids: np.ndarray, labels: np.ndarray, sizes: list[int], bags: bool) -> None:
        self.ids, self.labels, self.bags = ids, labels, bags
        features = [
            SimpleNamespace(name=f"f{i}", num_embeddings=size) for i, size in enumerate(sizes)
        ]
        self.schema = SimpleNamespace(features=features)

    def num_rows(self, split: str) -> int:
        return len(self.labels)

    def batches(self, split: str, batch_size: int) -> list[SimpleNamespace]:
        assert split == "train"
        found = []
        for start in range(0, len(self.labels), 700):  # several batches, not in step with STRIDE
            ids, labels = self.ids[start : start + 700], self.labels[start : start + 700]
            offsets = np.arange(ids.size + 1) if self.bags else None
            values = ids.T.reshape(-1) if self.bags else ids
            found.append(SimpleNamespace(values=values, offsets=offsets, labels=labels))
        return found


def rows_of(seed: int = 0, rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Ids 0 ... 9 of two features; odd ids of the first are clicked more often."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 10, (rows, 2))
    return ids, (random.random(rows) < 0.2 + 0.5 * (ids[:, 0] % 2)).astype(np.float32)


def coded(codes: list[list[int]], private: int = 0) -> LmaAllocation:
    """One code of a byte for every token of two tables, the first `private` with a float."""
    size = len(codes[0])
    sections = [
        Section(
            table=f"f{i}", similarity="context", kind="learned", num_codes=1, code_bits=8,
            index="prefix", num_signed=size,
        )
        for i in range(2)
    ]  # fmt: skip
    packed = torch.tensor([*codes[0], *codes[1], 0, 0], dtype=torch.uint8)
    table = SignatureTable(sections, packed)
    parts = tuple(
        TablePlan(f"f{i}", num_signed=size, num_private=private, private_dim=int(private > 0))
        for i in range(2)
    )
    plan = Plan(
        tables=parts, num_blocks=1, hashed_blocks=0, block_size=2, power=1, num_codes=1,
        code_bits=8,
    )  # fmt: skip
    return LmaAllocation([Table(f"f{i}", 10, 3) for i in range(2)], plan, table, 0)


def by_hand(ids: np.ndarray, labels: np.ndarray, group: np.ndarray, private: int) -> float:
    """The judgement, row by row in plain Python."""
    held = np.arange(len(labels)) % STRIDE == 0
    scores = np.zeros(held.sum())
    for f in range(2):
        seen = [(int(i), float(y)) for i, y in zip(ids[~held, f], labels[~held], strict=True)]
        average = (sum(y for _, y in seen) + 0.5) / (len(seen) + 1)
        for at, token in enumerate(ids[held, f]):
            same = [y for i, y in seen if group[i] == group[token]]
            share = (sum(same) + PRIOR * average) / (len(same) + PRIOR)
            if token < private:
                own = [y for i, y in seen if i == token]
                share = (sum(own) + PRIOR * share) / (len(own) + PRIOR)
            odds = np.log(share / (1 - share)) - np.log(average / (1 - average))
            scores[at] += odds
    return float(roc_auc_score(labels[held], scores))


@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize("private", [0, 3])
def test_equal_to_the_definition(bags: bool, private: int) -> None:
    ids, labels = rows_of(rows=1500)
    log = Log(ids, labels, [10, 10], bags)
    group = np.arange(10) // 2
    (found,) = judge(log, [coded([group.tolist()] * 2, private)])
    assert found == pytest.approx(by_hand(ids, labels, group, private), abs=1e-12)


def test_groups_that_know_beat_groups_that_do_not() -> None:
    log = Log(*rows_of(), [10, 10], False)
    stats = LogStats.of([TableStats.of_supports(f"f{i}", np.full(10, 300)) for i in range(2)])
    tables = [Table(f"f{i}", 10, 4) for i in range(2)]
    rows = FrequencyCutoff(2).allocate(tables, Budget(8 * (5 + 2) + 22 * 8), stats=stats)
    parity, halves = ([i % 2 for i in range(10)], [i // 5 for i in range(10)])
    by_parity, by_half, by_rows = judge(log, [coded([parity] * 2), coded([halves] * 2), rows])
    assert by_parity > 0.7 > 0.6 > by_half
    assert by_rows == pytest.approx(by_parity, abs=0.02)


@pytest.mark.parametrize("kind", [np.zeros_like, np.ones_like, lambda y: 1 + 4 * y])
def test_labels_that_are_no_clicks_say_nothing(kind: Callable[[np.ndarray], np.ndarray]) -> None:
    """All alike, or ratings of 1 and 5."""
    ids, labels = rows_of()
    log = Log(ids, kind(labels), [10, 10], False)
    assert judge(log, [coded([[0] * 10] * 2)]) == [0.5]


@pytest.mark.parametrize(("strength", "method"), [(1.0, Lma), (0.0, FrequencyCutoff)])
def test_codes_have_to_say_something(strength: float, method: type, tmp_path: Path) -> None:
    """A synthetic log whose likeness means something, and one where it means nothing."""
    lma.data.write_synthetic(
        tmp_path / "log.tsv", rows=40_000, scale=1 / 1000, semantic_strength=strength
    )
    lma.data.prepare("criteo", tmp_path / "log.tsv", tmp_path / "log")
    log = lma.data.Dataset.open(tmp_path / "log")
    stats = LogStats.from_dataset(log)
    tables = [Table(f.name, f.num_embeddings, 16) for f in log.schema.features]
    budget = Budget.of("64x", None, stats.num_tokens)
    assert budget is not None

    def fit(config: lma.SignatureConfig, signed: object) -> SignatureTable:
        config = dataclasses.replace(config, dim=16)  # enough here, and faster
        return fit_signatures(log, config, num_signed=signed)  # type: ignore[arg-type]

    choice, layout = choose_for_log(log, Auto(), tables, budget, stats, fit)
    assert isinstance(choice.method, method)
    assert layout.num_bytes(choice.budget.float_bytes(layout.block_size)).serving <= budget.bytes
    unjudged, _ = choose_for_log(log, Auto(judged=False), tables, budget, stats, fit)
    assert isinstance(unjudged.method, Lma)
