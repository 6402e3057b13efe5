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
from lma.kernels.gpu.segment_kernel import segment_kernel

POINTERS = {
    "ids": "*i64", "numbers": "*i64", "layout": "*i64", "seeds": "*i64", "draws": "*u8",
    "codes": "*u8", "fingerprints": "*i16", "overflow": "*i64", "offsets": "*i64",
    "columns": "*i64", "modes": "*i64", "starts": "*i32", "scales": "*fp16",
    "touches": "*i64", "bounds": "*i64", "slots": "*i64", "lengths": "*i64",
}  # fmt: skip
FLOATS = ("weight", "grad", "factors", "out")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("real", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("kernel", "constants"),
    [
        (starts_kernel, {"SIGNED": True, "BLOCK": 128}),
        (starts_kernel, {"SIGNED": False, "BLOCK": 128}),
        (pool_kernel, {"BAGS": True, "FACTORS": True, "BITS": 32, "BLOCK": 64}),
        (pool_kernel, {"BAGS": False, "FACTORS": False, "BITS": 32, "BLOCK": 16}),
        (pool_kernel, {"BAGS": True, "FACTORS": True, "BITS": 8, "BLOCK": 64}),
        (pool_kernel, {"BAGS": True, "FACTORS": True, "BITS": 4, "BLOCK": 64}),
        (pool_kernel, {"BAGS": False, "FACTORS": False, "BITS": 4, "BLOCK": 16}),
        (scatter_kernel, {"BAGS": True, "FACTORS": True, "BLOCK": 64}),
        (dot_kernel, {"BAGS": True, "BLOCK": 64}),
        (segment_kernel, {"FACTORS": True, "BLOCK": 16}),
    ],
)
def test_kernels_compile(kernel: Any, constants: dict[str, Any], real: str) -> None:
    types = dict.fromkeys(FLOATS, f"*{real}")
    if kernel is starts_kernel:
        types["out"] = "*i32"
        if real != "fp32":
            pytest.skip("has no floats")
    if constants.get("BITS", 32) < 32:
        types |= {"weight": "*i8" if constants["BITS"] == 8 else "*u8", "out": "*fp32"}
    if kernel in (scatter_kernel, segment_kernel):
        types["out"] = "*fp32"
    signature = {
        name: "constexpr" if name in constants else {**POINTERS, **types}.get(name, "i64")
        for name in kernel.arg_names
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
