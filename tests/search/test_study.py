from __future__ import annotations

import time
from pathlib import Path

import pytest
from records import make_record
from search_fakes import make_data

from hil.errors import BoardFileError
from search.errors import SearchError, SettingsError, WorkerLost
from search.reward import Objective, objectives
from search.study import StudySettings, TrainSettings, load_study_file
from search.workers import TrainingProcess

PLACES = ("virtual:a", "virtual:b")

STUDY = """
name = "cifar"
places = ["virtual:nrf52840_dk"]
data = "cifar10"
data_dir = "../data"
trials = 12
[space_options]
depth = [3, 4]
[training]
epochs = 2
"""


def test_a_study_file_gives_settings_and_paths_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)

    settings = load_study_file(tmp_path / "study.toml")

    assert settings.trials == 12 and settings.space_options == {"depth": (3, 4)}
    assert settings.training == TrainSettings(epochs=2)
    assert settings.data_dir == str(tmp_path / "../data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials = 12", "trails = 12"), "unknown key 'trails'"),
        (("epochs = 2", "epochs = 0"), r"\[training\]: key 'epochs' is 0; it should be at least 1"),
        (("epochs = 2", "epochs = 'two'"), "key 'epochs' should be an integer"),
        (("depth = [3, 4]", "depth = 3"), "key 'depth' should be an array"),
        (('name = "cifar"', ""), "missing key 'name'"),
        (("trials = 12", "trials = "), "is not valid TOML"),
    ],
)
def test_a_malformed_study_file_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace(*change))

    with pytest.raises(BoardFileError, match=message):
        load_study_file(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "'trials': is 0"),
        ({"seed": -1}, "'seed': is -1"),
        ({"places": ()}, "'places': should name one or more"),
        ({"places": ("a", "a")}, "'places': should name one or more places, each once"),
        ({"space": "darts"}, "space 'darts': is not known"),
        ({"strategy": "magic"}, "'magic' is not known"),
        ({"engine": "steam"}, "'engine': 'steam' cannot be searched with, only tiny, reference"),
        ({"engine": "tflm"}, "'engine': 'tflm' cannot be searched with"),
        ({"workers": 100_000}, "'workers': is 100000; it should be at most 256"),
        ({"objectives": ("beauty",)}, "'beauty' is not known; known are error, latency_us"),
        ({"objectives": ()}, "should name one or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"name": "s", "places": ("a",)}

    with pytest.raises(SearchError, match=message):
        StudySettings(**(values | changes)).check()  # type: ignore[arg-type]


def test_only_settings_that_do_not_shape_the_result_are_left_out_of_the_identity() -> None:
    data = make_data()
    settings = StudySettings(name="s", places=PLACES)
    alike = StudySettings(name="t", places=PLACES, trials=99, workers=7, data_dir="elsewhere")
    other = StudySettings(name="s", places=PLACES, training=TrainSettings(epochs=3))

    assert settings.identity(data) == alike.identity(data) != other.identity(data)
    assert settings.identity(data) != settings.identity(make_data(n=41))


def test_objectives_come_once_for_every_place_but_the_error() -> None:
    found = objectives(("error", "latency_us", "energy_uj"), PLACES)

    assert [objective.name for objective in found] == [
        "error",
        "latency_us@virtual:a",
        "latency_us@virtual:b",
        "energy_uj@virtual:a",
        "energy_uj@virtual:b",
    ]
    records = {place: make_record(place=place, cycles=640) for place in PLACES}
    assert Objective("error").value(0.75, records) == 0.25
    assert Objective("latency_us", PLACES[1]).value(0.75, records) == 10.0


def test_a_place_without_a_meter_has_no_energy_to_minimise() -> None:
    records = {PLACES[0]: make_record(place=PLACES[0], energy_uj=None)}

    with pytest.raises(SearchError, match="virtual:a reports no energy_uj; leave out"):
        Objective("energy_uj", PLACES[0]).value(0.75, records)


def sleep_for_a_minute(job: object, _: object) -> object:
    time.sleep(60)
    return job


def test_a_training_that_hangs_is_ended_at_its_deadline() -> None:
    process = TrainingProcess(make_data(), sleep_for_a_minute)  # type: ignore[arg-type]
    try:
        with pytest.raises(WorkerLost, match="gave no answer within 0 s and was ended"):
            process.run("job", deadline_s=0.3)  # type: ignore[arg-type]
    finally:
        process.stop()

    with pytest.raises(WorkerLost, match="was stopped"):
        process.run("job", deadline_s=1)  # type: ignore[arg-type]


def test_an_objective_without_a_place_to_measure_it_names_the_setting() -> None:
    with pytest.raises(SettingsError, match="setting 'objectives'"):
        objectives(("error", "error"), PLACES)
