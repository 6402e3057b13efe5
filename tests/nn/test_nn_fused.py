"""`FusedOptimizer`: memories in 16 bits, arguments, state, lookups that do not take turns."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lma
from lma.allocation import Hashed
from lma.nn import FusedOptimizer

IDS = torch.tensor([[3, 5], [49, 0], [3, 7], [11, 5]])


def collection(dtype: torch.dtype | None = None) -> lma.EmbeddingBagCollection:
    torch.manual_seed(0)
    configs = [lma.EmbeddingBagConfig(50, 8, name) for name in "ab"]
    return lma.EmbeddingBagCollection(
        configs, method=Hashed(block_size=4), budget=2000, dtype=dtype, init_std=1.0
    )


@pytest.mark.parametrize("method", ["sgd", "adagrad", "block_adagrad", "adam"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_a_memory_in_16_bits_rounds_its_weights_only(
    dtype: torch.dtype, method: str, size: float
) -> None:
    """Steps of the same weights in float64, rounded to 16 bits after every one."""
    module, twin = collection(dtype), collection(torch.float64)
    twin.load_state_dict(
        {k: v.double() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    )
    optimizers = [FusedOptimizer(m.memory, method, lr=0.1) for m in (module, twin)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        grad = (size * torch.randn(4, 16, generator=generator)).to(dtype)
        module(IDS).backward(grad)
        twin(IDS).backward(grad.double())
        with torch.no_grad():
            twin.memory.weight.copy_(twin.memory.weight.to(dtype))
        # Within one rounding of 16 bits.
        torch.testing.assert_close(module.memory.weight.double(), twin.memory.weight)
        assert module.memory.weight.isfinite().all()
    if method != "sgd":
        assert optimizers[0].state_dict()["state"].dtype == torch.float32


def test_small_steps_add_up_in_the_state() -> None:
    """In bfloat16 a sum of ones stops at 256."""
    module = collection(torch.bfloat16)
    optimizer = FusedOptimizer(module.memory, "block_adagrad", lr=0.0)
    for _ in range(300):
        module(IDS[:1]).backward(torch.ones(1, 16, dtype=torch.bfloat16))
    assert optimizer.state_dict()["state"].max() >= 300


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": float("nan")}, "lr must be a finite number of at least 0, found nan"),
        ({"lr": -1.0}, "lr must be a finite number"),
        ({"eps": -1e-8}, "eps must be"),
        ({"initial_accumulator_value": -0.5}, "initial_accumulator_value must be"),
        ({"betas": (1.0, 0.9)}, r"betas must be two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    module = collection()
    with pytest.raises(ValueError, match=text):
        FusedOptimizer(module.memory, "adam", **options)
    assert module.memory.update is None
    optimizer = FusedOptimizer(module.memory, "adam", lr=0.5)
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.lr = -0.1
    assert optimizer.lr == 0.5


def test_a_state_has_all_numbers() -> None:
    first, second = collection(), collection()
    saved = FusedOptimizer(first.memory, "adam", lr=0.3, eps=1e-2, betas=(0.5, 0.6))
    first(IDS).sum().backward()
    other = FusedOptimizer(second.memory, "adam")
    second.load_state_dict(first.state_dict())
    other.load_state_dict(saved.state_dict())
    for module in (first, second):
        module(IDS).square().sum().backward()
    assert torch.equal(first.memory.weight, second.memory.weight)
    assert other.state_dict()["betas"] == (0.5, 0.6)
    with pytest.raises(ValueError, match=r"\['betas', 'eps', .* are missing in the state"):
        other.load_state_dict({"method": "adam", "lr": 0.1})


def test_closing_twice_leaves_a_newer_optimizer_alone() -> None:
    module = collection()
    first = FusedOptimizer(module.memory, "sgd")
    first.close()
    second = FusedOptimizer(module.memory, "sgd")
    first.close()
    module(IDS).sum().backward()
    assert second.steps == 1
    assert module.memory.weight.grad is None


def test_a_memory_that_was_converted_is_an_error() -> None:
    module = collection()
    FusedOptimizer(module.memory, "adagrad")
    module.double()
    with pytest.raises(RuntimeError, match=r"state is torch.float32 on cpu, the memory now"):
        module(IDS).sum().backward()


def test_a_module_is_copied_while_a_lookup_waits() -> None:
    module = collection()
    FusedOptimizer(module.memory, "adagrad", lr=0.1)
    waiting = module(IDS)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other(IDS).sum().backward()
        assert not torch.equal(other.memory.weight, module.memory.weight)
    waiting.sum().backward()


def test_pooling_that_takes_several_lookups_says_so() -> None:
    configs = [
        lma.EmbeddingBagConfig(50, 8, "a"),
        lma.EmbeddingBagConfig(50, 8, "b", pooling="max"),
    ]
    module = lma.EmbeddingBagCollection(configs, method=Hashed(block_size=4), budget=2000)
    FusedOptimizer(module.memory, "sgd")
    with pytest.raises(RuntimeError, match="max beside another pooling or dimension"):
        module(torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 4]))


class Twice(nn.Module):
    """Two lookups of one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.collection = collection()

    def forward(self, ids: Tensor) -> Tensor:
        return self.collection(ids) + self.collection(ids.flip(0))


def test_two_lookups_of_one_graph_are_an_error_when_compiled_too() -> None:
    torch._dynamo.reset()
    model = Twice()
    optimizer = FusedOptimizer(model.collection.memory, "adagrad", lr=0.1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(IDS)
    with pytest.raises(RuntimeError, match="two lookups waited for their backward pass at once"):
        out.square().sum().backward()
    assert optimizer.steps <= 1
