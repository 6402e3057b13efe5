"""Eight 32-bit codes at a time: a vector type for Numba kernels.

LLVM does not vectorise a loop over 16 codes by itself: it cannot know that the arrays do not
overlap, and prepares for longer loops. A value of type `Lanes` is one vector of eight unsigned
32-bit integers (one AVX2 register, two of NEON or SSE) from the load to the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

WIDTH = 8

_VECTOR = ir.VectorType(ir.IntType(32), WIDTH)
_ALIGNMENT = 4  # that of a uint32: arrays need no more


class Lanes(types.Type):  # type: ignore[misc]
    """Numba's type of such a vector."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


_LANES = Lanes()


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    view = context.make_array(kind)(context, builder, array)
    return builder.bitcast(builder.gep(view.data, [place]), ir.PointerType(_VECTOR))


@intrinsic
def load(_context: Any, array: Any, _place: Any) -> Any:
    """`array.reshape(-1)[place : place + 8]` of a contiguous uint32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments)
        return builder.load(address, align=_ALIGNMENT)

    return _LANES(array, types.int64), generate


@intrinsic
def store(_context: Any, array: Any, _place: Any, _value: Any) -> Any:
    """`array.reshape(-1)[place : place + 8] = value`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value = arguments
        address = _address(context, builder, signature.args[0], array, place)
        builder.store(value, address, align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, types.int64, _LANES), generate


@intrinsic
def spread(_context: Any, _value: Any) -> Any:
    """Eight times the same uint32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(_VECTOR, [0] * WIDTH))

    return _LANES(types.uint32), generate


def _lane_by_lane(arity: int, build: Callable[..., Any]) -> Any:
    signature = _LANES(*[_LANES] * arity)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return build(builder, *arguments)

    return signature, generate


@intrinsic
def add_product(_context: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """The sum a + b * c, wrapping around."""
    return _lane_by_lane(3, lambda build, a, b, c: build.add(a, build.mul(b, c)))


@intrinsic
def least(_context: Any, _a: Any, _b: Any) -> Any:
    """The smaller one of a and b."""
    return _lane_by_lane(
        2, lambda build, a, b: build.select(build.icmp_unsigned("<", a, b), a, b)
    )  # fmt: skip


@intrinsic
def most(_context: Any, _a: Any, _b: Any) -> Any:
    """The larger one of a and b."""
    return _lane_by_lane(
        2, lambda build, a, b: build.select(build.icmp_unsigned("<", a, b), b, a)
    )  # fmt: skip


@intrinsic
def where_equal(_context: Any, _a: Any, _b: Any, _then: Any, _other: Any) -> Any:
    """Take `then` where a == b, else `other`."""
    return _lane_by_lane(
        4,
        lambda build, a, b, then, other: build.select(
            build.icmp_unsigned("==", a, b), then, other
        ),
    )  # fmt: skip


__all__ = ["WIDTH", "add_product", "least", "load", "most", "spread", "store", "where_equal"]
