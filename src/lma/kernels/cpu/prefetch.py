"""A prefetch instruction for Numba: hashing goes on while memory is on its way."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(_context: Any, array: Any, _index: Any) -> Any:
    """Ask for the cache line of `array.reshape(-1)[index]`, a contiguous array of any rank.

    An index outside the array is harmless: the hardware ignores what it cannot map.
    """
    signature = types.void(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, arguments[0])
        place = builder.gep(view.data, [arguments[1]])
        byte = ir.PointerType(ir.IntType(8))
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, number, number, number]),
            "llvm.prefetch.p0",
        )
        # Read, keep in all cache levels, data.
        builder.call(function, [builder.bitcast(place, byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return signature, generate
