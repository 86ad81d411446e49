"""Builds the bench firmware and one model folder for one board; run by PlatformIO's SCons.

The environment's name is the board's id; everything else comes from boards/<id>.toml. The model's
sources and its compiler flags come from the generated folder that HIL_MODEL_DIR names (default:
firmware/models/echo) and its manifest.json. Written into $BUILD_DIR: memory.ld (the linker script's
regions), build_id.c, firmware.elf, firmware.map and toolchain.json (compiler and flags).

HIL_MLPERF_DATA, when set, builds for MLPerf Tiny's data sets (src/mlperf_data.h).

Objects that do not depend on the model (the bench, an engine's interpreter) are taken from
HIL_PARTS_DIR when that is set: hil/build.py keeps them from an earlier build with the same sources
and flags. By hand everything is compiled here.

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
# Fixed: a model's flags must not change the code around the measured window. Small, because every
# image carries this code: no memset for a loop that clears a few words.
BENCH_FLAGS = ["-Os", "-fno-tree-loop-distribute-patterns"]
LINK_FLAGS = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-Wl,--fatal-warnings"]
SOURCES = (".c", ".cc", ".cpp", ".S")


def stop(message):
    """Ends the build with one line on stderr."""
    sys.stderr.write(f"error: {message}\n")
    env.Exit(1)


def sources_in(folder):
    """C, C++ and assembly files directly in a folder, in a fixed order."""
    return sorted(path for path in folder.iterdir() if path.suffix in SOURCES)


def objects(folders, name, *, flags, include_dirs, defines=()):
    """One object per source in `folders`: that of HIL_PARTS_DIR, or one to compile."""
    parts = os.environ.get("HIL_PARTS_DIR")
    group = env.Clone()
    group.Replace(CPPPATH=[str(path) for path in include_dirs])
    group.Append(CCFLAGS=flags, CPPDEFINES=list(defines))
    found = []
    for number, folder in enumerate(folders):
        for source in sources_in(folder):
            place = Path(name) / str(number) / f"{source.name}.o"
            if parts and (Path(parts) / place).is_file():
                found.append(env.File(str(Path(parts) / place)))
            else:
                found += group.Object(target=str(BUILD / place), source=env.File(str(source)))
    return found


def write_if_changed(path, text):
    """Writes a file that the build makes, unless it holds that text already."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


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
write_if_changed(BUILD / "memory.ld", memory_ld)
build_id = os.environ.get("HIL_BUILD_ID", "0" * 16)
(BUILD / "id").mkdir(exist_ok=True)
write_if_changed(
    BUILD / "id" / "build_id.c",
    f'#include "build_id.h"\n\nconst char build_id[] = "{build_id}";\n',
)

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
    ASPPFLAGS=[*CPU_FLAGS[board.mcu.core], "-g"],
    LINKFLAGS=[
        *CPU_FLAGS[board.mcu.core],
        *LINK_FLAGS,
        f"-L{BUILD}",
        f"-T{FIRMWARE / 'ld' / 'firmware.ld'}",
        f"-Wl,-Map={BUILD / 'firmware.map'}",
    ],
)
env.ProcessFlags(env.get("BUILD_FLAGS"))

include_dirs = [FIRMWARE / "include", FIRMWARE / "kernels"]
engine_dirs = [FIRMWARE / folder for folder in recipe.source_dirs]
image_objects = [
    *objects(
        [FIRMWARE / "src", port_dir],
        "bench",
        flags=BENCH_FLAGS,
        include_dirs=[FIRMWARE / "include", FIRMWARE / "src"],
        defines=[
            ("HIL_BOARD", f'\\"{board.id}\\"'),
            ("HIL_CLOCK_HZ", board.mcu.clock_hz),
            ("HIL_BAUD", board.link.baud),
            *([("HIL_MLPERF_DATA", 1)] if os.environ.get("HIL_MLPERF_DATA") else []),
            *sorted(board.build.defines.items()),
        ],
    ),
    *objects(
        engine_dirs,
        "engine",
        flags=list(recipe.flags),
        include_dirs=[*include_dirs, *engine_dirs, *recipe.include_dirs],
    ),
    *objects(
        [model_dir],
        "model",
        flags=list(recipe.flags),
        include_dirs=[model_dir, *include_dirs, *engine_dirs, *recipe.include_dirs],
    ),
    *objects([BUILD / "id"], "id_object", flags=BENCH_FLAGS, include_dirs=[FIRMWARE / "src"]),
]
libraries = [env.File(path) for path in recipe.libraries]
elf = env.Program(env.subst("$PROGPATH"), image_objects, LIBS=[*libraries, "m"])
env.Depends(elf, [str(BUILD / "memory.ld"), str(FIRMWARE / "ld" / "firmware.ld"), *libraries])
env.Replace(PIOMAINPROG=elf)

compiler = subprocess.run(
    [env["CC"], "--version"], check=True, capture_output=True, text=True
).stdout.splitlines()[0]
suffixes = {source.suffix for folder in [model_dir, *engine_dirs] for source in sources_in(folder)}
languages = [
    *(C_FLAGS if ".c" in suffixes else []),
    *(CXX_FLAGS if suffixes & {".cc", ".cpp"} else []),
]
toolchain = {
    "compiler": compiler,
    "bench_flags": [*CPU_FLAGS[board.mcu.core], *COMMON_FLAGS, *C_FLAGS, *BENCH_FLAGS],
    "model_flags": [*CPU_FLAGS[board.mcu.core], *COMMON_FLAGS, *languages, *recipe.flags],
    "stack_bytes": STACK_BYTES,
}
(BUILD / "toolchain.json").write_text(json.dumps(toolchain, indent=2) + "\n")

upload_port = env.subst("$UPLOAD_PORT") or f"virtual:{board.id}"
upload = env.Alias(
    "upload",
    elf,
    env.VerboseAction(
        f'"$PYTHONEXE" -m hil.flash --type {board.id} --board "{upload_port}" $SOURCE',
        f"Flashing {upload_port}",
    ),
)
env.AlwaysBuild(upload)
env.Default(elf)
