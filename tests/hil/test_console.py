"""Streams and terminals of every kind: closed, full, ASCII, narrow, with a line at the bottom."""

from __future__ import annotations

import os
import subprocess
import sys

from hil.console import stdout_console


def _run(shell_command, **variables):
    return subprocess.run(
        shell_command.replace("HIL", f"{sys.executable} -m hil"),
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


def test_closed_streams_are_no_error():
    result = _run("HIL boards >&-")
    assert (result.returncode, result.stderr) == (0, "")

    result = _run("HIL nonsense 2>&-")
    assert (result.returncode, result.stdout) == (2, "")


def test_a_full_disk_is_a_sentence():
    result = _run("HIL boards > /dev/full")

    assert (result.returncode, result.stderr) == (1, "hil: No space left on device\n")


def test_a_terminal_without_a_character_gets_a_question_mark():
    result = _run(
        f'{sys.executable} -c "from hil.console import mend_streams; mend_streams();'
        "print(chr(0xb5) + 'J')\"",
        PYTHONIOENCODING="ascii",
    )

    assert (result.returncode, result.stdout) == (0, "?J\n")


def test_a_narrow_terminal_wraps_lines_and_cuts_no_digits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    assert stdout_console().width == 80


def test_what_is_said_does_not_stand_behind_the_status_line():
    reader, terminal = os.openpty()
    program = (
        "from hil.console import say, status_line\n"
        "with status_line() as status:\n"
        "    status('busy')\n"
        "    import time; time.sleep(0.3)\n"
        "    say('hello')\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        stderr=terminal,
        check=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)

    shown = os.read(reader, 65536)
    os.close(reader)

    assert b"busy" in shown
    assert b"busyhello" not in shown
    assert b"hello" in shown
