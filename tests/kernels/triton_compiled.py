"""The Triton kernels compile for a GPU of compute capability 9.0, which takes no GPU.

Run by `test_kernel_triton.py` in a process of its own: the interpreter does not notice what the
compiler refuses.
"""

from __future__ import annotations

from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lma.kernels.gpu.address_kernel import starts_kernel
from lma.kernels.gpu.pool_kernel import dot_kernel, pool_kernel, scatter_kernel
from lma.kernels.gpu.segment_kernel import fold_kernel, segment_kernel
from lma.kernels.gpu.update_kernel import update_kernel
from lma.kernels.update import UpdateKind

POINTERS = {
    "ids": "*i64", "numbers": "*i64", "layout": "*i64", "seeds": "*i64", "draws": "*u8",
    "codes": "*u8", "fingerprints": "*i64", "overflow": "*i64", "offsets": "*i64",
    "columns": "*i64", "modes": "*i64", "starts": "*i32", "scales": "*fp16",
    "touches": "*i64", "begins": "*i64", "ends": "*i64", "slots": "*i64", "lengths": "*i64",
    "rows": "*i64", "bounds": "*i64", "sums": "*fp32", "values": "*fp32", "first": "*i64",
    "state": "*fp32", "second": "*fp32", "lr": "fp32", "eps": "fp32", "new1": "fp32",
    "new2": "fp32",
}  # fmt: skip
FLOATS = ("weight", "grad", "factors", "out")
CODED = {"SIGNED": True, "MARKED": True, "STRIDED": True}
PLAIN = {"SIGNED": False, "MARKED": False, "STRIDED": False}
ALIKE = {"UNIT": 16, "CHUNK": 16, "DIM": 64, "ROWS": 32, "BLOCK": 64}
OTHER = {"UNIT": 2, "CHUNK": 6, "DIM": 0, "ROWS": 32, "BLOCK": 64}
SEGMENT = {"UNIT": 6, "CHUNK": 6, "ROWS": 64, "BLOCK": 8}
WHOLE = {"UNIT": 16, "CHUNK": 16, "ROWS": 64, "BLOCK": 16}
SOME = {"ROWS": 128, "CHUNKS": 4}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("real", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("kernel", "constants"),
    [
        (starts_kernel, {**CODED, "UNIT": 4, "CHUNK": 16, "STRIDE": 16, **SOME}),
        # A 1 among the arguments is a constant to Triton.
        (starts_kernel, {**CODED, "UNIT": 2, "CHUNK": 6, "STRIDE": 6, "lead": 1, **SOME}),
        (starts_kernel, {**PLAIN, "UNIT": 1, "CHUNK": 6, "STRIDE": 1, **SOME}),
        (pool_kernel, {**OTHER, "BAGS": True, "FACTORS": True, "BITS": 32}),
        (pool_kernel, {**ALIKE, "BAGS": False, "FACTORS": False, "BITS": 32}),
        (pool_kernel, {**OTHER, "BAGS": True, "FACTORS": True, "BITS": 8}),
        (pool_kernel, {**OTHER, "BAGS": True, "FACTORS": True, "BITS": 4}),
        (pool_kernel, {**ALIKE, "BAGS": False, "FACTORS": False, "BITS": 4}),
        (scatter_kernel, {**OTHER, "BAGS": True, "FACTORS": True}),
        (scatter_kernel, {**ALIKE, "BAGS": False, "FACTORS": False}),
        (dot_kernel, {**OTHER, "BAGS": True}),
        (dot_kernel, {**ALIKE, "BAGS": False}),
        (segment_kernel, {**SEGMENT, "ALIKE": False, "BAGS": True, "FACTORS": True}),
        (segment_kernel, {**WHOLE, "ALIKE": True, "BAGS": False, "FACTORS": False}),
        (fold_kernel, {"UNIT": 6, "ROWS": 64, "BLOCK": 8}),
        *(
            (update_kernel, {"KIND": int(k), "PARTS": True, "UNIT": 6, "ROWS": 64, "BLOCK": 8})
            for k in UpdateKind
        ),
    ],
)
def test_kernels_compile(kernel: Any, constants: dict[str, Any], real: str) -> None:
    types = dict.fromkeys(FLOATS, f"*{real}")
    if kernel in (starts_kernel, fold_kernel, update_kernel) and real != "fp32":
        pytest.skip("has no other floats")
    if kernel is starts_kernel:
        types["out"] = "*i32"
    if "slots" in kernel.arg_names and kernel is not segment_kernel:
        types["slots"] = "i64"
    if constants.get("BITS", 32) < 32:
        types |= {"weight": "*i8" if constants["BITS"] == 8 else "*u8", "out": "*fp32"}
    if kernel in (scatter_kernel, segment_kernel):
        types["out"] = "*fp32"
    signature = {
        name: "constexpr" if name in constants else {**POINTERS, **types}.get(name, "i32")
        for name in kernel.arg_names
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
