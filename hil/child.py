"""Runs a tool as a process group of its own that cannot outlive its deadline, nor the rig.

Flashing tools hang when a probe is unplugged, and the rig itself may be killed at any moment. So
every tool leads a process group that is killed as a whole: when its deadline passes, when this
process is interrupted, and, by a small shell in front of it, when this process is killed (Linux
with util-linux's setpriv; elsewhere an orphan runs on to its own end). A file descriptor that the
tool inherits, such as that of a place's lock, stays open until the last of the group has ended.

What even SIGKILL does not end (a process inside a driver that waits for a wedged USB device) is
reported, not waited for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

KEPT_BYTES = 65_536  # of a tool's output, its end: a hanging one may print without end
KILL_GRACE_S = 5.0  # until a killed process counts as one that cannot be killed

_POLL_S = 0.02
_READ_BYTES = 65_536
_LAST_READS = 16  # a pipe holds as much as one of them
_SHELL = "/bin/sh"

# Runs "$@" and ends with its code. TERM is what the kernel sends when the rig has died: then the
# whole group goes. The rig's pid is compared because it may have died before the kernel was asked.
_GUARD = 'trap "kill -KILL 0" TERM; [ "$PPID" = "$1" ] || exit 125; shift; "$@" & wait "$!"'


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tool ended.

    Attributes:
        code: its exit code, 128 + n when signal n ended it; None when the deadline passed first.
        output: the end of what it printed, both streams; empty when it went into a log.
        seconds: from start to end.
        survivors: processes of its group that SIGKILL did not end: they wait inside the kernel.
    """

    code: int | None
    output: str
    seconds: float
    survivors: tuple[int, ...] = ()

    def problem(self) -> str | None:
        """None after success, else how it ended, in words."""
        if self.code == 0 and not self.survivors:
            return None
        if self.code is None:
            text = f"did not end within {self.seconds:.1f} s"
        else:
            text = f"ended with code {self.code}"
        if self.survivors:
            pids = ", ".join(map(str, self.survivors))
            text += f"; process {pids} cannot be killed, it waits inside the kernel for a device"
        return text


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Runs a tool to its end, without input; no process of it is left unless it says so.

    Args:
        command: the tool and its arguments.
        timeout_s: until it is killed.
        cwd: its folder; this process's by default.
        env: its environment; this process's by default.
        log: a file that takes its output, instead of `output`.
        pass_fds: file descriptors that it inherits.

    Raises:
        FileNotFoundError: there is no such tool on the PATH.
    """
    path = None if env is None else env.get("PATH")
    tool = shutil.which(command[0], path=path)
    if tool is None:
        raise FileNotFoundError(f"{command[0]} is not installed or not on the PATH")
    started = time.monotonic()
    process = subprocess.Popen(
        [*_guard(), tool, *command[1:]],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if log is None else log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    kept = bytearray()
    ended = False
    try:
        ended = _follow(process, kept, started + timeout_s)
    finally:
        # The leader has not been waited for, so the group's number still means this group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        survivors = _reap(process)
        if process.stdout is not None:
            # Nobody writes any more, or else only a survivor, for whom nobody waits.
            with process.stdout:
                for _ in range(_LAST_READS):
                    if not _take(process.stdout, kept):
                        break
    output = kept.decode("utf-8", "replace")
    seconds = time.monotonic() - started
    code = _exit_code(process.returncode) if ended else None
    return Ended(code, output, seconds, survivors)


def _guard() -> list[str]:
    """What stands in front of the command so that it dies with this process."""
    setpriv = _setpriv()
    if setpriv is None:
        return []
    # The kernel sends the signal when the thread that started the child ends; `run` does not
    # return before the child has ended, so that is when this process does.
    return [setpriv, "--pdeathsig", "TERM", _SHELL, "-c", _GUARD, "hil", str(os.getpid())]


@functools.cache
def _setpriv() -> str | None:
    """Path of a setpriv that knows the option, if there is one; that of busybox does not."""
    path = shutil.which("setpriv")
    if path is None or not os.path.exists(_SHELL):
        return None
    command = [path, "--pdeathsig", "TERM", _SHELL, "-c", ":"]
    quiet = subprocess.DEVNULL
    knows = subprocess.run(command, stdout=quiet, stderr=quiet, timeout=30).returncode == 0
    return path if knows else None


def _follow(process: subprocess.Popen[bytes], kept: bytearray, deadline: float) -> bool:
    """Keeps the end of the output until the process ends (True) or the deadline passes (False)."""
    with contextlib.ExitStack() as stack:
        watched = stack.enter_context(selectors.DefaultSelector())
        poll_s = _POLL_S
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or an old one
            ends = os.pidfd_open(process.pid)
            stack.callback(os.close, ends)
            watched.register(ends, selectors.EVENT_READ)
            poll_s = float("inf")
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
            watched.register(process.stdout, selectors.EVENT_READ)
        while not _has_ended(process):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in watched.select(min(left, poll_s)):
                if key.fileobj is process.stdout and not _take(process.stdout, kept):
                    watched.unregister(process.stdout)
        return True


def _take(stream: IO[bytes], kept: bytearray) -> bool:
    """Adds one piece of what is there to read; False when there is nothing, as at the end."""
    try:
        data = os.read(stream.fileno(), _READ_BYTES)
    except BlockingIOError:
        return False
    kept += data
    del kept[:-KEPT_BYTES]
    return bool(data)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has, without reaping it: its number is still needed."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, ...]:
    """Waits a moment for a killed group; gives what is still there then."""
    deadline = time.monotonic() + KILL_GRACE_S
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_GRACE_S)
    while (survivors := _members(process.pid)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return survivors


def _members(group: int) -> tuple[int, ...]:
    """Processes of a group that have not ended."""
    try:
        os.killpg(group, 0)
    except OSError:
        return ()
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return tuple(sorted(found))


def _exit_code(code: int | None) -> int | None:
    """As a shell gives it, whether or not there was one in between; None: still there."""
    return None if code is None else 128 - code if code < 0 else code
