"""What the addresses of an ELF file mean: function, inlined functions, file and line.

From the symbol table and from DWARF, both optional and both untrusted: what cannot be read is left
out and told in `Program.note`, and the profile goes on with what there is. Only what covers the
wanted addresses is kept. Not here: what anything costs (profile).
"""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile

from hil.console import printable
from hil.profile_dwarf import DebugInformation, Line, read_dwarf

NO_SYMBOL = "(no symbol)"


class Frame(NamedTuple):
    """One function around an instruction, and where in it the instruction is."""

    function: str
    line: Line | None


class Function(NamedTuple):
    """A function as it lies in memory; its name is that of the symbol."""

    name: str
    start: int
    end: int

    def holds(self, address: int) -> bool:
        """Whether an address lies in it."""
        return self.start <= address < self.end


@dataclass(slots=True)
class Program:
    """Symbols and lines of one program; `note` says what is missing, and why."""

    functions: Sequence[Function] = ()
    note: str | None = None
    code: Sequence[tuple[int, bytes]] = ()  # (address, bytes) of what may be executed
    data: Sequence[tuple[int, int]] = ()  # (start, end) of constants between instructions; sorted
    _debug: DebugInformation = field(default_factory=lambda: DebugInformation([], {}))
    _wrappers: set[str] = field(default_factory=set)  # inlined functions of a single line
    _known: dict[int, tuple[Frame, ...]] = field(default_factory=dict)

    def function(self, address: int) -> Function | None:
        """The function that holds an address."""
        index = bisect.bisect_right(self.functions, address, key=lambda f: f.start) - 1
        if index < 0 or address >= self.functions[index].end:
            return None
        return self.functions[index]

    def named(self, name: str) -> list[Function]:
        """The functions of that name; a compiler's suffix such as .constprop.0 may be left out."""
        exact = [f for f in self.functions if f.name == name]
        return exact or [f for f in self.functions if plain(f.name) == name]

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
        lines = self._debug.lines
        index = bisect.bisect_right(lines, address, key=lambda row: row[0]) - 1
        if index < 0 or address >= lines[index][1]:
            return None
        return lines[index][2]

    def inlined(self, address: int) -> tuple[str, ...]:
        """Names of all functions that were inlined there, the innermost last."""
        return tuple(item.name for item in self._debug.chains.get(address, [])[1:])

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
        chain = self._debug.chains.get(address, [])
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
        program._debug = read_dwarf(file.get_dwarf_info(), wanted, starts)
        program._wrappers = _wrappers(program, wanted)
        if not program._debug.lines:
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
        kind, name = symbol["st_info"]["type"], printable(symbol.name)
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


def _wrappers(program: Program, wanted: Sequence[int]) -> set[str]:
    """Inlined functions whose own code is of one line wherever they are, or has none."""
    lines: dict[str, set[Line]] = {}
    for address in wanted:
        chain = program._debug.chains.get(address, [])
        for item, inner in zip(chain[1:], [*chain[2:], None], strict=False):
            line = inner.call if inner else program.line(address)
            lines.setdefault(item.name, set()).update([line] if line else [])
    return {name for name, places in lines.items() if len(places) <= 1}
