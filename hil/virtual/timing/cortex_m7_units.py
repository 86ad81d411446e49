"""Cortex-M7: what each instruction asks of the pipeline, and when its results can be used.

Sources, named in the tables by their letter:
  J  J. Oleksiewicz (jnk0le/random, "pipeline cycle test", cortex_m7.md): measured, STM32H743
  L  LLVM's ARMScheduleM7.td and the M7 part of ARMLatencyMutations.cpp
  Q  quinapalus.com/cm7cycles.html: measured, STM32H730
  T  Cortex-M7 TRM, Arm DDI 0489: prefetch unit, ACTLR.DISDYNADD
  F  community.arm.com 9930, "Cortex-M7 VFMA usage": measured
  S  SLOTHY's cortex_m7.py
Where they differ the measurement was taken; J is the most complete one.

The pipeline behind the issue stage, one cycle each: EX1 (addresses, shifter of operand 2, early
ALU), EX2 (late ALU, word loads arrive, multiply begins), EX3 (accumulation, bytes and halfwords
arrive), EX4 (data of a store). A pair consists of an older and a younger instruction, by address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from hil.virtual.timing.armv7m import Instruction

# Where an operand is read: columns of the latencies below.
(
    EARLY_ALU,  # an ALU operation that finds its operands in time goes through EX1 (J, T)
    SHIFTER,  # operand 2 that is shifted, source of a bit field
    BASE,
    INDEX,  # the second register of an address
    LATE,
    BESIDE,  # the other operand of an operation whose operand 2 is shifted
    WITHIN_IT,  # an ALU operand of a conditional instruction
    FACTOR,
    ADDEND,
    DATA,  # of a store
    TO_FPU,  # vmov s, r
    FP,
    FMA_ADDEND,
    MLA_ADDEND,
    FP_DATA,  # of vstr
    FROM_FPU,  # vmov r, s
    AFTER_MAC,
    AFTER_MLA,
) = range(18)

# What makes a result: rows of the latencies below.
(
    BY_EARLY_ALU,
    BY_REVERSAL,
    BY_WRITEBACK,
    BY_LATE_ALU,
    BY_CONDITIONAL,
    BY_SATURATION,
    BY_MULTIPLY,
    BY_WORD_LOAD,
    BY_PART_LOAD,
    BY_SYSTEM,
    BY_FP_SUM,
    BY_FMA,
    BY_MLA,
    BY_FP_LOAD,
    BY_FP_MOVE,
    BY_FP_DIVIDE,
) = range(16)


def _integer(*columns: int) -> tuple[int, ...]:
    return columns + (1,) * 7


def _fp(*columns: int) -> tuple[int, ...]:
    return (1,) * 11 + columns


# Cycles from the issue of an instruction to the issue of the one that uses its result; 0: they can
# be a pair.
LATENCIES = (
    # EARLY_ALU SHIFTER BASE INDEX LATE BESIDE WITHIN_IT FACTOR ADDEND DATA TO_FPU
    _integer(1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1),  # J, "early ALU"; movw + movt are a pair
    _integer(1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 1),  # J: rev, rbit; L agrees on SHIFTER
    _integer(2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1),  # J: address register written back
    _integer(2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 1),  # J, L
    _integer(3, 3, 3, 3, 2, 2, 1, 2, 1, 0, 2),  # L: used outside its condition one cycle later
    _integer(3, 3, 3, 3, 2, 2, 2, 2, 1, 0, 2),  # L: q*, ssat, usad8 arrive in EX3
    _integer(3, 3, 4, 4, 2, 2, 2, 2, 1, 0, 1),  # J, Q (2, addend 1); L for addresses
    _integer(2, 2, 3, 3, 1, 2, 1, 2, 1, 0, 1),  # J; Q: addresses (L: 3 only as INDEX)
    _integer(3, 3, 3, 3, 2, 2, 2, 2, 1, 0, 2),  # J
    _integer(3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3),  # L: mrs
    # FP FMA_ADDEND MLA_ADDEND FP_DATA FROM_FPU AFTER_MAC AFTER_MLA
    _fp(3, 3, 2, 1, 3, 0, 0),  # J: vadd, vmul
    _fp(5, 3, 2, 3, 5, 4, 0),  # J; Q agrees (chain 3, result 5)
    _fp(6, 4, 3, 4, 6, 4, 2),  # J; Q agrees (chain 3, result 6); FMA_ADDEND: L
    _fp(1, 3, 2, 0, 2, 0, 0),  # J; FP_DATA: estimate
    _fp(3, 3, 2, 1, 3, 0, 0),  # J: vmov from a core register, a register or a constant
    _fp(1, 1, 1, 0, 1, 0, 0),  # the divider holds the pipeline until it is done (J)
)

# Units of an instruction. As the older one of a pair it keeps its units from the younger one, and
# what _ALSO_BLOCKS adds. OPERAND2: a shifted register, or a constant that is a shifted byte; FIELD:
# bit fields, extension, parallel arithmetic; FP_MOVE: vldr, vstr and vmov, which only the rules
# after a floating-point MAC forbid.
(
    NEVER_YOUNGER,
    OPERAND2,
    SHIFT,
    FIELD,
    MULTIPLIER,
    STORE_PORT,
    EVEN_BANK,
    ODD_BANK,
    BRANCH,
    FPU,
    FP_CONSTANT,
    FP_MOVE,
    FP_MAC,
    EX1_SHIFTER,
    EX2_SHIFTER,  # L: one in each of the stages; a shift that is not early needs this one
) = (1 << bit for bit in range(15))
ANY_BANK = EVEN_BANK | ODD_BANK
_SHARED = SHIFT | FP_MOVE | FP_MAC  # both may use these; J: two shifts are a pair

_ALSO_BLOCKS = {
    OPERAND2: EX1_SHIFTER,
    SHIFT: OPERAND2,  # J, matrix of operand 2: not so the other way round
    MULTIPLIER: STORE_PORT,  # J
    STORE_PORT: MULTIPLIER,  # J
}
_UNITS = {
    "shift": FIELD | NEVER_YOUNGER,  # J, slot 0 only; pure shifts below
    "simd": FIELD | NEVER_YOUNGER,  # J, L
    "mac": MULTIPLIER,
    "store": STORE_PORT,
    "fp_store": STORE_PORT | FP_MOVE,
    "branch": BRANCH,
    "fp": FPU,
    "fp_mac": FPU | FP_MAC,
    "fp_divide": FPU,
}
_ALONE = {"divide", "load_pair", "store_pair", "load_multiple", "store_multiple", "table_branch"}
_ALONE |= {"barrier", "system", "fp_load_multiple", "fp_store_multiple", "fp_system"}  # J, L
_ALONE |= {"strex", "strexb", "strexh", "wfi", "wfe", "sev", "yield", "dbg"}  # L

# Cycles for which it holds the issue stage, where that is not 1.
DIVIDE_CYCLES_LEAST = 4  # GCC's cortex-m7.md; see cortex_m7.divide_cycles
_CYCLES = {
    "divide": DIVIDE_CYCLES_LEAST,
    "table_branch": 2,  # L
    "vdiv": 16,  # J, L
    "vsqrt": 14,  # J
    "dmb": 2,  # estimate
    "dsb": 4,  # estimate
    "isb": 8,  # estimate: what a mispredicted branch costs
}

# Which slot of a pair can use the early ALU.
NOT_EARLY, EARLY_AS_OLDER, EARLY_ALWAYS = range(3)
_EARLY = dict.fromkeys(("add", "addw", "sub", "subw", "adr", "mov", "movw"), EARLY_AS_OLDER)  # J, T
_EARLY |= dict.fromkeys(("lsl", "lsr", "asr", "ror"), EARLY_ALWAYS)  # J

_SHIFTS = {"lsl", "lsr", "asr", "ror", "rrx"}
_REVERSALS = {"rev", "rev16", "revsh", "rbit"}
_EXTEND_ADD = {"sxtab", "uxtab", "sxtah", "uxtah", "sxtab16", "uxtab16", "pkhbt", "pkhtb"}
_BESIDE_NO_OPERAND2 = _REVERSALS | _EXTEND_ADD | {"ubfx", "sbfx", "bfi", "bfc"}  # J
_PARALLEL = ("add8", "add16", "sub8", "sub16", "asx", "sax")
_SATURATING = {"qadd", "qsub", "qdadd", "qdsub", "ssat", "usat", "ssat16", "usat16", "usad8"}
_SATURATING |= {prefix + name for prefix in ("q", "uq") for name in _PARALLEL}
_MAKE_GE = {prefix + name for prefix in "su" for name in _PARALLEL}
_LONG_ADDEND = {"smlal", "umlal", "umaal", "smlald", "smlaldx", "smlsld", "smlsldx"}
_LONG_ADDEND |= {"smlalbb", "smlalbt", "smlaltb", "smlaltt"}
# Operands that the shifter of EX1 reads, by their place (J; qd*, sat: L).
_SHIFTER_READS: dict[str, tuple[int, ...]] = dict.fromkeys(_EXTEND_ADD, (2,))
_SHIFTER_READS |= dict.fromkeys(_REVERSALS | {"ubfx", "sbfx", "bfi", "rrx"}, (1,))
_SHIFTER_READS |= dict.fromkeys(("ssat", "usat", "ssat16", "usat16"), (1,))
_SHIFTER_READS |= dict.fromkeys(("pkhtb", "qdadd", "qdsub"), (1, 2))
_FLAGS_ARE_DATA = {"adc", "sbc", "rrx", "sel", "vseleq", "vselvs", "vselge", "vselgt"}
_NOT_AFTER_MAC = {"vadd", "vsub", "vpush", "vpop"}  # for three cycles (J, F)
_NOT_AFTER_MAC |= {"vldm", "vldmia", "vldmdb", "vstm", "vstmia", "vstmdb"}
_WORD_LOADS = {"ldr", "ldrt", "ldrex"}

_REGISTER = re.compile(r"\b(r\d+|[sd]\d+|sb|sl|fp|ip|sp|lr|pc)\b")
_SHIFTED = re.compile(r"(\w+), (?:lsl|lsr|asr|ror|rrx)\b")
_CONSTANT = re.compile(r"#(-?(?:0x)?[0-9a-f]+)$")
_ADDRESS = re.compile(r"\[(\w+)(?:, #(-?(?:0x)?[0-9a-f]+))?\]")


class Demand(NamedTuple):
    """What an instruction asks of the pipeline."""

    uses: int  # units
    blocks: int  # units that its younger partner must not use
    after_mac: int  # more of them in the three cycles after a floating-point MAC
    cycles: int  # it holds the issue stage
    alone: bool  # never one of a pair
    early: int
    needs: tuple[tuple[str, int], ...]  # register, where it is read
    makes: tuple[tuple[str, int, int], ...]  # register, what makes it, cycles after the issue
    loads: tuple[str, int] | None  # base and doubleword of an address with a constant offset
    stores: tuple[str, int] | None  # the same of a store that leaves its base alone


@lru_cache(maxsize=1 << 16)
def demand(instruction: Instruction) -> Demand:
    """What `instruction` asks of the pipeline."""
    kind, name = instruction.kind, instruction.name
    uses = _units(instruction)
    blocks = (uses | NEVER_YOUNGER) & ~_SHARED
    for unit, more in _ALSO_BLOCKS.items():
        blocks |= more if uses & unit else 0
    cycles = _CYCLES.get(name, _CYCLES.get(kind, 1))
    if instruction.registers:
        cycles = (instruction.registers + 1) // 2  # J
    reach = _constant_address(instruction)
    doubleword = (reach[0], reach[1] >> 1) if reach else None
    return Demand(
        uses=uses,
        blocks=blocks,
        after_mac=FP_MOVE | (FP_MAC if uses & FP_MOVE else 0),
        cycles=cycles,
        alone=kind in _ALONE or name in _ALONE or _moves_two(instruction),
        early=_early(instruction, uses),
        needs=tuple(dict.fromkeys(_needs(instruction))),
        makes=tuple(_makes(instruction, cycles)),
        loads=doubleword if kind in ("load", "fp_load") else None,
        stores=doubleword if kind in ("store", "fp_store") and not instruction.writes else None,
    )


def _conditional(instruction: Instruction) -> bool:
    """Whether it is in an IT block."""
    return instruction.conditional and instruction.kind != "branch"


def _moves_two(instruction: Instruction) -> bool:
    """A transfer of two floating-point registers: alone (J)."""
    if instruction.kind in ("fp_load", "fp_store"):
        return instruction.operands.startswith("d")
    return instruction.name == "vmov" and len(_REGISTER.findall(instruction.operands)) > 2


def _units(instruction: Instruction) -> int:
    kind, name = instruction.kind, instruction.name
    units = _UNITS.get(kind, 0)
    if name in _SHIFTS:
        units = SHIFT
    elif name in _BESIDE_NO_OPERAND2:
        units |= OPERAND2
    elif name in ("usad8", "usada8"):  # L: not in the multiplier
        units = FIELD | NEVER_YOUNGER
    elif kind == "alu" and (instruction.has_shifted_operand or _shifted_byte(instruction)):
        units |= OPERAND2
    elif kind in ("load", "fp_load") or name in ("pld", "pldw"):
        units |= _bank(instruction) | (FP_MOVE if kind == "fp_load" else 0)
        units |= NEVER_YOUNGER if name.startswith("ldrex") else 0  # L
    elif name == "vmov":
        units = FP_MOVE | (FP_CONSTANT if "#" in instruction.operands else 0)
    elif name.startswith("vsel"):
        units |= NEVER_YOUNGER  # L
    return units | (BRANCH if instruction.writes_pc else 0)


def _shifted_byte(instruction: Instruction) -> bool:
    """Whether its constant is a shifted byte: not a byte and no pattern of bytes (J)."""
    found = _CONSTANT.search(instruction.operands)
    if found is None or instruction.size_bytes == 2:
        return False
    if instruction.name in ("movw", "movt", "addw", "subw", "adr"):
        return False
    value = int(found[1], 0) & 0xFFFFFFFF
    low, high = value & 0xFF, value >> 8 & 0xFF
    return value not in (low, low * 0x00010001, low * 0x01010101, high * 0x01000100)


def _constant_address(instruction: Instruction) -> tuple[str, int] | None:
    """Base register and word of an address with a constant offset."""
    found = _ADDRESS.search(instruction.operands)
    if found is None:
        return None
    offset = int(found[2] or "0", 0)
    if found[1] == "pc":
        offset += (instruction.address + 4) & ~3
    return found[1], offset >> 2


def _bank(instruction: Instruction) -> int:
    """Which half of a doubleword is read (J: two loads pair if in different banks).

    Bases are taken as aligned to 8 bytes (S); with an index the bank is unknown, and such a load is
    taken as one that pairs with no other load.
    """
    reach = _constant_address(instruction)
    if reach is None:
        return ANY_BANK
    return ODD_BANK if reach[1] & 1 else EVEN_BANK


def _early(instruction: Instruction, units: int) -> int:
    if units & OPERAND2 or instruction.writes_pc or _conditional(instruction):
        return NOT_EARLY
    return _EARLY.get(instruction.name, NOT_EARLY)


def _needs(instruction: Instruction) -> Iterator[tuple[str, int]]:
    """The registers it waits for, and where it reads them."""
    kind, name = instruction.kind, instruction.name
    if kind in ("branch", "it", "barrier"):  # a branch is predicted; it does not wait
        return
    if _conditional(instruction):
        yield "flags", WITHIN_IT
    outside = _ADDRESS_PART.sub("", instruction.operands)
    if kind != "alu" and instruction.addresses:
        yield from zip(_address_registers(instruction), (BASE, INDEX), strict=False)
    if kind in ("store", "store_pair", "store_multiple"):
        stored = _REGISTER.findall(outside[outside.find("{") + 1 :])
        yield from ((r, DATA) for r in stored[1 if name.startswith("strex") else 0 :])
    elif kind in ("fp_store", "fp_store_multiple"):
        yield from (
            (r, FP_DATA) for r in sorted(instruction.reads - instruction.addresses - {"flags"})
        )
    elif kind == "mac":
        yield from _needs_of_mac(instruction)
    elif kind == "divide":
        yield from ((r, FACTOR) for r in sorted(instruction.reads - {"flags"}))  # L
    elif kind.startswith("fp"):
        yield from _needs_of_fp(instruction)
    elif not instruction.addresses:
        yield from _needs_of_alu(instruction)
    if name in _NOT_AFTER_MAC or (kind in ("fp_load", "fp_store") and _moves_two(instruction)):
        yield "fpmac", AFTER_MAC


def _address_registers(instruction: Instruction) -> list[str]:
    part = _ADDRESS_PART.search(instruction.operands)
    return _REGISTER.findall(part[0]) if part else sorted(instruction.addresses)


def _needs_of_alu(instruction: Instruction) -> Iterator[tuple[str, int]]:
    name = instruction.name
    registers = _REGISTER.findall(instruction.operands)
    at_shifter = {registers[i] for i in _SHIFTER_READS.get(name, ()) if i < len(registers)}
    shifted = _SHIFTED.search(instruction.operands) if instruction.kind == "alu" else None
    if shifted:
        at_shifter = {shifted[1]}
    other = BESIDE if shifted else WITHIN_IT if _conditional(instruction) else LATE
    for register in sorted(instruction.reads - {"flags"}):
        yield register, SHIFTER if register in at_shifter else other
    if name == "sel":
        yield "ge", LATE
    elif name in _FLAGS_ARE_DATA:
        yield "flags", LATE


def _needs_of_mac(instruction: Instruction) -> Iterator[tuple[str, int]]:
    registers = _REGISTER.findall(instruction.operands)
    if instruction.name in _LONG_ADDEND:
        addends, factors = registers[:2], registers[2:]
    elif len(registers) == 4 and instruction.name not in ("smull", "umull"):
        addends, factors = registers[3:], registers[1:3]
    else:
        addends, factors = [], sorted(instruction.reads - {"flags"})
    yield from ((r, FACTOR) for r in factors)
    yield from ((r, ADDEND) for r in addends)


def _needs_of_fp(instruction: Instruction) -> Iterator[tuple[str, int]]:
    name = instruction.name
    if name == "vmrs":
        yield "fpscr", LATE
    elif name == "vmov":
        target, *sources = _REGISTER.findall(instruction.operands)
        for register in sorted(instruction.reads - {"flags"}):
            if register[0] != "s" or register in _CORE_NAMES:
                yield register, TO_FPU
            else:
                yield register, FROM_FPU if target in _CORE_NAMES else FP
        if not sources:
            yield "fpmac", AFTER_MAC  # a constant (J)
    elif instruction.kind == "fp_mac":
        fused = name in ("vfma", "vfms", "vfnma", "vfnms")
        target, *sources = _REGISTER.findall(instruction.operands)
        yield target, FMA_ADDEND if fused else MLA_ADDEND
        yield from ((r, FP) for r in sources)
        if fused:
            yield "fpmac", AFTER_MLA
    elif instruction.kind in ("fp", "fp_divide"):
        yield from ((r, FP) for r in sorted(instruction.reads - {"flags"}))
        if name in _FLAGS_ARE_DATA:
            yield "flags", SHIFTER  # vsel cannot have them forwarded (L)


def _makes(instruction: Instruction, cycles: int) -> Iterator[tuple[str, int, int]]:
    """The registers it writes, and how."""
    kind, name = instruction.kind, instruction.name
    back = instruction.writes & instruction.addresses if kind not in ("alu", "branch") else set()
    if kind in ("load_multiple", "fp_load_multiple"):
        made = BY_WORD_LOAD if kind == "load_multiple" else BY_FP_LOAD
        listed = _REGISTER.findall(instruction.operands[instruction.operands.find("{") :])
        yield from ((r, made, i // 2) for i, r in enumerate(listed) if r != "pc")
        yield from ((r, BY_WRITEBACK, cycles - 1) for r in sorted(back - set(listed)))
        return
    if kind == "fp_mac":
        made = BY_FMA if name in ("vfma", "vfms", "vfnma", "vfnms") else BY_MLA
        yield "fpmac", made, 0
    else:
        made = _made(instruction)
    loaded = set(_REGISTER.findall(_ADDRESS_PART.sub("", instruction.operands))) if back else set()
    for register in sorted(instruction.writes - {"pc", "flags"}):
        written_back = register in back and not (kind.startswith("load") and register in loaded)
        yield register, BY_WRITEBACK if written_back else made, cycles - 1
    if "flags" in instruction.writes:
        yield "flags", BY_MULTIPLY if kind == "mac" else BY_LATE_ALU, 0
    if name in _MAKE_GE:
        yield "ge", BY_LATE_ALU, 0


def _made(instruction: Instruction) -> int:
    kind, name = instruction.kind, instruction.name
    conditional = _conditional(instruction)
    if kind in ("load", "load_pair"):
        word = kind == "load_pair" or name in _WORD_LOADS
        return BY_WORD_LOAD if word and not conditional else BY_PART_LOAD
    if kind == "store":  # the result of strex
        return BY_PART_LOAD
    if name == "vmov":
        return BY_LATE_ALU if instruction.operands.split(",")[0] in _CORE_NAMES else BY_FP_MOVE
    if name in _SATURATING or name == "usada8":
        return BY_SATURATION
    if conditional and kind in ("alu", "shift", "simd"):
        return BY_CONDITIONAL
    if name in _REVERSALS:
        return BY_REVERSAL
    return _MADE.get(kind, BY_LATE_ALU)


_MADE = {
    "branch": BY_EARLY_ALU,  # the link register
    "mac": BY_MULTIPLY,
    "system": BY_SYSTEM,
    "fp": BY_FP_SUM,
    "fp_divide": BY_FP_DIVIDE,
    "fp_load": BY_FP_LOAD,
}
_ADDRESS_PART = re.compile(r"\[.*?\]")
_CORE_NAMES = {f"r{number}" for number in range(16)} | {"sb", "sl", "fp", "ip", "sp", "lr", "pc"}
