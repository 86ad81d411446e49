from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from search_fakes import (
    LIMITS,
    PLACES,
    WHERES,
    FakeBenches,
    break_down,
    exit_at_once,
    make_data,
    pretend,
    pretend_slowly,
)

import hil.errors
from hil.fronts import place_fronts
from hil.store import Store
from hil.where import Where
from search.errors import StudyStopped
from search.loop import Progress, StudyResult, run_study
from search.study import StudySettings
from search.workers import Work

ROOT = Path(__file__).resolve().parents[2]


def make_settings(**changes: object) -> StudySettings:
    values: dict[str, object] = {
        "name": "s",
        "places": PLACES,
        "trials": 8,
        "space_options": {"depth": (3, 4), "channels": (2, 4, 8, 16)},
        "strategy_options": {"population_size": 4, "sample_size": 2},
        "pending": 3,
    }
    return StudySettings(**(values | changes))  # type: ignore[arg-type]


def run(
    path: Path,
    settings: StudySettings,
    benches: FakeBenches | None = None,
    *,
    work: Work = pretend,
    lines: list[Progress] | None = None,
) -> StudyResult:
    with Store(path) as store, (benches or FakeBenches()).rig() as rig:
        return run_study(
            settings,
            data=make_data(),
            store=store,
            boards=LIMITS,
            rig=rig,
            wheres=WHERES,
            progress=(lines if lines is not None else []).append,
            work=work,
        )


def points(path: Path, name: str = "s") -> list[dict[str, object]]:
    with Store(path) as store:
        return [row.point for row in store.load_study(name).trials()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a study that ran through without a disturbance."""
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    result = run(path, make_settings())
    assert sum(result.counts.values()) == 8 and not result.interrupted
    return path


def test_every_trial_is_settled_and_measured_once_on_every_place(whole: Path) -> None:
    with Store(whole) as store:
        rows = store.load_study("s").trials()

    assert {row.state for row in rows} <= {"measured", "infeasible"}
    assert len({row.arch_hash for row in rows}) == 8
    for row in rows:
        places = sorted(record.place for record in row.records)
        assert places == (sorted(PLACES) if row.state == "measured" else [])
        assert row.outcome["summary"]


def test_slow_boards_do_not_change_what_is_proposed(tmp_path: Path, whole: Path) -> None:
    def first_board_is_slow(place: str, _: str) -> None:
        time.sleep(0.1 if place == PLACES[0] else 0.0)

    benches = FakeBenches(on_measure=first_board_is_slow)
    run(tmp_path / "s", make_settings(workers=2), benches)

    assert points(tmp_path / "s") == points(whole)


def test_ctrl_c_ends_the_run_and_the_study_goes_on_as_if_it_had_not(
    tmp_path: Path, whole: Path
) -> None:
    seen: list[str] = []

    def press_ctrl_c(_: str, name: str) -> None:
        seen.append(name)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    benches = FakeBenches(on_measure=press_ctrl_c)
    handler = signal.getsignal(signal.SIGINT)

    first = run(tmp_path / "s", make_settings(), benches)
    handler_after = signal.getsignal(signal.SIGINT)
    second = run(tmp_path / "s", make_settings(), benches)

    assert first.interrupted and not second.interrupted
    assert handler_after is handler
    assert points(tmp_path / "s") == points(whole)
    assert max(Counter(benches.measured).values()) == 1  # nothing was measured twice


def test_a_second_ctrl_c_does_not_wait_for_the_board(tmp_path: Path, whole: Path) -> None:
    def press_twice(_: str, name: str) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", make_settings(), FakeBenches(on_measure=press_twice))
    run(tmp_path / "s", make_settings())

    assert points(tmp_path / "s") == points(whole)


def test_more_trials_can_be_asked_of_a_finished_study(tmp_path: Path, whole: Path) -> None:
    run(tmp_path / "s", make_settings(trials=3))
    run(tmp_path / "s", make_settings(trials=8))

    assert points(tmp_path / "s") == points(whole)


def test_other_settings_are_refused_by_name(whole: Path) -> None:
    with pytest.raises(hil.errors.UsageError, match="seed"):
        run(whole, make_settings(seed=5))


def test_a_study_stops_after_failures_of_one_kind_in_a_row(tmp_path: Path) -> None:
    lines: list[Progress] = []

    with pytest.raises(StudyStopped, match=r"RuntimeError.*no training for trial_0000"):
        run(tmp_path / "s", make_settings(), work=break_down, lines=lines)

    with Store(tmp_path / "s") as store:
        failed = store.load_study("s").trials(state="failed")
    assert len(failed) >= 3
    assert "Traceback" in failed[0].outcome["traceback"]
    assert failed[0].outcome["kind"] == "RuntimeError"


def test_a_training_process_that_dies_is_a_failure_of_its_trial(tmp_path: Path) -> None:
    with pytest.raises(StudyStopped, match=r"WorkerLost.*exit code 9"):
        run(tmp_path / "s", make_settings(max_failures=1), work=exit_at_once)


def test_a_trial_that_fails_on_a_board_at_every_attempt_fails_and_others_go_on(
    tmp_path: Path,
) -> None:
    def fail(place: str, name: str) -> None:
        if place == PLACES[0] and name == "s-0000":
            raise hil.errors.LinkTimeout("/dev/ttyX", 2.0, b"garbage", "reply to hello")

    benches = FakeBenches(on_measure=fail)
    run(tmp_path / "s", make_settings(trials=3), benches)

    with Store(tmp_path / "s") as store:
        rows = store.load_study("s").trials()
    assert rows[0].state == "failed"
    assert "virtual:nrf52840_dk: serial port /dev/ttyX" in rows[0].outcome["reason"]
    assert {row.state for row in rows[1:]} <= {"measured", "infeasible"}
    assert benches.lab.done_at(PLACES[0]).count("reset") == 1


def test_a_fault_of_a_board_costs_time_and_changes_nothing(tmp_path: Path, whole: Path) -> None:
    attempts: Counter[tuple[str, str]] = Counter()

    def fail_first(place: str, name: str) -> None:
        attempts[place, name] += 1
        if attempts[place, name] == 1:
            raise hil.errors.LinkTimeout("/dev/ttyX", 2.0, b"garbage", "reply to hello")

    run(tmp_path / "s", make_settings(), FakeBenches(on_measure=fail_first))

    assert points(tmp_path / "s") == points(whole)
    with Store(tmp_path / "s") as store, Store(whole) as undisturbed:
        rows, others = store.load_study("s").trials(), undisturbed.load_study("s").trials()
    for place in PLACES:
        assert [row.record(place) for row in rows] == [row.record(place) for row in others]


def test_another_place_takes_over_for_one_in_quarantine_and_the_record_says_so(
    tmp_path: Path,
) -> None:
    def refuse(place: str, _: str) -> None:
        if place == "first_desk":
            raise hil.errors.WrongBoard("board", "nrf52840_dk", "nucleo_l4r5zi")

    wheres = {
        "first_desk": Where("first_desk", ("first_desk",), ("shelf",)),
        PLACES[1]: WHERES[PLACES[1]],
    }
    settings = make_settings(trials=3, places=("first_desk", PLACES[1]))
    with Store(tmp_path / "s") as store, FakeBenches(on_measure=refuse).rig() as rig:
        run_study(
            settings,
            data=make_data(),
            store=store,
            boards={"first_desk": LIMITS[PLACES[0]], PLACES[1]: LIMITS[PLACES[1]]},
            rig=rig,
            wheres=wheres,
            work=pretend,
        )
        rows = store.load_study("s").trials(state="measured")
        fronts = place_fronts(store.load_study("s"))

    assert rows
    for row in rows:
        record = row.record("first_desk")
        assert record is not None and record.place == "shelf"
    assert {front.place for front in fronts} == {"first_desk", PLACES[1]}


def test_without_a_place_the_study_stops_and_no_trial_is_blamed(
    tmp_path: Path, whole: Path
) -> None:
    def refuse(place: str, _: str) -> None:
        raise hil.errors.PlaceQuarantined(place, "smells of smoke")

    with pytest.raises(hil.errors.PlaceQuarantined, match="smells of smoke"):
        run(tmp_path / "s", make_settings(), FakeBenches(on_measure=refuse))

    with Store(tmp_path / "s") as store:
        assert not store.load_study("s").trials(state="failed")
    run(tmp_path / "s", make_settings())
    assert points(tmp_path / "s") == points(whole)


def test_a_firmware_that_the_linker_finds_too_large_is_infeasible(tmp_path: Path) -> None:
    def refuse(place: str, _: str) -> None:
        raise hil.errors.DoesNotFit("firmware", "nrf52840_dk", "RAM", 300_000, 262_144)

    run(tmp_path / "s", make_settings(trials=1), FakeBenches(on_measure=refuse))

    with Store(tmp_path / "s") as store:
        row = store.load_study("s").trial(0)
    assert row.state == "infeasible"
    assert row.outcome["violations"] == {"sram_bytes@nrf52840_dk": 37_856}
    assert row.outcome["violation"] == pytest.approx(37_856 / 262_144)


def test_a_space_with_fewer_networks_than_trials_ends_the_study(tmp_path: Path) -> None:
    options = {"depth": (3,), "channels": (2,), "kernels": (3,)}

    result = run(tmp_path / "s", make_settings(trials=50, space_options=options))

    assert result.exhausted
    assert sum(result.counts.values()) == 2**3  # an operation for each of three layers


def test_boards_measure_while_the_next_networks_train(tmp_path: Path) -> None:
    started = time.monotonic()
    run(
        tmp_path / "s",
        make_settings(trials=8, strategy="random", strategy_options={}),
        FakeBenches(delay_s=0.15),
        work=pretend_slowly,
    )
    lone_start_s = 6.0  # of the training process, at worst

    # One after another: 8 x (0.15 s training + 2 x 0.15 s boards) = 3.6 s.
    assert time.monotonic() - started < lone_start_s + 8 * 0.15 + 1.0


KILLED_STUDY = """
    import sys
    from pathlib import Path
    from search_fakes import *
    from search_fakes import FakeBenches, pretend_slowly
    from test_settings import settings
    from hil.store import Store
    from search.loop import run_study
    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        benches = FakeBenches(delay_s=0.05, journal=folder / "journal")
        with Store(folder / "s") as store, benches.rig() as rig:
            run_study(settings, data=make_data(), store=store, boards=LIMITS,
                      rig=rig, wheres=WHERES, work=pretend_slowly,
                      progress=lambda line: print(line.state, flush=True))
"""


@pytest.mark.slow
def test_a_killed_study_loses_and_repeats_no_trial(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "study.py").write_text(textwrap.dedent(KILLED_STUDY))
    (tmp_path / "test_settings.py").write_text(
        f"from search.study import StudySettings\nsettings = {make_settings()!r}\n".replace(
            "TrainSettings(", "__import__('search.train').train.TrainSettings("
        )
    )
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    for wanted_measured in (1, 3):
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "study.py"), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        guard = threading.Timer(60.0, process.kill)
        guard.start()
        assert process.stdout is not None
        for line in process.stdout:
            wanted_measured -= line.strip() == "measured"
            if not wanted_measured:
                break
        guard.cancel()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    run(tmp_path / "s", make_settings(), FakeBenches(journal=tmp_path / "journal"))

    assert points(tmp_path / "s") == points(whole)
    with Store(tmp_path / "s") as store:
        rows = store.load_study("s").trials()
    assert {row.state for row in rows} <= {"measured", "infeasible"}
    records = sum(len(row.records) for row in rows)
    measured = (tmp_path / "journal").read_text().splitlines()
    # A kill can fall between the end of a measurement and its storing: only those are repeated.
    assert records <= len(measured) <= records + 2 * len(PLACES)
