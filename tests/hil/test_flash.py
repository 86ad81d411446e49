"""Flashing tools are stood in for by scripts that write down how they were called.

What they print follows what the real tools print; test_pyocd_flash.py has the real pyOCD.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest
from elf_files import write_elf

from hil import flash
from hil.board import Flash, board_ids, get_board
from hil.errors import ChipLocked, FlashError, ProbeGone, UsageError, VerifyFailed
from hil.flash_tools import FlashReport
from hil.health import Ledger

DISCO = get_board("stm32f746g_disco")
CODE = bytes(range(256)) * 4


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    """One that touches the first two sectors of the F746, under an awkward name."""
    return write_elf(tmp_path / "with a blank {.elf", {0x0800_0000: CODE, 0x0800_8000: CODE})


def stand_in(tools: Path, name: str, script: str = "") -> Path:
    """A tool that appends its arguments, one per line, to a file, and then runs `script`."""
    calls = tools / f"{name}.calls"
    tool = tools / name
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>"{calls}"\n{script}\n')
    tool.chmod(0o755)
    return calls


def says(text: str, code: int = 0) -> str:
    return f"cat <<'END'\n{text}\nEND\nexit {code}"


def test_every_method_of_a_board_file_is_registered() -> None:
    allowed = get_type_hints(Flash)["method"].__args__

    assert sorted(allowed) == flash.method_names()


@pytest.mark.parametrize("board_id", board_ids())
def test_every_board_says_what_every_method_calls_its_chip(board_id: str) -> None:
    assert all(get_board(board_id).flash.target_of(method) for method in flash.method_names())


# what is common to all methods


def test_a_failed_tool_is_reported_with_its_code_and_last_words(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", "echo one; echo 'Error: out of cheese' >&2; exit 3")

    with pytest.raises(FlashError, match=r"desk by openocd.*code 3.*out of cheese"):
        flash.program(DISCO, elf, place="desk", method="openocd")


def test_a_tool_that_hangs_is_killed_at_its_deadline(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", "echo began; exec sleep 600")

    with pytest.raises(FlashError, match=r"did not end within .* its last lines: began"):
        flash.program(DISCO, elf, place="desk", method="openocd", timeout_s=1.0)


def test_a_missing_tool_is_named(
    tmp_path: Path, elf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FlashError, match="openocd is not installed"):
        flash.program(DISCO, elf, place="desk", method="openocd")


def test_an_unknown_method_is_the_users_mistake(elf: Path) -> None:
    with pytest.raises(UsageError, match="'telepathy' is not known; known are jlink, openocd"):
        flash.program(DISCO, elf, place="desk", method="telepathy")


def test_an_image_beside_the_flash_is_refused_before_any_tool_runs(
    tools: Path, tmp_path: Path
) -> None:
    calls = stand_in(tools, "openocd")
    elf = write_elf(tmp_path / "a.elf", {0x0810_0000 - 4: bytes(8)})

    with pytest.raises(FlashError, match="0x080ffffc, which is not in the flash"):
        flash.program(DISCO, elf, place="desk", method="openocd")
    assert not calls.exists()


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.elf").write_text("hello")

    with pytest.raises(FlashError, match="not an ELF file"):
        flash.program(DISCO, tmp_path / "a.elf", place="desk")


def test_a_tool_inherits_the_lock_of_the_place(tools: Path, elf: Path, tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as lock:
        stand_in(tools, "openocd", f"ls -l /proc/self/fd/{lock.fileno()}; exit 9")

        with pytest.raises(FlashError, match=f"{tmp_path}/lock"):
            flash.program(DISCO, elf, place="desk", method="openocd", pass_fds=(lock.fileno(),))


def test_erased_sectors_and_written_bytes_go_to_the_ledger(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", says("hil: written\nwrote 65536 bytes from file x in 1.2s"))

    for _ in range(2):
        flash.program(DISCO, elf, place="worn_desk", method="openocd")

    with Ledger() as ledger:
        wear = ledger.wear("worn_desk")
    assert (wear.loads, wear.erased_sectors, wear.written_bytes) == (2, 4, 131_072)


# OpenOCD


def test_openocd_gets_the_probe_that_was_named_and_a_script(tools: Path, elf: Path) -> None:
    script = tools / "script"
    copy = f'for last; do :; done; cp "$last" "{script}"; echo "hil: written"'
    calls = stand_in(tools, "openocd", copy)

    flash.program(DISCO, elf, place="desk", method="openocd", probe="0669FF")

    words = calls.read_text().splitlines()
    assert words[:5] == [
        "openocd",
        "-f",
        "board/stm32f746g-disco.cfg",
        "-c",
        "adapter serial 0669FF",
    ]
    text = script.read_text()
    assert text.index("tcl_port disabled") < text.index("init")  # others may run beside it
    order = ["verify_image_checksum", "write_image erase", "verify_image ", "reset run", "shutdown"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "{.elf" not in text  # the image has a name that Tcl cannot misread


def test_openocd_skips_what_the_flash_holds(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", says("hil: the flash holds the image"))

    report = flash.program(DISCO, elf, place="desk", method="openocd")

    assert (report.erased_sectors, report.written_bytes) == (0, 0)
    assert report.skipped_bytes == report.bytes == 2 * len(CODE)


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ("Error: open failed", ProbeGone, "open failed"),
        ("Error: No J-Link device found", ProbeGone, "No J-Link"),
        ("Error: unable to find a matching CMSIS-DAP device", ProbeGone, "CMSIS-DAP"),
        ("Error: Multiple devices found, specify the desired device", ProbeGone, "Multiple"),
        (
            "nRF52 device has AP lock engaged (see UICR APPROTECT register).\nError: no",
            ChipLocked,
            "AP lock engaged.*mass erase.*destroys all of its flash",
        ),
        ("Info : RDP level 1 (0xBB)\nError: failed erasing", ChipLocked, "RDP level 1"),
        (
            "hil: written\ndiff 0 address 0x08000010. Was 0x00 instead of 0xff\n"
            "Error: checksum mismatch",
            VerifyFailed,
            "holds 0x00 at 0x08000010, where 0xff was written",
        ),
    ],
)
def test_what_openocd_says_becomes_an_error(
    tools: Path, elf: Path, words: str, error: type[FlashError], match: str
) -> None:
    stand_in(tools, "openocd", says(words, code=1))

    with pytest.raises(error, match=match) as raised:
        flash.program(DISCO, elf, place="desk", method="openocd")
    assert raised.type is error


def test_openocd_that_ends_well_without_having_written_is_an_error(tools: Path, elf: Path) -> None:
    stand_in(tools, "openocd", says("shutdown command invoked"))

    with pytest.raises(FlashError, match="shutdown command invoked"):
        flash.program(DISCO, elf, place="desk", method="openocd")


def test_openocd_resets_without_an_image(tools: Path) -> None:
    script = tools / "script"
    stand_in(tools, "openocd", f'for last; do :; done; cp "$last" "{script}"')

    flash.reset(DISCO, place="desk", method="openocd")

    assert script.read_text().split("\n")[-3:-1] == ["reset run", "shutdown"]
    assert "write_image" not in script.read_text()


# What stands in for the commands of a real OpenOCD that reach a board.
NO_BOARD = """
adapter driver dummy
proc init {} {}
proc reset {how} { echo "reset $how" }
proc verify_image_checksum {file} { %s }
proc flash {verb erase file} { echo "wrote 65536 bytes from file $file in 1.2s (53 KiB/s)" }
proc verify_image {file} { %s }
"""


@pytest.mark.skipif(
    shutil.which("openocd") is None, reason="needs openocd: apt-get install openocd"
)
@pytest.mark.parametrize(
    ("checksum", "verify", "outcome"),
    [
        ("", "error unused", (0, 0)),
        ("error mismatch", "", (2, 65_536)),
        (
            "error mismatch",
            'echo "diff 0 address 0x08000010. Was 0x00 instead of 0xff"; error mismatch',
            VerifyFailed,
        ),
    ],
)
def test_a_real_openocd_runs_the_script(
    elf: Path,
    tmp_path: Path,
    checksum: str,
    verify: str,
    outcome: tuple[int, int] | type[FlashError],
) -> None:
    config = tmp_path / "no_board.cfg"
    config.write_text(NO_BOARD % (checksum, verify))
    board = dataclasses.replace(DISCO, flash=Flash("openocd", str(config)))

    if isinstance(outcome, tuple):
        report = flash.program(board, elf, place="desk")
        assert (report.erased_sectors, report.written_bytes) == outcome
    else:
        with pytest.raises(outcome):
            flash.program(board, elf, place="desk")


@pytest.mark.skipif(
    shutil.which("openocd") is None, reason="needs openocd: apt-get install openocd"
)
def test_a_real_openocd_without_the_probe_is_told_from_a_failed_one(elf: Path) -> None:
    with pytest.raises(ProbeGone, match="open failed"):
        flash.program(DISCO, elf, place="desk", method="openocd", probe="hil-no-such-probe")


# J-Link


def test_jlink_gets_a_command_file_with_the_image(tools: Path, elf: Path) -> None:
    script = tools / "script"
    calls = stand_in(tools, "JLinkExe", f'for last; do :; done; cp "$last" "{script}"')

    report = flash.program(DISCO, elf, place="desk", method="jlink", probe="683012345")

    assert "-SelectEmuBySN\n683012345\n" in calls.read_text()
    assert script.read_text().split()[1:2] == ["loadfile"]
    assert report.erased_sectors == 2


def test_jlink_says_when_it_skipped(tools: Path, elf: Path) -> None:
    words = "J-Link: Flash download: Bank 0 @ 0x08000000: Skipped. Contents already match\nO.K."
    stand_in(tools, "JLinkExe", says(words))

    report = flash.program(DISCO, elf, place="desk", method="jlink")

    assert (report.erased_sectors, report.skipped_bytes) == (0, 2 * len(CODE))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Connecting to J-Link via USB...FAILED: Cannot connect to J-Link.", ProbeGone),
        ("Device is secured. Debug access is limited.\nCannot connect to target.", ChipLocked),
        ("Cannot connect to target.", FlashError),
    ],
)
def test_what_jlink_says_becomes_an_error(
    tools: Path, elf: Path, words: str, error: type[FlashError]
) -> None:
    stand_in(tools, "JLinkExe", says(words, code=1))

    with pytest.raises(FlashError) as raised:
        flash.program(DISCO, elf, place="desk", method="jlink")
    assert raised.type is error


@pytest.mark.parametrize("method", ["openocd", "jlink"])
def test_only_pyocd_reaches_the_probe_of_a_virtual_board(elf: Path, method: str) -> None:
    with pytest.raises(UsageError, match="use pyocd"):
        flash.program(DISCO, elf, place="virtual", method=method, probe="remote:127.0.0.1:5555")


# pyOCD, whose process is stood in for


@pytest.fixture
def answers(tools: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes hil.pyocd_flash print this answer, after some words on stderr."""
    monkeypatch.setattr(sys, "executable", str(tools / "python"))

    def answer(words: str = "", **fields: object) -> Path:
        counts = dict.fromkeys(FlashReport.__dataclass_fields__, 0)
        return stand_in(tools, "python", says(f"{words}\n{json.dumps(counts | fields)}"))

    return answer


def test_pyocd_gets_target_probe_and_image(answers: Callable[..., Path], elf: Path) -> None:
    calls = answers(bytes=2048, erased_sectors=2, written_bytes=8192, skipped_bytes=0)

    report = flash.program(DISCO, elf, place="desk", probe="remote:127.0.0.1:5555")

    words = calls.read_text().splitlines()
    assert words[1:] == [
        *("-P", "-m", "hil.pyocd_flash", "--target", "stm32f746ng"),
        *("--probe", "remote:127.0.0.1:5555", str(elf)),
    ]
    assert (report.erased_sectors, report.written_bytes) == (2, 8192)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"error": "gone", "reason": "probe 12 is not attached"}, ProbeGone, "12 is not attached"),
        ({"error": "failed", "reason": "FlashFailure: x"}, FlashError, "x; pyOCD's.*some words"),
        ({"error": "locked", "seen": "level 1", "destroys": "it all"}, ChipLocked, "it all"),
        (
            {"error": "verify", "address": 0x0800_0004, "expected": 1, "found": 2},
            VerifyFailed,
            "holds 0x02 at 0x08000004, where 0x01 was",
        ),
    ],
)
def test_what_pyocd_answers_becomes_an_error(
    answers: Callable[..., Path],
    elf: Path,
    fields: dict[str, object],
    error: type[FlashError],
    match: str,
) -> None:
    answers("some words", **fields)

    with pytest.raises(error, match=match) as raised:
        flash.program(DISCO, elf, place="desk")
    assert raised.type is error


def test_wear_of_a_flashing_that_failed_is_counted_too(
    answers: Callable[..., Path], elf: Path
) -> None:
    answers(error="failed", reason="supply fell", erased_sectors=3)

    with pytest.raises(FlashError):
        flash.program(DISCO, elf, place="brown_desk")

    with Ledger() as ledger:
        assert ledger.wear("brown_desk").erased_sectors == 3


def test_a_pyocd_that_dies_without_an_answer_is_reported(
    tools: Path, elf: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tools / "python"))
    stand_in(tools, "python", "echo 'Segmentation fault' >&2; exit 139")

    with pytest.raises(FlashError, match=r"code 139.*Segmentation fault"):
        flash.program(DISCO, elf, place="desk")


# command line


def test_a_remote_probe_needs_the_type_of_its_board(
    elf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flash.main(["--board", "remote:127.0.0.1:1", str(elf)]) == 2
    assert "give --type" in capsys.readouterr().err


def test_an_image_for_another_board_than_the_places_is_refused(
    elf: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tmp_path / "lab.toml"
    port = "/dev/serial/by-id/usb-x_683-if00"
    lab.write_text(f'[places.desk]\nboard = "nrf52840_dk"\nport = "{port}"\nprobe = "683"\n')
    monkeypatch.setenv("HIL_LAB", str(lab))

    assert flash.main(["--board", "desk", "--type", "stm32f746g_disco", str(elf)]) == 2
    assert "desk is a nrf52840_dk" in capsys.readouterr().err
