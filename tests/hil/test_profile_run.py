"""Profiles of models and of other people's programs: exact to the cycle, layer by layer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import Builder, random_quant
from model_runner import build_library

from codegen import ir
from codegen.export_tflite import export_tflite
from hil import cli
from hil.bench import measure_model
from hil.board import board_ids, get_board
from hil.errors import HilError, UsageError
from hil.profile import BETWEEN, ONE_CYCLE, instruction_costs, merged, total
from hil.profile_collect import counts_of
from hil.profile_report import profile_json
from hil.profile_run import PROFILED, ProfiledPlace, profile_elf, profile_model
from hil.running import run_elf
from hil.speedscope import speedscope
from hil.virtual.place import VirtualPlace

GCC = "arm-none-eabi-gcc"
PLACES = [f"virtual:{board}" for board in board_ids()]
NRF = "virtual:nrf52840_dk"

PROGRAM = r"""
#include <stdio.h>
#include <string.h>

__attribute__((noinline)) int divides(int x)
{
    int sum = 0;
    for (int i = 1; i < 50; i++) {
        sum += x / i;
    }
    return sum;
}

int main(void)
{
    printf("%d\n", divides(1000000));
    return 3;
}
"""

# Runs a routine of two instructions from RAM, then the same address with other ones.
REWRITES = r"""
#include <stdint.h>
static volatile uint16_t routine[4] __attribute__((aligned(8)));
int main(void)
{
    int (*run)(int) = (int (*)(int))((uintptr_t)routine | 1);
    int x = 0;
    for (int round = 0; round < 20; round++) {
        routine[0] = round % 2 ? 0x3003 : 0x3005; /* adds r0, #3 or #5 */
        routine[1] = 0x4770;                      /* bx lr */
        __asm volatile("dsb\n\tisb" ::: "memory");
        x = run(x);
    }
    return x == 80 ? 0 : 1;
}
"""


@pytest.fixture
def compile_c(tmp_path):
    """`compile_c(board, text, *flags)`: an ELF in RAM, with newlib and semihosting."""
    if shutil.which(GCC) is None:
        pytest.skip(
            f"{GCC} is not installed; apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"
        )

    def build(board, text, *flags):
        (tmp_path / "program.c").write_text(text)
        elf = tmp_path / "program.elf"
        fpu = "fpv5-sp-d16" if "fpv5-sp" in board.mcu.features else "fpv4-sp-d16"
        command = [GCC, f"-mcpu={board.mcu.core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}"]
        command += ["-g", "-O2", "--specs=rdimon.specs", f"-Wl,-Ttext-segment={board.ram[0]:#x}"]
        command += ["-Wl,--no-warn-rwx-segments", *flags, "program.c", "-o", str(elf)]
        subprocess.run(command, check=True, cwd=tmp_path)
        return elf

    return build


@pytest.fixture(scope="module")
def measured(tflite):
    """(profile, record) of a small model."""
    return profile_model(tflite, "net", NRF)


@pytest.fixture(scope="module")
def tflite():
    builder = Builder(np.random.default_rng(1), name="net")
    x = builder.input((1, 8, 8, 4))
    a = builder.conv2d(x, 8, (3, 3))
    b = builder.conv2d(a, 8, (1, 1))
    return export_tflite(builder.graph([builder.elementwise(ir.Add, a, b)]))


def run(place, elf):
    with VirtualPlace(get_board(place.removeprefix("virtual:"))) as opened:
        return run_elf(opened, elf, until=None, timeout_s=60, on_output=lambda data: None)


@pytest.mark.parametrize("place", PLACES)
def test_a_profile_of_a_program_has_every_cycle_of_its_run(place, compile_c):
    elf = compile_c(get_board(place.removeprefix("virtual:")), PROGRAM)

    profile, report = profile_elf(elf, place)

    plain = run(place, elf)
    assert report.exit_code == plain.exit_code == 3
    assert profile.cycles == plain.cycles
    assert profile.whole.executions == plain.instructions
    assert -ONE_CYCLE < profile.beside_units <= 0  # the clock shows whole cycles
    assert not profile.is_model
    function = profile.program.named("divides")[0]
    inside = {i: c for i, c in profile.costs.items() if function.start <= i.address < function.end}
    divide = next(c for i, c in inside.items() if i.code[1] == 0xFB and i.code[0] & 0xF0 == 0x90)
    assert divide.executions == 49


def test_code_that_was_rewritten_is_paid_for_under_both_texts(compile_c):
    elf = compile_c(get_board("nrf52840_dk"), REWRITES)

    profile, report = profile_elf(elf, NRF)

    assert report.exit_code == 0
    added = {i: c for i, c in profile.costs.items() if i.code in (b"\x03\x30", b"\x05\x30")}
    assert [c.executions for i, c in sorted(added.items())] == [10, 10]
    assert len({i.address for i in added}) == 1
    assert -ONE_CYCLE < profile.beside_units <= 0


def test_a_program_without_debug_information_says_so(compile_c):
    profile, _ = profile_elf(compile_c(get_board("nrf52840_dk"), PROGRAM, "-g0"), NRF)

    assert profile.notes == ("no source lines: built without -g",) or profile.program.note is None
    assert any(f.name == "divides" for f in profile.program.functions)


@pytest.mark.parametrize("engine", ["tiny", "reference"])
@pytest.mark.parametrize("place", [NRF, "virtual:stm32f746g_disco"])
def test_the_profile_of_a_model_is_what_bench_measures(place, engine, tflite, tmp_path):
    profile, record = profile_model(tflite, "net", place, engine=engine)

    bench = measure_model(tflite, "net", place, engine=engine)
    assert record.latency_cycles == bench.latency_cycles
    assert profile.cycles == bench.latency_cycles.samples[PROFILED]
    assert bool(profile.notes) == (profile.cycles != bench.latency_cycles.median)
    assert [layer.name for layer in profile.layers] == [layer.name for layer in record.layers]
    whole = total(merged(costs for _, costs in profile.parts)).units
    assert whole + profile.beside_units == profile.cycles * ONE_CYCLE
    assert abs(profile.beside_units) < 60 * ONE_CYCLE  # a call and a return
    for layer, marked in zip(profile.layers, record.layers, strict=True):
        # the firmware's marks are calls: they cost some cycles, and change caches and predictions
        assert total(layer.costs).cycles == pytest.approx(marked.cycles, rel=0.05, abs=200)


def test_what_engines_share_is_split_between_their_layers(tflite):
    """Both convolutions of the interpreter run the same code."""
    profile, _ = profile_model(tflite, "net", NRF, engine="reference")

    shared = set(profile.layers[0].costs) & set(profile.layers[1].costs)
    assert shared
    assert total(profile.layers[0].costs).cycles > 2 * total(profile.layers[1].costs).cycles


@pytest.mark.slow
def test_the_layers_of_tflm_are_those_that_it_reports(tmp_path, monkeypatch):
    stand_in = Path(__file__).resolve().parents[1] / "support" / "tflm_stub"
    include_dirs = (stand_in / "include",)
    library = build_library(stand_in / "library.cc", include_dirs, tmp_path / "libtflm.a")
    lab = tmp_path / "lab.toml"
    lab.write_text(f'[tflm]\nlibrary = "{library}"\ninclude_dirs = ["{include_dirs[0]}"]\n')
    monkeypatch.setenv("HIL_LAB", str(lab))
    b = Builder(np.random.default_rng(7), name="relu")
    x = b.input((1, 32), random_quant(b.rng, scale=0.5, zero_point=0))

    profile, record = profile_model(export_tflite(b.graph([b.relu(x)])), "relu", NRF, engine="tflm")

    assert [layer.op for layer in profile.layers] == ["RELU"]
    assert profile.cycles == record.latency_cycles.samples[PROFILED]
    assert total(profile.layers[0].costs).cycles > 0.7 * profile.cycles


def test_the_flame_graph_has_every_cycle_and_the_shape_that_speedscope_reads(measured):
    profile, _ = measured

    file = json.loads(json.dumps(speedscope(profile)))

    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = file["shared"]["frames"]
    assert all(isinstance(frame["name"], str) and frame["name"] for frame in frames)
    assert all(set(frame) <= {"name", "file", "line", "col"} for frame in frames)
    for found in file["profiles"]:
        assert found["type"] == "sampled" and found["unit"] == "none"
        assert len(found["samples"]) == len(found["weights"])
        assert all(0 <= index < len(frames) for stack in found["samples"] for index in stack)
        assert all(stack for stack in found["samples"]) and min(found["weights"]) > 0
        assert sum(found["weights"]) == found["endValue"] == profile.whole.cycles
    outer = [frames[stack[0]]["name"] for stack in file["profiles"][0]["samples"]]
    assert list(dict.fromkeys(outer)) == [*(layer.name for layer in profile.layers), BETWEEN]


def test_json_has_every_cycle_in_every_view(measured):
    profile, record = measured

    values = json.loads(json.dumps(profile_json(profile)))

    assert values["schema"] == 1
    assert values["cycles"] == record.latency_cycles.samples[PROFILED]
    layers = sum(layer["cycles"] for layer in values["layers"])
    whole = values["whole"]["cycles"]
    assert layers + values["between_layers"]["cycles"] == whole
    assert whole + values["beside_cycles"] == values["cycles"]
    for view in ("functions", "lines", "instructions"):
        assert sum(row["cycles"] for row in values[view]) == whole
        assert sum(row["instructions"] for row in values[view]) == values["whole"]["instructions"]


def test_the_place_is_closed_with_its_thread(compile_c):
    elf = compile_c(get_board("nrf52840_dk"), "int main(void) { for (;;) {} }")
    with ProfiledPlace(get_board("nrf52840_dk")) as place:
        report = run_elf(place, elf, until=None, timeout_s=0.3, on_output=lambda data: None)
        assert report.reason == "timeout"
        assert total(instruction_costs(counts_of(place.cpu), "cortex-m4")).units > 0
    place.close()

    assert not place._thread.is_alive()


def test_what_is_no_program_is_refused(tmp_path):
    path = tmp_path / "bad.elf"
    path.write_bytes(b"\x7fELF" + bytes(100))

    with pytest.raises(HilError):
        profile_elf(path, NRF)


def test_hardware_has_no_counts(tmp_path, monkeypatch):
    lab = tmp_path / "lab.toml"
    lab.write_text('[places.desk]\nboard = "nrf52840_dk"\nport = "usb:123"\n')
    monkeypatch.setenv("HIL_LAB", str(lab))

    with pytest.raises(UsageError, match="virtual:nrf52840_dk"):
        profile_model(b"", "net", "desk")


@pytest.fixture
def hil(capfd):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        code = cli._guarded([str(a) for a in arguments], debug=False)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_the_command_shows_tables_and_writes_files(hil, tflite, tmp_path):
    model = tmp_path / "net.tflite"
    model.write_bytes(tflite)
    graph, values = tmp_path / "net.speedscope.json", tmp_path / "net.json"

    code, out, _ = hil(
        *("profile", model, "--board", NRF, "--by", "layer,function,line,instruction"),
        *("--top", 5, "--speedscope", graph, "--json", values),
    )

    assert code == 0
    for text in (
        "conv2d_0",
        "add_2",
        "by function",
        "by source line",
        "by instruction",
    ):
        assert text in out
    assert re.search(r"\w\.[ch]:\d", out)
    assert json.loads(graph.read_text())["profiles"]
    assert json.loads(values.read_text())["layers"][0]["name"] == "conv2d_0"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("conv2d_0", "for ("),
        ("model_run", "conv2d_0(at(AT_"),
        ("add_2", "static void add_2("),
        ("model.c", "for ("),
    ],
)
def test_listings_of_functions_layers_and_files(hil, tflite, tmp_path, name, source):
    model = tmp_path / "net.tflite"
    model.write_bytes(tflite)

    code, out, _ = hil("profile", model, "--board", NRF, "--annotate", name, "--all")

    assert code == 0
    assert name in out
    assert "% of all" in out
    assert source in out


def test_a_program_is_profiled_too(hil, compile_c):
    elf = compile_c(get_board("nrf52840_dk"), PROGRAM)

    code, out, err = hil("profile", elf, "--board", NRF, "--top", 3, "--annotate", "divides")

    assert code == 0
    assert "ended with code 3" in err and "sdiv" in out and "sum += x / i;" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.tflite", "--board", NRF], "does not exist"),
        (["MODEL", "--board", "nrf52840_dk"], "say where: virtual:nrf52840_dk"),
        (["MODEL", "--board", "virtual:z80"], "no board or place"),
        (["MODEL", "--board", NRF, "--by", "loop"], "known: layer, memory, function"),
        (["MODEL", "--board", NRF, "--engine", "best"], "no engine 'best'"),
        (["MODEL", "--board", NRF, "--objective", "best"], "--objective"),
        (["MODEL", "--board", NRF, "--speedscope", "/no/such/x.json"], "cannot be written"),
        (["MODEL", "--board", NRF, "--annotate", "nothing"], "these did: "),
    ],
)
def test_a_users_mistake_is_a_sentence_and_code_2(hil, tflite, tmp_path, arguments, message):
    model = tmp_path / "net.tflite"
    model.write_bytes(tflite)

    code, _, err = hil("profile", *(model if a == "MODEL" else a for a in arguments))

    assert code == 2
    assert message in err
