from __future__ import annotations

import numpy as np
import pytest

from search.pareto import hypervolume, non_dominated


def test_a_dominated_point_is_not_on_the_front_and_equal_points_both_are() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [1.0, 3.0], [3.0, 1.0]])

    assert non_dominated(points).tolist() == [True, True, False, True, True]


def test_the_front_of_nothing_is_empty() -> None:
    assert non_dominated(np.empty((0, 2))).tolist() == []
    assert hypervolume(np.empty((0, 2)), np.array([1.0, 1.0])) == 0


def test_the_hypervolume_is_the_area_of_a_staircase() -> None:
    points = np.array([[0.0, 0.5], [0.5, 0.0], [2.0, 0.0]])  # the last beats no reference

    assert hypervolume(points, np.array([1.0, 1.0])) == pytest.approx(0.75)


def test_fronts_equal_those_by_the_definition() -> None:
    points = np.random.default_rng(0).integers(0, 5, size=(40, 3)).astype(float)

    expected = [
        not any((other <= point).all() and (other < point).any() for other in points)
        for point in points
    ]

    assert non_dominated(points).tolist() == expected
