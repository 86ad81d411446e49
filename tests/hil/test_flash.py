"""Flashing tools are stood in for by scripts that write down how they were called."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import get_type_hints

import pytest

from hil import flash
from hil.board import Board, Flash, get_board
from hil.errors import FlashError

ELF = b"\x7fELF"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    path = tmp_path / "with a blank.elf"
    path.write_bytes(ELF)
    return path


def stand_in(tools: Path, name: str, script: str = "") -> Path:
    """A tool that appends its arguments, one per line, to a file, and then runs `script`."""
    calls = tools / f"{name}.calls"
    tool = tools / name
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>"{calls}"\n{script}\n')
    tool.chmod(0o755)
    return calls


def with_method(board: Board, method: str, target: str) -> Board:
    return dataclasses.replace(board, flash=Flash(method, target))  # type: ignore[arg-type]


def test_every_method_of_a_board_file_is_registered() -> None:
    allowed = get_type_hints(Flash)["method"].__args__

    assert sorted(allowed) == flash.method_names()


def test_openocd_programs_verifies_and_resets_the_probe_that_was_named(
    tools: Path, elf: Path
) -> None:
    calls = stand_in(tools, "openocd")

    flash.program(get_board("stm32f746g_disco"), elf, place="desk", probe_id="0669FF")

    assert calls.read_text().splitlines() == [
        "openocd",
        "-f",
        "board/stm32f746g-disco.cfg",
        "-c",
        "adapter serial 0669FF",
        "-c",
        f"program {{{elf}}} verify reset exit",
    ]


def test_pyocd_compares_what_it_wrote(tools: Path, elf: Path) -> None:
    stand_in(tools, "arm-none-eabi-objcopy")
    calls = stand_in(tools, "pyocd")

    flash.program(with_method(get_board("nrf52840_dk"), "pyocd", "nrf52840"), elf, place="desk")

    text = calls.read_text()
    assert text.index("load") < text.index("compare 0x00000000")
    assert "auto_unlock=false" in text


def test_jlink_gets_a_command_file_with_the_image(tools: Path, elf: Path) -> None:
    copy = tools / "copy"
    stand_in(tools, "JLinkExe", f'for last; do :; done; cp "$last" "{copy}"')

    flash.program(with_method(get_board("nrf52840_dk"), "jlink", "nRF52840_xxAA"), elf, place="d")

    assert f'loadfile "{elf}"' in copy.read_text()


def test_a_failed_tool_is_reported_with_its_code_and_last_words(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", "echo one; echo 'Error: no device found' >&2; exit 3")

    with pytest.raises(FlashError, match=r"desk by openocd.*code 3.*no device found"):
        flash.program(get_board("stm32f746g_disco"), elf, place="desk")


def test_a_tool_that_hangs_is_killed_with_its_children(tools: Path, elf: Path) -> None:
    pid_file = tools / "child"
    stand_in(tools, "openocd", f'sleep 60 & echo $! >"{pid_file}"; wait')

    with pytest.raises(FlashError, match="did not end"):
        flash.program(get_board("stm32f746g_disco"), elf, place="desk", timeout_s=0.5)

    deadline = time.monotonic() + 5.0
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(int(pid_file.read_text()))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_tool_is_named(
    tmp_path: Path, elf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FlashError, match="openocd is not installed"):
        flash.program(get_board("stm32f746g_disco"), elf, place="desk")
