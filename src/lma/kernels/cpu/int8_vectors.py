"""Values of 8 or 4 bits widened and scaled in vector instructions, which Numba does not find."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

_BYTE, _NUMBER, _FLOAT = ir.IntType(8), ir.IntType(32), ir.FloatType()
MIDDLE = 8.0  # what 4-bit values stand plus


def _bytes(builder: Any, data: Any, index: Any, count: int) -> Any:
    vector = ir.PointerType(ir.VectorType(_BYTE, count))
    return builder.load(builder.bitcast(builder.gep(data, [index]), vector), align=1)


def _widened(builder: Any, data: Any, index: Any, lanes: int, bits: int) -> Any:
    """`lanes` floats of the values that begin at byte `index`."""
    wide = ir.VectorType(_FLOAT, lanes)
    if bits == 8:
        return builder.sitofp(_bytes(builder, data, index, lanes), wide)
    pairs = _bytes(builder, data, index, lanes // 2)

    def all_of(value: int) -> Any:
        return ir.Constant(ir.VectorType(_BYTE, lanes // 2), [value] * (lanes // 2))

    low, high = builder.and_(pairs, all_of(15)), builder.lshr(pairs, all_of(4))
    order = [lane // 2 + (lanes // 2) * (lane % 2) for lane in range(lanes)]
    mask = ir.Constant(ir.VectorType(_NUMBER, lanes), order)
    floats = builder.uitofp(builder.shuffle_vector(low, high, mask), wide)
    return builder.fsub(floats, ir.Constant(wide, [MIDDLE] * lanes))


def _vectors(lanes: int, bits: int, add: bool) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor, source, start, target, place = arguments
        values = context.make_array(signature.args[1])(context, builder, source)
        floats = context.make_array(signature.args[3])(context, builder, target)
        wide = ir.VectorType(_FLOAT, lanes)
        scale = ir.Constant(wide, ir.Undefined)
        for lane in range(lanes):
            scale = builder.insert_element(scale, factor, _NUMBER(lane))
        result = builder.fmul(_widened(builder, values.data, start, lanes, bits), scale)
        where = builder.bitcast(builder.gep(floats.data, [place]), ir.PointerType(wide))
        if add:
            result = builder.fadd(builder.load(where, align=4), result)
        builder.store(result, where, align=4)
        return context.get_dummy_value()

    return generate


def _signature(source: Any, target: Any) -> Any:
    return types.void(types.float32, source, types.uint64, target, types.uint64)


@intrinsic
def put_four(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """target[place + i] = factor * source[start + i] for i < 4: float32 = float32 * int8."""
    return _signature(source, target), _vectors(4, 8, add=False)


@intrinsic
def put_eight(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """The same for i < 8."""
    return _signature(source, target), _vectors(8, 8, add=False)


@intrinsic
def add_four(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """target[place + i] += factor * source[start + i] for i < 4."""
    return _signature(source, target), _vectors(4, 8, add=True)


@intrinsic
def add_eight(_context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any) -> Any:
    """The same for i < 8."""
    return _signature(source, target), _vectors(8, 8, add=True)


@intrinsic
def put_four_halves(
    _context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any
) -> Any:  # fmt: skip
    """`put_four` of the four 4-bit values in bytes start and start + 1."""
    return _signature(source, target), _vectors(4, 4, add=False)


@intrinsic
def add_four_halves(
    _context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any
) -> Any:  # fmt: skip
    """`add_four` of the same."""
    return _signature(source, target), _vectors(4, 4, add=True)


@intrinsic
def put_eight_halves(
    _context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any
) -> Any:  # fmt: skip
    """`put_eight` of the eight 4-bit values from byte start on."""
    return _signature(source, target), _vectors(8, 4, add=False)


@intrinsic
def add_eight_halves(
    _context: Any, _factor: Any, source: Any, _start: Any, target: Any, _: Any
) -> Any:  # fmt: skip
    """`add_eight` of the same."""
    return _signature(source, target), _vectors(8, 4, add=True)
