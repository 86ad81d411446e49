"""Where cycles went: counts of blocks and edges to costs of instructions, lines, functions, layers.

Everything here is arithmetic on what a virtual board counted; cycles are whole numbers of 1/256,
the unit of the emulator's clock, so that parts add up to their whole exactly. Three rules say which
instruction pays:

* A refill after a taken branch is paid by the branch, which is the last instruction of its block.
* Waiting for code is paid by the first instruction of the block, a misprediction by the last one.
* Waiting for data, for unaligned data and for another memory is known for a block as a whole: its
  loads and stores share it evenly. Divides share what their operands cost beyond the shortest one.

Not here: running anything (profile_run), names and source lines (profile_source), output
(profile_report, profile_annotate, speedscope).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import capstone

from hil.profile_source import Frame, Function, Program, plain
from hil.virtual.blocks import BlockStalls
from hil.virtual.clock import EdgeRun
from hil.virtual.timing.armv7m import decode

ONE_CYCLE = 256  # units
BRANCH = "branch"
CODE = "code"
DATA = "data"
MISPREDICTION = "misprediction"
DIVIDE = "divide"
UNALIGNED = "unaligned"
BUS = "bus"

#: What the causes mean; a timing model may name others.
CAUSES = {
    "load-use": "a loaded value is used before it is there",
    "address": "a register is needed for an address before it is there",
    "result": "another result is used before it is there",
    "unit": "a unit of the core is busy",
    "store-to-load": "a load from where a store has just written",
    "fetch": "the instruction's words come one a cycle",
    "flags": "the flags that a branch needs are not there",
    "store": "a load waits for the store before it",
    "fpu": "the FPU is busy",
    BRANCH: "the pipeline refills behind a taken branch",
    "target alignment": "the branch's target is no whole word",
    MISPREDICTION: "the branch went another way than predicted",
    CODE: "instructions, from their memory or its cache",
    DATA: "loads and stores, memory or its cache; shared evenly in a block",
    DIVIDE: "the operands need longer than the shortest divide",
    UNALIGNED: "loads and stores at unaligned addresses",
    BUS: "behind a load from another memory, so without overlap",
}

_TRANSFERS = frozenset(  # classes of hil.virtual.timing.armv7m
    f"{fp}{kind}{many}"
    for fp in ("", "fp_")
    for kind in ("load", "store")
    for many in ("", "_pair", "_multiple")
)


class Instruction(NamedTuple):
    """An instruction as it was executed: where it lay and what it was."""

    address: int
    code: bytes


@dataclass(slots=True)
class Cost:
    """What something cost; `stalls` is the part of `units` in which it waited, by cause."""

    executions: int = 0  # of instructions
    units: int = 0
    stalls: dict[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> float:
        """Cycles, with the fraction that the memory system may add."""
        return self.units / ONE_CYCLE

    @property
    def stalled_units(self) -> int:
        """Time spent waiting for any cause."""
        return sum(self.stalls.values())

    def pay(self, units: int, cause: str | None = None) -> None:
        """Adds time, perhaps spent waiting."""
        if units:
            self.units += units
            if cause is not None:
                self.stalls[cause] = self.stalls.get(cause, 0) + units

    def wait(self, units: int, cause: str) -> None:
        """Names the cause of time that was added already."""
        if units:
            self.stalls[cause] = self.stalls.get(cause, 0) + units

    def add(self, other: Cost) -> None:
        """Adds what something else cost."""
        self.executions += other.executions
        self.units += other.units
        for cause, units in other.stalls.items():
            self.wait(units, cause)


Costs = dict[Instruction, Cost]
Key = TypeVar("Key", bound=Hashable)


class Counts(NamedTuple):
    """What a virtual board has counted up to some moment."""

    edges: Sequence[EdgeRun]
    stalls: Sequence[BlockStalls]


NOTHING = Counts((), ())


def between(earlier: Counts, later: Counts) -> Counts:
    """What was counted between two moments of one run; both lists only ever grow at their end."""
    before = [edge.executions for edge in earlier.edges]
    before += [0] * (len(later.edges) - len(before))
    edges = [
        edge._replace(executions=edge.executions - count)
        for edge, count in zip(later.edges, before, strict=True)
        if edge.executions != count
    ]
    stalls = []
    for number, stall in enumerate(later.stalls):
        waits = list(stall[2:])
        if number < len(earlier.stalls):
            waits = [new - old for new, old in zip(waits, earlier.stalls[number][2:], strict=True)]
        if any(waits):
            stalls.append(BlockStalls(stall.address, stall.code, *waits))
    return Counts(edges, stalls)


def instruction_costs(counts: Counts, core: str) -> Costs:
    """What every instruction cost; see the rules at the top of this file."""
    costs: Costs = {}

    def cost_of(instruction: Instruction) -> Cost:
        return costs.setdefault(instruction, Cost())

    for edge in counts.edges:
        block = _block(edge.address, edge.code, core)
        times, timing = edge.executions, edge.timing
        for instruction, cycles in zip(block.instructions, timing.cycles, strict=True):
            cost = cost_of(instruction)
            cost.executions += times
            cost.pay(times * _units(cycles))
        for index, cause, cycles in timing.stalls:
            cost_of(block.instructions[index]).wait(times * _units(cycles), cause)
        if timing.entry_cycles:
            payer = _block(*edge.source, core).instructions[-1] if edge.source else None
            payer = payer or block.instructions[0]
            cost_of(payer).pay(times * _units(timing.entry_cycles), BRANCH)
    for stall in counts.stalls:
        block = _block(stall.address, stall.code, core)
        cost_of(block.instructions[0]).pay(_units(stall.fetch), CODE)
        cost_of(block.instructions[-1]).pay(_units(stall.branch), MISPREDICTION)
        for units, cause, payers in (
            (_units(stall.data), DATA, block.transfers),
            (_units(stall.alignment), UNALIGNED, block.transfers),
            (_units(stall.bus), BUS, block.transfers),
            (_units(stall.divide), DIVIDE, block.divides),
        ):
            payers = payers or block.instructions[:1]
            share, rest = divmod(units, len(payers))
            for number, payer in enumerate(payers):
                cost_of(payer).pay(share + (number < rest), cause)
    return {i: cost for i, cost in costs.items() if cost.units or cost.executions}


def _units(cycles: float) -> int:
    return round(cycles * ONE_CYCLE)


class _Block(NamedTuple):
    instructions: tuple[Instruction, ...]
    transfers: tuple[Instruction, ...]  # loads and stores
    divides: tuple[Instruction, ...]


@lru_cache(maxsize=1 << 16)
def _block(address: int, code: bytes, core: str) -> _Block:
    instructions, transfers, divides = [], [], []
    for decoded in decode(code, address, core):
        at = decoded.address - address
        instruction = Instruction(decoded.address, code[at : at + decoded.size_bytes])
        instructions.append(instruction)
        if decoded.kind in _TRANSFERS:
            transfers.append(instruction)
        elif decoded.kind == "divide":
            divides.append(instruction)
    return _Block(tuple(instructions), tuple(transfers), tuple(divides))


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model and what its instructions cost."""

    name: str
    op: str
    macs: int
    costs: Mapping[Instruction, Cost]


class MemoryUse(NamedTuple):
    """Accesses to a memory that has caches, buffers or wait states; code is counted in lines."""

    memory: str
    side: Literal["code", "data"]
    hits: int
    fills: int  # the line had to be fetched
    sequentials: int  # the same, but it was the line after the last one: prefetched

    @property
    def accesses(self) -> int:
        """All of them."""
        return self.hits + self.fills + self.sequentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the cycles of one run went.

    `layers` are in order of execution; a program that is no model has one without a name.
    `between_layers` is what the calls of the layers cost, `beside` cycles in no instruction:
    exceptions, or what the measurement adds and takes off. All together are `cycles`.
    """

    name: str
    place: str
    timing_model: str
    engine: str | None
    program: Program
    cycles: int
    layers: tuple[Layer, ...]
    between_layers: Mapping[Instruction, Cost]
    memories: tuple[MemoryUse, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_model(self) -> bool:
        """Whether there are layers with names."""
        return any(layer.name for layer in self.layers)

    @property
    def parts(self) -> tuple[tuple[str, Mapping[Instruction, Cost]], ...]:
        """(name, costs) of the layers, then of what is between them, if anything."""
        named = tuple((layer.name, layer.costs) for layer in self.layers)
        return (*named, (BETWEEN, self.between_layers)) if self.between_layers else named

    @property
    def costs(self) -> Costs:
        """Of every instruction, over all layers."""
        return merged(costs for _, costs in self.parts)

    @property
    def whole(self) -> Cost:
        """Of all instructions."""
        return total(self.costs)

    @property
    def beside_units(self) -> int:
        """Time that no instruction took."""
        return self.cycles * ONE_CYCLE - self.whole.units


BETWEEN = "(calls)"


def merged(parts: Iterable[Mapping[Instruction, Cost]]) -> Costs:
    """The costs of several parts of a run, added up."""
    costs: Costs = {}
    for part in parts:
        for instruction, cost in part.items():
            costs.setdefault(instruction, Cost()).add(cost)
    return costs


def total(costs: Mapping[Instruction, Cost]) -> Cost:
    """The sum over all instructions."""
    return grouped(costs, lambda instruction: None).get(None, Cost())


def grouped(
    costs: Mapping[Instruction, Cost], key: Callable[[Instruction], Key]
) -> dict[Key, Cost]:
    """Sums by whatever `key` gives."""
    groups: dict[Key, Cost] = {}
    for instruction, cost in costs.items():
        groups.setdefault(key(instruction), Cost()).add(cost)
    return groups


class Where(NamedTuple):
    """A function of the source: `places` are those of memory that hold it, inlined or itself."""

    name: str
    file: str | None  # where its code is written; functions of two files may have one name
    places: frozenset[str]
    cost: Cost


def by_function(profile: Profile) -> list[Where]:
    """By innermost function of the source, all its inlined copies together; dearest first."""
    found: dict[tuple[str, str | None], tuple[set[str], Cost]] = {}
    for instruction, cost in profile.costs.items():
        frames = profile.program.frames(instruction.address)
        function, line = frames[-1]
        places, whole = found.setdefault(
            (plain(function), line.file if line else None), (set(), Cost())
        )
        places.add(frames[0].function)
        whole.add(cost)
    functions = [Where(*key, frozenset(places), cost) for key, (places, cost) in found.items()]
    return sorted(functions, key=lambda where: (-where.cost.units, where.name, where.file or ""))


def by_line(profile: Profile) -> dict[Frame, Cost]:
    """By the innermost function and line, all inlined copies together; dearest first."""

    def place(instruction: Instruction) -> Frame:
        frame = profile.program.frames(instruction.address)[-1]
        return frame._replace(function=plain(frame.function))

    lines = grouped(profile.costs, place)
    return dict(sorted(lines.items(), key=lambda item: (-item[1].units, item[0].function)))


class Decoded(NamedTuple):
    """An instruction of the program's file as text; constants have no operands but a value."""

    address: int
    code: bytes
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        """As an assembler would read it."""
        return f"{self.mnemonic} {self.operands}".rstrip()


@lru_cache(maxsize=1 << 16)
def decoded(instruction: Instruction) -> Decoded:
    """The text of an instruction."""
    address, code = instruction
    for _, size, mnemonic, operands in _disassembler().disasm_lite(code, address):
        if size == len(code):
            return Decoded(address, code, mnemonic, operands)
    return Decoded(address, code, ".inst", f"0x{int.from_bytes(code, 'little'):x}")


def function_code(program: Program, function: Function) -> Iterator[Decoded]:
    """The instructions of a function in the order of their addresses, without its constants."""
    at = function.start
    while at < function.end:
        end = program.constant_end(at)
        if end is not None:
            at = end
            continue
        first = program.read(at, 2)
        if len(first) < 2:
            return
        # Armv7-M ARM, A5.1: such a first halfword begins an instruction of two
        size = 4 if first[1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        yield decoded(Instruction(at, program.read(at, size)))
        at += size


@lru_cache(maxsize=1)
def _disassembler() -> capstone.Cs:
    mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    return capstone.Cs(capstone.CS_ARCH_ARM, mode)
