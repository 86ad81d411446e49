"""A generated folder of C to a firmware for one board, through PlatformIO (firmware/platform).

Every build has its own folder, build/firmware/<board>/<build id>/, named by a hash over everything
that goes into it; a build that is there already is used again. Objects that do not depend on the
model are kept beside it, in parts-<hash>, and used by the next model. Folders appear all at once,
by a rename, so that a build killed half-way leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from elftools.elf.elffile import ELFFile

from hil import child
from hil.board import Board
from hil.errors import BuildError, DoesNotFit, UsageError
from hil.platformio_core import ROOT, prepare_core_dir
from hil.recipe import Recipe, read_recipe

FIRMWARE_DIR = ROOT / "firmware"
BUILDS_DIR = ROOT / "build" / "firmware"
COMPILER = "arm-none-eabi-gcc"

#: Builds, and generated folders, that are kept for each board: hundreds of megabytes, no more.
KEPT_FOLDERS = 300

# Python modules that the platform's builder takes its facts from.
_BUILDER_MODULES = ("hil/board.py", "hil/recipe.py")
_KEPT = ("firmware.elf", "firmware.map", "toolchain.json")
_PARTS = ("bench", "engine")  # folders of objects that do not depend on the model

_OVERFLOW = re.compile(r"region `(RAM|FLASH)' overflowed by (\d+) bytes?")
_FIRST_ERROR = re.compile(
    r"^(?:.*?:\d+:(?:\d+:)? (?:fatal )?error: .*"  # the compiler, and what it includes
    r"|.*undefined reference to .*|.*multiple definition of .*|.*cannot find -l.*"  # the linker
    r"|.*: error: .*|error: .*|Error: .*|\w*(?:Error|Exception): .*)$",  # drivers, ours, Python
    re.MULTILINE,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlashBytes:
    """Flash that is programmed: `weights` are the model's constants, `code` all the rest."""

    code: int
    weights: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """A finished build.

    RAM: `arena_bytes` is the model's arena, `static_bytes` .data, .bss and copies of constants,
    `stack_bytes` what is reserved for the stack. `compiler_flags` are those of the model's sources.
    """

    board: str
    build_id: str
    elf: Path
    sha256: str
    flash_bytes: FlashBytes
    static_bytes: int
    arena_bytes: int
    stack_bytes: int
    compiler: str
    compiler_flags: tuple[str, ...]


def build(
    model_dir: Path,
    board: Board,
    *,
    mlperf: bool = False,
    builds_dir: Path = BUILDS_DIR,
    jobs: int = 2,
    timeout_s: float = 300.0,
) -> Firmware:
    """The firmware of a generated folder for a board; built only if it is not there yet.

    Several may run at once, of the same thing too: one builds, the others wait for it.

    Args:
        model_dir: folder of C with a manifest.json.
        board: one of boards/; PlatformIO's environment has its id.
        mlperf: whether it takes inputs as MLPerf Tiny's data sets hold them; a kB more of code.
        builds_dir: where finished builds are kept.
        jobs: compilers at once.
        timeout_s: for the whole build, waiting for another one included.

    Raises:
        BuildError: the compiler, the linker or PlatformIO failed; carries the first error.
        DoesNotFit: the image is larger than the board's flash or RAM.
        UsageError: no manifest, or no compiler.
    """
    model_dir = model_dir.resolve()
    recipe = read_recipe(model_dir)
    parts = parts_id(recipe, board, mlperf=mlperf)
    build_id = _build_id(parts, model_dir, recipe)
    finished = builds_dir / board.id / build_id
    if f"[env:{board.id}]" not in (FIRMWARE_DIR / "platformio.ini").read_text(encoding="utf-8"):
        raise UsageError(f"firmware/platformio.ini has no [env:{board.id}]; add that line")
    if finished.is_dir():
        os.utime(finished)  # the least recently used ones go first
    else:
        deadline = time.monotonic() + timeout_s
        finished.parent.mkdir(parents=True, exist_ok=True)
        what = f"{recipe.model} with engine {recipe.engine}"
        with _lock(finished.with_suffix(".lock"), deadline, what) as lock:
            if not finished.is_dir():
                parts_dir = finished.with_name(f"parts-{parts}")
                work = _Work(what, model_dir, board, mlperf, finished, parts_dir, jobs)
                work.run(deadline, lock)
        forget_oldest(finished.parent)
    return _read_firmware(finished, board.id, build_id)


@dataclass(frozen=True, slots=True)
class _Work:
    """One build that has to be done; the caller holds its lock."""

    what: str
    model_dir: Path
    board: Board
    mlperf: bool
    finished: Path
    parts: Path
    jobs: int

    def run(self, deadline: float, lock: IO[str]) -> None:
        """Builds in a folder beside the finished one and renames it."""
        partial = self.finished.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
        work = partial / "work"
        work.mkdir(parents=True)
        log_path = self.finished.with_suffix(".log")
        command = [sys.executable, "-m", "platformio", "run"]
        command += ["-e", self.board.id, "-j", str(self.jobs)]
        started = time.monotonic()
        try:
            with open(log_path, "wb") as log:
                # The child inherits the lock: when this process is killed where tools outlive it,
                # nobody builds the same until the orphan has ended too.
                ended = child.run(
                    command,
                    timeout_s=deadline - time.monotonic(),
                    cwd=FIRMWARE_DIR,
                    env=self._environment(work),
                    log=log,
                    pass_fds=(lock.fileno(),),
                )
            seconds = time.monotonic() - started
            if ended.code is None:
                whole = f"{self.what} for {self.board.id}"
                raise BuildError(whole, f"not finished after {seconds:.0f} s", log_path)
            if ended.code != 0:
                log_text = log_path.read_text(encoding="utf-8", errors="replace")
                raise _failure(self.what, self.board, log_text, log_path)
            output = work / self.board.id
            self._keep_parts(output, partial / "parts")
            for name in _KEPT:
                (output / name).rename(partial / name)
            shutil.rmtree(work)
            partial.rename(self.finished)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _log.info("built %s for %s in %.1f s", self.what, self.board.id, seconds)

    def _environment(self, work: Path) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PLATFORMIO_", "HIL_"))
        }
        if self.parts.is_dir():
            os.utime(self.parts)
            inherited["HIL_PARTS_DIR"] = str(self.parts)
        if self.mlperf:
            inherited["HIL_MLPERF_DATA"] = "1"
        return inherited | {
            "HIL_MODEL_DIR": str(self.model_dir),
            "HIL_BUILD_ID": self.finished.name,
            "PLATFORMIO_CORE_DIR": str(prepare_core_dir()),
            "PLATFORMIO_WORKSPACE_DIR": str(work),
            "PLATFORMIO_BUILD_DIR": str(work),
            "PLATFORMIO_NO_ANSI": "true",
            "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
            "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "36500",  # days: never ask the network
        }

    def _keep_parts(self, output: Path, staged: Path) -> None:
        """Moves the objects that other models can use to the parts folder, if it is not there."""
        if self.parts.is_dir():
            return
        staged.mkdir()
        for name in _PARTS:
            if (output / name).is_dir():
                (output / name).rename(staged / name)
        try:
            staged.rename(self.parts)
        except OSError:  # a build of another model was quicker
            shutil.rmtree(staged)


def forget_oldest(folder: Path, keep: int = KEPT_FOLDERS) -> None:
    """Removes the least recently used folders but for `keep`, so that searches fill no disk."""
    aged = []
    for path in folder.iterdir():
        if path.suffix != ".partial":
            with contextlib.suppress(FileNotFoundError):  # another process forgets, too
                if path.is_dir():
                    aged.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(aged, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
        for suffix in (".log", ".lock"):
            path.with_suffix(suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path, deadline: float, what: str) -> Iterator[IO[str]]:
    """An exclusive lock that the kernel drops with the last process that holds it."""
    with open(path, "w", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildError(
                        what, "another process builds the same and does not end", path
                    ) from None
                time.sleep(0.05)
        yield file


def _failure(what: str, board: Board, log: str, log_path: Path) -> BuildError | DoesNotFit:
    """The error that a failed build's log tells of."""
    overflow = _OVERFLOW.search(log)
    if overflow:
        memory, have = (
            ("RAM", board.ram_bytes) if overflow[1] == "RAM" else ("flash", board.flash_bytes)
        )
        return DoesNotFit(
            f"the firmware of {what}", board.id, memory, have + int(overflow[2]), have
        )
    first = _FIRST_ERROR.search(log)
    lines = [line for line in log.splitlines() if line.strip()]
    text = first[0].strip() if first else (lines[-1] if lines else "no output")
    return BuildError(f"{what} for {board.id}", text.replace(f"{ROOT}/", ""), log_path)


def parts_id(recipe: Recipe, board: Board, *, mlperf: bool = False) -> str:
    """16 hexadecimal digits of a hash over all that a build takes, but for the model."""
    digest = hashlib.sha256()
    _add(digest, "compiler", compiler_version().encode())
    _add(digest, "board", board.sha256.encode())
    flags = (recipe.flags, recipe.source_dirs, recipe.include_dirs)
    _add(digest, "flags", repr(flags).encode())
    _add(digest, "mlperf", repr(mlperf).encode())
    folders = ["src", "include", "ld", "platform", "kernels", f"ports/{board.build.family}"]
    for folder in [*folders, *recipe.source_dirs]:
        for path in _files(FIRMWARE_DIR / folder):
            _add(digest, str(path.relative_to(FIRMWARE_DIR)), path.read_bytes())
    for path in [FIRMWARE_DIR / "platformio.ini", *(ROOT / module for module in _BUILDER_MODULES)]:
        _add(digest, path.name, path.read_bytes())
    for path in (file for folder in recipe.include_dirs for file in _files(Path(folder))):
        status = path.stat()  # thousands of headers: size and time stand for the content
        _add(digest, str(path), f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _build_id(parts: str, model_dir: Path, recipe: Recipe) -> str:
    """16 hexadecimal digits of a hash over everything that the build depends on."""
    digest = hashlib.sha256(parts.encode())
    for path in _files(model_dir):
        _add(digest, str(path.relative_to(model_dir)), path.read_bytes())
    for path in map(Path, recipe.libraries):
        _add(digest, str(path), path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


@functools.cache
def compiler_version() -> str:
    """The first line that the compiler says of itself; raises UsageError if there is none."""
    try:
        result = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise UsageError(
            f"{COMPILER} is not installed; run: sudo apt-get install gcc-arm-none-eabi "
            "libnewlib-arm-none-eabi"
        ) from None
    return result.stdout.partition("\n")[0]


def _read_firmware(folder: Path, board_id: str, build_id: str) -> Firmware:
    """The finished build in a folder; sizes come from the ELF itself."""
    elf_path = folder / "firmware.elf"
    toolchain = json.loads((folder / "toolchain.json").read_text(encoding="utf-8"))
    with open(elf_path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        elf = ELFFile(file)
        sizes = {section.name: section["sh_size"] for section in elf.iter_sections()}
        programmed = sum(s["p_filesz"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD")
    copied = sizes.get(".model_weights_ram", 0)
    weights = sizes.get(".model_weights", 0) + copied
    return Firmware(
        board=board_id,
        build_id=build_id,
        elf=elf_path,
        sha256=digest,
        flash_bytes=FlashBytes(programmed - weights, weights, programmed),
        static_bytes=sizes.get(".data", 0) + sizes.get(".bss", 0) + copied,
        arena_bytes=sizes.get(".arena", 0),
        stack_bytes=toolchain["stack_bytes"],
        compiler=toolchain["compiler"],
        compiler_flags=tuple(toolchain["model_flags"]),
    )
