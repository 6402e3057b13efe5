"""Forward and training step of the embedding on a GPU, in bytes a second and beside full tables.

    python benchmarks/kernels/gpu_speed.py --dims 64 128 --blocks 1 4 16 64

Criteo's 26 cardinalities, the first half of every table's tokens signed, one id per feature. Two
times: *device*, the sum of what the profiler says of a call's kernels, mean of eight calls; and
*wall*, of CUDA events around ten calls one after the other, median over `--repeats`, where Python
may be what the device waits for. Four batches take turns, ids are taken in modulo their table's
size; "ids checked" is the default, which waits for the device to raise its error.

Two counts of bytes: *read*, ids, codes of signed tokens, the floats of the vectors as often as they
are looked up, and the output; in training also the starts, the gradient of the output, and the
dense gradient of the memory. And *least*, where floats that are looked up more than once count
once. Their rates, by device time, are given as shares of a copy's, measured in the same run.
Rivals: one `nn.EmbeddingBag` over all full tables (ids with their table's offset), and a bare
`index_select` of the same blocks; not FBGEMM, whose GPU package is another. First the vectors of a
sample of rows, and a gradient, are compared with the reference on the CPU. `--table` prints the
tables of docs/results/kernels.md from the lines that are there.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lma.benchmarking import circumstances
from lma.benchmarking.criteo_shape import NUM_CODES, draw_ids, lma_collection, sizes
from lma.benchmarking.embedding_speed import signed_share
from lma.benchmarking.rivals import block_numbers, in_turn
from lma.kernels.reference import lookup as reference
from lma.kernels.reference import touched
from lma.kernels.rule import Rule
from lma.nn import EmbeddingBagCollection, FusedOptimizer

GPU = torch.device("cuda")
ROTATION = 4  # batches
FULL, FULL_STEP = "EmbeddingBag", "EmbeddingBag sparse + Adagrad"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--kinds", nargs="+", default=["random", "learned"])
    parser.add_argument("--popularity", nargs="+", default=["zipf", "uniform"])
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--compression", type=float, default=16)
    parser.add_argument("--scale", type=int, default=1, help="cardinalities are divided by it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-gpu.jsonl"))
    parser.add_argument("--table", action="store_true", help="of the lines in --out, no runs")
    arguments = parser.parse_args()
    if arguments.table:
        lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
        sys.stdout.write(tables(lines))
        return
    if arguments.repeats < 2:
        parser.error("--repeats must be 2 or more: lines give 20 % and 80 % points")
    copy = copy_rate()
    sys.stdout.write(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.0f} GB/s\n")
    settings = {
        name: getattr(arguments, name) for name in ("batch", "compression", "scale", "repeats")
    }
    about = circumstances() | {
        "machine": torch.cuda.get_device_name(),
        "triton": version("triton"),
        "copy_GB_per_s": copy / 1e9,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for dim in arguments.dims:
        for popularity in arguments.popularity:
            for line in measure(dim, popularity, arguments):
                shares = {
                    f"{name}_of_copy": line[f"{name}_bytes"] / line["device_ms"] / 1e-3 / copy
                    for name in ("read", "least")
                    if f"{name}_bytes" in line
                }
                with arguments.out.open("a") as file:
                    own = {"benchmark": "kernels/gpu_speed", "dim": dim, "popularity": popularity}
                    file.write(json.dumps(own | line | shares | settings | about) + "\n")
                sys.stdout.write(
                    f"{dim:4} {popularity:8} {line['what']:17} {line['method']:32} "
                    f"device {line['device_ms']:8.3f} wall {line['median_ms']:8.3f} ms "
                    f"[{line['p20_ms']:.3f}, {line['p80_ms']:.3f}]  "
                    + " ".join(f"{name} {share:.2f}" for name, share in shares.items())
                    + "\n"
                )
                sys.stdout.flush()


def copy_rate(size: int = 1 << 30) -> float:
    """Bytes read and written per second by a copy from one buffer of the device to another."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    return 2 * size / device_ms(lambda: target.copy_(source)) / 1e-3


def device_ms(step: Callable[[], Any], calls: int = 2 * ROTATION) -> float:
    """Milliseconds of one call's kernels and copies on the device."""
    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        for _ in range(calls):
            step()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiled.key_averages()) / calls / 1e3


def wall_ms(step: Callable[[], Any], repeats: int, calls: int = 10) -> tuple[float, float, float]:
    """Median, 20 % and 80 % of a call's milliseconds, `calls` of them one after the other."""
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            step()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    low, _, _, high = statistics.quantiles(times, n=5)
    return statistics.median(times), low, high


def measure(dim: int, popularity: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Lines for the full tables, and for every block size and kind of signature."""
    tokens = sizes(arguments.scale)
    drawn = [draw_ids(tokens, arguments.batch, popularity, seed) for seed in range(ROTATION)]
    share = signed_share(tokens, drawn)
    batches = [ids.to(GPU) for ids in drawn]
    grad = torch.randn(arguments.batch, dim * len(tokens), device=GPU)
    lines = full_lines(tokens, dim, batches, grad, arguments.repeats)
    for block in (b for b in arguments.blocks if b <= dim):
        for kind in arguments.kinds:
            release()
            module = lma_collection(tokens, dim, block, arguments.compression, kind, device=GPU)
            check(module, batches[0])
            name = f"lma {kind} block {block}"
            lines += lma_lines(name, module, batches, grad, share, arguments.repeats)
            del module
    release()
    return [line | {"signed_share": share} for line in lines]


def timed(
    what: str,
    method: str,
    step: Callable[[], Any],
    repeats: int,
    moved: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """One line; `moved`: bytes read and least."""
    device = device_ms(step)
    median, low, high = wall_ms(step, repeats)
    line = {"what": what, "method": method, "device_ms": device, "median_ms": median}
    line |= {"p20_ms": low, "p80_ms": high}
    if moved is not None:
        line |= {"read_bytes": moved[0], "least_bytes": moved[1]}
    return line


def full_lines(
    tokens: list[int], dim: int, batches: list[Tensor], grad: Tensor, repeats: int
) -> list[dict[str, Any]]:
    """All full tables as one `nn.EmbeddingBag`."""
    weight = torch.empty(sum(tokens), dim, device=GPU).normal_(std=0.01)
    full = nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode="sum", sparse=True)
    offsets = torch.tensor([0, *tokens[:-1]], device=GPU).cumsum(0)
    ids = [(values + offsets).reshape(-1, 1) for values in batches]
    adagrad = torch.optim.Adagrad(full.parameters(), lr=0.01)

    def step(values: Tensor) -> None:
        full.zero_grad()
        full(values).backward(grad.view(-1, dim))
        adagrad.step()

    floats = 4 * len(ids[0]) * dim
    distinct = 4 * dim * statistics.mean(len(values.unique()) for values in ids)
    moved = tuple(8 * len(ids[0]) + floats + own for own in (floats, distinct))
    with torch.no_grad():
        lines = [timed("forward", FULL, in_turn(full, ids), repeats, moved)]
    return [*lines, timed("training step", FULL_STEP, in_turn(step, ids), repeats)]


def lma_lines(
    name: str,
    module: EmbeddingBagCollection,
    batches: list[Tensor],
    grad: Tensor,
    share: float,
    repeats: int,
) -> list[dict[str, Any]]:
    """A module's lookup, its gradient, and its step."""
    block, weight = module.allocation.block_size, module.memory.weight
    lookups, dim = batches[0].numel(), module.embedding_dim
    floats = 4 * lookups * dim
    blocks = block_numbers(module, batches)
    distinct = 4 * block * statistics.mean(len(numbers.unique()) for numbers in blocks)
    moved = [floats + own + lookups * (8 + NUM_CODES * share) for own in (floats, distinct)]

    def both(values: Tensor) -> None:
        weight.grad = None
        module(values).backward(grad)

    forward = in_turn(module, batches)
    module.memory.out_of_range = "wrap"
    with torch.no_grad():
        bare = in_turn(lambda index: weight.index_select(0, index), blocks)
        lines = [timed("forward", f"index_select {name}", bare, repeats)]
        lines.append(timed("forward", name, forward, repeats, (moved[0], moved[1])))
        module.memory.out_of_range = "error"
        lines.append(timed("forward, ids checked", name, forward, repeats))
        module.memory.out_of_range = "wrap"
    more = floats + 4 * weight.numel() + 2 * 4 * lookups * -(-dim // block)
    trained = moved[0] + more, moved[1] + more
    lines.append(timed("forward, backward", name, in_turn(both, batches), repeats, trained))
    weight.grad = None
    FusedOptimizer(module.memory, "block_adagrad" if block > 1 else "adagrad", lr=0.01)
    step = in_turn(lambda values: module(values).backward(grad), batches)
    return [*lines, timed("training step", name, step, repeats)]


def release() -> None:
    """Give freed memory back."""
    gc.collect()
    torch.cuda.empty_cache()


def check(module: EmbeddingBagCollection, ids: Tensor) -> None:
    """Vectors of every 128th row, and the gradient of the first 256, are the reference's."""
    allocation, weight = module.allocation, module.memory.weight
    rule = allocation.rule()
    assert rule is not None
    rule = Rule(*(value.cpu() if isinstance(value, Tensor) else value for value in rule))
    features, dim = ids.shape[1], module.embedding_dim
    columns = torch.arange(features + 1) * dim
    place = (torch.arange(features), columns, torch.zeros(features, dtype=torch.int64))
    rest = (*rule, allocation.pieces([allocation.group(0)]), features * dim, True)
    few = ids[::128]
    memory = weight.detach().cpu()
    wanted, _ = reference.lookup(memory, few.cpu().reshape(-1), None, None, *place, *rest)
    with torch.no_grad():
        torch.testing.assert_close(module(ids)[::128].cpu(), wanted)
    few = ids[:256]
    _, starts = reference.lookup(memory, few.cpu().reshape(-1), None, None, *place, *rest)
    grad = torch.randn(len(few), features * dim)
    arguments = (starts, None, None, *place, rule.layout, rule.chunk, rule.lead, *weight.shape)
    rows, values = touched.touched_grad(grad, *arguments)
    module(few).backward(grad.to(GPU))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[rows.to(GPU)].cpu(), values, rtol=1e-4, atol=1e-4)
    weight.grad = None


def tables(lines: list[dict[str, Any]]) -> str:
    """A table in Markdown for every dimension and popularity."""
    whats = ("forward", "forward, backward", "training step")
    text = []
    for dim, popularity in dict.fromkeys((line["dim"], line["popularity"]) for line in lines):
        text += [f"Dim {dim}, {popularity} ids:", ""]
        text.append("| | forward | of copy | forward, backward | of copy | training step | wall |")
        text.append("| --- " + "| ---: " * 6 + "|")
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for line in lines:
            bare = line["method"].startswith("index_select")
            if (line["dim"], line["popularity"]) == (dim, popularity) and not bare:
                name = line["method"].removesuffix(" sparse + Adagrad")
                found.setdefault(name, {})[line["what"]] = line
        for name, own in found.items():
            cells = []
            for what in whats:
                line = own.get(what, {})
                cells.append(f"{line['device_ms']:.3f}" if line else "")
                if what == whats[-1]:
                    cells.append(f"{line['median_ms']:.2f}" if line else "")
                elif "read_of_copy" in line:
                    cells.append(f"{line['read_of_copy']:.2f}, {line['least_of_copy']:.2f}")
                else:
                    cells.append("")
            text.append(f"| {name} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


if __name__ == "__main__":
    main()
