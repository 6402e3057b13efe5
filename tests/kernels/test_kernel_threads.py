"""Lookups from many Python threads at once and from forked and spawned processes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rule_cases import Case, named_case, one_hot_ids

from lma.kernels.cpu import threads
from lma.kernels.cpu.threads import run_pieces
from lma.kernels.lookup import lookup


def step(case: Case, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward and backward, big enough to be cut in pieces."""
    weight = case.weight().requires_grad_()
    zeros = torch.zeros(len(case.dims), dtype=torch.int64)
    out = lookup(weight, case.rule, ids, case.numbers, case.columns, zeros, case.pieces, case.width)
    (grad,) = torch.autograd.grad(out, weight, torch.ones_like(out))
    return out.detach(), grad


def work() -> tuple[Case, torch.Tensor]:
    case = named_case("all", 4, private=True)
    return case, one_hot_ids(case, 4000, torch.Generator().manual_seed(0))


def child(queue: multiprocessing.Queue[list[float]], threads: int) -> None:
    torch.set_num_threads(threads)
    out, grad = step(*work())
    queue.put([float(out.double().sum()), float(grad.double().sum())])


def test_eight_threads_at_once(torch_threads: None) -> None:
    torch.set_num_threads(4)
    case, ids = work()
    wanted = step(case, ids)
    together = threading.Barrier(8)

    def many(_: int) -> bool:
        together.wait()
        return all(
            torch.equal(a, b)
            for _ in range(5)
            for a, b in zip(step(case, ids), wanted, strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, range(8)))


# A fork of a process with threads is what this test is about.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_compute_the_same(method: str, torch_threads: None) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    torch.set_num_threads(2)
    # The parent's pool is running when the child begins.
    out, grad = step(*work())
    wanted = [float(out.double().sum()), float(grad.double().sum())]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    # Torch's own OpenMP threads do not survive a fork, ours do.
    threads = 2 if method == "spawn" else 1
    children = [context.Process(target=child, args=(queue, threads)) for _ in range(2)]
    for process in children:
        process.start()
    for _ in children:
        assert queue.get(timeout=100) == wanted
    for process in children:
        process.join()
        assert process.exitcode == 0


FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lma.kernels.cpu import threads
from lma.kernels.cpu.threads import run_pieces

def total(pieces):
    done = np.zeros(1000)
    def run(first, last):
        done[first:last] += 1
    run_pieces(run, 1000, pieces)
    return bool((done == 1).all())

assert total(4)
child = os.fork()
if child == 0:
    os._exit(0 if total(4) and total(3) else 1)
assert total(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(multiprocessing, "get_context"), reason="needs processes")
def test_the_pool_is_made_anew_after_a_fork() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, "."], capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(params=["torch's threads", "own pool"])
def either_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels on the threads of torch's OpenMP library, and on those used where it has none."""
    if request.param == "own pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch's threads are not GNU OpenMP's here")


@pytest.mark.usefixtures("either_threads")
def test_pieces_run_at_the_same_time() -> None:
    # Each waits for the others: on fewer threads than pieces they would never meet.
    together = threading.Barrier(3, timeout=60)
    run_pieces(lambda first, last: together.wait() and None, 3, 3)


@pytest.mark.usefixtures("either_threads")
def test_an_exception_of_a_piece_is_raised_after_all_have_ended() -> None:
    ended = []

    def run(first: int, last: int) -> None:
        if first == 25:
            raise ValueError("piece 1 failed")
        ended.append(first)

    with pytest.raises(ValueError, match="piece 1 failed"):
        run_pieces(run, 100, 4)
    assert sorted(ended) == [0, 50, 75]


@pytest.mark.usefixtures("either_threads")
def test_an_interrupt_of_a_piece_reaches_the_caller() -> None:
    def run(first: int, last: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pieces(run, 100, 4)


@pytest.mark.usefixtures("either_threads")
def test_pieces_cover_the_work_once() -> None:
    for total, pieces in ((0, 1), (1, 1), (7, 3), (3, 3), (100, 8)):
        counts = [0] * total

        def run(first: int, last: int, counts: list[int] = counts) -> None:
            for i in range(first, last):
                counts[i] += 1

        run_pieces(run, total, pieces)
        assert counts == [1] * total
