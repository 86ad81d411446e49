from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from search_fakes import LIMITS, PLACES, WHERES, FakeBenches, make_data, pretend

from codegen.errors import DoesNotFit
from hil.fronts import place_fronts
from hil.store import Store
from search.data import Part, SearchData, TestData
from search.finish import finish_study
from search.loop import run_study
from search.study import StudySettings

SETTINGS = StudySettings(
    name="s",
    places=PLACES,
    trials=6,
    strategy="random",
    space_options={"depth": (3, 4), "channels": (2, 4)},
)


@pytest.fixture
def data() -> SearchData:
    return make_data()


@pytest.fixture
def finished_search(tmp_path: Path, data: SearchData) -> Path:
    path = tmp_path / "store.sqlite"
    with Store(path) as store, FakeBenches().rig() as rig:
        run_study(
            SETTINGS,
            data=data,
            store=store,
            boards=LIMITS,
            rig=rig,
            wheres=WHERES,
            work=pretend,
        )
    return path


def test_trials_of_the_fronts_are_tested_once_and_get_the_baseline(
    finished_search: Path, data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []

    def accuracy(tflite: bytes, part: Part, _: object) -> float:
        tested.append(len(part))
        return 0.5

    monkeypatch.setattr("search.finish.int8_accuracy", accuracy)  # the models are no real ones
    test = TestData("t", lambda: Part(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int64)))
    benches = FakeBenches()

    with Store(finished_search) as store, benches.rig() as rig:
        for _ in range(2):  # the second time there is nothing left to do
            finish_study(
                SETTINGS,
                test=test,
                input_quant=data.input_quant,
                store=store,
                rig=rig,
                wheres=WHERES,
            )
        rows = store.load_study("s").trials()
        fronts = place_fronts(store.load_study("s"))

    on_any = {found.number for front in fronts for found in front.front}
    assert 0 < len(on_any) <= 6
    assert {row.number for row in rows if row.test_accuracy == 0.5} == on_any
    assert tested == [9] * len(on_any)
    assert len(benches.measured) == sum(len(front.front) for front in fronts)
    assert all(found.baseline is not None for front in fronts for found in front.front)


def test_a_baseline_that_does_not_fit_is_said_and_left_out(
    finished_search: Path, data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: str, _: str) -> None:
        raise DoesNotFit("RAM", 300_000, 262_144, "conv2d_0")

    monkeypatch.setattr("search.finish.int8_accuracy", lambda *_: 0.5)
    test = TestData("t", lambda: Part(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int64)))
    lines: list[str] = []

    with Store(finished_search) as store, FakeBenches(on_measure=refuse).rig() as rig:
        finish_study(
            SETTINGS,
            test=test,
            input_quant=data.input_quant,
            store=store,
            rig=rig,
            wheres=WHERES,
            progress=lines.append,
        )

    assert any("engine reference on virtual:nrf52840_dk: the model needs" in x for x in lines)


def test_an_error_of_a_board_is_raised_after_the_other_board_is_done(
    finished_search: Path, data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.finish.int8_accuracy", lambda *_: 0.5)

    def fail_on_the_first(place: str, _: str) -> None:
        if place == PLACES[0]:
            raise RuntimeError("no probe")

    test = TestData("t", lambda: Part(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int64)))
    benches = FakeBenches(on_measure=fail_on_the_first)

    with Store(finished_search) as store, benches.rig() as rig:
        with pytest.raises(RuntimeError, match="no probe"):
            finish_study(
                SETTINGS,
                test=test,
                input_quant=data.input_quant,
                store=store,
                rig=rig,
                wheres=WHERES,
            )
        rows = store.load_study("s").trials()

    assert {place for place, _ in benches.measured} == {PLACES[1]}
    assert any(row.test_accuracy == 0.5 for row in rows)
