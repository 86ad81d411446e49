"""Counts of blocks and edges to costs of instructions: every cycle arrives where it belongs."""

from __future__ import annotations

import dataclasses

import pytest

from hil.profile import (
    ONE_CYCLE,
    Cost,
    Counts,
    Instruction,
    Layer,
    Profile,
    between,
    by_function,
    by_line,
    instruction_costs,
    merged,
    total,
)
from hil.profile_dwarf import DebugInformation, Line
from hil.profile_source import Function, Program
from hil.profile_text import Sources, short_names, waits
from hil.virtual.blocks import BlockStalls
from hil.virtual.clock import EdgeRun
from hil.virtual.timing import BlockTiming, Stall

M4 = "cortex-m4"
ADD = bytes.fromhex("0130")  # adds r0, #1
LOAD = bytes.fromhex("0a68")  # ldr r2, [r1]
STORE = bytes.fromhex("0a60")  # str r2, [r1]
DIVIDE = bytes.fromhex("90fbf1f0")  # sdiv r0, r0, r1
BACK = bytes.fromhex("fcd1")  # bne, four bytes back

LOOP = ADD + BACK


def timing(*cycles, entry=0, stalls=()):
    return BlockTiming(entry, cycles, tuple(stalls), None)


def costs_of(edges=(), stalls=()):
    return instruction_costs(Counts(edges, stalls), M4)


def cycles(cost):
    return cost.units / ONE_CYCLE


def test_every_instruction_is_paid_for_each_execution():
    costs = costs_of([EdgeRun(None, 0x100, ADD + LOAD, 10, timing(1, 2))])

    assert costs == {
        Instruction(0x100, ADD): Cost(10, 10 * ONE_CYCLE),
        Instruction(0x102, LOAD): Cost(10, 20 * ONE_CYCLE),
    }


def test_the_refill_is_paid_by_the_branch_that_led_to_the_block():
    edges = [
        EdgeRun(None, 0x100, LOOP, 1, timing(1, 1)),
        EdgeRun((0x100, LOOP), 0x100, LOOP, 9, timing(1, 1, entry=2)),
    ]

    costs = costs_of(edges)

    assert costs[Instruction(0x100, ADD)] == Cost(10, 10 * ONE_CYCLE)
    branch = costs[Instruction(0x102, BACK)]
    assert branch == Cost(10, (10 + 18) * ONE_CYCLE, {"branch": 18 * ONE_CYCLE})


def test_a_refill_after_an_exception_has_no_branch_and_is_paid_by_the_first_instruction():
    costs = costs_of([EdgeRun(None, 0x100, ADD, 1, timing(1, entry=3))])

    assert costs[Instruction(0x100, ADD)] == Cost(1, 4 * ONE_CYCLE, {"branch": 3 * ONE_CYCLE})


def test_waiting_is_part_of_an_instructions_cycles():
    waiting = timing(2, 3, stalls=[Stall(1, "load-use", 2)])

    costs = costs_of([EdgeRun(None, 0x100, LOAD + ADD, 5, waiting)])

    add = costs[Instruction(0x102, ADD)]
    assert add == Cost(5, 15 * ONE_CYCLE, {"load-use": 10 * ONE_CYCLE})
    assert waits(add) == "load-use 67"


def test_what_is_known_for_a_block_is_shared_to_the_last_fraction():
    block = ADD + LOAD + STORE + DIVIDE + BACK
    odd = 1001 / ONE_CYCLE  # no even half
    stall = BlockStalls(0x100, block, fetch=3, data=odd, branch=4, divide=5, alignment=1, bus=2)

    costs = costs_of([EdgeRun(None, 0x100, block, 1, timing(1, 1, 1, 1, 1))], [stall])

    found = {i.code: cost.stalls for i, cost in costs.items()}
    assert found[ADD] == {"code": 3 * ONE_CYCLE}
    assert found[LOAD] == {"data": 501, "unaligned": ONE_CYCLE // 2, "bus": ONE_CYCLE}
    assert found[STORE] == {"data": 500, "unaligned": ONE_CYCLE // 2, "bus": ONE_CYCLE}
    assert found[DIVIDE] == {"divide": 5 * ONE_CYCLE}
    assert found[BACK] == {"misprediction": 4 * ONE_CYCLE}
    assert total(costs).units == (5 + 3 + 4 + 5 + 1 + 2) * ONE_CYCLE + 1001


def test_two_moments_give_what_ran_between_them():
    first = EdgeRun(None, 0x100, ADD, 3, timing(1))
    second = EdgeRun((0x100, ADD), 0x102, LOAD, 2, timing(2))
    stall = BlockStalls(0x102, LOAD, 1.5, 0, 0, 0, 0, 0)
    earlier = Counts([first], [])
    later = Counts([first._replace(executions=3), second], [stall])
    last = Counts([first._replace(executions=7), second], [stall._replace(fetch=2.0)])

    assert between(earlier, later) == Counts([second], [stall])
    assert between(later, last) == Counts(
        [first._replace(executions=4)], [stall._replace(fetch=0.5)]
    )
    whole = costs_of(*last)
    parts = [
        costs_of(*earlier),
        costs_of(*between(earlier, later)),
        costs_of(*between(later, last)),
    ]
    assert merged(parts) == whole


def test_two_instructions_that_lay_at_one_address_stay_two():
    edges = [
        EdgeRun(None, 0x2000_0000, ADD, 1, timing(1)),
        EdgeRun(None, 0x2000_0000, LOAD, 2, timing(2)),
    ]

    costs = costs_of(edges)

    assert {i.code: cycles(c) for i, c in costs.items()} == {ADD: 1, LOAD: 4}


@pytest.fixture
def profile():
    program = Program(
        functions=[Function("one", 0x100, 0x102), Function("two.part.0", 0x102, 0x108)]
    )
    costs = {
        Instruction(0x100, ADD): Cost(4, 4 * ONE_CYCLE),
        Instruction(0x102, LOAD): Cost(4, 8 * ONE_CYCLE, {"data": 4 * ONE_CYCLE}),
        Instruction(0x400, STORE): Cost(1, ONE_CYCLE),
    }
    return Profile(
        name="test",
        place="virtual:test",
        timing_model="test/1",
        engine=None,
        program=program,
        cycles=15,
        layers=(Layer("", "", 0, costs),),
        between_layers={},
    )


def test_functions_are_those_of_the_source_and_the_dearest_comes_first(profile):
    found = [(where.name, where.places, cycles(where.cost)) for where in by_function(profile)]

    assert found == [
        ("two", {"two.part.0"}, 8),
        ("one", {"one"}, 4),
        ("(no symbol)", {"(no symbol)"}, 1),
    ]


def test_functions_of_one_name_are_told_apart_by_their_files(profile):
    lines = [(0x100, 0x102, Line("a.c", 1)), (0x102, 0x104, Line("b.c", 1))]
    program = Program(
        functions=[Function("eval", 0x100, 0x102), Function("eval", 0x102, 0x104)],
        _debug=DebugInformation(lines, {}),
    )
    profile = dataclasses.replace(profile, program=program)

    found = [(where.name, where.file) for where in by_function(profile)]

    assert found == [("eval", "b.c"), ("eval", "a.c"), ("(no symbol)", None)]


def test_without_lines_a_line_is_its_function(profile):
    assert [frame.function for frame in by_line(profile)] == ["two", "one", "(no symbol)"]


def test_what_no_instruction_took_is_told_apart(profile):
    assert profile.beside_units == 2 * ONE_CYCLE


def test_names_of_files_are_as_short_as_they_can_be():
    names = short_names(["a/model.c", "b/model.c", "b/dot.h"])

    assert names == {"a/model.c": "a/model.c", "b/model.c": "b/model.c", "b/dot.h": "dot.h"}


def test_sources_that_are_not_there_have_no_text(tmp_path):
    (tmp_path / "a.c").write_text("one\n\ttwo\x1b[31m\n")
    sources = Sources([tmp_path])

    assert sources.lines("a.c") == ("one", "    two?[31m")
    assert sources.lines("none.c") == ()
    assert sources.lines(".") == ()
    assert sources.lines("bad\0name") == ()
