"""ELF files made by hand: segments at addresses, nothing else."""

from __future__ import annotations

import struct
from pathlib import Path


def write_elf(path: Path, segments: dict[int, bytes]) -> Path:
    """An executable for a 32-bit Arm that puts these bytes at these physical addresses."""
    headers_at = 52
    data_at = headers_at + 32 * len(segments)
    table, data = b"", b""
    for address, content in segments.items():
        where = data_at + len(data)
        size = len(content)
        table += struct.pack("<8I", 1, where, address, address, size, size, 5, 4)
        data += content
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    counts = (52, 32, len(segments), 40, 0, 0)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH", ident, 2, 40, 1, 1, headers_at, 0, 0x0500_0200, *counts
    )
    path.write_bytes(header + table + data)
    return path
