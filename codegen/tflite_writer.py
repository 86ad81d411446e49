"""The bytes of a .tflite: a flatbuffer of tensors, constants and operators.

Knows the file's tables but no op: `export_tflite` decides which operators a graph becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite

from codegen import ir

#: Version of the schema, and how a file of it starts.
SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"

#: Alignment of constants in the file, which TFLM uses where they lie.
BUFFER_ALIGNMENT = 16

_TENSOR_TYPES = {
    ir.DType.S8: tflite.TensorType.INT8,
    ir.DType.U8: tflite.TensorType.UINT8,
    ir.DType.S16: tflite.TensorType.INT16,
    ir.DType.S32: tflite.TensorType.INT32,
    ir.DType.F32: tflite.TensorType.FLOAT32,
}


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the file: its builtin code and version, tensors, and scalar options.

    `options_table` is the schema's name of the table that holds `options`, such as AddOptions; an
    empty one means that the operator has none.
    """

    code: int
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_table: str = ""
    options: dict[str, int | float] = field(default_factory=dict)


def write_tflite(
    tensors: Sequence[ir.Tensor],
    operators: Sequence[Operator],
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    description: str,
) -> bytes:
    """A model of one subgraph. Operators, inputs and outputs name tensors by their index."""
    # A flatbuffer is written from the inside out: what is referred to comes first.
    builder = flatbuffers.Builder(1024)

    # Buffer 0 is empty by convention; tensors without data refer to it.
    contents = [b""]
    buffer_of = []
    for tensor in tensors:
        buffer_of.append(0 if tensor.data is None else len(contents))
        if tensor.data is not None:
            contents.append(tensor.data.tobytes())
    buffers = _vector_of_tables(builder, [_buffer(builder, content) for content in contents])

    written_tensors = _vector_of_tables(
        builder,
        [_tensor(builder, t, buffer) for t, buffer in zip(tensors, buffer_of, strict=True)],
    )

    kinds = sorted({(operator.code, operator.version) for operator in operators})
    written_operators = _vector_of_tables(
        builder, [_operator(builder, o, kinds.index((o.code, o.version))) for o in operators]
    )
    operator_codes = _vector_of_tables(
        builder, [_operator_code(builder, code, version) for code, version in kinds]
    )

    written_inputs = builder.CreateNumpyVector(np.array(inputs, np.int32))
    written_outputs = builder.CreateNumpyVector(np.array(outputs, np.int32))
    subgraph_name = builder.CreateString("main")
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, written_tensors)
    tflite.SubGraphAddInputs(builder, written_inputs)
    tflite.SubGraphAddOutputs(builder, written_outputs)
    tflite.SubGraphAddOperators(builder, written_operators)
    tflite.SubGraphAddName(builder, subgraph_name)
    subgraphs = _vector_of_tables(builder, [tflite.SubGraphEnd(builder)])

    written_description = builder.CreateString(description)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, SCHEMA_VERSION)
    tflite.ModelAddOperatorCodes(builder, operator_codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddDescription(builder, written_description)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def _vector_of_tables(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _buffer(builder: flatbuffers.Builder, content: bytes) -> int:
    data = 0
    if content:
        # The library's own CreateByteVector aligns to 4 bytes only.
        builder.StartVector(1, len(content), BUFFER_ALIGNMENT)
        builder.head = builder.head - len(content)
        builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
        data = builder.EndVector()
    tflite.BufferStart(builder)
    if content:
        tflite.BufferAddData(builder, data)
    return int(tflite.BufferEnd(builder))


def _tensor(builder: flatbuffers.Builder, tensor: ir.Tensor, buffer: int) -> int:
    name = builder.CreateString(tensor.name)
    shape = builder.CreateNumpyVector(np.array(tensor.shape, np.int32))
    quantization = _quantization(builder, tensor.quant)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, _TENSOR_TYPES[tensor.dtype])
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddQuantization(builder, quantization)
    return int(tflite.TensorEnd(builder))


def _quantization(builder: flatbuffers.Builder, quant: ir.Quant | None) -> int:
    if quant is None:
        tflite.QuantizationParametersStart(builder)
        return int(tflite.QuantizationParametersEnd(builder))
    scale = builder.CreateNumpyVector(np.array(quant.scale, np.float32))
    zero_point = builder.CreateNumpyVector(np.array(quant.zero_point, np.int64))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
    tflite.QuantizationParametersAddQuantizedDimension(builder, quant.axis or 0)
    return int(tflite.QuantizationParametersEnd(builder))


def _operator(builder: flatbuffers.Builder, operator: Operator, code_index: int) -> int:
    inputs = builder.CreateNumpyVector(np.array(operator.inputs, np.int32))
    outputs = builder.CreateNumpyVector(np.array(operator.outputs, np.int32))
    options = 0
    if operator.options_table:
        getattr(tflite, f"{operator.options_table}Start")(builder)
        for name, value in operator.options.items():
            getattr(tflite, f"{operator.options_table}Add{name}")(builder, value)
        options = getattr(tflite, f"{operator.options_table}End")(builder)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code_index)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    if operator.options_table:
        kind = getattr(tflite.BuiltinOptions, operator.options_table)
        tflite.OperatorAddBuiltinOptionsType(builder, kind)
        tflite.OperatorAddBuiltinOptions(builder, options)
    return int(tflite.OperatorEnd(builder))


def _operator_code(builder: flatbuffers.Builder, code: int, version: int) -> int:
    tflite.OperatorCodeStart(builder)
    # Readers from before 2020 look at the byte field; all our codes fit it.
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    tflite.OperatorCodeAddVersion(builder, version)
    return int(tflite.OperatorCodeEnd(builder))
