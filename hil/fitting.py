"""Fits constants to measurements: bounded least squares on a model that is nearly linear in them.

The cycles that a virtual board counts are sums of events, each times a constant; what is not linear
is rounding, and costs that hide behind one another. So few steps are enough, each of which solves
the linear problem within the bounds. A constant that the measurements do not determine stays as it
was. Not here: what is measured (calibrate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize

Vector = npt.NDArray[np.float64]

MAX_STEPS = 8
_LINEAR = 4e-3  # weighted residuals that differ by less from the linear forecast agree with it
_STEP = 1 / 2  # of a constant's range, for derivatives: what is rounded must not matter
_RANK = 1e-3  # of the largest diagonal element: smaller ones are zero but for rounding


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant to be fitted: where it starts and between what it lies."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit found.

    Attributes:
        values: of all parameters; those of `undetermined` are where they started.
        standard_errors: of the fitted ones.
        undetermined: those that the measurements say nothing about, or nothing that would not
            follow from others.
        model: what the model gives with these values.
        evaluations: how often the model was asked.
    """

    values: dict[str, float]
    standard_errors: dict[str, float]
    undetermined: tuple[str, ...]
    model: Vector
    evaluations: int


def fit(
    parameters: Mapping[str, Parameter],
    measured: Vector,
    weights: Vector,
    model: Callable[[dict[str, float]], Vector],
) -> Fit:
    """Values with which `model` comes closest to `measured`.

    Args:
        parameters: by name.
        measured: one number for each quantity.
        weights: what the differences are multiplied with.
        model: from the values of all parameters to all quantities.
    """
    problem = _Problem(dict(parameters), measured, weights, model)
    x = np.array([p.value for p in parameters.values()], dtype=np.float64)
    differences = problem.differences(x)
    jacobian = problem.jacobian(x, differences)
    free = _independent(jacobian * problem.ranges)
    for _ in range(MAX_STEPS):
        step = problem.step(x, differences, jacobian, free)
        forecast = differences + jacobian @ step
        x = np.clip(x + step, problem.lower, problem.upper)  # a rounding error beyond them
        differences = problem.differences(x)
        if np.max(np.abs(differences - forecast), initial=0.0) < _LINEAR:
            break
        jacobian = problem.jacobian(x, differences)
    names = list(parameters)
    errors = _standard_errors(jacobian[:, free], differences)
    return Fit(
        values=dict(zip(names, x.tolist(), strict=True)),
        standard_errors={names[i]: error for i, error in zip(free, errors, strict=True)},
        undetermined=tuple(name for i, name in enumerate(names) if i not in free),
        model=measured + differences / weights,
        evaluations=problem.evaluations,
    )


class _Problem:
    """The weighted differences as a function of a vector."""

    def __init__(
        self,
        parameters: dict[str, Parameter],
        measured: Vector,
        weights: Vector,
        model: Callable[[dict[str, float]], Vector],
    ) -> None:
        self._names = list(parameters)
        self._measured, self._weights, self._model = measured, weights, model
        self.lower = np.array([p.lower for p in parameters.values()], np.float64)
        self.upper = np.array([p.upper for p in parameters.values()], np.float64)
        self.ranges = self.upper - self.lower
        self.evaluations = 0

    def differences(self, x: Vector) -> Vector:
        """Model less measurement, weighted."""
        self.evaluations += 1
        values = dict(zip(self._names, x.tolist(), strict=True))
        return (self._model(values) - self._measured) * self._weights

    def jacobian(self, x: Vector, differences: Vector) -> Vector:
        """Derivatives by finite steps, away from the nearer bound."""
        columns = []
        for i, span in enumerate(self.ranges):
            there = x.copy()
            there[i] += span * _STEP * (1 if x[i] < self.lower[i] + span / 2 else -1)
            columns.append((self.differences(there) - differences) / (there[i] - x[i]))
        return np.stack(columns, axis=1) if columns else np.zeros((len(differences), 0))

    def step(self, x: Vector, differences: Vector, jacobian: Vector, free: list[int]) -> Vector:
        """To the least squares of the linear problem, within the bounds; only `free` ones move."""
        step = np.zeros_like(x)
        if free:
            span = self.ranges[free]  # so that all columns are of a size
            solved = scipy.optimize.lsq_linear(
                jacobian[:, free] * span,
                -differences,
                bounds=(
                    (self.lower[free] - x[free]) / span,
                    (self.upper[free] - x[free]) / span,
                ),
                method="bvls",
            )
            step[free] = solved.x * span
        return step


def _independent(scaled: Vector) -> list[int]:
    """Columns that do not follow from each other; the strongest first in a pair that does."""
    if scaled.shape[1] == 0:
        return []
    _, triangle, order = scipy.linalg.qr(scaled, mode="economic", pivoting=True)
    strength = np.abs(np.diag(triangle))
    return sorted(int(i) for i in order[: len(strength)][strength > _RANK * strength[0]])


def _standard_errors(jacobian: Vector, differences: Vector) -> list[float]:
    """Of the parameters of the columns, from the scatter of the differences."""
    spare = len(differences) - jacobian.shape[1]
    if spare <= 0 or jacobian.shape[1] == 0:
        return [0.0] * jacobian.shape[1]
    variance = float(differences @ differences) / spare
    covariance = np.linalg.inv(jacobian.T @ jacobian) * variance
    errors: list[float] = np.sqrt(np.diag(covariance)).tolist()
    return errors
