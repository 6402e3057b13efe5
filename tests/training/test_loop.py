"""The loop: against plain torch, early stopping, and resuming bit for bit."""

import dataclasses
import itertools
import os
import signal

import pytest
import torch

import lma
from lma.allocation import Hashed
from lma.errors import FormatError, StateMismatchError
from lma.models import DLRM
from lma.training import TrainingConfig, evaluate, train
from lma.training import loop as loop_module

CONFIG = TrainingConfig(epochs=2, batch_size=512, learning_rate=0.01, patience=0)


def model_for(log, seed=0):
    torch.manual_seed(seed)
    embeddings = lma.EmbeddingBagCollection.for_schema(
        log.schema, 8, method=Hashed(), budget="20kB"
    )
    return DLRM(embeddings, len(log.schema.dense), bottom=(8,), top=(8,))


def fit(log, config=CONFIG, seed=0, **arguments):
    model = model_for(log, seed)
    return model, train(model, model.embeddings, log, config, seed=seed, **arguments)


def test_it_is_plain_torch(log):
    model, outcome = fit(log, dataclasses.replace(CONFIG, epochs=1))
    other = model_for(log)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.01)
    for batch in log.batches("train", 512, shuffle=True, seed=0, epoch=0):
        optimizer.zero_grad()
        logits = other(batch.dense, batch.values, batch.offsets)
        torch.nn.BCEWithLogitsLoss()(logits, batch.labels).backward()
        optimizer.step()
    for (name, mine), (_, theirs) in zip(
        model.state_dict().items(), other.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, msg=name)
    assert outcome.best == evaluate(other, log, "validation")


def test_it_learns(log):
    _, outcome = fit(log, dataclasses.replace(CONFIG, epochs=4))
    assert outcome.best.auc > 0.55
    assert outcome.curve[-1]["train_loss"] < outcome.curve[0]["train_loss"]


def test_the_best_weights_are_kept_and_patience_stops(log):
    config = dataclasses.replace(CONFIG, epochs=30, learning_rate=0.05, patience=2)
    model, outcome = fit(log, config)
    aucs = [point["auc"] for point in outcome.curve]
    assert len(aucs) == aucs.index(max(aucs)) + 3 < 30
    assert evaluate(model, log, "validation").auc == max(aucs) == outcome.best.auc


def test_a_killed_run_goes_on_bit_for_bit(log, tmp_path, monkeypatch):
    whole, expected = fit(log)
    monkeypatch.setattr(loop_module, "SAVE_EVERY_S", 0.0)  # a checkpoint at every step
    seen = itertools.count(1)

    def kill(step, total, state):
        if next(seen) in (4, 9, 15):
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.pt"
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fit(log, checkpoint=path, identity="a", progress=kill)
    model, outcome = fit(log, checkpoint=path, identity="a", progress=kill)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert outcome.curve == expected.curve


def test_ctrl_c_saves_the_step_it_is_in_and_goes_on_bit_for_bit(log, tmp_path):
    whole, expected = fit(log)
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(step, total, state):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(log, checkpoint=path, identity="a", progress=interrupt)
    assert torch.load(path, weights_only=True)["state"]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is handler
    model, outcome = fit(log, checkpoint=path, identity="a")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert outcome.curve == expected.curve


def test_a_checkpoint_of_another_run_is_refused(log, tmp_path):
    fit(log, checkpoint=tmp_path / "c.pt", identity="a", max_rows=512)
    with pytest.raises(StateMismatchError, match="belongs to run a, this is run b"):
        fit(log, checkpoint=tmp_path / "c.pt", identity="b", max_rows=512)


def test_a_damaged_checkpoint_is_refused(log, tmp_path):
    (tmp_path / "c.pt").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="delete it to start anew"):
        fit(log, checkpoint=tmp_path / "c.pt")


def test_several_evaluations_per_epoch(log):
    config = dataclasses.replace(CONFIG, epochs=1, evaluations_per_epoch=3)
    _, outcome = fit(log, config)
    assert [point["epoch"] for point in outcome.curve] == [1, 1, 1]


def test_training_bytes_are_those_of_the_tensors(log):
    _, outcome = fit(log, dataclasses.replace(CONFIG, epochs=1))
    weights = model_for(log).embeddings.memory.weight.nbytes
    # Adam: a gradient and two moments, and a step counter of four bytes.
    assert outcome.training_extra == 3 * weights + 4


def test_divergence_is_told(log):
    with pytest.raises(ValueError, match="diverged"):
        fit(log, dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=1e30))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adagrad", "sgd"])
def test_optimizers_run(log, optimizer):
    fit(log, dataclasses.replace(CONFIG, epochs=1, optimizer=optimizer), max_rows=600)
