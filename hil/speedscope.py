"""A profile as a file that https://www.speedscope.app opens: flame graphs in cycles.

Format: jlfwong/speedscope, src/lib/file-format-spec.ts, profiles of type "sampled". There are two:
layer > function > inlined functions > line, the layers in order of execution; and the same below
what was waited for. Weights are cycles; they add up to the profile's, but for what no instruction
took.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hil.profile import ONE_CYCLE, Cost, Instruction, Profile
from hil.profile_text import short_names

SCHEMA_URL = "https://www.speedscope.app/file-format-schema.json"
RUNNING = "(running)"


class _Entry(NamedTuple):
    """A frame of the file: the same name at another line is another frame."""

    name: str
    file: str | None = None
    line: int | None = None


_Stack = tuple[_Entry, ...]


def speedscope(profile: Profile) -> dict[str, Any]:
    """The file as plain JSON types."""
    names = _file_names(profile)
    frames: dict[_Entry, int] = {}
    by_layer: dict[_Stack, int] = {}
    by_cause: dict[_Stack, int] = {}
    for layer, costs in profile.parts:
        outer = (_Entry(layer),) if layer else ()
        for instruction, cost in costs.items():
            stack = outer + tuple(_stack(profile, instruction, names))
            by_layer[stack] = by_layer.get(stack, 0) + cost.units
            for cause, units in _causes(cost):
                reason = (_Entry(cause), *stack)
                by_cause[reason] = by_cause.get(reason, 0) + units
    title = f"{profile.name}, {profile.place}, cycles by {profile.timing_model}"
    return {
        "$schema": SCHEMA_URL,
        "exporter": "hil profile",
        "name": title,
        "activeProfileIndex": 0,
        "profiles": [
            _sampled(f"{title}: by layer" if profile.is_model else title, by_layer, frames),
            _sampled(f"{title}: by what was waited for", by_cause, frames),
        ],
        "shared": {"frames": [_frame(entry) for entry in frames]},
    }


def _causes(cost: Cost) -> Iterator[tuple[str, int]]:
    yield RUNNING, cost.units - cost.stalled_units
    yield from cost.stalls.items()


def _file_names(profile: Profile) -> dict[str, str]:
    program = profile.program
    lines = (
        frame.line
        for _, costs in profile.parts
        for instruction in costs
        for frame in program.frames(instruction.address)
    )
    return short_names(line.file for line in lines if line)


def _stack(profile: Profile, instruction: Instruction, names: dict[str, str]) -> Iterator[_Entry]:
    """Functions around an instruction, then its line."""
    frames = profile.program.frames(instruction.address)
    for frame in frames:
        yield _Entry(frame.function, frame.line.file if frame.line else None)
    line = frames[-1].line
    if line is not None and line.line:
        yield _Entry(f"{names[line.file]}:{line.line}", line.file, line.line)


def _sampled(name: str, stacks: dict[_Stack, int], frames: dict[_Entry, int]) -> dict[str, Any]:
    shown = {stack: units for stack, units in stacks.items() if units}
    weights = [units / ONE_CYCLE for units in shown.values()]
    return {
        "type": "sampled",
        "name": name,
        "unit": "none",
        "startValue": 0,
        "endValue": sum(shown.values()) / ONE_CYCLE,
        "samples": [_indices(stack, frames) for stack in shown],
        "weights": weights,
    }


def _indices(stack: Iterable[_Entry], frames: dict[_Entry, int]) -> list[int]:
    return [frames.setdefault(entry, len(frames)) for entry in stack]


def _frame(entry: _Entry) -> dict[str, Any]:
    return {key: value for key, value in entry._asdict().items() if value is not None}
