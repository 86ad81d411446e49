"""The table of what places do: what it says, and that it keeps out of the way of lines."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from hil.live import places_table
from hil.rig import View

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import time
from types import SimpleNamespace
from hil.console import say
from hil.live import watching

class FakeRig:
    def views(self):
        counts = {"since": time.monotonic(), "done": 1, "failed": 0, "faults": 0}
        return [SimpleNamespace(place="desk", state="measuring", job="net tiny", **counts)]

with watching(FakeRig()):
    say("[1/2] net tiny on desk: 100 cycles")
    time.sleep(0.4)
    say("[2/2] net tiny on desk: 100 cycles")
print("result")
"""


def shown(views: list[View], width: int = 100) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(places_table(views))
    return capture.get()


def test_every_place_has_a_line_with_state_job_age_and_counts() -> None:
    now = time.monotonic()

    text = shown(
        [
            View("desk", "measuring", "kws tiny", now - 7.5, 1234, 2, 3),
            View("shelf", "quarantined", "", now - 4000, 5, 0, 4),
        ]
    )

    desk, shelf = text.splitlines()[3:5]
    assert desk.split() == ["desk", "measuring", "kws", "tiny", "7", "s", "1,234", "2", "3"]
    assert shelf.split() == ["shelf", "quarantined", "1", "h", "06", "min", "5", "0", "4"]


def test_a_narrow_terminal_cuts_the_job_and_nothing_else() -> None:
    text = shown([View("desk", "measuring", "n" * 200, time.monotonic(), 1, 2, 3)], width=80)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.splitlines()[3].split()[-5:] == ["0", "s", "1", "2", "3"]


def test_without_a_terminal_there_are_lines_only() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120
    )

    assert ended.stderr.splitlines() == [
        "[1/2] net tiny on desk: 100 cycles",
        "[2/2] net tiny on desk: 100 cycles",
    ]


def test_on_a_terminal_lines_stay_whole_and_the_table_goes_in_the_end() -> None:
    terminal, child_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=child_end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(child_end)
    output = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        output += data
    process.communicate(timeout=60)
    os.close(terminal)

    lines = output.decode().replace("\r", "").split("\n")
    wiped = re.compile(r".*(?:\x1b\[2K|\x1b\[\?25l)")  # what a terminal does not show any more
    plain = [wiped.sub("", line) for line in lines]
    assert "[1/2] net tiny on desk: 100 cycles" in plain
    assert "[2/2] net tiny on desk: 100 cycles" in plain
    assert any("measuring" in line for line in lines)
    assert "measuring" not in output.decode().rpartition("\x1b[2K")[2]
