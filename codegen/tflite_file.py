"""The bytes of a .tflite as plain records: bounded in time and memory whatever the bytes are.

Every access to the flatbuffer that can fail on corrupt bytes happens here and fails as
GraphInvalid. What the records mean (shapes, types, ops) is judged in import_tflite.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tflite
from flatbuffers import number_types
from numpy.typing import NDArray

from codegen.errors import GraphInvalid

#: Larger files cannot fit any microcontroller, and cost time to read.
MAX_FILE_BYTES = 64 << 20
MAX_TENSORS = 8_192
MAX_OPS = 2_048
MAX_BUFFERS = 16_384
MAX_RANK = 8
_MAX_NAME_BYTES = 1_024
_MAX_OP_OPERANDS = 1_024
_SCHEMA_VERSION = 3
#: What flatbuffers' accessors raise when an offset or a length points outside the file.
_BROKEN = (struct.error, ValueError, IndexError, TypeError, OverflowError)
_TENSOR_NAME_SLOT = 10  # position in the vtable of Tensor
_CUSTOM_CODE_SLOT, _BUILTIN_CODE_SLOT = 6, 10  # and of OperatorCode


@dataclass(frozen=True, slots=True, eq=False)
class RawTensor:
    """One tensor as stored; `data` is None where the buffer is empty."""

    name: str
    type: int
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int
    is_variable: bool
    is_sparse: bool
    data: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, eq=False)
class RawOp:
    """One operator as stored; absent optional inputs are -1."""

    index: int
    code: int
    custom_code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    _operator: Any = field(repr=False)

    def options(self, accessor: type, *fields: str) -> tuple[Any, ...]:
        """Values of fields of the op's option table, defaults where the table or a field is absent.

        Args:
            accessor: the table's class in the tflite package, such as tflite.Conv2DOptions.
            fields: names of its fields, such as "StrideH".

        Raises:
            GraphInvalid: the table is of another type or points outside the file.
        """
        where = f"op {self.index}"
        expected = getattr(tflite.BuiltinOptions, accessor.__name__)
        with _reading(f"{where}, options"):
            table = self._operator.BuiltinOptions()
            found = self._operator.BuiltinOptionsType()
            if table is not None and found not in (0, expected):
                raise GraphInvalid(
                    f"its options are of type {found}, expected {expected} ({accessor.__name__})",
                    where,
                )
            options = accessor()
            if table is None or found == 0:
                # An empty table: one vtable without fields, so that every accessor gives its
                # default.
                options.Init(struct.pack("<HHi", 4, 4, 4), 4)
            else:
                options.Init(table.Bytes, table.Pos)
            return tuple(getattr(options, name)() for name in fields)


@dataclass(frozen=True, slots=True, eq=False)
class RawModel:
    """The one subgraph of a file."""

    tensors: tuple[RawTensor, ...]
    ops: tuple[RawOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns what the accessors raise on corrupt bytes into GraphInvalid."""
    try:
        yield
    except _BROKEN as error:
        raise GraphInvalid(f"not a readable flatbuffer ({error})", where) from None


class _Budget:
    """How many more elements may be copied out of the file: honest files store each once."""

    def __init__(self, elements: int) -> None:
        self.left = elements

    def spend(self, elements: int, where: str) -> None:
        self.left -= elements
        if self.left < 0:
            raise GraphInvalid("its vectors overlap: together they are larger than the file", where)


def read_tflite(data: bytes) -> RawModel:
    """The records of a .tflite file.

    Args:
        data: the whole file, from anywhere.

    Raises:
        GraphInvalid: not a .tflite of schema version 3 with one subgraph, or corrupt, or larger
            than the limits above.
    """
    if len(data) > MAX_FILE_BYTES:
        raise GraphInvalid(
            f"{len(data):,} B is too large; the limit is {MAX_FILE_BYTES:,} B", "file"
        )
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise GraphInvalid(
            f"not a .tflite: expected the identifier b'TFL3' at byte 4, found {bytes(data[4:8])!r}",
            "file",
        )
    budget = _Budget(2 * len(data))
    with _reading("file"):
        model = tflite.Model.GetRootAs(data, 0)
        version = model.Version()
        if version != _SCHEMA_VERSION:
            raise GraphInvalid(f"schema version {version}, expected {_SCHEMA_VERSION}", "file")
        if model.SubgraphsLength() != 1:
            raise GraphInvalid(f"{model.SubgraphsLength()} subgraphs, expected 1", "file")
        subgraph = model.Subgraphs(0)
        _limit(model.BuffersLength(), MAX_BUFFERS, "buffers")
        _limit(model.OperatorCodesLength(), MAX_OPS, "operator codes")
        _limit(subgraph.TensorsLength(), MAX_TENSORS, "tensors")
        _limit(subgraph.OperatorsLength(), MAX_OPS, "operators")
        codes = [_operator_code(model, i, budget) for i in range(model.OperatorCodesLength())]
        inputs = _integers(subgraph.InputsLength(), subgraph.InputsAsNumpy, budget, "inputs")
        outputs = _integers(subgraph.OutputsLength(), subgraph.OutputsAsNumpy, budget, "outputs")
        n_tensors, n_ops = subgraph.TensorsLength(), subgraph.OperatorsLength()
    tensors = tuple(_tensor(model, subgraph, i, budget) for i in range(n_tensors))
    ops = tuple(_operator(subgraph, i, codes, budget) for i in range(n_ops))
    return RawModel(tensors=tensors, ops=ops, inputs=inputs, outputs=outputs)


def _limit(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise GraphInvalid(f"{count:,} {what}; the limit is {limit:,}", "file")


def _text(table: Any, slot: int, budget: _Budget, where: str) -> str:
    """A string field, cut to _MAX_NAME_BYTES before it is copied."""
    offset = table._tab.Offset(slot)
    if offset == 0:
        return ""
    start = table._tab.Vector(offset)
    length = min(table._tab.VectorLen(offset), _MAX_NAME_BYTES)
    budget.spend(length, where)
    return bytes(table._tab.Bytes[start : start + length]).decode("utf-8", "replace")


def _integers(length: int, read: Any, budget: _Budget, where: str) -> tuple[int, ...]:
    """A vector of integers or floats; `read` gives it as numpy, or 0 where it is absent."""
    if length == 0:
        return ()
    budget.spend(length, where)
    return tuple(read().tolist())


def _operator_code(model: Any, index: int, budget: _Budget) -> tuple[int, str]:
    """Code of a builtin op, and the name of a custom one.

    Old files hold the code in the first field, files since the 127th op in the new one or in both;
    the larger counts, as in TFLite. The package's BuiltinCode() ignores new codes below 127.
    """
    entry = model.OperatorCodes(index)
    code = entry.DeprecatedBuiltinCode()
    if offset := entry._tab.Offset(_BUILTIN_CODE_SLOT):
        code = max(code, entry._tab.Get(number_types.Int32Flags, offset + entry._tab.Pos))
    return code, _text(entry, _CUSTOM_CODE_SLOT, budget, f"operator code {index}")


def _tensor(model: Any, subgraph: Any, index: int, budget: _Budget) -> RawTensor:
    where = f"tensor {index}"
    with _reading(where):
        tensor = subgraph.Tensors(index)
        rank = tensor.ShapeLength()
        if rank > MAX_RANK:
            raise GraphInvalid(f"it has {rank:,} dimensions; the limit is {MAX_RANK}", where)
        buffer_index = tensor.Buffer()
        if buffer_index >= model.BuffersLength():
            raise GraphInvalid(
                f"buffer {buffer_index} does not exist; the file has {model.BuffersLength()}", where
            )
        buffer = model.Buffers(buffer_index)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise GraphInvalid("its data lies outside the flatbuffer; that is not supported", where)
        scale: tuple[float, ...] = ()
        zero_point: tuple[int, ...] = ()
        axis = 0
        quantization = tensor.Quantization()
        if quantization is not None:
            scale = _integers(quantization.ScaleLength(), quantization.ScaleAsNumpy, budget, where)
            zero_point = _integers(
                quantization.ZeroPointLength(), quantization.ZeroPointAsNumpy, budget, where
            )
            axis = quantization.QuantizedDimension()
        return RawTensor(
            name=_text(tensor, _TENSOR_NAME_SLOT, budget, where),
            type=tensor.Type(),
            shape=_integers(rank, tensor.ShapeAsNumpy, budget, where),
            scale=scale,
            zero_point=zero_point,
            axis=axis,
            is_variable=bool(tensor.IsVariable()),
            is_sparse=tensor.Sparsity() is not None,
            data=buffer.DataAsNumpy() if buffer.DataLength() else None,
        )


def _operator(subgraph: Any, index: int, codes: list[tuple[int, str]], budget: _Budget) -> RawOp:
    where = f"op {index}"
    with _reading(where):
        operator = subgraph.Operators(index)
        code_index = operator.OpcodeIndex()
        if code_index >= len(codes):
            raise GraphInvalid(
                f"operator code {code_index} does not exist; the file has {len(codes)}", where
            )
        if max(operator.InputsLength(), operator.OutputsLength()) > _MAX_OP_OPERANDS:
            raise GraphInvalid(f"more than {_MAX_OP_OPERANDS:,} inputs or outputs", where)
        code, custom_code = codes[code_index]
        return RawOp(
            index=index,
            code=code,
            custom_code=custom_code,
            inputs=_integers(operator.InputsLength(), operator.InputsAsNumpy, budget, where),
            outputs=_integers(operator.OutputsLength(), operator.OutputsAsNumpy, budget, where),
            _operator=operator,
        )
