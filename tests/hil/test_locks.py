"""One process at a time has a place, whatever becomes of it, and everybody gets a turn."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hil import locks
from hil.errors import PlaceBusy, UsageError
from hil.lab import MeterEntry, PlaceEntry, open_place
from hil.locks import PlaceLock, SlotLock, holders, lock_dir, place_keys

BY_ID = "/dev/serial/by-id/usb-SEGGER_J-Link_000683012345-if00"
DEADLINE_S = 60.0  # of what takes milliseconds on an idle machine

#: Holds the place until its stdin closes; says so when it has it.
HOLD = """
import sys
from hil.locks import PlaceLock
with PlaceLock(["k"], place="desk", wait_s=60):
    print("held", flush=True)
    sys.stdin.read()
"""

#: As HOLD, and starts a tool that inherits the lock.
HOLD_WITH_TOOL = """
import subprocess, sys
from hil.locks import PlaceLock
lock = PlaceLock(["k"], place="desk", wait_s=60)
lock.acquire()
tool = subprocess.Popen(["sleep", "300"], pass_fds=lock.fds)
print(tool.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path))
    return tmp_path


@pytest.fixture
def start():
    """Starts a script in a process of its own and waits for its first line."""
    started = []

    def run(script):
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def desk(wait_s=0.0, **options):
    return PlaceLock(["k"], place="desk", wait_s=wait_s, **options)


def test_a_place_that_another_process_has_is_busy_and_the_message_says_who(start):
    process, _ = start(HOLD)

    with pytest.raises(
        PlaceBusy, match=rf"desk is in use by -c \(pid {process.pid}, user .* since"
    ):
        desk().acquire()


def test_a_waiter_gets_the_place_when_it_is_given_up_and_says_once_whom_it_waits_for(
    start, monkeypatch
):
    monkeypatch.setattr(locks, "TELL_S", 0.0)
    process, _ = start(HOLD)
    said = []
    timer = threading.Timer(0.3, process.stdin.close)
    timer.start()

    with desk(DEADLINE_S, waiting=said.append):
        timer.join()

    assert len(said) == 1
    assert f"pid {process.pid}" in said[0]


def test_a_wait_ends_when_it_is_told_to(start):
    start(HOLD)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()

    with pytest.raises(PlaceBusy):
        desk(DEADLINE_S, stop=stop).acquire()


def test_a_killed_holder_leaves_nothing_locked(start):
    process, _ = start(HOLD)

    process.send_signal(signal.SIGKILL)
    process.wait()

    with desk():
        assert holders()[0].pid == os.getpid()


def test_a_tool_that_outlives_its_killed_parent_keeps_the_place(start):
    """It still has its hands on the probe: a second one would write the same flash."""
    process, tool = start(HOLD_WITH_TOOL)

    process.kill()
    process.wait()

    try:
        with pytest.raises(PlaceBusy, match=f"a tool that .*pid {process.pid}"):
            desk().acquire()
        assert not holders()[0].is_running
    finally:
        os.kill(int(tool), signal.SIGKILL)
    with desk(DEADLINE_S):
        pass


def test_a_process_forked_without_exec_does_not_keep_the_place():
    """As training workers are: they may live on when the study is killed."""
    ready, theirs = os.pipe()
    lock = desk()
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(theirs, b"!")
        time.sleep(300)
        os._exit(0)
    try:
        os.read(ready, 1)
        with pytest.raises(PlaceBusy):  # the child's closing did not unlock it
            desk().acquire()
        lock.release()
        with desk():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(theirs)


def test_a_process_forked_by_one_who_waits_does_not_hold_up_the_others(start):
    """It would sit in its seat for as long as it lives."""
    process, _ = start(HOLD)
    lock = desk(DEADLINE_S)
    waiter = threading.Thread(target=lock.acquire)
    waiter.start()
    deadline = time.monotonic() + DEADLINE_S
    while not lock._seats:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)  # to the first seat
    child = os.fork()
    if child == 0:
        time.sleep(300)
        os._exit(0)
    try:
        process.kill()
        waiter.join(DEADLINE_S)
        lock.release()
        with desk(DEADLINE_S / 2):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\x00", b"[]", b'"x"', b'{"pid": "1"}', b"{" * 5000, b'{"pid": true}', b"[" * 4096],
)
def test_a_damaged_record_neither_frees_the_place_nor_stops_a_message(folder, garbage):
    with desk():
        (folder / "k.lock").write_bytes(garbage)

        assert [holder.pid for holder in holders()] == [0]
        with pytest.raises(PlaceBusy, match="no readable record"):
            desk().acquire()


def test_the_record_of_a_dead_holder_is_not_taken_for_a_holder(folder):
    """As after a reboot with the folder on a disk."""
    record = {"place": "desk", "pid": 1, "user": "", "host": "", "command": "", "since": ""}
    (folder / "k.lock").write_text(json.dumps(record))

    assert holders() == []
    with desk():
        pass


def test_who_only_waits_never_writes_the_record(start, folder):
    start(HOLD)
    before = (folder / "k.lock").read_bytes()

    with pytest.raises(PlaceBusy):
        desk(0.2).acquire()

    assert (folder / "k.lock").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "no" / "such"))

    with pytest.raises(UsageError, match="HIL_LOCKS"):
        desk()
    assert holders() == []


def test_the_folder_of_the_machine_is_open_to_all_users(tmp_path, monkeypatch):
    monkeypatch.delenv("HIL_LOCKS")
    monkeypatch.setattr(locks, "_MACHINE_DIR", tmp_path / "hil")
    before = os.umask(0o077)
    try:
        with desk():
            assert (tmp_path / "hil").stat().st_mode & 0o7777 == 0o1777
    finally:
        os.umask(before)


def test_where_there_is_no_folder_for_the_machine_temporary_files_do(tmp_path, monkeypatch):
    monkeypatch.delenv("HIL_LOCKS")
    monkeypatch.setattr(locks, "_MACHINE_DIR", tmp_path / "run" / "lock" / "hil")
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))

    assert lock_dir() == tmp_path / "hil-locks"


def test_a_folder_of_another_user_that_is_closed_is_not_replaced_by_one_of_our_own(
    tmp_path, monkeypatch
):
    """Two folders would let two users on one board."""
    monkeypatch.delenv("HIL_LOCKS")
    monkeypatch.setattr(locks, "_MACHINE_DIR", tmp_path / "hil")
    monkeypatch.setattr(locks.os, "access", lambda path, mode: "hil-locks" in str(path))

    with pytest.raises(UsageError, match="may not be written by this user"):
        lock_dir()


def test_other_users_may_lock_what_one_user_made(folder):
    before = os.umask(0o077)
    try:
        with desk():
            pass
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666}


def test_a_place_is_locked_by_all_that_belongs_to_it():
    """Two places that share a meter measure in turn; nobody holds a part while waiting."""
    first = PlaceLock(["board_a", "meter"], place="a", wait_s=0)
    second = PlaceLock(["board_b", "meter"], place="b", wait_s=0)
    with first:
        with pytest.raises(PlaceBusy):
            second.acquire()
        with PlaceLock(["board_b"], place="b", wait_s=0):
            pass
    with second:
        pass


def test_the_same_board_has_the_same_keys_however_its_place_is_written():
    def keys(**entry):
        return set(place_keys("x", PlaceEntry("nrf52840_dk", **entry), Path("lab.toml")))

    by_id = keys(port=BY_ID)
    assert by_id == keys(port="usb:683012345") == keys(port="usb:000683012345:2")
    assert by_id == keys(port=BY_ID, probe="683012345")
    assert by_id < keys(port=BY_ID, meter=MeterEntry("ppk2", port="usb:E6"))
    assert not by_id & keys(port="usb:683012346")
    assert len(keys(port="/dev/serial/by-path/pci-0-usb-0:1:1.0", probe="683")) == 2


def test_a_named_virtual_place_is_told_by_its_lab_file(tmp_path):
    entry = PlaceEntry("nrf52840_dk", virtual=True)

    here = place_keys("twin", entry, tmp_path / "lab.toml")

    assert here == place_keys("twin", entry, tmp_path / "." / "lab.toml")
    assert here != place_keys("other", entry, tmp_path / "lab.toml")
    assert here != place_keys("twin", entry, tmp_path / "x" / "lab.toml")


def test_anonymous_virtual_boards_never_wait_and_are_shown():
    with SlotLock("virtual:a", "a"), SlotLock("virtual:a", "a"):
        assert [holder.place for holder in holders()] == ["virtual:a", "virtual:a"]
    assert holders() == []


def test_anonymous_virtual_boards_need_no_folder(folder):
    folder.chmod(0o500)
    try:
        with SlotLock("virtual:a", "a"):
            pass
    finally:
        folder.chmod(0o700)


def test_giving_way_to_nobody_keeps_the_place():
    with desk() as lock:
        before = lock.fds

        assert not lock.yield_turn()
        assert lock.fds == before


def _contend(folder, turns, gate):
    """Takes `turns` turns with a job each, giving way in between; spoils `busy` when not alone."""
    gate.wait()
    lock = PlaceLock(["k"], place="desk", wait_s=DEADLINE_S)
    with lock:
        for turn in range(turns):
            if turn:
                lock.yield_turn()
            marker = os.open(folder / "busy", os.O_CREAT | os.O_EXCL)
            os.close(marker)
            time.sleep(0.002)
            with open(folder / "turns", "a") as file:
                file.write(f"{os.getpid()}\n")
            os.unlink(folder / "busy")


def test_eight_processes_each_get_their_turns_one_at_a_time(folder):
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(8)
    processes = [fork.Process(target=_contend, args=(folder, 5, gate)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)

    assert [process.exitcode for process in processes] == [0] * 8
    turns = (folder / "turns").read_text().split()
    assert {pid: turns.count(pid) for pid in turns} == {str(p.pid): 5 for p in processes}


def _study(folder, name, jobs, gate=None):
    """Measures as a long study does: one job a turn, giving way to whoever waits."""
    lock = PlaceLock(["k"], place="desk", wait_s=DEADLINE_S)
    with lock:
        if gate is not None:
            gate.wait(DEADLINE_S)
        for _ in range(jobs):
            with open(folder / "turns", "a") as file:
                file.write(f"{name}\n")
            while not lock.yield_turn():  # the other needs a moment to queue up
                if (folder / "stop").exists():
                    return
                time.sleep(0.001)


def test_two_studies_that_want_one_place_measure_in_turn(folder):
    """Who gives the place up queues like anybody else: none gets two turns in a row."""
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(2)
    other = fork.Process(target=_study, args=(folder, "theirs", 1000, gate))
    other.start()
    try:
        gate.wait(DEADLINE_S)
        _study(folder, "mine", 5)
    finally:
        (folder / "stop").touch()
        other.join(DEADLINE_S)

    turns = (folder / "turns").read_text().split()
    assert turns[:10] == ["theirs", "mine"] * 5


def test_open_place_locks_a_named_place_and_gives_it_up(tmp_path, monkeypatch):
    lab = tmp_path / "lab.toml"
    lab.write_text('[places.twin]\nboard = "nrf52840_dk"\nvirtual = true\n')
    monkeypatch.setenv("HIL_LAB", str(lab))

    with open_place("twin") as place:
        assert place.lock is not None
        assert [holder.place for holder in holders()] == ["twin"]
        with pytest.raises(PlaceBusy), open_place("twin", wait_s=0):
            pass
    assert holders() == []
