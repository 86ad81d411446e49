"""A profile as a listing: disassembly with its source lines, or a source file with its cycles.

Beside every instruction stands how often it ran, what it cost and what it waited for; percentages
are of what is listed. Code that never ran, or hardly cost anything, is one line. `◂` leads from a
line of an inlined function to the line that calls it; arrows at branches tell up from down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rich.text import Text

from hil.errors import UsageError
from hil.profile import (
    ONE_CYCLE,
    Cost,
    Decoded,
    Instruction,
    Profile,
    by_line,
    decoded,
    function_code,
    total,
)
from hil.profile_source import Frame, Function, plain
from hil.profile_text import Sources, per, share, short_names, waits

HOT, WARM = 0.05, 0.01  # of the listed cycles: from here on a row stands out
COLD = 0.002  # a block below that is left out, unless everything is asked for
AROUND = 2  # lines shown around those that ran, in the listing of a file
WAITING_COLUMNS = 20
NARROWEST = 80  # columns that a row has at least
MOST_NAMES = 30  # in the message for a name that did not run

_TARGET = re.compile(r"#0x([0-9a-f]+)$")
_LITERAL = re.compile(r"\[pc, #(-?0x[0-9a-f]+|-?\d+)\]$")


def annotated(
    profile: Profile, name: str, *, sources: Sources, width: int, everything: bool = False
) -> Iterator[Text]:
    """The listing of a function, an inlined function (a layer, too) or a source file.

    Args:
        profile: of what ran.
        name: of the function or file.
        sources: where source lines come from.
        width: columns of a line.
        everything: blocks that hardly cost anything, too.

    Raises:
        UsageError: nothing of that name ran; names what did.
    """
    costs = profile.costs
    program = profile.program
    frames = {i: program.frames(i.address) for i in costs}
    files = short_names(f.line.file for chain in frames.values() for f in chain if f.line)
    page = _Page(profile, sources, width, files, 0.0 if everything else COLD)
    listed: set[Instruction] = set()
    for function in program.named(name):
        inside = {i: c for i, c in costs.items() if function.holds(i.address)}
        if inside:
            yield from page.function(function, inside)
        listed.update(inside)
    inlined = {
        i: c for i, c in costs.items() if i not in listed and name in program.inlined(i.address)
    }
    if inlined:
        yield from page.instructions(name, inlined)
    if listed or inlined:
        return
    file = next((path for path, short in files.items() if name in (path, short)), None)
    if file is not None:
        yield from page.file(file)
        return
    functions = {plain(chain[0].function) for chain in frames.values()}
    ran = [*sorted(files.values()), *sorted(functions)]
    shown = ", ".join(ran[:MOST_NAMES]) + (", ..." if len(ran) > MOST_NAMES else "")
    raise UsageError(f"nothing of a function or file {name!r} ran; these did: {shown}")


@dataclass(frozen=True, slots=True)
class _Page:
    """What every line of a listing needs."""

    profile: Profile
    sources: Sources
    width: int
    files: Mapping[str, str]  # short names
    cold: float  # blocks below this part of what is listed are left out

    def function(self, function: Function, costs: Mapping[Instruction, Cost]) -> Iterator[Text]:
        """All code of a function; then what ran at its addresses but is not in the file."""
        code = list(function_code(self.profile.program, function))
        in_file = {Instruction(d.address, d.code) for d in code}
        others = sorted(i for i in costs if i not in in_file)
        yield from self._head(f"{function.name} at 0x{function.start:x}", costs)
        yield from self._body(code, costs)
        if others:
            yield Text("code that the program wrote there itself", style="bold")
            yield from self._body([decoded(i) for i in others], costs)

    def instructions(self, name: str, costs: Mapping[Instruction, Cost]) -> Iterator[Text]:
        """Only these, in the order of their addresses."""
        functions = {self.profile.program.frames(i.address)[0].function for i in costs}
        inside = "" if functions == {name} else f", inlined into {', '.join(sorted(functions))}"
        yield from self._head(f"{name}{inside}", costs)
        yield from self._body([decoded(i) for i in sorted(costs)], costs)

    def file(self, file: str) -> Iterator[Text]:
        """The lines of a source file that ran, and a few around them."""
        lines: dict[int, Cost] = {}
        for frame, cost in by_line(self.profile).items():
            if frame.line and frame.line.file == file:
                lines.setdefault(frame.line.line, Cost()).add(cost)
        whole = Cost()
        for cost in lines.values():
            whole.add(cost)
        text = self.sources.lines(file)
        missing = "" if text else ", which is not there to be read"
        yield self._title(f"{file}{missing}", whole)
        yield _columns("each", "line")
        last = 0
        for number in sorted(_around(lines, len(text)) if text else lines):
            if number > last + 1:
                yield Text(f"{'⋮':>53}", style="dim")
            last = number
            source = text[number - 1] if 0 < number <= len(text) else ""
            cost = lines.get(number, Cost())
            yield self._row(cost, whole, f"{number:>5}  {source}", with_executions=False)

    def _head(self, title: str, costs: Mapping[Instruction, Cost]) -> Iterator[Text]:
        yield self._title(title, total(costs))
        yield _columns("executed", "each", "address")

    def _title(self, title: str, cost: Cost) -> Text:
        text = Text(f"\n{title}\n", style="bold")
        text.append(
            f"{cost.cycles:,.0f} cycles, {share(cost.cycles, self.profile.cycles)} % of all; "
            f"{cost.executions:,} instructions, {per(cost.cycles, cost.executions)} each"
        )
        waiting = waits(cost, most=9)
        return text.append(f"\nwaits, %: {waiting}" if waiting else "")

    def _body(self, code: Iterable[Decoded], costs: Mapping[Instruction, Cost]) -> Iterator[Text]:
        whole = total(costs)
        shown: tuple[Frame, ...] = ()
        hidden = Cost()
        hidden_instructions = 0
        for block in _blocks(list(code), costs):
            cost = total({i: costs[i] for i in map(_key, block) if i in costs})
            if not cost.executions or cost.units < self.cold * whole.units:
                hidden.add(cost)
                hidden_instructions += len(block)
                continue
            if hidden_instructions:
                yield self._hidden(hidden, hidden_instructions, whole)
                hidden, hidden_instructions = Cost(), 0
            yield Text("")
            for item in block:
                frames = self.profile.program.frames(item.address)
                if frames != shown:
                    shown = frames
                    yield self._source(frames)
                text = f"{item.address:>8x}  {self._instruction(item)}"
                yield self._row(costs[_key(item)], whole, text)
        if hidden_instructions:
            yield self._hidden(hidden, hidden_instructions, whole)

    def _hidden(self, cost: Cost, count: int, whole: Cost) -> Text:
        ran = "cost hardly anything" if cost.executions else "never ran"
        text = f"{count:>8,}  that {ran}"
        return Text("\n").append(self._row(Cost(0, cost.units, cost.stalls), whole, text, "dim"))

    def _source(self, frames: tuple[Frame, ...]) -> Text:
        """A line of the source, and the calls that inlining took away."""
        places = [self._place(frame) for frame in reversed(frames)]
        text = Text(f"  {places[0]}  ", style="cyan")
        text.append(self.sources.text(frames[-1].line), style="cyan bold")
        calls = "".join(f" ◂ {place}" for place in places[1:])
        text.append(calls, style="cyan dim")
        text.truncate(self.width, overflow="ellipsis")
        return text

    def _place(self, frame: Frame) -> str:
        line = frame.line
        return str(line._replace(file=self.files[line.file])) if line else frame.function

    def _instruction(self, item: Decoded) -> str:
        """With what a reader would otherwise look up: a branch's target, a constant's value."""
        target = _target(item)
        program = self.profile.program
        if target is not None:
            home, there = program.function(item.address), program.function(target)
            operands = _TARGET.sub("", item.operands)
            if there is not None and there != home:
                offset = f"+0x{target - there.start:x}" if target != there.start else ""
                return f"{item.mnemonic:<7} {operands}{there.name}{offset}"
            arrow = "↑" if target <= item.address else "↓"
            return f"{item.mnemonic:<7} {operands}{target:x} {arrow}"
        literal = _LITERAL.search(item.operands)
        if literal and item.mnemonic.startswith("ldr"):
            at = (item.address + 4 & ~3) + int(literal[1], 0)
            value = program.read(at, 4)
            if len(value) == 4:
                operands = item.operands[: literal.start()]
                return f"{item.mnemonic:<7} {operands}=0x{int.from_bytes(value, 'little'):x}"
        return f"{item.mnemonic:<7} {item.operands}".rstrip()

    def _row(
        self,
        cost: Cost,
        whole: Cost,
        text: str,
        style: str | None = None,
        *,
        with_executions: bool = True,
    ) -> Text:
        part = cost.units / whole.units if whole.units else 0
        if style is None:
            style = "bold red" if part >= HOT else "yellow" if part >= WARM else ""
        percent = cycles = executions = each = ""
        if cost.units or cost.executions:
            percent = share(cost.units, whole.units)
            cycles = f"{cost.units / ONE_CYCLE:,.0f}"
        if cost.executions:
            executions, each = f"{cost.executions:,}", per(cost.cycles, cost.executions)
        executions = f"{executions:>10} " if with_executions else ""
        waiting = waits(cost)
        if len(waiting) > WAITING_COLUMNS:
            waiting = waits(cost, most=1)
        row = Text(
            f"{percent:>5} {cycles:>11} {executions}{each:>6}  {waiting:<{WAITING_COLUMNS}} {text}",
            style=style,
        )
        row.truncate(max(self.width, NARROWEST), overflow="ellipsis")
        return row


def _columns(*headings: str) -> Text:
    """The line above the rows of a listing."""
    *numbers, last = headings
    widths = {"executed": 10, "each": 6, "address": 8, "line": 5}
    middle = " ".join(f"{heading:>{widths[heading]}}" for heading in numbers)
    text = (
        f"{'%':>5} {'cycles':>11} {middle}  {'waits, %':<{WAITING_COLUMNS}} {last:>{widths[last]}}"
    )
    return Text(text, style="bold")


def _key(item: Decoded) -> Instruction:
    return Instruction(item.address, item.code)


def _blocks(code: list[Decoded], costs: Mapping[Instruction, Cost]) -> Iterator[list[Decoded]]:
    """Runs of instructions that are executed one after another; such as never ran by themselves."""
    targets = {_target(item) for item in code}
    block: list[Decoded] = []
    for item in code:
        before = block[-1] if block else None
        if before is not None and (
            item.address in targets
            or item.address != before.address + len(before.code)
            or _is_branch(before)
            or (_key(item) in costs) != (_key(before) in costs)
        ):
            yield block
            block = []
        block.append(item)
    if block:
        yield block


def _is_branch(item: Decoded) -> bool:
    return item.mnemonic[0] == "b" and not item.mnemonic.startswith(("bf", "bic", "bkpt"))


def _target(item: Decoded) -> int | None:
    """Where a branch goes, if its text says so."""
    match = _TARGET.search(item.operands) if _is_branch(item) or item.mnemonic[:2] == "cb" else None
    return int(match[1], 16) if match else None


def _around(lines: Iterable[int], last: int) -> set[int]:
    return {
        near
        for line in lines
        for near in range(line - AROUND, line + AROUND + 1)
        if 0 < near <= last
    }
