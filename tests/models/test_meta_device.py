"""Built on the meta device and made real, a module looks up no place that is not there."""

import torch

import lma
from lma.allocation import Full, Hashed
from lma.models import DLRM


def test_to_empty_keeps_what_places_depend_on():
    for method, budget in ((Hashed(), 2000), (Full(), None)):

        def build(device, method=method, budget=budget):
            configs = [lma.EmbeddingBagConfig(50, 4, "a"), lma.EmbeddingBagConfig(20, 4, "b")]
            embeddings = lma.EmbeddingBagCollection(
                configs, method=method, budget=budget, device=device
            )
            return DLRM(embeddings, 0)

        torch.manual_seed(0)
        real = build("cpu")
        meta = build("meta").to_empty(device="cpu")
        meta.load_state_dict(real.state_dict())
        ids = torch.randint(0, 20, (30, 2))
        dense = torch.zeros(30, 0)
        assert torch.equal(meta(dense, ids), real(dense, ids))


def test_casts_leave_integers_alone():
    bag = lma.EmbeddingBag(50, 4, method=Hashed(), budget=2000, mode="sum")
    before = {k: v.clone() for k, v in bag.named_buffers()}
    bag.half().float()
    for name, buffer in bag.named_buffers():
        assert torch.equal(buffer, before[name]), name
