"""What a comparison will take, against the same sums by hand."""

import pytest

from lma.training import CompareConfig, ModelConfig, TrainingConfig, forecast
from lma.training.forecast import LogSize

LOG = LogSize(rows=10_000, tokens=5_000_000, features=3, dense=2)
CONFIG = CompareConfig(
    methods=("full", "hashed"),
    budgets=("4x", "1MB"),
    seeds=(0, 1),
    settings={"hashed": {"embedding_dim": 64}},
    training=TrainingConfig(epochs=3, batch_size=100, optimizer="sgd"),
)


def test_sums_by_hand(monkeypatch):
    speed = {16: 1000.0, 64: 250.0}
    monkeypatch.setattr(forecast, "_rows_per_second", lambda model, *_: speed[model.embedding_dim])
    expected = forecast.forecast(CONFIG, LOG)
    assert expected.cells == 2 * (1 + 2)
    assert expected.rows_per_second == pytest.approx(speed)
    assert expected.train_s == pytest.approx(2 * 3 * 10_000 * (1 / 1000 + 2 / 250))
    # Full tables: weights and the best so far; their gradients are sparse.
    assert expected.memory_bytes == 2 * 5_000_000 * 16 * 4
    assert expected.disk_bytes == 2 * 5_000_000 * 16 * 4


def test_memories_of_a_kind_are_timed_once(monkeypatch):
    timed = []
    monkeypatch.setattr(
        forecast, "_rows_per_second", lambda model, size, sparse, *_: timed.append(size) or 1.0
    )
    # 320 MB and 80 MB are probed by 64 MB.
    config = CompareConfig(("full", "hashed", "robe"), ("4x", "1MB"), training=CONFIG.training)
    forecast.forecast(config, LOG)
    assert sorted(timed) == [1_000_000, 64_000_000]


def test_dense_gradients_and_optimizer_state_are_held_too(monkeypatch):
    monkeypatch.setattr(forecast, "_rows_per_second", lambda *_: 1.0)
    config = CompareConfig(("hashed",), ("1MB",), training=TrainingConfig(optimizer="adam"))
    assert forecast.forecast(config, LOG).memory_bytes == 5 * 1_000_000


@pytest.mark.parametrize("model", [ModelConfig(embedding_dim=4), ModelConfig("gmf")])
def test_the_speed_is_measured_on_the_model_itself(model):
    features, dense = (2, 0) if model.name == "gmf" else (3, 2)
    config = CompareConfig(
        ("hashed",), ("1MB",), model=model, training=TrainingConfig(batch_size=32), max_rows=64
    )
    expected = forecast.forecast(config, LogSize(1000, 100, features, dense))
    assert expected.train_s == 4 * 64 / expected.rows_per_second[model.embedding_dim] > 0
