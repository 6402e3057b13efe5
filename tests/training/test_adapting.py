"""Methods that change their places while they train: resuming, snapshots, bytes."""

import dataclasses
import itertools

import pytest
import torch

import lma
from lma.allocation import Cafe, Cce, Hashed
from lma.allocation.cce_clustering import Clustering
from lma.errors import FormatError
from lma.models import DLRM
from lma.training import TrainingConfig, evaluate, train
from lma.training import loop as loop_module
from lma.training.adapting import Adapting

CONFIG = TrainingConfig(epochs=3, batch_size=512, learning_rate=0.01, patience=0)
METHODS = [Cce(cluster_epochs=2), Cafe(threshold=15.0, decay=0.5)]
NAMES = [method.name for method in METHODS]


def model_for(log, method):
    torch.manual_seed(0)
    embeddings = lma.EmbeddingBagCollection.for_schema(log.schema, 8, method=method, budget="8kB")
    return DLRM(embeddings, len(log.schema.dense), bottom=(8,), top=(8,))


def fit(log, method, config=CONFIG, **arguments):
    model = model_for(log, method)
    return model, train(model, model.embeddings, log, config, seed=0, **arguments)


def places_of(model):
    return {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.endswith(("pointers", "seeds", "owners"))
    }


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_places_follow_training(log, method):
    before = places_of(model_for(log, method))
    model, _ = fit(log, method)
    after = places_of(model)
    assert before.keys() == after.keys() != set()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_a_killed_run_goes_on_bit_for_bit(log, method, tmp_path, monkeypatch):
    whole, expected = fit(log, method)
    steps_per_epoch = len(list(log.batches("train", 512)))
    monkeypatch.setattr(loop_module, "SAVE_EVERY_S", 0.0)  # a checkpoint at every step
    # Within the first epoch, at the last step of one, and right after places have changed.
    kills = {3, steps_per_epoch, steps_per_epoch + 2, 2 * steps_per_epoch}
    seen = itertools.count(1)

    def kill(step, total, state):
        if step in kills:
            kills.remove(step)
            raise KeyboardInterrupt
        next(seen)

    path = tmp_path / "checkpoint.pt"
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            fit(log, method, checkpoint=path, identity="a", progress=kill)
    model, outcome = fit(log, method, checkpoint=path, identity="a", progress=kill)
    assert next(seen) - 1 == outcome.curve[-1]["step"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert outcome.curve == expected.curve
    assert outcome.training_extra == expected.training_extra


def test_a_run_killed_while_it_clusters_goes_on_bit_for_bit(log, tmp_path, monkeypatch):
    method = METHODS[0]
    whole, expected = fit(log, method)
    cluster = Clustering.cluster
    killed = []

    def kill_halfway(self, *blocks):
        cluster(self, *blocks)
        if len(killed) < 2:
            killed.append(blocks)
            raise KeyboardInterrupt

    monkeypatch.setattr(Clustering, "cluster", kill_halfway)
    path = tmp_path / "checkpoint.pt"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(log, method, checkpoint=path, identity="a")
    model, outcome = fit(log, method, checkpoint=path, identity="a")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert outcome.curve == expected.curve


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_the_best_weights_come_back_with_their_places(log, method):
    config = dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05)
    moments = []

    def note(step, total, state):
        if len(moments) < len(state.curve):
            moments.append(state.best)

    model, outcome = fit(log, method, config, progress=note)
    aucs = [point["auc"] for point in outcome.curve]
    assert aucs.index(max(aucs)) < len(aucs) - 1  # places have changed since
    assert evaluate(model, log, "validation").auc == max(aucs) == outcome.best.auc


def test_the_sketch_is_training_bytes(log):
    model, outcome = fit(log, METHODS[1], dataclasses.replace(CONFIG, epochs=1))
    memory = model.embeddings.memory
    own = memory.allocation.own
    assert own > 0
    # Adam: a gradient and two moments, a step counter; four slots of key, sum and flag, the mass.
    assert outcome.training_extra == 3 * memory.weight.nbytes + 4 + own * 4 * (8 + 4 + 1) + 8
    assert model.embeddings.memory.num_bytes().index >= 4 * own


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad", "sgd"])
def test_other_optimizers(log, optimizer):
    config = dataclasses.replace(CONFIG, epochs=2, optimizer=optimizer)
    for method in METHODS:
        fit(log, method, config, max_rows=1500)


def test_moments_move_with_their_rows(log):
    model = model_for(log, METHODS[1])
    memory = model.embeddings.memory
    optimizer = torch.optim.Adam(model.parameters())
    with Adapting(model.embeddings, optimizer) as adapting:
        for batch in log.batches("train", 512):
            optimizer.zero_grad()
            model(batch.dense, batch.values, batch.offsets).sum().backward()
            optimizer.step()
            before = memory.allocation.hot_tokens()
            moment = optimizer.state[memory.weight]["exp_avg_sq"].clone()
            adapting.after_step()
            after = memory.allocation.hot_tokens()
            if len(before) == 0 and len(after):
                break
    token = int(after[0])
    number = int(torch.searchsorted(memory.allocation.bases, token, right=True)) - 1
    cold = memory.allocation.shared_rows.blocks(
        torch.tensor([token - int(memory.allocation.bases[number])]), torch.tensor([number]), (8,)
    )
    old = moment[memory.allocation.own + int(cold)]
    assert torch.equal(optimizer.state[memory.weight]["exp_avg_sq"][0], old)


def test_nothing_is_watched_after_training(log):
    model, _ = fit(log, METHODS[1], dataclasses.replace(CONFIG, epochs=1), max_rows=600)
    assert model.embeddings.allocation.observed is None

    def fail(step, total, state):
        raise RuntimeError

    model = model_for(log, METHODS[1])
    with pytest.raises(RuntimeError):
        train(model, model.embeddings, log, CONFIG, progress=fail)
    assert model.embeddings.allocation.observed is None


def test_other_embeddings_have_nothing_to_adapt(log):
    for embeddings in (torch.nn.Linear(2, 2), model_for(log, Hashed()).embeddings):
        optimizer = torch.optim.Adam(embeddings.parameters())
        with Adapting(embeddings, optimizer) as adapting:
            adapting.after_step()
            adapting.after_epoch(1)
            assert adapting.state_dict() == {}
            assert adapting.num_bytes == 0
        with pytest.raises(FormatError, match=r"a checkpoint of \['sums'\], this method has \[\]"):
            adapting.load_state_dict({"sums": torch.zeros(1)})
