"""Sparse gradients of a large memory are the same steps as dense ones."""

import pytest
import torch

from lma.allocation import speed_rules
from lma.training import MethodConfig, RunConfig, TrainingConfig, run
from lma.training.optimizers import use_sparse_gradients


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("name", ["full", "hashed", "quotient-remainder", "lma-rows"])
def test_training_is_the_same(log, monkeypatch, optimizer, name):
    training = TrainingConfig(epochs=1, batch_size=512, optimizer=optimizer, learning_rate=0.05)
    config = RunConfig(MethodConfig(name, "" if name == "full" else "4x"), training=training)
    weights = []
    for limit in (1e9, 0):
        monkeypatch.setattr(speed_rules, "SPARSE_FROM", limit)
        model, _ = run(log, config)
        assert model.embeddings.memory.sparse == (limit == 0)
        weights.append(model.embeddings.memory.weight.detach())
    # Gradients are added up in another order. Adagrad divides by their size, so where a sum nearly
    # cancels its rounding shows: in very few floats, and by less than a tenth of a step.
    dense, sparse = weights
    if optimizer == "adagrad":
        torch.testing.assert_close(sparse, dense, atol=0.005, rtol=0)
        assert ((sparse - dense).abs() > 2e-6 + 1e-4 * dense.abs()).float().mean() < 0.01
    else:
        torch.testing.assert_close(sparse, dense, atol=2e-6, rtol=1e-4)


def test_only_where_untouched_floats_stay_as_they_are():
    sgd = TrainingConfig(optimizer="sgd", batch_size=10)
    assert use_sparse_gradients(16 * 10 * 32 + 1, 1, 32, sgd)
    assert not use_sparse_gradients(16 * 10 * 32, 1, 32, sgd)
    assert use_sparse_gradients(16 * 10 * 32, 2, 32, sgd)
    for other in (
        TrainingConfig(optimizer="adam", batch_size=10),
        TrainingConfig(optimizer="sgd", batch_size=10, weight_decay=0.1),
    ):
        assert not use_sparse_gradients(10**9, 1, 32, other)
