"""int8 values widened, scaled and added in vector instructions, which Numba does not find."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


def _adder(lanes: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor, source, start, target, place = arguments
        values = context.make_array(signature.args[1])(context, builder, source)
        floats = context.make_array(signature.args[3])(context, builder, target)
        wide = ir.VectorType(ir.FloatType(), lanes)

        def vector_at(data: Any, index: Any, element: Any) -> Any:
            pointer = ir.PointerType(ir.VectorType(element, lanes))
            return builder.bitcast(builder.gep(data, [index]), pointer)

        loaded = builder.load(vector_at(values.data, start, ir.IntType(8)), align=1)
        where = vector_at(floats.data, place, ir.FloatType())
        scale = ir.Constant(wide, ir.Undefined)
        for lane in range(lanes):
            scale = builder.insert_element(scale, factor, ir.IntType(32)(lane))
        product = builder.fmul(builder.sitofp(loaded, wide), scale)
        total = builder.fadd(builder.load(where, align=4), product)
        builder.store(total, where, align=4)
        return context.get_dummy_value()

    return generate


def _signature(source: Any, target: Any) -> Any:
    return types.void(types.float32, source, types.int64, target, types.int64)


@intrinsic
def add_four(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """target[place + i] += factor * source[start + i] for i < 4: float32 += float32 * int8."""
    return _signature(source, target), _adder(4)


@intrinsic
def add_eight(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """The same for i < 8."""
    return _signature(source, target), _adder(8)
