from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading

import pytest
from records import make_record

from hil.errors import StoreError, UsageError
from hil.store import DuplicateTrial, Store
from hil.timings import Conditions, LayerTiming

CONDITIONS = Conditions(
    board="b", source="virtual", timing_model="m/1", compiler="gcc", flags=(), build="0" * 16
)
CONFIG = {"space": "mini_nas", "seed": 3, "places": ("virtual:nrf52840_dk",)}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results" / "hil.sqlite") as store:
        yield store


@pytest.fixture
def study(store):
    return store.open_study("s1", CONFIG)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs `code` with the test support on its path."""
    support = os.path.join(os.path.dirname(__file__), "..", "support")
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": support},
    )


def test_records_come_back_as_they_were(store):
    store.add_record(make_record())

    assert store.records() == [make_record()]


def test_the_identical_record_is_kept_once(store):
    assert store.add_record(make_record()) == store.add_record(make_record())
    assert len(store.records()) == 1


def test_records_are_selected_by_model_board_and_engine(store):
    store.add_record(make_record())
    store.add_record(make_record(engine="reference"))
    store.add_record(make_record(place="virtual:stm32f746g_disco"))

    assert len(store.records(engine="tiny")) == 2
    assert len(store.records(board="stm32f746g_disco")) == 1
    assert store.records(model_sha256="00" * 32) == []


def test_a_study_is_made_once_and_found_again(store, study):
    again = store.open_study("s1", CONFIG)

    assert again.config == study.config == {**CONFIG, "places": ["virtual:nrf52840_dk"]}
    assert [row.name for row in store.studies()] == ["s1"]


def test_other_settings_for_the_same_study_are_refused_by_name(store, study):
    with pytest.raises(UsageError, match=r"seed was 3, now 4"):
        store.open_study("s1", {**CONFIG, "seed": 4})


def test_an_unknown_study_names_those_that_exist(store, study):
    with pytest.raises(UsageError, match="studies there: s1"):
        store.load_study("s2")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, ".hidden", "ok\n"])
def test_a_study_name_that_is_no_plain_word_is_refused(store, name):
    with pytest.raises(UsageError, match="study name"):
        store.open_study(name, CONFIG)


def test_a_trial_goes_through_its_states(study):
    study.add_trial(0, {"depth": 3}, "hash0")
    study.update_trial(0, state="trained", outcome={"accuracy": 0.5, "epochs": 3}, model=b"TFL3")
    study.update_trial(0, outcome={"accuracy": 0.75})
    study.attach_record(0, make_record(), board_s=1.5)
    study.update_trial(0, state="measured")

    trial = study.trial(0)

    assert (trial.state, trial.point, trial.arch_hash) == ("measured", {"depth": 3}, "hash0")
    assert trial.outcome == {"accuracy": 0.75, "epochs": 3}
    assert trial.has_model
    assert study.model(0) == b"TFL3"
    assert trial.record("virtual:nrf52840_dk") == make_record()
    assert trial.record("virtual:nrf52840_dk", "reference") is None
    assert study.cost().board_s == 1.5


def test_trials_are_listed_by_number_and_by_state(study):
    for number in (2, 0, 1):
        study.add_trial(number, {}, f"hash{number}")
    study.update_trial(1, state="failed", outcome={"reason": "no"})

    assert [trial.number for trial in study.trials()] == [0, 1, 2]
    assert [trial.number for trial in study.trials(state="failed")] == [1]


def test_a_number_or_an_architecture_enters_once(study):
    study.add_trial(0, {}, "same")

    with pytest.raises(DuplicateTrial, match="already there"):
        study.add_trial(0, {}, "other")
    with pytest.raises(DuplicateTrial, match="architecture of trial 0") as caught:
        study.add_trial(1, {}, "same")
    assert caught.value.other == 0
    assert len(study.trials()) == 1


def test_two_studies_may_hold_the_same_architecture(store, study):
    study.add_trial(0, {}, "same")
    store.open_study("s2", CONFIG).add_trial(0, {}, "same")


def test_a_trial_is_measured_once_on_each_place_and_engine(study):
    study.add_trial(0, {}, "hash")
    study.attach_record(0, make_record())
    study.attach_record(0, make_record(engine="reference"))

    with pytest.raises(StoreError, match="already measured"):
        study.attach_record(0, make_record(cycles=2000))
    assert len(study.trial(0).records) == 2


def test_the_test_set_is_used_once(study):
    study.add_trial(0, {}, "hash")
    study.set_test_accuracy(0, 0.9, 360)

    with pytest.raises(StoreError, match="used once"):
        study.set_test_accuracy(0, 0.95, 360)
    assert (study.trial(0).test_accuracy, study.trial(0).test_samples) == (0.9, 360)


def test_costs_add_up(study):
    study.add_cost(cpu_s=2.0)
    study.add_cost(cpu_s=1.0, board_s=0.5)

    assert study.cost().cpu_s == 3.0
    assert study.cost().board_s == 0.5


def test_a_trial_that_is_not_there_is_named(study):
    with pytest.raises(StoreError, match="no trial 7"):
        study.update_trial(7, state="failed")


def test_an_unknown_state_is_a_programming_error(study):
    with pytest.raises(ValueError, match="proposed"):
        study.add_trial(0, {}, "hash", state="nearly")


def test_a_study_is_run_by_one_holder_at_a_time(study, store, tmp_path):
    with study.lock(), pytest.raises(UsageError, match=f"process {os.getpid()}"):
        store.load_study("s1").lock().__enter__()
    with study.lock():
        pass
    assert not list(tmp_path.rglob("*.lock"))


def test_the_lock_of_a_killed_process_is_free(store, study, tmp_path):
    holder = python(
        """
        import sys, time
        from hil.store import Store
        with Store(sys.argv[1]) as store, store.load_study("s1").lock():
            print("locked", flush=True)
            time.sleep(60)
        """,
        str(tmp_path / "results" / "hil.sqlite"),
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=str(holder.pid)):
            study.lock().__enter__()
        holder.kill()

    with study.lock():
        pass


def test_threads_share_a_store(study):
    def fill(first: int) -> None:
        for number in range(first, first + 10):
            study.add_trial(number, {}, f"hash{number}")
            study.attach_record(number, make_record(cycles=number + 1))

    threads = [threading.Thread(target=fill, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [trial.number for trial in study.trials()] == list(range(30))


def test_processes_that_make_the_same_store_at_once_all_succeed(tmp_path):
    path = str(tmp_path / "hil.sqlite")
    writers = [
        python(
            """
            import sys
            from hil.store import Store
            from records import make_record
            with Store(sys.argv[1]) as store:
                study = store.open_study("shared", {})
                for i in range(5):
                    number = int(sys.argv[2]) * 5 + i
                    study.add_trial(number, {}, f"hash{number}")
                    study.attach_record(number, make_record(cycles=number + 1))
            """,
            path,
            str(which),
        )
        for which in range(3)
    ]
    for writer in writers:
        with writer:
            assert writer.wait(60) == 0

    with Store(path) as store:
        trials = store.load_study("shared").trials()
    assert [trial.number for trial in trials] == list(range(15))
    assert all(len(trial.records) == 1 for trial in trials)


WRITE_UNTIL_KILLED = """
    import itertools, sys
    from hil.store import Store
    from records import make_record
    with Store(sys.argv[1]) as store:
        study = store.open_study("killed", {})
        for number in itertools.count(len(study.trials())):
            study.add_trial(number, {"n": number}, f"hash{number}")
            print("added", number, flush=True)
            study.update_trial(number, state="trained", model=bytes([number % 256]) * 5000)
            print("trained", number, flush=True)
            study.attach_record(number, make_record(cycles=number + 1))
            print("recorded", number, flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_nothing_acknowledged(tmp_path, kills):
    path = str(tmp_path / "hil.sqlite")
    acknowledged: list[tuple[str, int]] = []

    for kill in range(kills):
        with python(WRITE_UNTIL_KILLED, path) as writer:
            assert writer.stdout is not None
            for _ in range(1 + kill % 7):
                what, number = writer.stdout.readline().split(" ")
                acknowledged.append((what, int(number)))
            writer.send_signal(signal.SIGKILL)
            for text in writer.stdout:  # acknowledged between our reading and the kill
                what, number = text.split(" ")
                acknowledged.append((what, int(number)))

        with Store(path) as store:
            study = store.load_study("killed")
            trials = {trial.number: trial for trial in study.trials()}
            for what, number in acknowledged:
                assert number in trials
                if what == "trained":
                    assert study.model(number) == bytes([number % 256]) * 5000
                if what == "recorded":
                    assert len(trials[number].records) == 1


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "hil.sqlite"
    path.write_bytes(b"this is not a database, whatever its name says" * 30)

    with pytest.raises(StoreError, match=r"hil\.sqlite: file is not a database"):
        Store(path)


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()

    with pytest.raises(StoreError, match="something else"):
        Store(path)


def test_a_store_of_another_version_says_which(tmp_path):
    path = tmp_path / "hil.sqlite"
    Store(path).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE meta SET value = '99'")
    connection.close()

    with pytest.raises(StoreError, match="schema version 99"):
        Store(path)


@pytest.mark.parametrize(
    ("version", "lacks"),
    [("1", ("layer_timings", "queue_jobs", "queues")), ("2", ("queue_jobs", "queues"))],
)
def test_a_store_of_an_older_version_keeps_what_is_in_it(tmp_path, version, lacks):
    path = tmp_path / "hil.sqlite"
    record = make_record()
    with Store(path) as store:
        store.add_record(record)
    connection = sqlite3.connect(path)
    with connection:  # as that version made it
        for table in lacks:
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"UPDATE meta SET value = '{version}' WHERE key = 'schema_version'")
    connection.close()

    for _ in range(2):
        with Store(path) as store:
            assert store.records() == [record]
            store.add_layer_timings([("k", {}, LayerTiming(1, 2))], CONDITIONS)
            assert list(store.layer_timings([("k", {})], CONDITIONS).values()) == [
                LayerTiming(1, 2)
            ]
            assert list(store.open_queue("q", {}).records()) == []


def test_a_record_that_was_tampered_with_is_an_error_of_the_store(tmp_path):
    path = tmp_path / "hil.sqlite"
    with Store(path) as store:
        store.add_record(make_record())
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE records SET record = ?", (json.dumps({"schema": 1}),))
        connection.close()

        with pytest.raises(StoreError, match="record without key"):
            store.records()


def test_a_folder_in_the_way_is_an_error_of_the_store(tmp_path):
    with pytest.raises(StoreError):
        Store(tmp_path)


def test_an_unknown_database_url_is_an_error_of_the_store():
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://host/db")


def test_a_study_with_other_settings_names_only_what_differs(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.open_study("s", {"training": {"epochs": 2, "batch": 64}, "seed": 1})

        with pytest.raises(UsageError, match=r"settings \(training.epochs was 2, now 5\); give"):
            store.open_study("s", {"training": {"epochs": 5, "batch": 64}, "seed": 1})


def test_a_queue_remembers_what_was_measured_and_what_failed(tmp_path):
    record, other = make_record(), make_record(cycles=2000)
    with Store(tmp_path / "hil.sqlite") as store:
        queue = store.open_queue("night", {"models": ["a"]})
        with queue.lock():
            queue.add_record(0, record, board_s=1.5)
            queue.add_failure(1, ValueError("too hot"))
            queue.add_failure(2, ValueError("too cold"))

    with Store(tmp_path / "hil.sqlite") as store:
        queue = store.open_queue("night", {"models": ["a"]})
        assert queue.records() == {0: record}
        assert queue.failures() == {1: ("ValueError", "too hot"), 2: ("ValueError", "too cold")}

        queue.add_record(1, other)
        assert queue.records() == {0: record, 1: other}
        assert queue.failures() == {2: ("ValueError", "too cold")}
        assert store.records() == [record, other]


def test_a_job_of_a_queue_is_measured_once(tmp_path):
    with Store(tmp_path / "hil.sqlite") as store:
        queue = store.open_queue("night", {})
        queue.add_record(0, make_record())

        with pytest.raises(StoreError, match="job 0 of queue 'night' is already measured"):
            queue.add_record(0, make_record(cycles=7))
        with pytest.raises(StoreError, match="already measured"):
            queue.add_failure(0, ValueError("late"))
        assert store.records() == [make_record()]  # the record went with its job


def test_a_queue_of_other_things_or_in_use_is_refused(tmp_path):
    with Store(tmp_path / "hil.sqlite") as store:
        queue = store.open_queue("night", {"rounds": 1})
        store.open_study("night", {})

        with pytest.raises(UsageError, match=r"queue 'night' exists.*rounds was 1, now 2"):
            store.open_queue("night", {"rounds": 2})
        with pytest.raises(UsageError, match="queue name 'a b'"):
            store.open_queue("a b", {})
        running = "queue 'night' is being run by process"
        with queue.lock(), pytest.raises(UsageError, match=running), queue.lock():
            pass
        with queue.lock(), store.load_study("night").lock():
            pass  # a study may have the same name


def test_an_asked_place_finds_the_record_of_the_place_that_took_over(tmp_path):
    record = make_record(place="desk_b")
    with Store(tmp_path / "hil.sqlite") as store:
        study = store.open_study("s", {})
        study.add_trial(0, {}, "hash")
        study.attach_record(0, record, asked="desk_a")

        row = study.trial(0)
        assert row.record("desk_a") == record
        assert row.record("desk_b") is None
        study.attach_record(0, make_record(place="desk_b"), asked="desk_b")
        assert study.trial(0).asked == ("desk_a", "desk_b")
