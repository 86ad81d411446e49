"""Armv7E-M instructions as timing models see them: class, registers read and written.

Capstone decodes; this file turns its text into an `Instruction`. Every mnemonic belongs to exactly
one class below; one that belongs to none is an UnknownInstruction, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import capstone

from hil.virtual.timing import UnknownInstruction

_CONDITION_NAMES = "eq ne hs lo cs cc mi pl vs vc hi ls ge lt gt le al"
CONDITIONS = tuple(_CONDITION_NAMES.split())


def _x(stem: str, *tails: str) -> str:
    return " ".join(stem + tail for tail in tails)


_PARALLEL = " ".join(
    prefix + op
    for prefix in ("s", "q", "sh", "u", "uq", "uh")
    for op in ("add8", "add16", "sub8", "sub16", "asx", "sax")
)
_CLASSES = {
    "alu": "add adc sub sbc rsb and orr eor bic orn mov mvn movw movt cmp cmn tst teq "
    "adr addw subw neg",
    "shift": "lsl lsr asr ror rrx ubfx sbfx bfi bfc sxtb uxtb sxth uxth sxtb16 uxtb16 "
    "sxtab uxtab sxtah uxtah sxtab16 uxtab16",
    "simd": f"{_PARALLEL} pkhbt pkhtb sel qadd qsub qdadd qdsub ssat usat ssat16 usat16 "
    "rev rev16 revsh rbit clz",
    "mac": "mul mla mls smull umull smlal umlal umaal usad8 usada8 "
    + " ".join(
        (
            _x("smul", "bb", "bt", "tb", "tt", "wb", "wt"),
            _x("smla", "bb", "bt", "tb", "tt", "wb", "wt"),
            _x("smlal", "bb", "bt", "tb", "tt", "d", "dx"),
            "smlsld smlsldx smuad smuadx smusd smusdx smlad smladx smlsd smlsdx",
            _x("smmul", "", "r"),
            _x("smmla", "", "r"),
            _x("smmls", "", "r"),
        )
    ),
    "divide": "sdiv udiv",
    "load": "ldr ldrb ldrh ldrsb ldrsh ldrt ldrbt ldrht ldrsbt ldrsht ldrex ldrexb ldrexh",
    "store": "str strb strh strt strbt strht strex strexb strexh",
    "load_pair": "ldrd",
    "store_pair": "strd",
    "load_multiple": "ldm ldmia ldmdb pop",
    "store_multiple": "stm stmia stmdb push",
    "branch": "b bl bx blx cbz cbnz " + _x("b", *CONDITIONS),
    "table_branch": "tbb tbh",
    "it": "it "
    + " ".join(f"it{a}{b}{c}" for a in "te" for b in ("", "t", "e") for c in ("", "t", "e")),
    "nop": "nop yield wfe wfi sev pld pli pldw dbg csdb",
    "barrier": "dmb dsb isb",
    "system": "mrs msr cpsid cpsie svc bkpt udf clrex",
    "fp": "vadd vsub vmul vnmul vabs vneg vmov vcmp vcmpe "
    "vcvt vcvtr vcvtb vcvtt vcvta vcvtn vcvtp vcvtm "
    "vmaxnm vminnm vrinta vrintn vrintp vrintm vrintr vrintx vrintz "
    + _x("vsel", "eq", "vs", "ge", "gt"),
    "fp_mac": "vmla vmls vnmla vnmls vfma vfms vfnma vfnms",
    "fp_divide": "vdiv vsqrt",
    "fp_load": "vldr",
    "fp_store": "vstr",
    "fp_load_multiple": "vldm vldmia vldmdb vpop",
    "fp_store_multiple": "vstm vstmia vstmdb vpush",
    "fp_system": "vmrs vmsr",
}
CLASS_OF = {name: kind for kind, names in _CLASSES.items() for name in names.split()}

_NO_RESULT = {"store", "store_pair", "store_multiple", "fp_store", "fp_store_multiple", "branch"}
_NO_RESULT |= {"table_branch", "it", "nop", "barrier", "system"}
_COMPARES = {"cmp", "cmn", "tst", "teq", "vcmp", "vcmpe"}
_ALSO_READS_RESULT = {
    "movt",
    "bfi",
    "bfc",
    "smlal",
    "umlal",
    "umaal",
    "smlald",
    "smlaldx",
    "smlsld",
    "smlsldx",
}
_ALSO_READS_RESULT |= set(_x("smlal", "bb", "bt", "tb", "tt").split()) | set(
    _CLASSES["fp_mac"].split()
)
_TWO_RESULTS = {"smull", "umull", "ldrd"} | {
    n for n in _ALSO_READS_RESULT if n.startswith(("smla", "umla", "umaa", "smls"))
}
_READS_FLAGS = {"adc", "sbc", "rrx", "sel", "vseleq", "vselvs", "vselge", "vselgt"}
_MULTIPLE = {"load_multiple", "store_multiple", "fp_load_multiple", "fp_store_multiple"}
_SHIFT = re.compile(r"\b(lsl|lsr|asr|ror|rrx)\b")
_TWICE_THE_SAME = re.compile(r"\[(\w+), \1\b")
_INDEXED = re.compile(r"!|\], ")
_REGISTER = re.compile(r"\b(r\d+|s\d+|d\d+|sb|sl|fp|ip|sp|lr|pc)\b")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction."""

    address: int
    size_bytes: int
    name: str  # without condition, flag and width suffixes
    kind: str  # its class, a key of the table above
    operands: str  # capstone's text
    reads: frozenset[str]
    writes: frozenset[str]
    addresses: frozenset[str]  # registers that form an address
    registers: int  # registers in the list of a multiple transfer, else 0
    conditional: bool = False  # B<cond>, CBZ, or inside an IT block
    sets_flags: bool = False
    target: int | None = None  # of a direct branch

    def __hash__(self) -> int:
        return hash((self.address, self.name, self.operands))

    @property
    def writes_pc(self) -> bool:
        """Whether it is a branch by writing the program counter."""
        return "pc" in self.writes

    @property
    def is_branch(self) -> bool:
        """Whether it can change the program counter."""
        return self.kind in ("branch", "table_branch") or "pc" in self.writes

    @property
    def is_direct(self) -> bool:
        """Whether its target is in the instruction (B, BL, CBZ)."""
        return self.target is not None

    @property
    def has_register_offset(self) -> bool:
        """Whether a register is added to the base of its address."""
        return len(self.addresses) == 2 or _TWICE_THE_SAME.search(self.operands) is not None

    @property
    def writes_base(self) -> bool:
        """Whether it is pre- or post-indexed, or a multiple transfer with write-back."""
        return bool(self.addresses & self.writes) and _INDEXED.search(self.operands) is not None

    @property
    def has_shifted_operand(self) -> bool:
        """Whether a register operand is shifted on its way into another operation."""
        return self.kind == "alu" and _SHIFT.search(self.operands) is not None


def decode(code: bytes, address: int, core: str) -> Iterator[Instruction]:
    """The instructions of a block; raises UnknownInstruction."""
    position = 0
    for at, size, mnemonic, operands in _capstone().disasm_lite(code, address):
        position += size
        yield _instruction(at, size, mnemonic, operands, core)
    if position < len(code):
        word = code[position : position + 4].hex()
        raise UnknownInstruction(core, f"(bytes {word}, not decoded)", address + position)


@lru_cache(maxsize=1 << 16)
def decode_block(code: bytes, address: int, core: str) -> tuple[Instruction, ...]:
    """The same, kept for the next time."""
    return tuple(decode(code, address, core))


@lru_cache(maxsize=1)
def _capstone() -> capstone.Cs:
    # V8 adds what the Cortex-M7's FPv5 has over FPv4: VSEL, VMAXNM, VRINT, VCVTA
    mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    return capstone.Cs(capstone.CS_ARCH_ARM, mode)


def _instruction(address: int, size: int, mnemonic: str, operands: str, core: str) -> Instruction:
    stem = mnemonic.split(".")[0]
    name, sets_flags, conditional = _split_suffixes(stem)
    if name not in CLASS_OF or ".f64" in mnemonic:  # the boards' FPUs are single precision
        raise UnknownInstruction(core, mnemonic, address)
    kind = CLASS_OF[name]
    inside, outside = _address_part(operands)
    listed = _registers(operands[operands.find("{") :]) if "{" in operands else []
    reads, writes = _operands(name, kind, outside, listed)
    addresses = set(_registers(inside))
    if kind in _MULTIPLE:
        base = "sp" if name in ("push", "pop", "vpush", "vpop") else _registers(operands)[0]
        addresses.add(base)
        if "!" in operands or base == "sp":
            writes.add(base)
    elif "!" in operands or re.search(r"\], ", operands):  # pre- or post-indexed
        writes |= set(_registers(inside)[:1])
    if name in ("vcmp", "vcmpe", "vmsr"):  # into the FPU's own flags
        writes.add("fpscr")
    elif sets_flags or name in _COMPARES or "apsr_nzcv" in operands:
        writes.add("flags")
    if name == "vmrs":
        reads.add("fpscr")
    if conditional or name in _READS_FLAGS or kind == "it":
        reads.add("flags")
    return Instruction(
        address,
        size,
        name,
        kind,
        operands,
        frozenset(reads | addresses),
        frozenset(writes),
        frozenset(addresses),
        len(listed) if kind in _MULTIPLE else 0,
        conditional or name in ("cbz", "cbnz"),
        sets_flags or (name in _COMPARES and kind == "alu"),
        int(operands.rpartition("#")[2], 16) if kind == "branch" and "#" in operands else None,
    )


@lru_cache(maxsize=4096)
def _split_suffixes(stem: str) -> tuple[str, bool, bool]:
    """(name, sets flags, conditional) of a mnemonic such as `addseq`."""
    if stem in CLASS_OF:
        return stem, False, stem[1:] in CONDITIONS and stem[0] == "b"
    for conditional, rest in ((False, stem), (True, stem[:-2])):
        if conditional and stem[-2:] not in CONDITIONS:
            continue
        if rest in CLASS_OF:
            return rest, False, conditional
        if rest.endswith("s") and rest[:-1] in CLASS_OF:
            return rest[:-1], True, conditional
    return stem, False, False


def _address_part(operands: str) -> tuple[str, str]:
    start, end = operands.find("["), operands.find("]")
    if start < 0:
        return "", operands
    return operands[start : end + 1], operands[:start] + operands[end + 1 :]


def _registers(text: str) -> list[str]:
    found: list[str] = []
    for register in _REGISTER.findall(text):
        if register[0] == "d" and register[1:].isdigit():  # dN is s2N and s2N+1
            found += [f"s{2 * int(register[1:])}", f"s{2 * int(register[1:]) + 1}"]
        else:
            found.append(register)
    return found


def _operands(name: str, kind: str, text: str, listed: list[str]) -> tuple[set[str], set[str]]:
    """(read, written) registers outside the address part."""
    if kind in _MULTIPLE:
        loads = kind in ("load_multiple", "fp_load_multiple")
        return (set(), set(listed)) if loads else (set(listed), set())
    registers = _registers(text)
    if name in ("bl", "blx"):
        return set(registers), {"lr"}
    if name == "mrs" or name.startswith("strex"):
        return set(registers[1:]), set(registers[:1])
    if kind in _NO_RESULT or name in _COMPARES or not registers:
        return set(registers), set()
    parts = text.split(",")
    results = 2 if name in _TWO_RESULTS else 1
    if name == "vmov" and len(parts) > 2 and not parts[0].strip().startswith("d"):
        results = 2  # two FPU registers at once, or a pair of core registers
    first, *others = (part.strip() for part in parts)
    written = _registers(first) if results == 1 else registers[:2]
    read = _registers(",".join(others)) if results == 1 else registers[2:]
    # a two-operand form such as `adds r0, #1` or `lsls r0, r1` reads its result register too
    if name in _ALSO_READS_RESULT or (len(others) == 1 and kind != "load" and name not in _MOVES):
        read = read + written
    return set(read), set(written)


_MOVES = {
    "rrx",
    "mov",
    "mvn",
    "movw",
    "adr",
    "neg",
    "sxtb",
    "uxtb",
    "sxth",
    "uxth",
    "sxtb16",
    "uxtb16",
    "rev",
    "rev16",
}
_MOVES |= {
    "revsh",
    "rbit",
    "clz",
    "vmov",
    "vabs",
    "vneg",
    "vsqrt",
    "vldr",
    "ldrd",
    "vmrs",
    "vcvt",
    "vcvtr",
    "vcvtb",
}
_MOVES |= {"vcvta", "vcvtn", "vcvtp", "vcvtm"} | {f"vrint{mode}" for mode in "anpmrxz"}
