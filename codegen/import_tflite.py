"""An untrusted .tflite -> Graph: checked, constants attached, names made C identifiers.

Not here: reading the bytes (tflite_file), single ops (import_ops), and the rules of shapes, types
and scales (check), which run at the end. Ops that no output depends on are left out, so the shape
arithmetic that converters leave behind (SHAPE, PACK) does no harm.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import tflite

from codegen import ir
from codegen.check import check
from codegen.errors import GraphInvalid
from codegen.import_ops import Node, type_name
from codegen.names import c_identifier, graph_name, shown
from codegen.tflite_file import RawModel, RawTensor, read_tflite

#: Larger tensors fit no board; keeps sizes far from any integer's end.
MAX_TENSOR_ELEMENTS = 1 << 28

_DTYPES = {
    tflite.TensorType.INT8: ir.DType.S8,
    tflite.TensorType.UINT8: ir.DType.U8,
    tflite.TensorType.INT16: ir.DType.S16,
    tflite.TensorType.INT32: ir.DType.S32,
    tflite.TensorType.FLOAT32: ir.DType.F32,
}


def import_tflite(data: bytes, name: str) -> ir.Graph:
    """The graph of a .tflite file, checked.

    Args:
        data: the whole file; nothing about it is trusted.
        name: what to call the model, usually the file's stem; made harmless here.

    Raises:
        GraphInvalid: the file is corrupt or breaks a rule of the format.
        UnsupportedOp: it is sound, but uses an op, type or attribute that we do not run.
    """
    data = bytes(data)
    raw = read_tflite(data)
    _check_wiring(raw)
    importer = _Importer(raw)
    needed = _needed_ops(raw)
    for op in raw.ops:
        if op.index in needed:
            importer.ops.append(Node(importer, op).build())
    graph = importer.graph(graph_name(name), hashlib.sha256(data).hexdigest())
    check(graph)
    return replace(graph, nominal_macs=ir.graph_macs(graph))


class _Importer:
    """Tensors and ops collected so far; file indices become graph indices on first use."""

    def __init__(self, raw: RawModel) -> None:
        self._raw = raw
        self.tensors: list[ir.Tensor] = []
        self.ops: list[ir.Op] = []
        self._graph_index: dict[int, int] = {}

    def raw_tensor(self, index: int) -> RawTensor:
        """A tensor as stored in the file."""
        return self._raw.tensors[index]

    def tensor(self, index: int, where: str) -> int:
        """Graph index of a tensor of the file; imports it on first use."""
        if index not in self._graph_index:
            raw = self._raw.tensors[index]
            tensor = _import_tensor(raw, index, f"{where}: tensor {index} ({shown(raw.name)})")
            self._graph_index[index] = self.new_tensor(tensor)
        return self._graph_index[index]

    def new_tensor(self, tensor: ir.Tensor) -> int:
        """Graph index of a tensor that the file does not have."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def graph(self, name: str, sha256: str) -> ir.Graph:
        """What was imported; tensors in the file's order, by which TFLM's planner breaks ties."""
        inputs = [self.tensor(index, "model inputs") for index in self._raw.inputs]
        outputs = [self.tensor(index, "model outputs") for index in self._raw.outputs]
        in_file = [self._graph_index[index] for index in sorted(self._graph_index)]
        made_here = sorted(set(range(len(self.tensors))).difference(in_file))
        place = {old: new for new, old in enumerate((*in_file, *made_here))}
        return ir.Graph(
            name=name,
            sha256=sha256,
            tensors=tuple(self.tensors[index] for index in place),
            ops=tuple(
                replace(
                    op,
                    inputs=tuple(place[index] for index in op.inputs),
                    outputs=tuple(place[index] for index in op.outputs),
                )
                for op in self.ops
            ),
            inputs=tuple(place[index] for index in inputs),
            outputs=tuple(place[index] for index in outputs),
        )


def _check_wiring(raw: RawModel) -> None:
    """Refuses tensors that do not exist, are written twice, or are read before they are written."""
    if not raw.inputs or not raw.outputs or not raw.ops:
        raise GraphInvalid("it needs at least one input, one output and one op", "model")
    written: set[int] = set()
    for tensor in raw.inputs:
        _write(raw, tensor, written, "model inputs")
    for op in raw.ops:
        where = f"op {op.index}"
        if not op.outputs:
            raise GraphInvalid("it has no output", where)
        for tensor in op.inputs:
            if tensor != -1 and not _exists(raw, tensor, where) and tensor not in written:
                raise GraphInvalid(
                    f"it reads tensor {tensor}, which no op before it writes "
                    "(a cycle, or ops out of order)",
                    where,
                )
        for tensor in op.outputs:
            _write(raw, tensor, written, where)
    for tensor in raw.outputs:
        _exists(raw, tensor, "model outputs")
        if tensor not in written:
            raise GraphInvalid(f"tensor {tensor} is written by no op", "model outputs")


def _exists(raw: RawModel, tensor: int, where: str) -> bool:
    """Whether a tensor is a constant; refuses one that does not exist."""
    if not 0 <= tensor < len(raw.tensors):
        raise GraphInvalid(
            f"tensor {tensor} does not exist; the file has {len(raw.tensors)}", where
        )
    return raw.tensors[tensor].data is not None


def _write(raw: RawModel, tensor: int, written: set[int], where: str) -> None:
    """Notes that a tensor gets its value here, which can happen once."""
    if _exists(raw, tensor, where):
        raise GraphInvalid(f"tensor {tensor} has constant data and cannot be written", where)
    if tensor in written:
        raise GraphInvalid(f"tensor {tensor} is written a second time", where)
    written.add(tensor)


def _needed_ops(raw: RawModel) -> set[int]:
    """Indices of the ops that an output depends on; a RESHAPE's shape operand does not count."""
    needed_tensors = set(raw.outputs)
    needed = set()
    for op in reversed(raw.ops):
        if not needed_tensors.isdisjoint(op.outputs):
            needed.add(op.index)
            is_reshape = op.code == tflite.BuiltinOperator.RESHAPE
            needed_tensors.update(op.inputs[:1] if is_reshape else op.inputs)
    return needed


def _import_tensor(raw: RawTensor, index: int, where: str) -> ir.Tensor:
    if raw.type not in _DTYPES:
        known = ", ".join(type_name(code) for code in _DTYPES)
        raise GraphInvalid(f"its type is {type_name(raw.type)}; known are {known}", where)
    if raw.is_variable:
        raise GraphInvalid("it keeps its value between inferences; that is not supported", where)
    if raw.is_sparse:
        raise GraphInvalid("it is stored sparse; that is not supported", where)
    if any(size < 1 for size in raw.shape):
        raise GraphInvalid(
            f"its shape is {list(raw.shape)}; every size must be fixed and positive", where
        )
    elements = math.prod(raw.shape)
    if elements > MAX_TENSOR_ELEMENTS:
        raise GraphInvalid(
            f"its shape {list(raw.shape)} has more than {MAX_TENSOR_ELEMENTS:,} elements", where
        )
    dtype = _DTYPES[raw.type]
    data = None
    if raw.data is not None:
        expected_bytes = elements * dtype.item_bytes
        if raw.data.size != expected_bytes:
            raise GraphInvalid(
                f"it has {raw.data.size:,} B of data, but shape {list(raw.shape)} of {dtype.value} "
                f"needs {expected_bytes:,} B",
                where,
            )
        data = raw.data.view(dtype.numpy).reshape(raw.shape)
    return ir.Tensor(
        name=c_identifier(raw.name, f"t{index}"),
        shape=raw.shape,
        dtype=dtype,
        quant=_import_quant(raw, where),
        data=data,
    )


def _import_quant(raw: RawTensor, where: str) -> ir.Quant | None:
    # TFLM takes a tensor for quantised only if it has both.
    if not raw.scale or not raw.zero_point:
        return None
    if len(raw.zero_point) != len(raw.scale):
        raise GraphInvalid(
            f"it has {len(raw.scale)} scales but {len(raw.zero_point)} zero points", where
        )
    return ir.Quant(raw.scale, raw.zero_point, raw.axis if len(raw.scale) > 1 else None)
