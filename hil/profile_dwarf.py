"""The debug information of an ELF file: source lines of addresses, and what was inlined there.

Read with pyelftools, and only where it covers the wanted addresses. The file may hold anything:
what is broken raises some exception, which the caller (profile_source) turns into a note.
"""

from __future__ import annotations

import bisect
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hil.console import printable

MAX_DEPTH = 64  # of inlining; more is a broken file


class Line(NamedTuple):
    """A place in the source; line 0: the compiler gave none."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Inlined:
    """A subprogram, or one inlined into another: where its code is, and what called it."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    call: Line | None
    children: tuple[Inlined, ...]

    def chain(self, address: int) -> list[Inlined]:
        """This and what is inlined at an address, innermost last; empty if it is not here."""
        if not any(start <= address < end for start, end in self.ranges):
            return []
        for child in self.children:
            if inner := child.chain(address):
                return [self, *inner]
        return [self]


class DebugInformation(NamedTuple):
    """What the debug information says of the wanted addresses."""

    lines: list[tuple[int, int, Line]]  # (start, end, line) of pieces of code; sorted
    chains: dict[int, list[Inlined]]  # the function and what is inlined there, innermost last


def read_dwarf(dwarf: Any, wanted: Sequence[int], starts: set[int]) -> DebugInformation:
    """Reads what covers the `wanted` addresses (sorted); raises anything when it is broken.

    Args:
        dwarf: pyelftools' DWARFInfo.
        wanted: addresses of instructions.
        starts: addresses of all functions: what was dropped by the linker is told by them.
    """
    lines: list[tuple[int, int, Line]] = []
    inlined: list[Inlined] = []
    for unit in dwarf.iter_CUs():
        top = unit.get_top_DIE()
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        names = _FileNames(program, _text(top, "DW_AT_comp_dir"))
        rows = list(_line_rows(program, names, wanted, starts))
        if rows:
            lines += rows
            inlined += _subprograms(top, _Unit(dwarf, unit, top, names), wanted, starts)
    lines.sort()
    return DebugInformation(lines, dict(_chains(inlined, wanted)))


def _chains(
    subprograms: Sequence[Inlined], wanted: Sequence[int]
) -> Iterator[tuple[int, list[Inlined]]]:
    for subprogram in subprograms:
        for start, end in subprogram.ranges:
            for index in range(bisect.bisect_left(wanted, start), len(wanted)):
                if wanted[index] >= end:
                    break
                yield wanted[index], subprogram.chain(wanted[index])


def _any_within(wanted: Sequence[int], start: int, end: int) -> bool:
    index = bisect.bisect_left(wanted, start)
    return index < len(wanted) and wanted[index] < end


def _is_dead(start: int, starts: set[int]) -> bool:
    """Whether code was dropped by the linker, which gives what describes it the address 0 or 1."""
    return start <= 1 and start not in starts


class _FileNames:
    """Paths of a unit's files, by the number that its line table gives them."""

    def __init__(self, program: Any, directory: str) -> None:
        header = program.header
        self._first = 0 if header["version"] >= 5 else 1
        self._directory = directory
        self._directories = [_decoded(name) for name in header["include_directory"]]
        self._files = header["file_entry"]
        self._known: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        if number not in self._known:
            self._known[number] = self._path(number - self._first)
        return self._known[number]

    def _path(self, index: int) -> str:
        if not 0 <= index < len(self._files):
            return "?"
        entry = self._files[index]
        folder = entry["dir_index"] - self._first
        parts = [self._directory]
        if 0 <= folder < len(self._directories):
            parts.append(self._directories[folder])
        name = _decoded(entry["name"])
        # paths that the compiler was told to make relative to the project (-ffile-prefix-map)
        # start with "./" and are relative to it, not to the folder of the compilation
        for start in range(len(parts)):
            rest = posixpath.join(*parts[start + 1 :], name)
            if rest.startswith("./"):
                return posixpath.normpath(rest)
        return posixpath.normpath(posixpath.join(*parts, name))


def _line_rows(
    program: Any, names: _FileNames, wanted: Sequence[int], starts: set[int]
) -> Iterator[tuple[int, int, Line]]:
    """(start, end, line) for every piece of a unit's code that holds a wanted address."""
    before = None
    first = True  # of a sequence: code without gaps
    is_dead = False
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if first:
            is_dead, first = _is_dead(state.address, starts), False
        if (
            before is not None
            and before.address < state.address
            and not is_dead
            and _any_within(wanted, before.address, state.address)
        ):
            yield before.address, state.address, Line(names[before.file], before.line)
        before = None if state.end_sequence else state
        first = bool(state.end_sequence)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is needed to read the entries of one compilation unit."""

    dwarf: Any
    unit: Any
    top: Any
    files: _FileNames

    def ranges(self, entry: Any) -> tuple[tuple[int, int], ...]:
        """Where an entry's code is."""
        attributes = entry.attributes
        if "DW_AT_ranges" in attributes:
            base = self.top.attributes["DW_AT_low_pc"].value if self._has_base else 0
            offset = attributes["DW_AT_ranges"].value
            found = []
            for item in self.dwarf.range_lists().get_range_list_at_offset(offset, self.unit):
                if hasattr(item, "base_address"):
                    base = item.base_address
                else:
                    at = 0 if item.is_absolute else base
                    found.append((at + item.begin_offset, at + item.end_offset))
            return tuple(found)
        if "DW_AT_low_pc" not in attributes or "DW_AT_high_pc" not in attributes:
            return ()
        start, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
        end = high.value if high.form == "DW_FORM_addr" else start + high.value
        return ((start, end),)

    def children(self, entry: Any) -> Iterator[Any]:
        """The entries below one; siblings that lead back, as only a broken file has, raise."""
        last = entry.offset
        for child in entry.iter_children():
            if child.offset <= last:
                raise ValueError(f"the entry behind 0x{last:x} is at 0x{child.offset:x}")
            last = child.offset
            yield child

    @property
    def _has_base(self) -> bool:
        return "DW_AT_low_pc" in self.top.attributes

    def name(self, entry: Any) -> str:
        """The name of a function, perhaps given by what it is an instance of."""
        for _ in range(MAX_DEPTH):
            if "DW_AT_name" in entry.attributes:
                return _text(entry, "DW_AT_name")
            for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
                if link in entry.attributes:
                    entry = entry.get_DIE_from_attribute(link)
                    break
            else:
                break
        return "?"

    def call(self, entry: Any) -> Line | None:
        """Where an inlined function was called."""
        attributes = entry.attributes
        if "DW_AT_call_file" not in attributes or "DW_AT_call_line" not in attributes:
            return None
        file = self.files[attributes["DW_AT_call_file"].value]
        return Line(file, attributes["DW_AT_call_line"].value)


def _subprograms(
    top: Any, unit: _Unit, wanted: Sequence[int], starts: set[int]
) -> Iterator[Inlined]:
    """The functions of a unit that hold a wanted address; those in namespaces and classes, too."""
    waiting = [unit.children(top)]
    while waiting and len(waiting) < MAX_DEPTH:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag == "DW_TAG_subprogram":
            ranges = unit.ranges(child)
            is_wanted = any(_any_within(wanted, *pair) for pair in ranges)
            if is_wanted and not _is_dead(ranges[0][0], starts):
                inner = tuple(_inlined_within(child, unit, 0))
                yield Inlined(unit.name(child), ranges, None, inner)
        elif child.tag in ("DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type"):
            waiting.append(unit.children(child))


def _inlined_within(entry: Any, unit: _Unit, depth: int) -> Iterator[Inlined]:
    for child in unit.children(entry) if depth < MAX_DEPTH else ():
        if child.tag == "DW_TAG_inlined_subroutine":
            inner = tuple(_inlined_within(child, unit, depth + 1))
            yield Inlined(unit.name(child), unit.ranges(child), unit.call(child), inner)
        elif child.tag == "DW_TAG_lexical_block":
            yield from _inlined_within(child, unit, depth + 1)


def _text(entry: Any, attribute: str) -> str:
    found = entry.attributes.get(attribute)
    return _decoded(found.value) if found is not None else ""


def _decoded(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return printable(text)
