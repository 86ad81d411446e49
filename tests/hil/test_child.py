"""Tools are shell scripts; what is proved is that none of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hil import child

PATIENCE_S = 60.0  # of a machine with much else to do


def sh(script: str, timeout_s: float = PATIENCE_S, **more: object) -> child.Ended:
    return child.run(["sh", "-c", script], timeout_s=timeout_s, **more)  # type: ignore[arg-type]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def pids_in(path: Path, count: int) -> list[int]:
    assert wait_until(lambda: path.exists() and len(path.read_text().split()) >= count)
    return [int(word) for word in path.read_text().split()]


def test_the_code_and_the_words_of_a_tool_come_back() -> None:
    ended = sh("echo out; echo err >&2; exit 3")

    assert (ended.code, ended.output) == (3, "out\nerr\n")
    assert ended.problem() == "ended with code 3"


def test_success_is_no_problem() -> None:
    assert sh("true").problem() is None


def test_a_tool_that_a_signal_ended_has_a_code_like_in_a_shell() -> None:
    assert sh("kill -9 $$").code == 128 + signal.SIGKILL


def test_at_its_deadline_a_tool_dies_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    ended = sh(f'sleep 600 & echo $! $$ >"{pids}"; echo began; wait', timeout_s=1.5)

    assert ended.code is None
    assert ended.output == "began\n"
    assert "did not end within" in (ended.problem() or "")
    assert not any(is_running(pid) for pid in pids_in(pids, 2))


def test_what_a_tool_leaves_in_the_background_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    assert sh(f'sleep 600 & echo $! >"{pids}"').code == 0

    assert not any(is_running(pid) for pid in pids_in(pids, 1))


def test_of_endless_output_the_end_is_kept() -> None:
    ended = sh("yes | head -c 1000000; echo the last words")

    assert len(ended.output) == child.KEPT_BYTES
    assert ended.output.endswith("the last words\n")


def test_a_tool_that_never_stops_printing_is_stopped() -> None:
    assert child.run(["yes"], timeout_s=0.2).code is None


def test_output_goes_into_a_log_when_there_is_one(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as log:
        ended = sh("echo words", log=log)

    assert (ended.output, (tmp_path / "log").read_text()) == ("", "words\n")


def test_a_descriptor_that_is_passed_is_open_in_the_tool(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w+") as lock:
        script = f"import os; os.write({lock.fileno()}, b'held\\n')"
        command = [sys.executable, "-c", script]
        ended = child.run(command, timeout_s=PATIENCE_S, pass_fds=(lock.fileno(),))

    assert ended.code == 0
    assert (tmp_path / "lock").read_text() == "held\n"


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-tool is not installed"):
        child.run(["no-such-tool"], timeout_s=1.0)


def test_a_tool_may_have_a_path_of_its_own(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)

    ended = child.run(["tool"], timeout_s=PATIENCE_S, env={"PATH": str(tmp_path)})

    assert ended.output == "found\n"


def test_a_thread_that_ends_takes_no_other_threads_tool_with_it() -> None:
    ended = []
    slow = threading.Thread(target=lambda: ended.append(sh("sleep 0.5; echo whole")))
    quick = threading.Thread(target=lambda: ended.append(sh("true")))

    slow.start()
    quick.start()
    quick.join()
    slow.join()

    assert [one.output for one in ended] == ["", "whole\n"]
    assert [one.code for one in ended] == [0, 0]


RIG = """
import sys, threading
from hil import child
def work():
    child.run(["sh", "-c", sys.argv[1]], timeout_s=600)
thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join()
"""


@pytest.mark.skipif(child._setpriv() is None, reason="needs util-linux's setpriv")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_rig_is_killed_its_tools_and_their_children_go_too(
    tmp_path: Path, signal_number: int
) -> None:
    pids = tmp_path / "pids"
    script = f'sleep 600 & echo $! $$ >"{pids}.new"; mv "{pids}.new" "{pids}"; wait'
    with subprocess.Popen([sys.executable, "-c", RIG, script], stderr=subprocess.DEVNULL) as rig:
        tools = pids_in(pids, 2)
        assert all(is_running(pid) for pid in tools)

        rig.send_signal(signal_number)

    assert wait_until(lambda: not any(is_running(pid) for pid in tools))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # not reaped
def test_what_sigkill_does_not_end_is_reported_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process in uninterruptible sleep cannot be made here: the signal is withheld instead."""
    real, spared = os.killpg, []

    def spare(group: int, number: int) -> None:
        if number == signal.SIGKILL and not spared:
            spared.append(group)
        else:
            real(group, number)

    monkeypatch.setattr(os, "killpg", spare)
    monkeypatch.setattr(child, "KILL_GRACE_S", 0.2)

    ended = sh("sleep 600", timeout_s=0.2)
    real(spared[0], signal.SIGKILL)

    assert ended.survivors
    assert f"process {ended.survivors[0]}" in (ended.problem() or "")
    assert "cannot be killed" in (ended.problem() or "")
