"""An ELF file as the segments that a programmer writes; made for files that may be anything.

Only the ELF header and the program headers are read: what a flash programmer needs. Segments go to
their physical addresses (initialised data lies in flash and is copied by the program's own start-up
code).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from hil.board import Memory
from hil.errors import HilError
from hil.virtual.memory import MemoryMap, Region

MAX_IMAGE_BYTES = 64 << 20  # debug information included
_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIIIIIII")
_EM_ARM, _ET_EXEC, _PT_LOAD = 40, 2, 1


class ImageError(HilError):
    """A file that cannot be put onto the board, and why."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for one physical address, and where the program uses them after its start-up."""

    address: int
    data: bytes
    runs_at: int


@dataclass(frozen=True, slots=True)
class Image:
    """What an ELF file asks to be written, and where it starts (bit 0 set: Thumb)."""

    entry: int
    segments: tuple[Segment, ...]

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(len(segment.data) for segment in self.segments)

    def beginning(self, size_bytes: int) -> Image:
        """The image without what lies behind its first bytes."""
        segments, left = [], size_bytes
        for segment in self.segments:
            segments.append(dataclasses.replace(segment, data=segment.data[:left]))
            left = max(0, left - len(segment.data))
        return Image(self.entry, tuple(segment for segment in segments if segment.data))


def parse_elf(data: bytes) -> Image:
    """The image of an ELF file for a 32-bit little-endian Arm core; raises ImageError."""
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageError(f"the file has more than {MAX_IMAGE_BYTES:,} B, the most that is read")
    if data[:4] != b"\x7fELF":
        raise ImageError(f"not an ELF file: it starts with {data[:4].hex(' ') or 'nothing'}")
    if len(data) < _HEADER.size:
        raise ImageError(f"the ELF header is cut off after {len(data)} B")
    ident, kind, machine, _, entry, table_at, _, _, _, entry_bytes, count, *_ = _HEADER.unpack_from(
        data
    )
    if ident[4:6] != b"\x01\x01":
        raise ImageError("not a 32-bit little-endian ELF file; the boards are 32-bit Arm")
    if machine != _EM_ARM:
        raise ImageError(f"made for ELF machine {machine}, not for Arm (40)")
    if kind != _ET_EXEC:
        raise ImageError(f"ELF type {kind} is not an executable (2): link it for the board first")
    if entry_bytes != _PROGRAM_HEADER.size or table_at + count * entry_bytes > len(data):
        raise ImageError(
            f"{count} program headers at offset {table_at} do not lie in the file of {len(data)} B"
        )
    segments, loaded_bytes = [], 0
    for number in range(count):
        header = _PROGRAM_HEADER.unpack_from(data, table_at + number * entry_bytes)
        segment_kind, offset, runs_at, address, file_bytes = header[:5]
        if segment_kind != _PT_LOAD or file_bytes == 0:
            continue
        if offset + file_bytes > len(data):
            raise ImageError(
                f"segment {number} wants {file_bytes:,} B from offset {offset:,} but the file has "
                f"{len(data):,} B; is it cut off?"
            )
        loaded_bytes += file_bytes
        if loaded_bytes > MAX_IMAGE_BYTES:
            raise ImageError(f"its segments hold more than {MAX_IMAGE_BYTES:,} B")
        segments.append(Segment(address, data[offset : offset + file_bytes], runs_at))
    if not segments:
        raise ImageError("nothing to load: no loadable segment holds any bytes")
    return Image(entry, tuple(segments))


def read_elf(path: Path) -> bytes:
    """The bytes of a file, or a few more than parse_elf takes; raises ImageError."""
    try:
        if not path.is_file():
            raise ImageError(f"{path} is not a file")
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None


def load_elf(data: bytes, memory: MemoryMap) -> Image:
    """The image of an ELF file for this board; raises ImageError."""
    image = parse_elf(data)
    check_fits(image, memory)
    return image


def check_fits(image: Image, memory: MemoryMap) -> None:
    """Raises ImageError when a segment lies outside the board's memory."""
    for segment in image.segments:
        end = segment.address + len(segment.data)
        at = segment.address
        while at < end:
            region = memory.find(at)
            if region is None:
                raise ImageError(
                    f"segment 0x{segment.address:08x}-0x{end - 1:08x} leaves the memory of "
                    f"{memory.board.id} at 0x{at:08x}; it has {memory.describe()}"
                )
            at = region.memory.end


def holds(image: Image, address: int, size_bytes: int, memory: MemoryMap) -> bool:
    """Whether the image writes all of these bytes, perhaps where an alias shows them."""
    wanted = memory.host_address(address)
    for segment in image.segments:
        start = memory.host_address(segment.address)
        if start <= wanted and wanted + size_bytes <= start + len(segment.data):
            return True
    return False


def write_image(image: Image, memory: MemoryMap) -> None:
    """Programs the image: erases every flash sector that it touches, then writes.

    Call check_fits first.
    """
    for segment in image.segments:
        for region, start, end in _pieces(segment, memory):
            if region.memory.kind == "flash":
                for sector_start, sector_end in _sectors(memory, region.memory.name):
                    if sector_start < end and start < sector_end:
                        region.data[sector_start:sector_end] = b"\xff" * (sector_end - sector_start)
    for segment in image.segments:
        for region, start, end in _pieces(segment, memory):
            offset = region.memory.origin + start - segment.address
            region.data[start:end] = segment.data[offset : offset + end - start]


def first_difference(image: Image, memory: MemoryMap) -> tuple[int, int, int] | None:
    """(address, byte of the image, byte in flash) where the flash first differs from the image."""
    for segment in image.segments:
        for region, start, end in _pieces(segment, memory):
            if region.memory.kind != "flash":
                continue  # the program has started: RAM changes
            offset = region.memory.origin + start - segment.address
            wanted, found = (
                segment.data[offset : offset + end - start],
                bytes(region.data[start:end]),
            )
            if wanted != found:
                at = next(
                    i for i, pair in enumerate(zip(wanted, found, strict=True)) if len({*pair}) == 2
                )
                return region.memory.origin + start + at, wanted[at], found[at]
    return None


def _pieces(segment: Segment, memory: MemoryMap) -> Iterator[tuple[Region, int, int]]:
    """(region, start, end) for each region that a segment touches; offsets in the region."""
    at, end = segment.address, segment.address + len(segment.data)
    while at < end:
        region = memory.find(at)
        assert region is not None, "check_fits comes first"
        stop = min(end, region.memory.end)
        yield region, at - region.memory.origin, stop - region.memory.origin
        at = stop


def sector_ranges(flash: Memory) -> list[tuple[int, int]]:
    """(start, end) offsets of the erase units of a flash."""
    sizes = flash.erase_bytes or (flash.size_bytes,)
    if len(sizes) == 1:
        sizes = sizes * (flash.size_bytes // sizes[0])
    ends = list(accumulate(sizes))
    return list(zip([0, *ends], ends, strict=False))


def _sectors(memory: MemoryMap, name: str) -> list[tuple[int, int]]:
    """Erase units of a range; an alias has those of the flash that it shows."""
    described = {m.name: m for m in memory.board.memory}
    return sector_ranges(described[described[name].alias_of or name])
