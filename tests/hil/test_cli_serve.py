"""`hil serve`: a virtual board that other programs reach, and that leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import serial
from typer.testing import CliRunner

from hil import cli_serve
from hil.cli import app

_DEADLINE_S = 60.0


class Served:
    """A `hil serve --json` and what its first line says."""

    def __init__(self, place: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hil", "serve", place, "--json"], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.says: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.boards = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        """The exit code; the board's process is gone too."""
        self.process.send_signal(number)
        code = self.process.wait(_DEADLINE_S)
        _, alive = psutil.wait_procs(self.boards, _DEADLINE_S)
        assert not alive
        return code


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served("virtual:nrf52840_dk?meter=ppk2")
    yield served
    assert served.process.stdout is not None
    served.process.kill()
    served.process.wait(_DEADLINE_S)
    served.process.stdout.close()


def test_the_first_line_says_where_everything_is(served: Served) -> None:
    says = served.says
    _, host, port = says["probe"].split(":")

    assert says["board"] == "nrf52840_dk"
    assert says["pyocd"].split()[:4] == ["pyocd", "load", "--target", "nrf52840"]
    assert says["probe"] in says["pyocd"]
    with socket.create_connection((host, int(port)), timeout=_DEADLINE_S) as probe:
        probe.sendall(b'{"id": 1, "request": "read_dp", "arguments": [0]}\n')
        assert json.loads(probe.recv(1000))["result"] == 0x2BA01477
    with serial.Serial(says["port"], says["baud"]) as board:
        assert board.is_open
    with serial.Serial(says["meter"]["port"]) as meter:
        assert meter.is_open


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told_and_leaves_nothing(served: Served, number: int) -> None:
    assert len(served.boards) == 1
    assert served.end(number) == 0


def test_a_killed_one_leaves_nothing_either(served: Served) -> None:
    assert served.end(signal.SIGKILL) == -signal.SIGKILL


def test_people_get_lines_to_copy() -> None:
    reached = {
        "place": "virtual:nrf52840_dk?meter=ppk2",
        "board": "nrf52840_dk",
        "port": "/dev/pts/3",
        "baud": 115200,
        "probe": "remote:127.0.0.1:5",
        "meter": {"kind": "ppk2", "port": "/dev/pts/4"},
        "pyocd": "pyocd load --target nrf52840 --uid remote:127.0.0.1:5 FIRMWARE.elf",
        "openocd": None,
    }
    assert cli_serve._lines(reached, again=False).splitlines() == [
        "board   nrf52840_dk (virtual:nrf52840_dk?meter=ppk2)",
        "serial  /dev/pts/3, 115200 baud",
        "probe   remote:127.0.0.1:5",
        "meter   /dev/pts/4 (ppk2)",
        "flash   pyocd load --target nrf52840 --uid remote:127.0.0.1:5 FIRMWARE.elf",
        "Ctrl-C switches it off",
    ]


def test_a_place_that_does_not_exist_is_named() -> None:
    result = CliRunner().invoke(app, ["serve", "virtual:nothing"])

    assert "virtual:nothing" in str(result.exception)
