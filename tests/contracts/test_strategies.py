"""What every strategy owes to the loop; a new one is in the suite as soon as its file is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import moocore
import numpy as np
import pytest

from search.architecture import Architecture, Shape
from search.errors import SettingsError, SpaceExhausted
from search.space import Parameter, Point, Space
from search.strategy import Proposer, get_strategy, strategy_names
from search.trial import Failed, Infeasible, Measured, Outcome, Trial

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (2, 4, 6)

every_strategy = pytest.mark.parametrize("name", strategy_names())


def no_network(point: Point, shape: Shape, classes: int) -> Architecture:
    raise AssertionError("strategies build no networks")


def make_space() -> Space:
    parameters = [Parameter("depth", LAYERS), Parameter("width", tuple(range(12)))]
    for layer in range(max(LAYERS)):
        deeper = ("depth", frozenset(depth for depth in LAYERS if depth > layer))
        parameters.append(Parameter(f"gain_{layer}", tuple(range(8)), when=deeper))
    return Space("toy", tuple(parameters), no_network)


def make_small_space() -> Space:
    return Space("small", (Parameter("op", ("a", "b")), Parameter("size", (1, 2, 3))), no_network)


def measured(point: Point) -> Measured:
    """Two objectives at odds: better gains and width cost more."""
    depth, width = point.number("depth"), point.number("width")
    gains = [point.number(f"gain_{layer}") for layer in range(depth)]
    quality = sum(7 - abs(gain - 5) for gain in gains) / 42
    cost = depth * (width + 3) * (1 + sum(gains) / depth / 7) / 150
    return Measured((1 - quality * (width + 4) / 15, cost))


def outcome(number: int, point: Point) -> Outcome:
    """Every seventh trial fails, every fifth does not fit."""
    if number % 7 == 3:
        return Failed("LinkTimeout", "no answer")
    return Infeasible(0.1 * (number % 3 + 1)) if number % 5 == 2 else measured(point)


def strategy(name: str, space: Space | None = None, *, seed: int = 1) -> Proposer:
    return get_strategy(name, space or make_space(), objectives=2, seed=seed)


def run(one: Proposer, n: int, *, lag: int = 0) -> list[Point]:
    """n trials, each told `lag` proposals after its own."""
    points: list[Point] = []
    for number in range(n):
        points += one.ask(1)
        if number >= lag:
            told = number - lag
            one.tell([Trial(told, points[told], outcome(told, points[told]))])
    return points


@every_strategy
def test_points_are_of_the_space_and_all_different(name: str) -> None:
    space = make_space()

    points = run(strategy(name, space), 40, lag=3)

    assert [space.point(point.to_dict()) for point in points] == points
    assert len(set(points)) == 40


@every_strategy
def test_asking_for_several_gives_as_many(name: str) -> None:
    assert len(set(strategy(name).ask(5))) == 5


@every_strategy
def test_seeds_differ(name: str) -> None:
    assert run(strategy(name, seed=1), 5) != run(strategy(name, seed=2), 5)


def test_the_same_seed_gives_the_same_points_in_another_process() -> None:
    script = (
        "import json, test_strategies as t\n"
        "from search.strategy import strategy_names\n"
        "print(json.dumps({n: [p.choices for p in t.run(t.strategy(n), 30, lag=2)]"
        " for n in strategy_names()}))"
    )
    here = {
        name: [point.choices for point in run(strategy(name), 30, lag=2)]
        for name in strategy_names()
    }

    there = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout

    assert json.loads(there) == json.loads(json.dumps(here))


@every_strategy
@pytest.mark.parametrize("stopped_after", [5, 27])
def test_a_new_strategy_that_is_told_the_log_goes_on_alike(name: str, stopped_after: int) -> None:
    lag = 2
    points = run(strategy(name), 36, lag=lag)

    resumed = strategy(name)
    log = [Trial(number, point) for number, point in enumerate(points[:stopped_after])]
    resumed.tell(log)
    resumed.tell([Trial(t.number, t.point, outcome(t.number, t.point)) for t in log[:-lag]])
    for number in range(stopped_after, 36):
        assert resumed.ask(1) == [points[number]]
        told = number - lag
        resumed.tell([Trial(told, points[told], outcome(told, points[told]))])


@every_strategy
def test_a_small_space_is_exhausted_and_does_not_hang(name: str) -> None:
    one = get_strategy(name, make_small_space(), objectives=1, seed=0)
    points = []
    for number in range(6):
        (point,) = one.ask(1)
        points.append(point)
        one.tell([Trial(number, point, Measured((float(number),)))])

    with pytest.raises(SpaceExhausted, match="all 6 were proposed"):
        one.ask(1)
    assert len(set(points)) == 6


@every_strategy
def test_points_of_one_key_are_one_trial(name: str) -> None:
    one = get_strategy(
        name, make_small_space(), objectives=1, seed=0, key=lambda point: point["size"]
    )

    assert {point["size"] for point in one.ask(3)} == {1, 2, 3}
    with pytest.raises(SpaceExhausted):
        one.ask(1)


@every_strategy
@pytest.mark.parametrize("ended", [Failed("LinkTimeout", "no answer"), Infeasible(0.5)])
def test_a_search_in_which_nothing_is_measured_goes_on(name: str, ended: Outcome) -> None:
    one = strategy(name)
    for number in range(30):
        one.tell([Trial(number, one.ask(1)[0], ended)])

    assert len(one.ask(3)) == 3


@pytest.mark.parametrize("name", [name for name in strategy_names() if name != "random"])
def test_it_beats_random_search(name: str) -> None:
    def volume(which: str, seed: int) -> float:
        one = strategy(which, seed=seed)
        values = []
        for number in range(80):
            (point,) = one.ask(1)
            values.append(measured(point).values)
            one.tell([Trial(number, point, measured(point))])
        return float(moocore.hypervolume(np.array(values), ref=[1.0, 1.0]))

    found = np.mean([volume(name, seed) for seed in range(4)])
    random = np.mean([volume("random", seed) for seed in range(30)])

    assert found > random


@every_strategy
def test_an_option_that_it_lacks_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' has no 'temperature'; it has:"):
        get_strategy(name, make_space(), objectives=2, seed=0, options={"temperature": 1})


def test_an_unknown_strategy_is_refused_with_those_that_exist() -> None:
    with pytest.raises(SettingsError, match="'annealing' is not known; known strategies are nsga2"):
        get_strategy("annealing", make_space(), objectives=2, seed=0)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="sample_size 30 is not between 1 and"):
        get_strategy(
            "regularized_evolution",
            make_space(),
            objectives=2,
            seed=0,
            options={"sample_size": 30, "population_size": 20},
        )
