"""Takes a virtual board's counts at the calls of one inference and makes a profile of them.

Nothing is added to the firmware: the emulator is asked when the program counter reaches the call of
`model_run`, each call out of it (or, with TFLM, its reports of operators), and the return. So the
cycles are those that the board's own counter shows, to the last one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from hil.board import Board
from hil.errors import UsageError
from hil.profile import (
    Cost,
    Costs,
    Counts,
    Instruction,
    Layer,
    MemoryUse,
    Profile,
    between,
    function_code,
    instruction_costs,
    merged,
)
from hil.profile_source import Function, Program, plain, read_program
from hil.record import Record
from hil.virtual.cpu import Cpu

WINDOW = "window_cycles"  # the function of firmware/src/bench.c that times one inference
MODEL_RUN = "model_run"
REPORTER = "LayerProfiler"  # what TFLM tells of its operators, in the generated model.cc

_SIDES: tuple[Literal["code", "data"], ...] = ("code", "data")


def counts_of(cpu: Cpu) -> Counts:
    """What a core has counted so far."""
    return Counts(cpu.edge_runs(), cpu.stalls())


def memories_of(cpu: Cpu) -> tuple[MemoryUse, ...]:
    """How often a core has used its memories so far."""
    return tuple(
        MemoryUse(memory.name, side, *cpu.memory_system.counts(memory.name, side))
        for memory in cpu.board.memory
        for side in _SIDES
    )


def _used(earlier: Sequence[MemoryUse], later: Sequence[MemoryUse]) -> tuple[MemoryUse, ...]:
    """The use of memories between two moments; those that were not used are left out."""
    between_them = (
        MemoryUse(
            new.memory,
            new.side,
            new.hits - old.hits,
            new.fills - old.fills,
            new.sequentials - old.sequentials,
        )
        for old, new in zip(earlier, later, strict=True)
    )
    return tuple(use for use in between_them if use.accesses)


class _Site(NamedTuple):
    """An instruction that calls out of model_run."""

    address: int
    inlined: tuple[str, ...]  # functions inlined around it
    callee: str | None  # None: through a register

    @property
    def names(self) -> tuple[str, ...]:
        """What may be the name of a layer, the likeliest first."""
        return (*self.inlined, self.callee) if self.callee else self.inlined


class _Segment(NamedTuple):
    """What ran from one call out of model_run to the next."""

    site: _Site | None
    costs: Mapping[Instruction, Cost]


class Collector:
    """Takes the counts at the calls of one inference, and makes a profile of them.

    Args:
        board: that runs it.
        run_number: which timed inference of the bench firmware, counted from 1.
    """

    def __init__(self, board: Board, run_number: int) -> None:
        self._core = board.mcu.core
        self._run_number = run_number
        self._elf = b""
        self._runs = 0
        self._marks: list[tuple[_Site | None, Counts]] = []
        self._memories: list[tuple[MemoryUse, ...]] = []  # at the start and the end
        self._is_running = False
        self._depth = 0  # of TFLM's reports
        self._model_run = self._window = Function("", 0, 0)

    def prepare(self, cpu: Cpu, elf: bytes) -> None:
        """Before a firmware is flashed: watches its calls."""
        cpu.forget_watches()
        self._elf, self._runs, self._marks, self._is_running = elf, 0, [], False
        symbols = read_program(elf, ())
        self._window = _needed(symbols, WINDOW)
        self._model_run = model_run = _needed(symbols, MODEL_RUN)
        call = next(i for i in function_code(symbols, self._window) if i.mnemonic == "blx")

        def window_calls() -> None:
            if cpu.register(call.operands) & ~1 == model_run.start:
                self._runs += 1
                self._is_running = self._runs == self._run_number
                self._depth = 0
                if self._is_running:
                    self._marks = [(None, counts_of(cpu))]
                    self._memories = [memories_of(cpu)]

        def window_returns() -> None:
            if self._is_running:
                self._is_running = False
                self._marks.append((None, counts_of(cpu)))
                self._memories.append(memories_of(cpu))

        cpu.watch(call.address, window_calls)
        cpu.watch(call.address + len(call.code), window_returns)
        begin, end = (_method(symbols, REPORTER, name) for name in ("BeginEvent", "EndEvent"))
        if begin is not None and end is not None:
            cpu.watch(begin.start, partial(self._began, cpu, _Site(begin.start, (), None)))
            cpu.watch(end.start, partial(self._ended, cpu))
            return
        program = read_program(elf, range(model_run.start, model_run.end, 2))
        for site in _call_sites(program, model_run):
            cpu.watch(site.address, partial(self._called, cpu, site))

    def count_from_here(self) -> None:
        """The next timed inference is number 1; while the core waits for a command."""
        self._runs = 0

    def _began(self, cpu: Cpu, site: _Site) -> None:
        """An operator of TFLM reports; what it reports inside belongs to it."""
        self._depth += 1
        if self._is_running and self._depth == 1:
            self._marks.append((site, counts_of(cpu)))

    def _ended(self, cpu: Cpu) -> None:
        self._depth -= 1
        if self._is_running and self._depth == 0:
            self._marks.append((None, counts_of(cpu)))

    def _called(self, cpu: Cpu, site: _Site) -> None:
        """Calls of one layer that follow each other need no counts between them."""
        if self._is_running:
            last = self._marks[-1][0]
            if last is None or not site.names or last.names[:1] != site.names[:1]:
                self._marks.append((site, counts_of(cpu)))

    def profile(self, record: Record, sample: int) -> Profile:
        """The profile of the inference whose counts were taken; it is that sample of the record."""
        assert len(self._marks) >= 2, "the inference was seen from its start to its end"
        segments = [
            _Segment(site, instruction_costs(between(counts, following), self._core))
            for (site, counts), (_, following) in itertools.pairwise(self._marks)
        ]
        program = read_program(self._elf, {i.address for part in segments for i in part.costs})
        layers, rest = self._layers(segments, record, program)
        notes = [program.note] if program.note else []
        cycles, latency = record.latency_cycles.samples[sample], record.latency_cycles
        if cycles != latency.median:
            notes.append(
                f"repeats differ: this inference took {cycles:,} cycles, the median of "
                f"{latency.n} is {latency.median:,.0f}"
            )
        if [layer.name for layer in layers] != [layer.name for layer in record.layers]:
            notes.append("the layers cannot be told apart: the engine does not report them")
        return Profile(
            name=record.model.name,
            place=record.place,
            timing_model=record.timing_model or "",
            engine=record.engine,
            program=program,
            cycles=cycles,
            layers=layers,
            between_layers=rest,
            memories=_used(*self._memories),
            notes=tuple(notes),
        )

    def _layers(
        self, segments: Sequence[_Segment], record: Record, program: Program
    ) -> tuple[tuple[Layer, ...], Costs]:
        """Layers in order of execution, and what belongs to none.

        Instructions of model_run itself, with the layers inlined there, are told apart by the
        function that they were inlined from; everything else by the call during which it ran.
        """
        known = {layer.name: layer for layer in record.layers}
        parts: dict[str | None, list[Costs]] = {name: [] for name in known}
        indirect = [part for part in segments if part.site and not part.site.names]
        in_order = len(indirect) == len(known)
        numbers = iter(known)
        for segment in segments:
            name: str | None = None
            if segment.site is not None:
                names = segment.site.names
                name = next((n for n in names if n in known), None)
                if name is None and in_order and not names:
                    name = next(numbers)
                elif name is None:
                    name = segment.site.callee or "?"
            for instruction, cost in segment.costs.items():
                if self._window.holds(instruction.address):
                    continue
                owner = name
                if self._model_run.holds(instruction.address):
                    inlined = program.inlined(instruction.address)
                    owner = next((n for n in inlined if n in known), None)
                parts.setdefault(owner, []).append({instruction: cost})
        rest = merged(parts.pop(None, []))
        layers = [
            Layer(
                name,
                known[name].op if name in known else "",
                known[name].macs if name in known else 0,
                merged(costs),
            )
            for name, costs in parts.items()
            if name is not None and costs
        ]
        if not layers:
            return (Layer("", "", 0, rest),), {}
        return tuple(layers), rest


def _method(program: Program, owner: str, name: str) -> Function | None:
    """A method of C++, by what its mangled name holds."""
    found = (f for f in program.functions if owner in f.name and f"{len(name)}{name}E" in f.name)
    return next(found, None)


def _needed(program: Program, name: str) -> Function:
    functions = program.named(name)
    if not functions:
        raise UsageError(f"the firmware has no function {name}; is the ELF stripped?")
    return functions[0]


def _call_sites(program: Program, function: Function) -> Iterator[_Site]:
    """The calls in a function, jumps out of it among them."""
    for instruction in function_code(program, function):
        mnemonic, operands = instruction.mnemonic, instruction.operands
        inlined = program.inlined(instruction.address)
        if mnemonic == "blx" or (mnemonic == "bx" and operands != "lr"):
            yield _Site(instruction.address, inlined, None)
        elif mnemonic.startswith("b") and operands.startswith("#"):
            target = int(operands[1:], 16)
            callee = program.function(target)
            if callee is not None and callee != function:
                yield _Site(instruction.address, inlined, plain(callee.name))
