"""The real pyOCD, and PlatformIO's upload, through the virtual boards' debug probes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from elf_files import write_elf
from graphs import Builder
from probe_proxy import ProbeProxy, Request

from codegen.export_tflite import export_tflite
from hil import flash, pyocd_flash
from hil.bench import measure_model
from hil.board import Board, board_ids, get_board
from hil.build import FIRMWARE_DIR, Firmware, build
from hil.errors import ChipLocked, FlashError, ProbeGone, VerifyFailed
from hil.lab import open_place
from hil.link import SerialLink
from hil.pyocd_flash import Failure, find_probe
from hil.session import Procedure, booted
from hil.virtual.options import VirtualOptions
from hil.virtual.place import VirtualPlace
from hil.wire import Wire

ECHO = FIRMWARE_DIR / "models" / "echo"
NRF = get_board("nrf52840_dk")
TOOLS = Path(sys.executable).parent
PATIENCE_S = 120.0  # of a machine with much else to do
BIG_BYTES = 300 * 1024


@pytest.fixture(params=board_ids())
def board(request: pytest.FixtureRequest) -> Board:
    return get_board(request.param)


@pytest.fixture(scope="module")
def nrf() -> Iterator[VirtualPlace]:
    """One board for the tests that leave it flashable."""
    with VirtualPlace(NRF) as place:
        yield place


def echo_of(board: Board) -> Firmware:
    return build(ECHO, board)


def random_elf(path: Path, board: Board, size: int = BIG_BYTES, seed: int = 1) -> Path:
    """Random bytes at the end of the flash, far from the reset vector."""
    data = np.random.default_rng(seed).bytes(size)
    return write_elf(path, {board.flash_memory.origin + board.flash_bytes - size: data})


# what flashing does


@pytest.mark.parametrize(
    "board_id",
    [
        "nrf52840_dk",
        pytest.param("nucleo_l4r5zi", marks=pytest.mark.slow),
        pytest.param("stm32f746g_disco", marks=pytest.mark.slow),
    ],
)
def test_an_image_is_written_once_and_runs(board_id: str) -> None:
    board = get_board(board_id)
    firmware = echo_of(board)

    with VirtualPlace(board, VirtualOptions(flash="pyocd")) as place:
        with booted(place, firmware) as wire:
            assert wire.hello().build == firmware.build_id
        again = flash.program(
            board, firmware.elf, place=place.name, probe=place.probe, method="pyocd"
        )

    assert (again.erased_sectors, again.written_bytes) == (0, 0)
    assert again.skipped_bytes >= again.bytes == firmware.flash_bytes.total


def test_only_a_page_that_differs_is_erased_and_written(nrf: VirtualPlace, tmp_path: Path) -> None:
    data = bytearray(np.random.default_rng(2).bytes(5 * 4096))
    program(nrf, write_elf(tmp_path / "one.elf", {0x4_0000: bytes(data)}))
    data[3 * 4096 + 17] ^= 0x40

    report = program(nrf, write_elf(tmp_path / "two.elf", {0x4_0000: bytes(data)}))

    assert (report.erased_sectors, report.written_bytes) == (1, 4096)


def test_segments_at_odd_addresses_are_written_and_compared(
    nrf: VirtualPlace, tmp_path: Path
) -> None:
    segments = {0x5_0003: b"\x01\x02\x03", 0x5_1FFE: bytes(range(200)), 0x8_0000: b"\xee"}

    report = program(nrf, write_elf(tmp_path / "a.elf", segments))

    assert report.bytes == 204
    assert report.erased_sectors == 4  # the second one crosses into another page


def test_a_reset_starts_the_program_again(nrf: VirtualPlace) -> None:
    program(nrf, echo_of(NRF).elf)
    with SerialLink(nrf.port, NRF.link.baud) as link:
        link.discard()

        flash.reset(NRF, place=nrf.name, probe=nrf.probe, method="pyocd")

        Wire(link, nrf.name).wait_boot(PATIENCE_S)


def program(place: VirtualPlace, elf: Path, probe: str | None = None) -> flash.FlashReport:
    return flash.program(
        place.board, elf, place=place.name, probe=probe or place.probe, method="pyocd"
    )


@pytest.mark.slow
def test_a_board_flashed_by_pyocd_measures_as_one_flashed_directly(
    board: Board, tmp_path: Path
) -> None:
    """Every cycle of every repeat: the debugger leaves nothing behind."""
    builder = Builder(np.random.default_rng(7), name="net")
    x = builder.conv2d(builder.input((1, 8, 8, 3)), 8, (3, 3), padding="SAME")
    x = builder.fully_connected(builder.reshape(x, (1, 512)), 5)
    tflite = export_tflite(builder.graph([builder.softmax(x)]))
    procedure = Procedure(inputs=3, repeats=3, layers=True)

    records = {}
    for way in ("direct", "pyocd"):
        with open_place(f"virtual:{board.id}", flash=way) as place:
            records[way] = measure_model(
                tflite, "net", place, procedure=procedure, models_dir=tmp_path
            )

    direct, by_pyocd = records["direct"], records["pyocd"]
    assert by_pyocd.outputs_match
    assert by_pyocd.latency_cycles == direct.latency_cycles
    assert by_pyocd.layers == direct.layers
    assert by_pyocd.firmware_sha256 == direct.firmware_sha256


# what goes wrong


def test_a_byte_that_is_read_back_wrong_is_named(nrf: VirtualPlace, tmp_path: Path) -> None:
    data = np.random.default_rng(3).bytes(9000)
    elf = write_elf(tmp_path / "a.elf", {0x6_0000: data})
    wrong = 0x6_0000 + 4001
    transfer_address = 0

    def spoil(request: Request, answer: Request) -> Request:
        """Inverts the byte in whatever reads that word of the flash: blocks, or the access port."""
        nonlocal transfer_address
        name, arguments = request["request"], request.get("arguments", [])
        if name == "write_ap" and arguments[0] & 0xFC == 0x04:  # TAR
            transfer_address = arguments[1]
        if name in ("read_block32", "read_ap_multiple"):
            start = arguments[1] if name == "read_block32" else transfer_address
            if start <= wrong < start + 4 * len(answer["result"]):
                answer["result"][(wrong - start) // 4] ^= 0xFF00
        return answer

    with ProbeProxy(str(nrf.probe), spoil) as proxy, pytest.raises(VerifyFailed) as raised:
        program(nrf, elf, proxy.address)

    assert raised.value.address == wrong
    assert raised.value.expected == data[4001]
    assert raised.value.found == data[4001] ^ 0xFF


@pytest.mark.parametrize("after", [1, 60])
def test_a_probe_that_is_lost_is_told_from_a_chip_that_fails(
    nrf: VirtualPlace, tmp_path: Path, after: int
) -> None:
    elf = random_elf(tmp_path / "a.elf", NRF, size=40_000)

    def cut(request: Request, answer: Request) -> Request | None:
        return None if len(proxy.requests) >= after else answer

    with ProbeProxy(str(nrf.probe), cut) as proxy, pytest.raises(ProbeGone):
        program(nrf, elf, proxy.address)

    assert program(nrf, elf).bytes == 40_000


def test_a_probe_where_nobody_listens_is_gone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"remote:127.0.0.1:{free.getsockname()[1]}"

    with pytest.raises(ProbeGone, match="refused"):
        flash.program(NRF, echo_of(NRF).elf, place="x", probe=address)


def test_a_pyocd_that_hangs_is_killed_at_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"remote:127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(FlashError, match="did not end within"):
            flash.program(NRF, echo_of(NRF).elf, place="x", probe=address, timeout_s=1.0)

    assert not pyocds_of(psutil.Process())


def pyocds_of(process: psutil.Process) -> list[psutil.Process]:
    """Processes of hil.pyocd_flash below another one."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "hil.pyocd_flash" in child.cmdline():
                found.append(child)
    return found


RIG = """
import sys
from pathlib import Path
from hil import flash
from hil.board import get_board
flash.program(get_board("nrf52840_dk"), Path(sys.argv[1]), place="x", probe=sys.argv[2])
"""


def test_when_the_rig_is_killed_no_pyocd_is_left() -> None:
    elf = echo_of(NRF).elf
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [sys.executable, "-c", RIG, str(elf), f"remote:127.0.0.1:{silent.getsockname()[1]}"]
        ) as rig,
    ):
        silent.settimeout(PATIENCE_S)
        client, _ = silent.accept()  # pyOCD is in the middle of it
        with client:
            flashing = pyocds_of(psutil.Process(rig.pid))
            assert flashing

            os.kill(rig.pid, signal.SIGKILL)

            _, alive = psutil.wait_procs(flashing, timeout=PATIENCE_S)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"),
    [("locked_chip", ChipLocked), ("probe_gone", ProbeGone)],
)
def test_a_fault_of_a_board_has_its_error_and_the_next_flashing_works(
    fault: str, error: type[FlashError]
) -> None:
    firmware = echo_of(NRF)

    with open_place(f"virtual:nrf52840_dk?flash=pyocd&fault={fault}") as place:
        with pytest.raises(error):
            place.flash(firmware.elf)

        with booted(place, firmware) as wire:
            assert wire.hello().build == firmware.build_id


@pytest.mark.slow
def test_after_a_brown_out_in_the_middle_the_next_flashing_repairs_the_image(
    board: Board, tmp_path: Path
) -> None:
    firmware = echo_of(board)

    with open_place(f"virtual:{board.id}?flash=pyocd&fault=brown_out") as place:
        with pytest.raises(FlashError):
            place.flash(firmware.elf)

        with booted(place, firmware) as wire:
            assert wire.hello().build == firmware.build_id


@pytest.mark.slow
@pytest.mark.parametrize("board_id", ["nucleo_l4r5zi", "stm32f746g_disco"])
def test_a_locked_stm32_is_not_opened(board_id: str) -> None:
    with (
        open_place(f"virtual:{board_id}?flash=pyocd&fault=locked_chip") as place,
        pytest.raises(ChipLocked, match=r"level 1.*mass erase.*destroys all of its flash"),
    ):
        place.flash(echo_of(get_board(board_id)).elf)


# which probe


@dataclass
class Attached:
    """A debug probe on USB, as far as choosing it goes."""

    unique_id: str


@pytest.fixture
def usb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Debug probes that pyOCD sees."""
    probes: list[Any] = []
    monkeypatch.setattr(
        pyocd_flash.DebugProbeAggregator, "get_all_connected_probes", lambda: probes
    )
    return probes


def test_the_only_probe_needs_no_name(usb: list[Any]) -> None:
    usb.append(Attached("0669FF"))

    assert find_probe(None) is usb[0]


def test_of_several_probes_none_is_chosen_unasked(usb: list[Any]) -> None:
    usb += [Attached("0669FF"), Attached("683012345")]

    with pytest.raises(Failure) as raised:
        find_probe(None)
    assert "0669FF, 683012345" in raised.value.fields["reason"]


@pytest.mark.parametrize("name", ["683012345", "000683012345"])
def test_a_probe_is_found_by_its_whole_serial_number(usb: list[Any], name: str) -> None:
    usb += [Attached("1683012345"), Attached("683012345")]

    assert find_probe(name) is usb[1]


def test_a_probe_that_is_not_attached_is_gone(usb: list[Any]) -> None:
    usb.append(Attached("0669FF"))

    with pytest.raises(Failure) as raised:
        find_probe("0669")
    assert raised.value.fields["error"] == "gone"
    assert "there are: 0669FF" in raised.value.fields["reason"]


@pytest.mark.parametrize("name", ["remote:", "remote:host", "remote:host:port"])
def test_a_remote_probe_is_a_host_and_a_port(name: str) -> None:
    with pytest.raises(Failure):
        find_probe(name)


# other people's command lines


@pytest.mark.slow
def test_pyocds_own_command_line_loads_a_board(board: Board, tmp_path: Path) -> None:
    elf = random_elf(tmp_path / "big.elf", board)

    with VirtualPlace(board) as place:
        command = [str(TOOLS / "pyocd"), "load", "--target", board.flash.target]
        command += ["--uid", str(place.probe), "-O", "auto_unlock=false", str(elf)]
        said = []
        for _ in range(2):
            loaded = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
            assert loaded.returncode == 0, loaded.stderr
            said.append(loaded.stderr)
        found = program(place, elf)

    assert f"programmed {BIG_BYTES} bytes" in said[0]
    assert "programmed 0 bytes" in said[1]
    assert (found.erased_sectors, found.written_bytes) == (0, 0)


@pytest.mark.slow
def test_platformios_upload_flashes_a_board_that_is_alive(board: Board, tmp_path: Path) -> None:
    with VirtualPlace(board) as place, SerialLink(place.port, board.link.baud) as link:
        link.discard()

        uploaded = upload(board, str(place.probe), tmp_path)

        assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
        wire = Wire(link, place.name)
        wire.wait_boot(PATIENCE_S)
        assert wire.hello().board == board.id


@pytest.mark.slow
def test_platformios_upload_flashes_a_board_that_another_process_serves(tmp_path: Path) -> None:
    serving = [sys.executable, "-m", "hil", "serve", f"virtual:{NRF.id}", "--json"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            served = json.loads(server.stdout.readline())

            uploaded = upload(NRF, served["probe"], tmp_path)

            assert uploaded.returncode == 0, uploaded.stdout + uploaded.stderr
            with SerialLink(served["port"], served["baud"]) as link:
                assert Wire(link, "served").hello().board == NRF.id
        finally:
            server.terminate()


@pytest.mark.slow
def test_platformios_upload_says_what_failed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"remote:127.0.0.1:{free.getsockname()[1]}"

    uploaded = upload(NRF, address, tmp_path)

    assert uploaded.returncode != 0
    assert f"flashing {address} by pyocd failed" in uploaded.stderr


def upload(board: Board, port: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / "pio"), "run", "--project-dir", str(FIRMWARE_DIR)]
    command += ["--environment", board.id, "--target", "upload", "--upload-port", port]
    settings = {
        "PLATFORMIO_WORKSPACE_DIR": str(workspace / "pio"),
        "PLATFORMIO_BUILD_DIR": str(workspace / "pio" / "build"),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL": "36500",
    }
    return subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=PATIENCE_S
    )
