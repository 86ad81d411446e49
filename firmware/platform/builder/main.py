"""Builds the bench firmware and one model folder for one board; run by PlatformIO's SCons.

The environment's name is the board's id; everything else comes from boards/<id>.toml. The model's
sources and its compiler flags come from the generated folder that HIL_MODEL_DIR names (default:
firmware/models/echo) and its manifest.json. Written into $BUILD_DIR: memory.ld (the linker script's
regions), firmware.elf, firmware.map and toolchain.json (compiler and flags).

What PlatformIO does by itself elsewhere (libraries, frameworks, downloaded compilers) is not used:
nothing here needs a network.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()

FIRMWARE = Path(env.subst("$PROJECT_DIR")).resolve()
ROOT = FIRMWARE.parent
BUILD = Path(env.subst("$BUILD_DIR")).resolve()
sys.path.insert(0, str(ROOT))

from hil.board import get_board  # noqa: E402  (the path is set above: works without an installed hil)
from hil.errors import HilError  # noqa: E402
from hil.recipe import read_recipe  # noqa: E402

STACK_BYTES = 4096
CPU_FLAGS = {
    "cortex-m4": ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
    "cortex-m7": ["-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
}
COMMON_FLAGS = ["-g", "-ffunction-sections", "-fdata-sections", "-fno-common"]
C_FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
C_FLAGS += ["-Wshadow", "-Wundef", "-Wconversion", "-Wdouble-promotion"]
# for a user's own C++ libraries: no run-time support beyond constructors
CXX_FLAGS = ["-std=c++17", "-Wall", "-fno-exceptions", "-fno-rtti"]
CXX_FLAGS += ["-fno-threadsafe-statics", "-fno-use-cxa-atexit"]
BENCH_FLAGS = ["-O2"]  # fixed: a model's flags must not change the code around the measured window
LINK_FLAGS = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-Wl,--fatal-warnings"]
SOURCES = (".c", ".cc", ".cpp")


def stop(message):
    """Ends the build with one line on stderr."""
    sys.stderr.write(f"error: {message}\n")
    env.Exit(1)


def sources_in(folder):
    """C and C++ files directly in a folder, in a fixed order."""
    return sorted(path for path in folder.iterdir() if path.suffix in SOURCES)


def objects(folders, name, flags, include_dirs):
    """One object per source in `folders`, under $BUILD_DIR/<name>."""
    group = env.Clone()
    group.Replace(CPPPATH=[str(path) for path in include_dirs])
    group.Append(CCFLAGS=flags)
    built = []
    for number, folder in enumerate(folders):
        for source in sources_in(folder):
            target = BUILD / name / str(number) / f"{source.name}.o"
            built += group.Object(target=str(target), source=env.File(str(source)))
    return built


try:
    board = get_board(env["PIOENV"])
    model_dir = Path(os.environ.get("HIL_MODEL_DIR", FIRMWARE / "models" / "echo")).resolve()
    recipe = read_recipe(model_dir)
except HilError as error:
    stop(error)

port_dir = FIRMWARE / "ports" / board.build.family
if not (port_dir / "port.c").is_file():
    stop(
        f"boards/{board.id}.toml [build]: family {board.build.family!r} has no port; "
        f"there is no {port_dir.relative_to(ROOT)}/port.c"
    )

ram_origin, ram_bytes = board.ram
flash = board.flash_memory
memory_ld = f"""/* Written by firmware/platform from boards/{board.id}.toml. */
STACK_BYTES = {STACK_BYTES};
MEMORY
{{
    FLASH (rx)  : ORIGIN = 0x{flash.origin:08X}, LENGTH = {flash.size_bytes}
    RAM   (rwx) : ORIGIN = 0x{ram_origin:08X}, LENGTH = {ram_bytes}
}}
"""
BUILD.mkdir(parents=True, exist_ok=True)
memory_path = BUILD / "memory.ld"
if not memory_path.is_file() or memory_path.read_text() != memory_ld:
    memory_path.write_text(memory_ld)

env.Replace(
    AR="arm-none-eabi-gcc-ar",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    LINK="arm-none-eabi-gcc",  # for C++ too: Debian's package has no libstdc++
    RANLIB="arm-none-eabi-gcc-ranlib",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    CCFLAGS=[*CPU_FLAGS[board.mcu.core], *COMMON_FLAGS, f"-ffile-prefix-map={ROOT}=."],
    CFLAGS=C_FLAGS,
    CXXFLAGS=CXX_FLAGS,
    CPPDEFINES=[
        ("HIL_BOARD", f'\\"{board.id}\\"'),
        ("HIL_BUILD_ID", f'\\"{os.environ.get("HIL_BUILD_ID", "0" * 16)}\\"'),
        ("HIL_CLOCK_HZ", board.mcu.clock_hz),
        ("HIL_BAUD", board.link.baud),
        *sorted(board.build.defines.items()),
    ],
    LINKFLAGS=[
        *CPU_FLAGS[board.mcu.core],
        *LINK_FLAGS,
        f"-L{BUILD}",
        f"-T{FIRMWARE / 'ld' / 'firmware.ld'}",
        f"-Wl,-Map={BUILD / 'firmware.map'}",
    ],
)
env.ProcessFlags(env.get("BUILD_FLAGS"))

bench_objects = objects(
    [FIRMWARE / "src", port_dir], "bench", BENCH_FLAGS, [FIRMWARE / "include", FIRMWARE / "src"]
)
model_objects = objects(
    [model_dir, *(FIRMWARE / folder for folder in recipe.source_dirs)],
    "model",
    list(recipe.flags),
    [
        model_dir,
        FIRMWARE / "include",
        FIRMWARE / "kernels",
        *(FIRMWARE / folder for folder in recipe.source_dirs),
        *recipe.include_dirs,
    ],
)
libraries = [env.File(path) for path in recipe.libraries]
elf = env.Program(env.subst("$PROGPATH"), bench_objects + model_objects, LIBS=[*libraries, "m"])
env.Depends(elf, [str(memory_path), str(FIRMWARE / "ld" / "firmware.ld"), *libraries])
env.Replace(PIOMAINPROG=elf)

compiler = subprocess.run(
    [env["CC"], "--version"], check=True, capture_output=True, text=True
).stdout.splitlines()[0]
toolchain = {
    "compiler": compiler,
    "bench_flags": [*CPU_FLAGS[board.mcu.core], *COMMON_FLAGS, *C_FLAGS, *BENCH_FLAGS],
    "model_flags": [*CPU_FLAGS[board.mcu.core], *COMMON_FLAGS, *C_FLAGS, *recipe.flags],
    "stack_bytes": STACK_BYTES,
}
(BUILD / "toolchain.json").write_text(json.dumps(toolchain, indent=2) + "\n")

upload_port = env.subst("$UPLOAD_PORT") or f"virtual:{board.id}"
upload = env.Alias(
    "upload",
    elf,
    env.VerboseAction(
        f'"$PYTHONEXE" -m hil.flash --board {upload_port} $SOURCE', f"Flashing {upload_port}"
    ),
)
env.AlwaysBuild(upload)
env.Default(elf)
