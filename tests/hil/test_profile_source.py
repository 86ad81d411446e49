"""Functions, inlined functions and lines from an ELF file, or why there are none."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from hil.profile import function_code
from hil.profile_source import read_program

GCC = "arm-none-eabi-gcc"

SOURCE = """\
static inline int wrapped(int x) { return __builtin_arm_ssat(x, 8); }

static inline __attribute__((always_inline)) int sum(const int *data, int count)
{
    int total = 0;
    for (int i = 0; i < count; i++) {
        total += wrapped(data[i]);
    }
    return total;
}

int dropped(int x) { return x * 77777; }

__attribute__((noinline)) int work(const int *data, int count)
{
    int part = sum(data, count);
    return part * 123456789;
}

int data[4];
void _start(void)
{
    data[0] = work(data, 4);
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """`build(*flags)`: the path of an ELF file made of SOURCE."""
    if shutil.which(GCC) is None:
        pytest.skip(f"{GCC} is not installed; apt install gcc-arm-none-eabi")
    folder = tmp_path_factory.mktemp("source")
    (folder / "source.c").write_text(SOURCE)

    def run(*flags):
        elf = folder / f"{abs(hash(flags))}.elf"
        command = [GCC, "-mcpu=cortex-m4", "-mthumb", "-O2", "-ffunction-sections", "-nostdlib"]
        command += ["-Wl,--gc-sections,-Ttext=0x100,-e,_start", *flags, "source.c", "-o", str(elf)]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)
        return elf

    return run


def addresses(program, name):
    function = program.named(name)[0]
    return range(function.start, function.end, 2)


def read_all(elf):
    data = elf.read_bytes()
    symbols = read_program(data, ())
    wanted = [a for f in symbols.functions for a in range(f.start, f.end, 2)]
    return read_program(data, wanted)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_an_inlined_function_is_found_with_the_line_that_calls_it(build, version):
    program = read_all(build("-g", f"-gdwarf-{version}"))

    chains = {tuple(f.function for f in program.frames(a)) for a in addresses(program, "work")}
    assert chains == {("work",), ("work", "sum")}
    inner = next(f for a in addresses(program, "work") if len(f := program.frames(a)) == 2)
    assert inner[0].line.line == 16
    assert inner[0].line.file.endswith("source.c")


def test_a_function_of_one_line_is_part_of_the_line_that_calls_it(build):
    program = read_all(build("-g"))
    work = program.named("work")[0]
    saturate = next(i for i in function_code(program, work) if i.mnemonic == "ssat")

    frames = program.frames(saturate.address)

    assert [f.function for f in frames] == ["work", "sum"]
    assert frames[-1].line.line == 7


def test_code_that_the_linker_dropped_covers_nothing(build):
    program = read_all(build("-g"))

    assert program.named("dropped") == []
    assert program.frames(0)[-1].line is None
    assert not any("dropped" in str(program.frames(a)) for a in range(0, 64, 2))


def test_constants_between_instructions_are_no_instructions(build):
    program = read_all(build("-g"))
    code = list(function_code(program, program.named("work")[0]))

    assert code[-1].mnemonic in ("bx", "pop", "nop")
    assert program.constant_end(program.named("work")[0].end - 4) is not None
    assert all(program.read(i.address, len(i.code)) == i.code for i in code)


def test_without_debug_information_there_are_functions_and_a_note(build):
    program = read_all(build("-g0"))
    address = program.named("work")[0].start

    assert program.frames(address) == ((("work", None)),)
    assert program.note == "no source lines: built without -g"


def test_without_symbols_there_is_only_a_name_that_says_so(build):
    data = build("-g0", "-s").read_bytes()

    program = read_program(data, [0x100])

    assert program.frames(0x100)[0].function == "(no symbol)"


def test_labels_of_assembly_stand_in_for_functions(build, tmp_path):
    source, elf = tmp_path / "a.s", tmp_path / "a.elf"
    source.write_text(
        ".syntax unified\n.thumb\n.text\n.global start\nstart: movs r0, #1\nagain: b again\n"
    )
    subprocess.run([GCC, "-nostdlib", "-Ttext=0x100", "-e", "start", source, "-o", elf], check=True)

    program = read_program(elf.read_bytes(), [0x100, 0x102])

    assert [f.name for f in program.functions] == ["start", "again"]
    assert program.frames(0x102)[0].function == "again"


def test_no_bytes_make_it_fail(build):
    data = build("-g").read_bytes()
    wanted = range(0x100, 0x180, 2)
    rng = random.Random(1)

    for bad in [b"", b"\x7fELF", data[:100], data[: len(data) // 2], bytes(1000)]:
        assert read_program(bad, wanted).note
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        program = read_program(bytes(broken), wanted)
        for address in wanted:
            assert program.frames(address)
        for function in program.functions[:50]:
            list(function_code(program, function))


def test_names_from_outside_cannot_move_the_cursor(build):
    data = build("-g").read_bytes().replace(b"source.c\0", b"so\x1b[2J.c\0")

    program = read_program(data, range(0x100, 0x180, 2))

    text = str([program.frames(a) for a in range(0x100, 0x180, 2)])
    assert "\\x1b" not in text
