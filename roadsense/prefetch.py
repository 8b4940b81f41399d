"""Asks the processor for memory that is needed a world later: a large batch lies outside of its nearest caches."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_CACHE_LINE = 64
_READ, _SOON, _DATA = 0, 3, 1  # what llvm.prefetch calls its access, locality and kind of cache


def _prefetch(typing: Any, array: Any, row: Any, first_byte: Any, num_bytes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view, at_row, at_byte, size = arguments
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, view)
        stride = cgutils.unpack_tuple(builder, view.strides, kind.ndim)[0]
        pointer, flag, word = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
        begin = builder.add(builder.mul(at_row, stride), at_byte)
        base = builder.gep(builder.bitcast(view.data, pointer), [begin])
        ask = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag]), "llvm.prefetch.p0i8"
        )
        with cgutils.for_range_slice(builder, word(0), size, word(_CACHE_LINE), word) as (offset, _):
            builder.call(ask, [builder.gep(base, [offset]), flag(_READ), flag(_SOON), flag(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), generate


prefetch: Any = intrinsic(_prefetch)
"""In kernels, ``prefetch(array, row, first_byte, num_bytes)`` brings bytes of ``array[row]`` near.

It reads and changes nothing, and no address is wrong.
"""
