"""The bytes of a .tflite inside a firmware, for engines that walk them at run time.

The interpreters on the board (ours and TFLM's) follow the file's offsets without checking bounds.
So every place that they read is visited here first. Not here: what the values mean (import_tflite).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from codegen.emit import render
from codegen.engines import Job
from codegen.errors import DoesNotFit, GraphInvalid


def embed(job: Job, engine: str) -> tuple[str, int]:
    """The source that defines `model_flatbuffer`, the whole file as an array, and its bytes.

    Raises:
        GraphInvalid: the file's layout is not one that can be walked without checks.
        DoesNotFit: the file alone is larger than the board's flash.
    """
    check_layout(job.tflite)
    words = _words(job.tflite)
    if words.nbytes > job.board.flash_bytes:
        raise DoesNotFit("flash", words.nbytes, job.board.flash_bytes)
    context = {"rows": _hexadecimal(words), "count": words.size}
    text = render(
        "flatbuffer_weights.c.j2", context, graph=job.graph, engine=engine, board=job.board
    )
    return text, words.nbytes


def _words(data: bytes) -> NDArray[np.uint32]:
    """The file as little-endian words: quicker to compile than single bytes.

    Zeros are added, so that a read of four bytes that begins in the file stays inside the array.
    """
    return np.frombuffer(data + bytes(8 - len(data) % 4), "<u4")


def _hexadecimal(words: NDArray[np.uint32], per_row: int = 7) -> list[str]:
    """Rows of an array initialiser."""
    literals = [f"0x{word:08x}," for word in words.tolist()]
    return [" ".join(literals[at : at + per_row]) for at in range(0, len(literals), per_row)]


class _Walker:
    """Follows offsets as firmware/interpreter/flatbuffer.c does, and checks every one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def _number(self, code: str, at: int, where: str) -> int:
        size = struct.calcsize(code)
        if at < 0 or at + size > len(self._data):
            raise GraphInvalid(f"it points to byte {at:,} of {len(self._data):,}", where)
        return int(struct.unpack_from(code, self._data, at)[0])

    def root(self) -> int:
        return self._number("<I", 0, "file")

    def field(self, table: int, slot: int, where: str) -> int | None:
        """Position of a field; None where the table leaves it out."""
        vtable = table - self._number("<i", table, where)
        entry = 4 + 2 * slot
        if entry >= self._number("<H", vtable, where):
            return None
        offset = self._number("<H", vtable + entry, where)
        if offset == 0:
            return None
        self._number("<B", table + offset, where)
        return table + offset

    def integer(self, table: int, slot: int, where: str) -> int:
        at = self.field(table, slot, where)
        return 0 if at is None else self._number("<i", at, where)

    def table(self, table: int, slot: int, where: str) -> int | None:
        at = self.field(table, slot, where)
        return None if at is None else at + self._number("<I", at, where)

    def vector(self, table: int, slot: int, item_bytes: int, where: str) -> tuple[int, int]:
        """(position of the first item, items) of a vector, which must be aligned to 4 bytes."""
        at = self.table(table, slot, where)
        if at is None:
            return 0, 0
        length, items = self._number("<I", at, where), at + 4
        if items + length * item_bytes > len(self._data):
            raise GraphInvalid(f"{length:,} items of {item_bytes} B reach beyond the file", where)
        if items % 4:
            raise GraphInvalid(f"its items lie at byte {items:,}, expected a multiple of 4", where)
        return items, length

    def tables(self, table: int, slot: int, where: str) -> Iterator[tuple[int, str]]:
        """(position, where) of each table of a vector."""
        items, length = self.vector(table, slot, 4, where)
        for index in range(length):
            at = items + 4 * index
            yield at + self._number("<I", at, where), f"{where} {index}"


def check_layout(data: bytes) -> None:
    """Visits every place that the interpreter reads.

    Args:
        data: a file that import_tflite has accepted. Values are not looked at again, only where
            they lie.

    Raises:
        GraphInvalid: an offset points outside the file, or a vector is not aligned to 4 bytes.
    """
    walk = _Walker(data)
    model = walk.root()
    walk.field(model, 0, "model")  # version
    for code, where in walk.tables(model, 1, "operator code"):
        for slot in (0, 3):
            walk.field(code, slot, where)
    buffers = list(walk.tables(model, 4, "buffer"))
    for subgraph, _ in walk.tables(model, 2, "subgraph"):
        for tensor, where in walk.tables(subgraph, 0, "tensor"):
            walk.vector(tensor, 0, 4, where)  # shape
            walk.field(tensor, 1, where)  # type
            buffer = walk.integer(tensor, 2, where)
            walk.vector(buffers[buffer][0], 0, 1, where)  # data
            quantization = walk.table(tensor, 4, where)
            if quantization is not None:
                walk.vector(quantization, 2, 4, where)  # scale
                walk.vector(quantization, 3, 8, where)  # zero_point
        for slot in (1, 2):  # inputs, outputs
            walk.vector(subgraph, slot, 4, "model")
        for operator, where in walk.tables(subgraph, 3, "operator"):
            walk.field(operator, 0, where)  # opcode_index
            for slot in (1, 2):  # inputs, outputs
                walk.vector(operator, slot, 4, where)
            options = walk.table(operator, 4, where)
            if options is not None:
                for slot in range(7):  # no options that are read have more
                    walk.field(options, slot, where)
