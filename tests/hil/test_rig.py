"""Many places at once: who runs which job, what becomes of it when a place fails, and the end."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from lab_fakes import JournalLab
from records import make_record

from hil.errors import (
    BoardNotFound,
    DoesNotFit,
    LedgerError,
    LinkTimeout,
    PlaceBusy,
    PlaceQuarantined,
    UsageError,
    WrongBoard,
)
from hil.health import Ledger
from hil.lab import Lab, PlaceEntry
from hil.rig import Job, Rig
from hil.where import Where, find_places

SILENT = LinkTimeout("/dev/ttyX", 2.0, b"", "reply to hello")
DEADLINE_S = 30.0


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "lab.sqlite") as opened:
        yield opened


class Bench:
    """A rig on journal places, with what it measured where.

    Args:
        ledger: of the rig.
        on_measure: called with (place, model) instead of measuring; may raise or wait.
    """

    def __init__(self, ledger, on_measure=lambda place, model: None, lab=None):
        self.lab = lab or JournalLab()
        self.measured = []
        self.done = queue.SimpleQueue()
        self.rig = Rig(self._measure, open_place=self.lab.open, ledger=ledger)
        self._on_measure = on_measure

    def _measure(self, place, job, stage):
        stage("measuring")
        self._on_measure(place.name, job.model)
        self.measured.append((place.name, job.model))
        return make_record(place=place.name)

    def submit(self, model, *places, spares=(), owner="me"):
        where = Where(places[0], places, tuple(spares))
        self.rig.submit(Job(owner, model, where, model, b"", "tiny"), self.done.put)

    def next(self):
        return self.done.get(timeout=DEADLINE_S)

    def results(self, count):
        return {done.job.model: done for done in (self.next() for _ in range(count))}


@pytest.fixture
def make_bench(ledger):
    made = []

    def make(*arguments, **options):
        made.append(Bench(ledger, *arguments, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.rig.close()
        assert not any(t.name.startswith("place ") and t.is_alive() for t in threading.enumerate())


def test_a_job_for_several_places_is_done_by_one_of_them_once(make_bench):
    bench = make_bench()
    for number in range(20):
        bench.submit(f"m{number}", "a", "b")

    done = bench.results(20)

    assert sorted(model for _, model in bench.measured) == sorted(done)
    assert all(d.record.place == d.place and d.place in ("a", "b") for d in done.values())


def test_places_work_at_the_same_time_and_keep_open(make_bench):
    both = threading.Barrier(2)
    bench = make_bench(lambda place, model: both.wait(DEADLINE_S) and None)
    for number in range(3):
        bench.submit(f"a{number}", "a")
        bench.submit(f"b{number}", "b")

    bench.results(6)

    assert bench.lab.done_at("a") == ["open"]
    assert [model for place, model in bench.measured if place == "a"] == ["a0", "a1", "a2"]


def test_owners_take_turns_however_many_jobs_each_has(make_bench):
    go = threading.Event()
    bench = make_bench(lambda place, model: go.wait(DEADLINE_S) and None)
    bench.submit("first", "a")
    for number in range(5):
        bench.submit(f"x{number}", "a", owner="x")
    bench.submit("y0", "a", owner="y")
    bench.submit("y1", "a", owner="y")
    go.set()

    bench.results(8)

    assert [model for _, model in bench.measured][:5] == ["first", "x0", "y0", "x1", "y1"]


def test_a_fault_is_retried_and_one_record_comes_of_it(make_bench):
    faults = [SILENT]

    def fail_once(place, model):
        if faults:
            raise faults.pop()

    bench = make_bench(fail_once)
    bench.submit("m", "a")

    assert bench.next().record is not None
    assert bench.lab.done_at("a") == ["open", "reset"]
    (view,) = bench.rig.views()
    assert (view.place, view.faults) == ("a", 1)


def test_jobs_of_a_quarantined_place_move_to_a_spare_that_says_so(make_bench, ledger):
    def refuse(place, model):
        if place == "a":
            raise WrongBoard("board", "nrf52840_dk", "nucleo_l4r5zi")

    bench = make_bench(refuse)
    for number in range(4):
        bench.submit(f"m{number}", "a", spares=["b"])

    done = bench.results(4)

    assert {d.place for d in done.values()} == {"b"}
    assert {d.record.place for d in done.values()} == {"b"}
    assert ledger.quarantined("a").startswith("WrongBoard")
    assert {v.place: v.state for v in bench.rig.views()} == {"a": "quarantined", "b": "idle"}


def test_a_spare_is_not_used_while_the_place_works(make_bench):
    bench = make_bench()
    for number in range(4):
        bench.submit(f"m{number}", "a", spares=["b"])

    bench.results(4)

    assert {place for place, _ in bench.measured} == {"a"}


def test_without_another_place_the_jobs_end_with_a_typed_error(make_bench, ledger):
    def refuse(place, model):
        raise WrongBoard("board", "nrf52840_dk", "nucleo_l4r5zi")

    bench = make_bench(refuse)
    for number in range(3):
        bench.submit(f"m{number}", "a", spares=["b"])

    done = bench.results(3)

    assert all(isinstance(d.error, PlaceQuarantined) for d in done.values())
    assert set(ledger.quarantines()) == {"a", "b"}


def test_a_place_that_was_quarantined_before_is_not_opened(make_bench, ledger):
    ledger.quarantine("a", "smells of smoke")
    bench = make_bench()
    bench.submit("m", "a")

    assert "smells of smoke" in str(bench.next().error)
    assert bench.lab.journal == []


def test_a_released_place_works_again(make_bench, ledger):
    ledger.quarantine("a", "smells of smoke")
    bench = make_bench()
    bench.submit("m0", "a", "b")
    assert bench.next().place == "b"
    deadline = time.monotonic() + DEADLINE_S
    while {v.place: v.state for v in bench.rig.views()}["a"] != "quarantined":
        assert time.monotonic() < deadline

    ledger.release("a")
    while {v.place: v.state for v in bench.rig.views()}["a"] == "quarantined":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.submit("m1", "a")

    assert bench.next().place == "a"


def test_a_busy_place_leaves_the_job_to_another_one(make_bench):
    lab = JournalLab()
    lab.busy = {"a"}
    opened = lab.open

    def open_place(name, stop):
        if name in lab.busy:
            raise PlaceBusy(name, "hil search (pid 7)")
        return opened(name, stop)

    lab.open = open_place
    bench = make_bench(lab=lab)
    bench.submit("m", "a", "b")
    assert bench.next().place == "b"

    bench.submit("n", "a")
    assert "pid 7" in str(bench.next().error)


def test_errors_of_the_job_and_mistakes_of_ours_come_back_with_it(make_bench):
    errors = {"big": DoesNotFit("m", "b", "RAM", 2, 1), "bug": ZeroDivisionError("oops")}

    def fail(place, model):
        if model in errors:
            raise errors[model]

    bench = make_bench(fail)
    for model in ("big", "bug", "good"):
        bench.submit(model, "a")

    done = bench.results(3)

    assert done["big"].error is errors["big"]
    assert done["bug"].error is errors["bug"]
    assert "ZeroDivisionError: oops" in done["bug"].traceback
    assert done["good"].record is not None


def test_withdrawing_finishes_what_is_under_way_and_drops_the_rest_of_that_owner(make_bench):
    began, go = threading.Event(), threading.Event()

    def wait(place, model):
        began.set()
        assert go.wait(DEADLINE_S)

    bench = make_bench(wait)
    for number in range(3):
        bench.submit(f"x{number}", "a", owner="x")
    bench.submit("y", "a", owner="y")
    assert began.wait(DEADLINE_S)
    threading.Timer(0.05, go.set).start()
    bench.rig.withdraw("x")

    assert bench.next().job.model == "x0"
    assert bench.next().job.model == "y"
    bench.rig.wait("y")
    assert bench.done.empty()


def test_closing_abandons_what_is_under_way_and_leaves_no_place_open(ledger):
    began = threading.Event()
    places = []

    def measure(place, job, stage):
        places.append(place)
        began.set()
        assert place.closed.wait(DEADLINE_S)  # as reading from the port of a board that is gone
        raise SILENT

    lab = JournalLab()
    done = queue.SimpleQueue()
    with Rig(measure, open_place=lab.open, ledger=ledger) as rig:
        for number in range(3):
            where = Where("a", ("a",))
            rig.submit(Job("me", number, where, "m", b"", "tiny"), done.put)
        assert began.wait(DEADLINE_S)

    assert [place.closed.is_set() for place in places] == [True]
    assert lab.done_at("a") == ["open", "close"]
    assert ledger.failures_in_row("a") == 0


def test_the_lab_says_which_places_may_run_what():
    def entry(board="nrf52840_dk", virtual=True, **options):
        port = None if virtual else "/dev/serial/by-id/usb-X_1-if00"
        return PlaceEntry(board, port=port, virtual=virtual, **options)

    lab = Lab(
        {
            "a": entry(virtual=False),
            "b": entry(virtual=False),
            "twin": entry(),
            "other": entry("stm32f746g_disco"),
        }
    )

    assert find_places("a", lab) == Where("a", ("a",), ("b",))
    assert find_places("twin", lab) == Where("twin", ("twin",))
    assert find_places("nrf52840_dk", lab) == Where("nrf52840_dk", ("a", "b"))
    assert find_places("stm32f746g_disco", lab) == Where("stm32f746g_disco", ("other",))
    assert find_places("virtual:nrf52840_dk", lab).all == ("virtual:nrf52840_dk",)
    with pytest.raises(UsageError, match="is a board, not a place"):
        find_places("nucleo_l4r5zi", lab)
    with pytest.raises(BoardNotFound):
        find_places("c", lab)


def test_a_worker_that_breaks_down_leaves_nobody_waiting(tmp_path):
    ledger = Ledger(tmp_path / "lab.sqlite")
    with Rig(lambda *_: make_record(), open_place=JournalLab().open, ledger=ledger) as rig:
        ledger.close()
        done = queue.SimpleQueue()
        for number in range(3):
            rig.submit(Job("me", number, Where("a", ("a",)), "m", b"", "tiny"), done.put)
        errors = [done.get(timeout=DEADLINE_S).error for _ in range(3)]
        rig.wait("me")

    assert all(isinstance(error, LedgerError) for error in errors)
