from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from hil import build as build_module
from hil.board import Board, board_ids, get_board
from hil.build import FIRMWARE_DIR, build, forget_oldest
from hil.errors import BuildError, DoesNotFit, UsageError
from hil.lab import open_place
from hil.recipe import Recipe, read_recipe
from hil.session import starts

ECHO = FIRMWARE_DIR / "models" / "echo"
NRF = get_board("nrf52840_dk")


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A copy of the echo model that a test may change."""
    return Path(shutil.copytree(ECHO, tmp_path / "model"))


@pytest.fixture(scope="module")
def builds_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the bench is compiled once; every test builds another model."""
    return tmp_path_factory.mktemp("builds")


@pytest.fixture
def empty_builds_dir(tmp_path: Path) -> Path:
    return tmp_path / "builds"


def edit(model_dir: Path, old: str, new: str) -> None:
    path = model_dir / "model.c"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("board_id", board_ids())
def test_echo_builds_for_every_board(board_id: str, builds_dir: Path) -> None:
    board = get_board(board_id)

    firmware = build(ECHO, board, builds_dir=builds_dir)

    assert firmware.arena_bytes == 128
    assert firmware.static_bytes < 2048
    assert firmware.flash_bytes.weights == 0
    assert firmware.flash_bytes.total == firmware.flash_bytes.code < 16384
    assert firmware.stack_bytes == 4096
    assert "-Werror" in firmware.compiler_flags
    with open(firmware.elf, "rb") as file:
        elf = ELFFile(file)
        symbols = {s.name: s["st_value"] for s in elf.get_section_by_name(".symtab").iter_symbols()}
        assert firmware.build_id.encode() in elf.get_section_by_name(".text").data()
    ram_origin, ram_bytes = board.ram
    assert symbols["__stack_start"] == ram_origin
    assert symbols["__stack_end"] == symbols["__arena_start"] == ram_origin + 4096
    assert symbols["__ram_end"] == ram_origin + ram_bytes


def test_weights_are_counted_apart_from_code(model_dir: Path, builds_dir: Path) -> None:
    edit(
        model_dir,
        "enum { BYTES = 64 };",
        "enum { BYTES = 64 };\nMODEL_WEIGHTS static const volatile uint8_t w[1000] = {1};",
    )
    edit(model_dir, "    return NULL;", '    return w[7] == 0 ? NULL : "not zero";')

    firmware = build(model_dir, NRF, builds_dir=builds_dir)

    assert firmware.flash_bytes.weights == 1000
    assert firmware.flash_bytes.total == firmware.flash_bytes.code + 1000


@pytest.mark.parametrize("board_id", board_ids())
def test_copied_weights_are_weights_in_flash_and_static_ram(
    board_id: str, model_dir: Path, builds_dir: Path
) -> None:
    board = get_board(board_id)
    plain = build(model_dir, board, builds_dir=builds_dir)
    edit(
        model_dir,
        "enum { BYTES = 64 };",
        "enum { BYTES = 64 };\nMODEL_WEIGHTS_RAM static const volatile uint8_t w[1000] = {1};",
    )
    edit(model_dir, "    return NULL;", '    return w[0] == 1 ? NULL : "not copied";')

    firmware = build(model_dir, board, builds_dir=builds_dir)

    assert firmware.flash_bytes.weights == 1000
    assert firmware.flash_bytes.total == firmware.flash_bytes.code + 1000
    assert firmware.static_bytes == plain.static_bytes + 1000
    assert firmware.arena_bytes == plain.arena_bytes
    with open(firmware.elf, "rb") as file:
        copies = ELFFile(file).get_section_by_name(".model_weights_ram")
        assert copies["sh_addr"] == board.ram[0] + 4096 + plain.arena_bytes
    with open_place(f"virtual:{board_id}") as place:
        assert starts(place, firmware)


def test_a_finished_build_is_used_again(builds_dir: Path) -> None:
    first = build(ECHO, NRF, builds_dir=builds_dir)
    written = first.elf.stat().st_mtime_ns

    second = build(ECHO, NRF, builds_dir=builds_dir)

    assert second == first
    assert second.elf.stat().st_mtime_ns == written


def build_id(model_dir: Path, board: Board) -> str:
    recipe = read_recipe(model_dir)
    return build_module._build_id(build_module.parts_id(recipe, board), model_dir, recipe)


def test_any_change_of_the_model_folder_gives_another_build(model_dir: Path) -> None:
    before = build_id(model_dir, NRF)

    edit(model_dir, '.name = "echo"', '.name = "echo2"')

    assert build_id(model_dir, NRF) != before


def test_boards_never_share_a_build_id() -> None:
    ids = {build_id(ECHO, get_board(board)) for board in board_ids()}

    assert len(ids) == len(board_ids())


def test_another_model_compiles_only_its_own_files(model_dir: Path, empty_builds_dir: Path) -> None:
    first = build(ECHO, NRF, builds_dir=empty_builds_dir)
    edit(model_dir, '.name = "echo"', '.name = "echo2"')

    second = build(model_dir, NRF, builds_dir=empty_builds_dir)

    assert "bench.c.o" in (empty_builds_dir / NRF.id / f"{first.build_id}.log").read_text()
    log = (empty_builds_dir / NRF.id / f"{second.build_id}.log").read_text()
    compiled = {line.rpartition("/")[2] for line in log.splitlines() if "Compiling" in line}
    assert compiled == {"model.c.o", "build_id.c.o"}
    assert second.flash_bytes == first.flash_bytes


def test_a_broken_model_gives_the_compilers_first_error_in_one_line(
    model_dir: Path, builds_dir: Path
) -> None:
    edit(model_dir, "mark(0);", "mark(0)")

    with pytest.raises(BuildError) as caught:
        build(model_dir, NRF, builds_dir=builds_dir)

    assert "model.c:" in caught.value.first_error
    assert "expected ';'" in caught.value.first_error
    assert "\n" not in str(caught.value)
    assert "expected ';'" in caught.value.log_path.read_text()


def test_a_warning_in_generated_code_stops_the_build(model_dir: Path, builds_dir: Path) -> None:
    edit(
        model_dir, "    mark(0);", "    int8_t x = model_info.layer_count;\n    mark((uint32_t)x);"
    )

    with pytest.raises(BuildError, match="Werror=conversion"):
        build(model_dir, NRF, builds_dir=builds_dir)


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (
            "In file included from a.h:3,\n                 from model.c:1:\n"
            "kernels/b.h:7:5: error: unknown type name 'q7'\nmodel.c:9:1: error: later\n",
            "kernels/b.h:7:5: error: unknown type name 'q7'",
        ),
        (
            "model.c:4:10: fatal error: missing.h: No such file or directory\n",
            "model.c:4:10: fatal error: missing.h: No such file or directory",
        ),
        (
            "Linking x\n/usr/lib/ld: build/main.o: in function `main':\n"
            "src/main.c:30: undefined reference to `model_init'\ncollect2: error: ld returned 1\n",
            "src/main.c:30: undefined reference to `model_init'",
        ),
        (
            "error: boards/x.toml [build]: family 'avr' has no port\n*** [x] Error 1\n",
            "error: boards/x.toml [build]: family 'avr' has no port",
        ),
        (
            "Error: Unknown environment names 'x'. Valid names are 'nrf52840_dk'\n",
            "Error: Unknown environment names 'x'. Valid names are 'nrf52840_dk'",
        ),
        ("Traceback (most recent call last):\nKeyError: 'build'\n", "KeyError: 'build'"),
        ("something else entirely\n", "something else entirely"),
        ("", "no output"),
    ],
)
def test_the_first_error_of_a_log_is_found(tmp_path: Path, log: str, first: str) -> None:
    error = build_module._failure("echo", NRF, log, tmp_path / "log")

    assert isinstance(error, BuildError)
    assert error.first_error == first


def test_weights_beyond_the_flash_say_how_much_is_missing(tmp_path: Path) -> None:
    log = "ld: section `.model_weights' will not fit in region `FLASH'\n"
    log += "ld: region `FLASH' overflowed by 61872 bytes\n"

    error = build_module._failure("echo", NRF, log, tmp_path / "log")

    assert isinstance(error, DoesNotFit)
    assert (error.memory, error.needed_bytes) == ("flash", 1_048_576 + 61872)


def test_an_arena_beyond_the_ram_says_how_much_is_missing(
    model_dir: Path, builds_dir: Path
) -> None:
    edit(model_dir, "model_arena[2 * BYTES]", "model_arena[300 * 1024]")

    with pytest.raises(DoesNotFit) as caught:
        build(model_dir, NRF, builds_dir=builds_dir)

    assert (caught.value.memory, caught.value.have_bytes) == ("RAM", 262_144)
    bench_bytes = caught.value.needed_bytes - 300 * 1024
    assert 4096 < bench_bytes < 4096 + 2048  # the stack, and what the bench itself holds


def test_flags_of_the_manifest_reach_the_model_and_not_the_bench(
    model_dir: Path, builds_dir: Path
) -> None:
    manifest = json.loads((model_dir / "manifest.json").read_text())
    manifest["build"]["flags"] = ["-O3", "-DFROM_THE_MANIFEST=1"]
    (model_dir / "manifest.json").write_text(json.dumps(manifest))
    edit(
        model_dir,
        "enum { BYTES",
        '_Static_assert(FROM_THE_MANIFEST == 1, "not there");\nenum { BYTES',
    )

    firmware = build(model_dir, NRF, builds_dir=builds_dir)

    assert firmware.compiler_flags[-2:] == ("-O3", "-DFROM_THE_MANIFEST=1")


def test_a_cpp_source_builds_and_its_constructors_are_kept(
    model_dir: Path, builds_dir: Path
) -> None:
    (model_dir / "extra.cc").write_text(
        "struct S { int v; S() : v(__builtin_return_address(0) != nullptr) {} };\n"
        'S s; extern "C" int extra(void); int extra(void) { return s.v; }\n'
    )
    edit(model_dir, "enum { BYTES", "int extra(void);\nenum { BYTES")
    edit(model_dir, "    return NULL;", '    return extra() != 0 ? NULL : "no constructor ran";')

    firmware = build(model_dir, NRF, builds_dir=builds_dir)

    with open(firmware.elf, "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        start = table.get_symbol_by_name("__init_array_start")[0]["st_value"]
        end = table.get_symbol_by_name("__init_array_end")[0]["st_value"]
    assert end - start == 4


def test_two_builds_of_the_same_thing_at_once_give_one_folder(empty_builds_dir: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build(ECHO, NRF, builds_dir=empty_builds_dir), range(2))

    assert first == second
    folders = {path for path in (empty_builds_dir / NRF.id).iterdir() if path.is_dir()}
    assert {path for path in folders if "parts" not in path.name} == {first.elf.parent}
    assert len(folders) == 2


def test_a_build_killed_half_way_is_done_again(model_dir: Path, empty_builds_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from hil.board import get_board; "
        "from hil.build import build; "
        "build(Path(sys.argv[1]), get_board('nrf52840_dk'), builds_dir=Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(model_dir), str(empty_builds_dir)]
    )
    partials = empty_builds_dir / NRF.id
    deadline = time.monotonic() + 30.0
    while not list(partials.glob("*.partial/work/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    firmware = build(model_dir, NRF, builds_dir=empty_builds_dir)

    assert firmware.elf.is_file()
    assert not list(partials.glob("*.partial"))


def test_the_least_recently_used_folders_are_forgotten(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.log").touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "d.partial").mkdir()

    forget_oldest(tmp_path, keep=2)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.log", "b", "b.log", "d.partial"]


def test_a_board_without_an_environment_says_which_line_to_add(
    model_dir: Path, tmp_path: Path
) -> None:
    board = dataclasses.replace(get_board("nrf52840_dk"), id="mine")

    with pytest.raises(UsageError, match=r"platformio\.ini has no \[env:mine\]; add that line"):
        build(model_dir, board, builds_dir=tmp_path)


def test_a_build_that_does_not_end_is_killed(empty_builds_dir: Path) -> None:
    with pytest.raises(BuildError, match="not finished after"):
        build(ECHO, NRF, builds_dir=empty_builds_dir, timeout_s=0.2)


def test_a_failed_build_can_be_mended_and_tried_again(model_dir: Path, builds_dir: Path) -> None:
    edit(model_dir, "mark(0);", "mark(0)")
    with pytest.raises(BuildError):
        build(model_dir, NRF, builds_dir=builds_dir)

    edit(model_dir, "mark(0)\n", "mark(0);\n")

    assert build(model_dir, NRF, builds_dir=builds_dir).elf.is_file()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read"),
        ("{", "no manifest"),
        ("[]", "no manifest"),
        ('{"build": {"flags": []}}', "no manifest"),
        (
            '{"model": {"name": "m"}, "engine": "tiny", "build": '
            '{"flags": "-O2", "source_dirs": [], "include_dirs": [], "libraries": []}}',
            "'flags' should be a list of strings",
        ),
    ],
)
def test_a_bad_manifest_is_a_sentence(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(UsageError, match=problem):
        read_recipe(tmp_path)


def test_a_recipe_keeps_every_list_of_the_manifest() -> None:
    assert read_recipe(ECHO) == Recipe("echo", "none", flags=("-O2",))
