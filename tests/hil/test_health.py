"""The health ledger: lines, quarantine and wear, shared by processes that may be killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hil import health
from hil.errors import LedgerError
from hil.health import Ledger, Wear

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "lab.sqlite") as opened:
        yield opened


def test_lines_come_back_in_order_and_of_one_place(ledger):
    ledger.add("desk", "fault", "silent", "reset", error="LinkTimeout")
    ledger.add("shelf", "fault", "hot")
    ledger.add("desk", "reset")

    lines = ledger.events("desk")
    assert [(line.event, line.error, line.detail, line.action) for line in lines] == [
        ("fault", "LinkTimeout", "silent", "reset"),
        ("reset", "", "", ""),
    ]
    assert [line.place for line in ledger.events()] == ["desk", "shelf", "desk"]


def test_old_lines_leave_their_totals(ledger, monkeypatch):
    monkeypatch.setattr(health, "KEPT_LINES", 10)
    ledger.add("shelf", "fault")
    for _ in range(200):
        ledger.add("desk", "fault", error="LinkTimeout")

    assert len(ledger.events("desk", limit=1000)) < 70
    (total,) = ledger.totals("desk")
    assert (total.event, total.error, total.count) == ("fault", "LinkTimeout", 200)
    assert len(ledger.events("shelf")) == 1


def test_a_place_is_quarantined_until_it_is_released(ledger):
    ledger.failed("desk")
    ledger.quarantine("desk", "silent three times")
    ledger.quarantine("desk", "again")

    assert ledger.quarantined("desk") == "silent three times"
    assert list(ledger.quarantines()) == ["desk"]
    assert ledger.release("desk")
    assert ledger.quarantined("desk") is None
    assert ledger.failures_in_row("desk") == 0
    assert not ledger.release("desk")
    assert [line.event for line in ledger.events("desk")] == ["quarantine", "release"]


def test_failures_in_a_row_are_counted_across_openings(tmp_path):
    path = tmp_path / "lab.sqlite"
    counts = []
    for _ in range(3):
        with Ledger(path) as ledger:
            counts.append(ledger.failed("desk"))
    with Ledger(path) as ledger:
        ledger.succeeded("desk")
        counts.append(ledger.failed("desk"))

    assert counts == [1, 2, 3, 1]


def test_wear_adds_up(ledger):
    ledger.add_wear("desk", erased_sectors=3, written_bytes=12_000)
    ledger.add_wear("desk", erased_sectors=0, written_bytes=0)

    assert ledger.wear("desk") == Wear(loads=2, erased_sectors=3, written_bytes=12_000)
    assert ledger.wear("shelf") == Wear()


def test_an_anonymous_virtual_board_has_lines_only(ledger):
    name = "virtual:nrf52840_dk?fault=silence"
    ledger.add(name, "fault")
    ledger.add_wear(name, erased_sectors=1, written_bytes=1)

    assert [line.place for line in ledger.events(name)] == ["virtual:nrf52840_dk"]
    assert ledger.wear(name) == Wear()
    assert [ledger.failed(name), ledger.failed(name)] == [1, 1]
    with pytest.raises(ValueError, match="made anew"):
        ledger.quarantine(name, "silent")


def test_threads_share_a_ledger(ledger):
    def add(name):
        for number in range(20):
            ledger.add("desk", name, str(number))

    threads = [threading.Thread(target=add, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [total.count for total in ledger.totals("desk")] == [20] * 4


def test_processes_make_one_file_together_and_a_kill_leaves_whole_lines(tmp_path):
    path = tmp_path / "new" / "lab.sqlite"
    program = """
import sys
from pathlib import Path
from hil.health import Ledger
ledger = Ledger(Path(sys.argv[1]))
number = 0
while True:
    ledger.add("desk", sys.argv[2], str(number))
    ledger.failed("desk")
    print(number, flush=True)
    number += 1
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), name], cwd=ROOT, stdout=subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    acknowledged = {}
    for name, writer in zip("ab", writers, strict=True):
        for _ in range(30):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        acknowledged[name] = 30 + sum(line.isdigit() for line in rest)
        writer.stdout.close()
        writer.wait()

    with Ledger(path) as ledger:
        counts = {total.event: total.count for total in ledger.totals("desk")}
        for name, least in acknowledged.items():
            assert least <= counts[name] <= least + 1
            assert sum(line.event == name for line in ledger.events(limit=10**6)) <= counts[name]
        assert ledger.failed("desk") > sum(acknowledged.values())


def test_a_file_of_something_else_is_refused_with_its_name(tmp_path):
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("create table cats (name text)")
    connection.close()
    text = tmp_path / "text.sqlite"
    text.write_text("dear diary\n" * 100)

    with pytest.raises(LedgerError, match=r"other\.sqlite"):
        Ledger(other)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(text)


def test_the_environment_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HIL_LEDGER", str(tmp_path / "mine.sqlite"))

    with Ledger() as ledger:
        ledger.add("desk", "fault")

    assert (tmp_path / "mine.sqlite").exists()
