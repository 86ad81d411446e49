"""What templates are rendered with: the numbers and names that appear in the C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codegen.ir import DType, Graph, Op, op_macs

_C_TYPES = {
    DType.S8: "int8_t",
    DType.U8: "uint8_t",
    DType.S16: "int16_t",
    DType.S32: "int32_t",
    DType.F32: "float",
}


#: Bytes of the types below 32 bits.
_NUMBER_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A constant array in model_weights.c.

    `c_type` is the element's type; `values` has one row per element if that is a struct. `comment`
    says what is in it and in what order. `memory` is where it lies (codegen/placement.py).
    """

    name: str
    c_type: str
    values: NDArray[np.generic]
    comment: str
    memory: Literal["flash", "stream", "ram"] = "flash"

    @property
    def length(self) -> int:
        """Elements."""
        return len(self.values)

    @property
    def is_struct(self) -> bool:
        """Whether each element is a row of numbers."""
        return self.values.ndim == 2

    @property
    def size_bytes(self) -> int:
        """Bytes in flash; the structs of firmware/kernels are made of int32_t."""
        return self.values.size * _NUMBER_BYTES.get(self.c_type, 4)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Context:
    """What every template needs; each kernel family adds its numbers.

    Args:
        symbol: the C function, which is the op's name.
        kind: TFLite's name of the op.
        in_shape: of the first input.
        out_shape: of the output.
        macs: multiply-accumulates.
        scratch_bytes: size of the buffer that is the function's last argument; 0 if it has none.
        source: index of the operator in the .tflite.
        operands: positions in op.inputs of what the function gets as its first arguments.
        arrays: constants that the function uses.
    """

    symbol: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    macs: int
    scratch_bytes: int
    source: int
    operands: tuple[int, ...]
    arrays: tuple[Array, ...]

    @property
    def constant_bytes(self) -> int:
        """Bytes of flash for weights and tables."""
        return sum(array.size_bytes for array in self.arrays)


def common(
    graph: Graph,
    op: Op,
    arrays: tuple[Array, ...] = (),
    *,
    scratch_bytes: int = 0,
    operands: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """The fields of `Context` itself for one op; operands that are constants get an array each."""
    constants = tuple(
        Array(
            constant_name(op, position),
            f"{_C_TYPES[tensor.dtype]}",
            tensor.data.reshape(-1),
            f"constant operand, shape {tensor.shape}",
        )
        for position in operands
        if (tensor := graph.tensors[op.inputs[position]]).data is not None
    )
    return {
        "symbol": op.name,
        "kind": op.kind,
        "in_shape": graph.tensors[op.inputs[operands[0]]].shape,
        "out_shape": graph.tensors[op.outputs[0]].shape,
        "macs": op_macs(graph, op),
        "scratch_bytes": scratch_bytes,
        "source": op.source,
        "operands": operands,
        "arrays": (*arrays, *constants),
    }


def constant_name(op: Op, position: int) -> str:
    """Name of the array of an operand that is a constant."""
    return f"{op.name}_operand{position}"
