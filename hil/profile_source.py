"""What the addresses of an ELF file mean: function, inlined functions, file and line.

From the symbol table and from DWARF, both optional and both untrusted: what cannot be read is left
out and told in `Program.note`, and the profile goes on with what there is. Only what covers the
wanted addresses is kept. Not here: what anything costs (profile).
"""

from __future__ import annotations

import bisect
import io
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile

MAX_DEPTH = 64  # of inlining; more is a broken file
NO_SYMBOL = "(no symbol)"


class Line(NamedTuple):
    """A place in the source; line 0: the compiler gave none."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Frame(NamedTuple):
    """One function around an instruction, and where in it the instruction is."""

    function: str
    line: Line | None


class Function(NamedTuple):
    """A function as it lies in memory; its name is that of the symbol."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Inlined:
    """A subprogram, or one inlined into another: where its code is, and what called it."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    call: Line | None
    children: tuple[_Inlined, ...]

    def chain(self, address: int) -> list[_Inlined]:
        """This and what is inlined at an address, innermost last; empty if it is not here."""
        if not any(start <= address < end for start, end in self.ranges):
            return []
        for child in self.children:
            if inner := child.chain(address):
                return [self, *inner]
        return [self]


@dataclass(slots=True)
class Program:
    """Symbols and lines of one program; `note` says what is missing, and why."""

    functions: Sequence[Function] = ()
    note: str | None = None
    code: Sequence[tuple[int, bytes]] = ()  # (address, bytes) of what may be executed
    data: Sequence[tuple[int, int]] = ()  # (start, end) of constants between instructions; sorted
    _lines: list[tuple[int, int, Line]] = field(default_factory=list)  # start, end, line; sorted
    _chains: dict[int, list[_Inlined]] = field(default_factory=dict)  # of the wanted addresses
    _wrappers: set[str] = field(default_factory=set)  # inlined functions of a single line
    _known: dict[int, tuple[Frame, ...]] = field(default_factory=dict)

    def function(self, address: int) -> Function | None:
        """The function that holds an address."""
        index = bisect.bisect_right(self.functions, address, key=lambda f: f.start) - 1
        if index < 0 or address >= self.functions[index].end:
            return None
        return self.functions[index]

    def named(self, name: str) -> Function | None:
        """The function of that name; a compiler's suffix such as .constprop.0 may be left out."""
        exact = [f for f in self.functions if f.name == name]
        return next(iter(exact or [f for f in self.functions if plain(f.name) == name]), None)

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes of the file that lie at an address; fewer where it holds none."""
        for start, data in self.code:
            if start <= address < start + len(data):
                return data[address - start : address - start + size_bytes]
        return b""

    def constant_end(self, address: int) -> int | None:
        """Where the constants end that an address lies in; None for an instruction."""
        index = bisect.bisect_right(self.data, address, key=lambda pair: pair[0]) - 1
        if index < 0 or address >= self.data[index][1]:
            return None
        return self.data[index][1]

    def line(self, address: int) -> Line | None:
        """The source line of an instruction."""
        index = bisect.bisect_right(self._lines, address, key=lambda row: row[0]) - 1
        if index < 0 or address >= self._lines[index][1]:
            return None
        return self._lines[index][2]

    def frames(self, address: int) -> tuple[Frame, ...]:
        """The function, then what was inlined there, the innermost last; never empty.

        An inlined function of a single line, such as one that wraps an intrinsic, is part of the
        line that calls it: that one tells more.
        """
        if address not in self._known:
            self._known[address] = self._frames(address)
        return self._known[address]

    def _frames(self, address: int) -> tuple[Frame, ...]:
        function = self.function(address)
        chain = self._chains.get(address, [])
        line = self.line(address)
        while len(chain) > 1 and chain[-1].name in self._wrappers:
            chain, line = chain[:-1], chain[-1].call or line
        outer = function.name if function else chain[0].name if chain else NO_SYMBOL
        names = [outer, *(item.name for item in chain[1:])]
        places = [*(item.call for item in chain[1:]), line]
        return tuple(Frame(*pair) for pair in zip(names, places, strict=True))


def plain(name: str) -> str:
    """A function's name in the source: without what the compiler added to that of a clone."""
    return name.partition(".")[0] or name


def read_program(elf: bytes, addresses: Iterable[int]) -> Program:
    """What an ELF file says of these addresses; never raises, whatever its bytes.

    Without addresses only functions are read, which is quick.
    """
    wanted = sorted(set(addresses))
    program = Program()
    # The parser meets bytes that may be anything, and raises whatever it stumbles over.
    try:
        file = ELFFile(io.BytesIO(elf))
        program.code = _code(file)
        program.functions, program.data = _symbols(file)
    except Exception as error:
        program.note = f"no functions and lines: the symbols cannot be read ({_why(error)})"
        return program
    if not wanted:
        return program
    try:
        if not file.has_dwarf_info(strict=True):
            program.note = "no source lines: built without -g"
            return program
        starts = {function.start for function in program.functions}
        program._lines, subprograms = _read_dwarf(file.get_dwarf_info(), wanted, starts)
        program._chains = dict(_chains(subprograms, wanted))
        program._wrappers = _wrappers(program, wanted)
        if not program._lines:
            program.note = "no source lines: the debug information covers nothing that ran"
    except Exception as error:
        program.note = f"no source lines: the debug information cannot be read ({_why(error)})"
    return program


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())[:80]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _code(file: Any) -> list[tuple[int, bytes]]:
    """The segments, at the addresses where the program uses them."""
    return [
        (segment["p_vaddr"], segment.data())
        for segment in file.iter_segments()
        if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
    ]


def _symbols(file: Any) -> tuple[list[Function], list[tuple[int, int]]]:
    """Functions by address, and where constants lie between instructions.

    Labels of assembly count where no function is. The marks $t and $d tell instructions from
    constants (ELF for the Arm Architecture, section 5.5.5).
    """
    table = file.get_section_by_name(".symtab")
    if table is None:
        return [], []
    sections = [
        (section["sh_addr"], section["sh_addr"] + section["sh_size"])
        for section in file.iter_sections()
        if section["sh_flags"] & 4  # SHF_EXECINSTR
    ]
    sized: dict[int, tuple[str, int]] = {}
    labels: dict[int, str] = {}
    marks: dict[int, bool] = {end: False for _, end in sections}
    for symbol in table.iter_symbols():
        kind, name = symbol["st_info"]["type"], _printable(symbol.name)
        address = symbol["st_value"] & ~1
        if not name or not any(start <= address < end for start, end in sections):
            continue
        if kind == "STT_FUNC" and symbol["st_size"] >= sized.get(address, ("", -1))[1]:
            sized[address] = (name, symbol["st_size"])
        elif kind == "STT_NOTYPE" and name[0] == "$":
            marks[address] = name.startswith("$d")
        elif kind == "STT_NOTYPE":
            labels.setdefault(address, name)
    functions = _functions(sections, sized, labels)
    ordered = sorted(marks.items())
    constants = [
        (start, end) for (start, is_data), (end, _) in itertools.pairwise(ordered) if is_data
    ]
    return functions, constants


def _functions(
    sections: Sequence[tuple[int, int]], sized: dict[int, tuple[str, int]], labels: dict[int, str]
) -> list[Function]:
    starts = sorted({**labels, **sized})
    found: list[Function] = []
    covered = 0  # end of the last function that has a size
    for start, following in zip(starts, [*starts[1:], 1 << 32], strict=False):
        name, size = sized.get(start, (labels.get(start, ""), 0))
        if start not in sized and start < covered:
            continue  # a label inside a function
        limit = min(end for begin, end in sections if begin <= start < end)
        end = start + size if size else min(following, limit)
        covered = max(covered, end)
        found.append(Function(name, start, end))
    return found


def _read_dwarf(
    dwarf: Any, wanted: Sequence[int], starts: set[int]
) -> tuple[list[tuple[int, int, Line]], list[_Inlined]]:
    lines: list[tuple[int, int, Line]] = []
    inlined: list[_Inlined] = []
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
    return lines, inlined


def _chains(
    subprograms: Sequence[_Inlined], wanted: Sequence[int]
) -> Iterator[tuple[int, list[_Inlined]]]:
    for subprogram in subprograms:
        for start, end in subprogram.ranges:
            for index in range(bisect.bisect_left(wanted, start), len(wanted)):
                if wanted[index] >= end:
                    break
                yield wanted[index], subprogram.chain(wanted[index])


def _wrappers(program: Program, wanted: Sequence[int]) -> set[str]:
    """Inlined functions whose own code is of one line wherever they are, or has none."""
    lines: dict[str, set[Line]] = {}
    for address in wanted:
        chain = program._chains.get(address, [])
        for item, inner in zip(chain[1:], [*chain[2:], None], strict=False):
            line = inner.call if inner else program.line(address)
            lines.setdefault(item.name, set()).update([line] if line else [])
    return {name for name, places in lines.items() if len(places) <= 1}


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
) -> Iterator[_Inlined]:
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
                yield _Inlined(unit.name(child), ranges, None, inner)
        elif child.tag in ("DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type"):
            waiting.append(unit.children(child))


def _inlined_within(entry: Any, unit: _Unit, depth: int) -> Iterator[_Inlined]:
    for child in unit.children(entry) if depth < MAX_DEPTH else ():
        if child.tag == "DW_TAG_inlined_subroutine":
            inner = tuple(_inlined_within(child, unit, depth + 1))
            yield _Inlined(unit.name(child), unit.ranges(child), unit.call(child), inner)
        elif child.tag == "DW_TAG_lexical_block":
            yield from _inlined_within(child, unit, depth + 1)


def _text(entry: Any, attribute: str) -> str:
    found = entry.attributes.get(attribute)
    return _decoded(found.value) if found is not None else ""


def _decoded(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return _printable(text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
