"""Who may use a place: one process at a time on this machine, and everybody in turn.

The authority is the kernel's flock on a file in a folder that all users share (HIL_LOCKS, else
/run/lock/hil, else hil-locks in the folder of temporary files): it ends with the process that holds
it, however that ends. The file's content, who holds it since when, is for people. Files are named
after the board's serial numbers, so that two lab.toml files that name the same board exclude each
other; they stay when nobody holds them, because deleting one that somebody is just opening would
give two holders.

Who waits sits in a row of seats, each a lock, too: a newcomer takes the last one and moves up when
the one before it is free; from the first the place itself is taken. Who gives the place up and
wants it back starts at the last seat like anybody else, so that studies on one board measure in
turn, in the order in which they came.

Not here: whether a place is fit for use (health).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import getpass
import hashlib
import json
import math
import os
import random
import re
import shlex
import socket
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hil.errors import PlaceBusy, UsageError
from hil.ports import USB, bare_serial

if TYPE_CHECKING:
    from hil.lab import PlaceEntry

WAIT_S = 600.0  # by default: with everybody giving way between jobs, a turn comes in minutes
TELL_S = 1.0  # of waiting, until people are told
SEATS = 8  # whoever comes when all are taken gets the last one by chance
MAX_SLOTS = 256  # anonymous virtual boards of one type that `hil boards` can show

_MACHINE_DIR = Path("/run/lock/hil")  # emptied by a reboot, which changes nothing
_CHMOD_S = 0.2  # between making the folder and opening it to all
_SLOT = "anonymous-"
_POLL_S = 0.03  # between attempts, on average; random, so that newcomers have equal chances
_MAX_RECORD_BYTES = 4096
_MAX_COMMAND = 200  # characters
_BY_ID = re.compile(r"/dev/serial/by-id/usb-.*_([^_]+)-if\d+(-port\d+)?")

#: Open locks: a process that was forked without exec must not keep them when this one is gone.
_open_locks: weakref.WeakSet[PlaceLock] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a place; what a damaged record does not tell is empty or 0.

    Attributes:
        place: as the holder calls it.
        pid: of the process that took it.
        user: its login name.
        host: the machine; another one's name means that the folder is shared between machines.
        command: what was called.
        since: ISO 8601 with time zone.
    """

    place: str = ""
    pid: int = 0
    user: str = ""
    host: str = ""
    command: str = ""
    since: str = ""

    @property
    def is_running(self) -> bool:
        """Whether the process is there; if not, a tool that it started still has the place."""
        if self.host != socket.gethostname():
            return True
        return self.pid > 0 and Path(f"/proc/{self.pid}").exists()

    @property
    def text(self) -> str:
        """For people: command, pid, user, since when."""
        if not self.pid:
            return "a program that left no readable record"
        who = f"{self.command or 'a program'} (pid {self.pid}, user {self.user or 'unknown'})"
        if not self.is_running:
            who = f"a tool that {who} started before it ended"
        return f"{who} since {_local(self.since)}"


class PlaceLock:
    """The right to use one place; a context manager. Not for several threads at once.

    Args:
        keys: what identifies the board and what belongs to it, from `place_keys`.
        place: its name, for messages and for the record.
        wait_s: longest wait for it, and for each turn after `yield_turn`.
        waiting: told once who has it, when the wait has taken TELL_S; not of others' turns.
        stop: ends a wait with PlaceBusy when it is set.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        place: str,
        wait_s: float = WAIT_S,
        waiting: Callable[[str], None] = lambda text: None,
        stop: threading.Event | None = None,
    ) -> None:
        assert keys, "a place without identity cannot be locked"
        self.place, self.wait_s = place, wait_s
        self._keys = sorted(set(keys))  # one order for all: no two wait for each other
        self._waiting, self._stop = waiting, stop or threading.Event()
        self._folder = lock_dir()
        self._fds: dict[str, int] = {}
        self._seats: list[int] = []  # that it waits in, and for
        self._first_seats: dict[str, int] = {}
        self._tell_at = math.inf

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def fds(self) -> tuple[int, ...]:
        """For `pass_fds` of a flashing tool: it keeps the place if this process is killed."""
        return tuple(self._fds.values())

    def acquire(self) -> None:
        """Waits for the place; raises PlaceBusy after `wait_s`, UsageError when none can lock."""
        self._tell_at = time.monotonic() + TELL_S
        self._acquire()

    def _acquire(self) -> None:
        deadline = time.monotonic() + self.wait_s
        _open_locks.add(self)
        try:
            for key in self._keys:
                self._take(key, deadline)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the place up; releasing twice is fine.

        A tool that inherited `fds` and cannot be killed keeps it, as it keeps the probe.
        """
        self._close()

    def yield_turn(self) -> bool:
        """Lets those who wait go first; costs some microseconds when nobody does.

        Returns whether the place was given up and taken again: its board may run anything now.
        Raises PlaceBusy when it does not come back in time.
        """
        if not any(self._is_wanted(key) for key in self._fds):
            return False
        self.release()
        self._tell_at = math.inf  # that others have their turn is nothing to tell
        self._acquire()
        return True

    def _take(self, key: str, deadline: float) -> None:
        """The lock of one key, by way of the seats."""
        fd = self._fds[key] = _open(self._folder / f"{key}.lock")
        for number in reversed(range(SEATS)):
            self._seats.append(_open(self._folder / f"{key}.seat{number}"))
            self._wait_for(self._seats[-1], fd, deadline)
            self._leave_seats(but=1)
        self._wait_for(fd, fd, deadline)
        self._leave_seats()
        self._tell_at = math.inf
        _write_record(fd, self.place)

    def _leave_seats(self, *, but: int = 0) -> None:
        """All but the last `but` ones."""
        while len(self._seats) > but:
            os.close(self._seats.pop(0))

    def _wait_for(self, fd: int, record_fd: int, deadline: float) -> None:
        while not _try_lock(fd):
            now = time.monotonic()
            if now >= self._tell_at:
                self._tell_at = math.inf
                self._waiting(f"{self.place} is in use by {_read_holder(record_fd).text}; waiting")
            left = deadline - now
            if left <= 0 or self._stop.wait(min(left, random.uniform(0.5, 1.5) * _POLL_S)):
                raise PlaceBusy(self.place, _read_holder(record_fd).text)

    def _is_wanted(self, key: str) -> bool:
        if key not in self._first_seats:
            self._first_seats[key] = _open(self._folder / f"{key}.seat0")
        fd = self._first_seats[key]
        if not _try_lock(fd):
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def _close(self) -> None:
        self._leave_seats()
        for fd in (*self._fds.values(), *self._first_seats.values()):
            os.close(fd)
        self._fds.clear()
        self._first_seats.clear()
        _open_locks.discard(self)


class SlotLock(PlaceLock):
    """A number for an anonymous virtual board: nobody waits, it only shows in `hil boards`.

    Args:
        place: its name.
        board: its type.
    """

    def __init__(self, place: str, board: str) -> None:
        super().__init__([f"{_SLOT}{board}"], place=place)

    def acquire(self) -> None:
        """Takes the first number that is free; none when the folder cannot be written."""
        _open_locks.add(self)
        with contextlib.suppress(UsageError):
            for number in range(MAX_SLOTS):
                key = f"{self._keys[0]}-{number}"
                fd = _open(self._folder / f"{key}.lock")
                if _try_lock(fd):
                    self._fds[key] = fd
                    _write_record(fd, self.place)
                    return
                os.close(fd)

    def yield_turn(self) -> bool:
        """Nobody waits for it."""
        return False


def place_keys(name: str, entry: PlaceEntry, lab_file: Path) -> list[str]:
    """What a place is locked by: the serial numbers of its port, probe and meter.

    A named virtual place is what one lab.toml calls so. A meter that two places share lets only one
    of them measure.
    """
    if entry.virtual:
        return [_key("virtual", f"{lab_file.resolve()}:{name}", name)]
    assert entry.port is not None, "a physical place has a port"
    keys = [port_key(entry.port)]
    if entry.probe:
        keys.append(_key("usb", bare_serial(entry.probe)))
    if entry.meter is not None and entry.meter.port:
        keys.append(port_key(entry.meter.port))
    if entry.meter is not None and entry.meter.serial:
        keys.append(_key("usb", bare_serial(entry.meter.serial)))
    return sorted(set(keys))


def holders() -> list[Holder]:
    """Every place that is in use on this machine, by its name; what cannot be read is left out."""
    found: list[Holder] = []
    with contextlib.suppress(UsageError):
        for path in sorted(lock_dir().glob("*.lock")):
            holder = _holder_of_file(path)
            # a place has several files, an anonymous virtual board one
            if holder is not None and (holder not in found or path.name.startswith(_SLOT)):
                found.append(holder)
    return sorted(found, key=lambda holder: (holder.place, holder.since))


def holder_of(keys: Sequence[str]) -> Holder | None:
    """Who has a place, or something that belongs to it; `keys` as from `place_keys`."""
    with contextlib.suppress(UsageError):
        folder = lock_dir()
        for key in keys:
            if (holder := _holder_of_file(folder / f"{key}.lock")) is not None:
                return holder
    return None


def _holder_of_file(path: Path) -> Holder | None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # shared: two that look at once do not see each other
            if not _try_lock(fd, fcntl.LOCK_SH):
                return _read_holder(fd)
        finally:
            os.close(fd)
    return None


def lock_dir() -> Path:
    """The folder of the locks, made if need be; raises UsageError when there can be none.

    Once there is a folder for the whole machine, no other is taken: two would exclude nobody.
    """
    given = os.environ.get("HIL_LOCKS")
    temporary = Path(tempfile.gettempdir()) / "hil-locks"
    candidates = [Path(given)] if given else [_MACHINE_DIR, temporary]
    problem = ""
    for folder in candidates:
        try:
            folder.mkdir(exist_ok=True)
            if folder.stat().st_uid == os.getuid() and not given:
                folder.chmod(0o1777)  # as /tmp: others make files, nobody deletes another's
        except OSError as error:
            problem = f"{folder}: {error.strerror}"
            continue
        deadline = time.monotonic() + _CHMOD_S
        while not os.access(folder, os.W_OK | os.X_OK):
            if time.monotonic() > deadline:
                raise _no_folder(f"{folder}: may not be written by this user")
            time.sleep(_POLL_S)  # another user has just made it, and opens it to all
        return folder
    raise _no_folder(problem)


def _no_folder(problem: str) -> UsageError:
    return UsageError(
        f"places cannot be locked, {problem}; name a folder that every user of the boards can "
        "write in HIL_LOCKS"
    )


def port_key(port: str) -> str:
    """The key of a port's device: by serial number where its name holds one.

    Debuggers have one serial number for all their interfaces.
    """
    if port.startswith(USB):
        return _key("usb", bare_serial(port.removeprefix(USB).partition(":")[0]))
    if match := _BY_ID.fullmatch(port):
        return _key("usb", bare_serial(match[1]))
    return _key("port", port)


def _key(kind: str, identity: str, shown: str = "") -> str:
    """A file name: readable, and different for different identities."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", shown or identity).strip("_")[-60:]
    return f"{kind}-{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _open(path: Path) -> int:
    """A descriptor of a lock file that every user may lock; never truncates. Raises UsageError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            return _opened(path, flags)  # not O_CREAT: the kernel refuses that for others' files
        try:
            fd = _opened(path, flags | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue  # another process was quicker
        os.fchmod(fd, 0o666)  # whatever the umask says
        return fd
    raise UsageError(f"lock file {path} comes and goes; nothing but hil should write that folder")


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o666)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise UsageError(f"lock file {path} cannot be opened: {error.strerror}") from None


def _try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise
    return True


def _write_record(fd: int, place: str) -> None:
    """Only the holder writes, so that the record is never that of somebody who only waits."""
    holder = Holder(
        place=place,
        pid=os.getpid(),
        user=_user(),
        host=socket.gethostname(),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND],
        since=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a record
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(holder)).encode(), 0)


def _read_holder(fd: int) -> Holder:
    """What the record tells, whatever is in it."""
    try:
        values: Any = json.loads(os.pread(fd, _MAX_RECORD_BYTES, 0))
        pid = values["pid"]
        texts = {key: values[key] for key in ("place", "user", "host", "command", "since")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Holder()
    if type(pid) is not int or not all(isinstance(text, str) for text in texts.values()):
        return Holder()
    return Holder(pid=pid, **texts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without an entry, as in some containers
        return str(os.getuid())


def _local(since: str) -> str:
    try:
        return f"{datetime.datetime.fromisoformat(since).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return since or "some time"


def _forget_in_child() -> None:
    for lock in list(_open_locks):
        lock._close()  # closing is not unlocking while the parent has them open, too


os.register_at_fork(after_in_child=_forget_in_child)
