"""`FusedOptimizer`: the optimizer's step inside the backward pass, on touched blocks only."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor

from lma.kernels import graph_ops
from lma.kernels.graph_ops import BETA_1, BETA_2, EPS, LR, STEPS
from lma.kernels.touched import Touched, Traced
from lma.kernels.update import UpdateKind
from lma.nn.memory import SharedMemory

METHODS = {
    "sgd": UpdateKind.SGD,
    "adagrad": UpdateKind.ADAGRAD,
    "block_adagrad": UpdateKind.BLOCK_ADAGRAD,
    "adam": UpdateKind.ADAM,
}
_EPS = {"adam": 1e-8}
_DENSE = "use the memory's dense gradient with an optimizer of torch instead"
REFUSED = {
    "weight_decay": f"it shrinks every block at every step, touched or not: {_DENSE}",
    "momentum": f"it moves every block that ever had a gradient at every step: {_DENSE}",
    "max_norm": f"the norm of all gradients is known only after the update was made: {_DENSE}",
    "grad_scaler": f"a step that the scaler would skip was already made: {_DENSE}",
    "accumulation_steps": f"every backward pass makes a step: {_DENSE}",
}


class _Ticket:
    """One forward pass that waits for its backward; dies with the graph."""

    used = False


class FusedOptimizer:
    """Updates a memory in the backward pass, so that no gradient of its size is ever made.

    Gradients are summed per block first, then every touched block is updated once: the result is
    torch's optimizer (`SGD`, `Adagrad`, `SparseAdam`) on the coalesced sparse gradient.
    `block_adagrad` keeps one number per block, the running sum of mean squared gradients. The
    memory's `weight.grad` stays None, so other optimizers and `zero_grad` pass it by.

    Only one lookup may wait for its backward at a time: look all features up by one
    `EmbeddingBagCollection`. Gradient clipping, `GradScaler`, accumulation over several backward
    passes and DistributedDataParallel cannot work with updates made on the spot.

    Args:
        memory: Whose weights are updated from now on; undone by `close`.
        method: "sgd", "adagrad", "block_adagrad" or "adam" (moments of touched blocks only). Its
            state is float32 for memories in 16 bits, whose weights are rounded once a step.
        lr: Learning rate; may be changed between steps.
        eps: Added to the root; 1e-10, for Adam 1e-8, unless given.
        betas: Adam's.
        initial_accumulator_value: Adagrad's first sum of squares.
        refused: `weight_decay`, `momentum`, `max_norm`, `grad_scaler`, `accumulation_steps`: an
            error that says why, unless they ask for nothing.
    """

    def __init__(
        self,
        memory: SharedMemory,
        method: str = "adagrad",
        *,
        lr: float = 1e-2,
        eps: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        initial_accumulator_value: float = 0.0,
        **refused: Any,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, found {method!r}")
        for name, value in refused.items():
            if name not in REFUSED:
                raise TypeError(f"FusedOptimizer has no argument {name!r}")
            if value and not (name == "accumulation_steps" and value == 1):
                raise ValueError(f"{name} cannot work in a fused update: {REFUSED[name]}")
        if memory.allocation.rule() is None:
            raise ValueError(f"{type(memory.allocation).__name__} has no fused kernels: {_DENSE}")
        if memory.quantised:
            raise ValueError("FusedOptimizer: a quantised memory has no gradients")
        if memory.bits < 32:
            raise ValueError(f"FusedOptimizer: no rounding to {memory.bits} bits: {_DENSE}")
        if memory.update is not None:
            raise ValueError("the memory already has a FusedOptimizer: close it first")
        self.memory, self.method = memory, method
        own = _EPS.get(method, 1e-10) if eps is None else eps
        for name, value in (
            ("lr", lr), ("eps", own), ("initial_accumulator_value", initial_accumulator_value)
        ):  # fmt: skip
            _check_size(name, value)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), found {betas}")
        # A tensor, so that a compiled step need not be compiled again when one of them changes.
        self._settings = torch.tensor([lr, own, *betas, 0], dtype=torch.float64, device="cpu")
        self._state, self._second = self._fresh_state(initial_accumulator_value)
        self._waiting: weakref.ref[_Ticket] | None = None
        memory.update = self.ticket

    def _fresh_state(self, initial: float) -> tuple[Tensor, Tensor]:
        weight = self.memory.weight.detach()
        # 16 bits would lose small steps, and eps.
        none = weight.new_empty(0, dtype=torch.promote_types(weight.dtype, torch.float32))
        if self.method == "sgd":
            return none, none
        if self.method == "block_adagrad":
            return none.new_full((len(weight),), initial), none
        if self.method == "adagrad":
            return none.new_full(weight.shape, initial), none
        return none.new_zeros(weight.shape), none.new_zeros(weight.shape)

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self._settings[LR])

    @lr.setter
    def lr(self, value: float) -> None:
        _check_size("lr", value)
        self._settings[LR] = value

    @property
    def steps(self) -> int:
        """Steps made."""
        return int(self._settings[STEPS])

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state: training bytes, not serving bytes."""
        return self._state.nbytes + self._second.nbytes

    def ticket(self) -> Any:
        """For one forward pass: what its backward calls.

        A compiled graph gets the step as an op, which notices a second lookup when it comes to
        the second step.
        """
        if torch.compiler.is_compiling():
            kind = int(METHODS[self.method])
            return Traced(self._state, self._second, self._settings, kind)
        graph_ops.check_alone()
        if self._waiting is not None and self._waiting() is not None:
            raise RuntimeError(
                "FusedOptimizer: an earlier lookup still waits for its backward pass. Look all "
                "features up by one EmbeddingBagCollection, evaluate under torch.no_grad(), and "
                "do not accumulate gradients"
            )
        ticket = _Ticket()
        self._waiting = weakref.ref(ticket)

        def update(weight: Tensor, grad: Tensor, touched: Touched) -> None:
            if ticket.used:
                raise RuntimeError("FusedOptimizer: a second backward pass would update twice")
            ticket.used = True
            self._waiting = None
            self._step(weight, grad, touched)

        return update

    def _step(self, weight: Tensor, grad: Tensor, touched: Touched) -> None:
        state = self._state
        wide = torch.promote_types(weight.dtype, torch.float32)
        if (state.dtype, state.device) != (wide, weight.device):
            raise RuntimeError(
                f"FusedOptimizer: its state is {state.dtype} on {state.device}, the memory now "
                f"{weight.dtype} on {weight.device}: convert the memory first, then make one"
            )
        with torch.no_grad():
            graph_ops.fused_step(
                weight.detach(), state, self._second, self._settings, grad, *touched,
                int(METHODS[self.method]), None,
            )  # fmt: skip
        # A graph that still needs the weights as they were must say so instead of using these.
        torch.autograd.graph.increment_version(weight)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "method": self.method,
            "lr": self.lr,
            "eps": float(self._settings[EPS]),
            "betas": (float(self._settings[BETA_1]), float(self._settings[BETA_2])),
            "steps": self.steps,
            "state": self._state,
            "second": self._second,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave, for the same method and memory."""
        missing = {"method", "lr", "eps", "betas", "steps", "state", "second"} - set(state)
        if missing:
            raise ValueError(f"FusedOptimizer: {sorted(missing)} are missing in the state")
        if state["method"] != self.method or state["state"].shape != self._state.shape:
            raise ValueError(
                f"FusedOptimizer: the state is of {state['method']!r} "
                f"{list(state['state'].shape)}, here {self.method!r} {list(self._state.shape)}"
            )
        numbers = [state["lr"], state["eps"], *state["betas"], state["steps"]]
        self._settings.copy_(torch.tensor(numbers, dtype=torch.float64))
        self._state.copy_(state["state"])
        self._second.copy_(state["second"])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles of a module: no lookup of theirs waits."""
        return {**self.__dict__, "_waiting": None}

    def close(self) -> None:
        """Let the memory have gradients again, unless another optimizer has it by now."""
        if self.memory.update == self.ticket:
            self.memory.update = None


def _check_size(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, found {value}")
