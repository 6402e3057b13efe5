"""Controls that start from context vectors."""

import numpy as np
import pytest
import torch

from lma.allocation.auto import FORMS
from lma.signatures import LogStats, SignatureConfig
from lma.signatures.fit import fit_context_codes
from lma.training import MethodConfig, RunConfig, SignatureShelf, TrainingConfig, build_model, run
from lma.training.config import ConfigError


def model_of(log, name, budget="", **settings):
    config = RunConfig(MethodConfig(name, budget, settings=settings), seed=3)
    return build_model(log, config, SignatureShelf(log))


@pytest.mark.parametrize(
    ("name", "budget"),
    [("full-from-contexts", ""), ("low-dimension-from-contexts+int8", "4x")],
)
def test_rows_start_as_the_leading_directions_of_the_vectors(log, name, budget):
    memory = model_of(log, name, budget, std=0.2, similarity="context").embeddings.memory
    stats = LogStats.from_dataset(log)
    known = {table: s.num_tokens for table, s in stats.tables.items()}
    form = FORMS["context"]
    config = SignatureConfig(
        similarity="context", kind="learned", dim=form.dim, passes=1, shrinkage=form.shrinkage,
        seed=3,
    )  # fmt: skip
    builder = fit_context_codes(log, config, num_signed=known)
    for table in memory.tables:
        places = memory.allocation.places(table.name, torch.arange(table.num_embeddings))
        rows = memory.weight.detach().view(-1)[places].numpy()
        seen, dim = known[table.name], table.embedding_dim
        assert not rows[seen:].any()
        vectors = builder.vectors(table.name)[:seen, :dim]
        supports = np.repeat(stats.tables[table.name].supports, stats.tables[table.name].counts)
        if not vectors.any():
            assert not rows.any()
            continue
        square = (supports[:, None] * rows[:seen] ** 2).sum() / supports.sum() / dim
        assert square == pytest.approx(0.04, rel=1e-4)
        ratio = rows[:seen][vectors != 0] / vectors[vectors != 0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_labels_of_few_rows_are_not_given_away(log):
    memory = model_of(log, "full-from-contexts", similarity="labelled_context").embeddings.memory
    stats = LogStats.from_dataset(log)
    for table in memory.tables:
        told = stats.tables[table.name].tokens_with(8)
        places = memory.allocation.places(table.name, torch.arange(table.num_embeddings))
        assert not memory.weight.detach().view(-1)[places[told:]].any()


def test_contexts_that_there_are_none_of_are_refused(log):
    with pytest.raises(ConfigError, match=r"similarity must be one of .* found 'rows'"):
        model_of(log, "full-from-contexts", similarity="rows")


def test_its_bytes_are_those_of_the_tables(log):
    runs = {}
    for name in ("full", "full-from-contexts"):
        config = RunConfig(MethodConfig(name, ""), training=TrainingConfig(epochs=1))
        _, runs[name] = run(log, config)
    one, other = runs.values()
    assert one.bytes == other.bytes
    assert other.method == "full, from contexts"
    assert other.target == ""
