"""Optuna's NSGA-II and TPE behind ask and tell.

Optuna's own state depends on the path taken, so nothing of it is kept: every proposal gets a new
in-memory study filled with the trials known and a sampler seeded for that trial. A trial that does
not fit is given to Optuna as one with a violated constraint, so that its objective values play no
role. Parameters travel as the index of their choice.
"""

from __future__ import annotations

import abc
import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.space import Parameter, Point, Space, Value
from search.strategy import Key, Proposer, register
from search.trial import Infeasible, Measured, Trial


class OptunaStrategy(Proposer):
    """What the two samplers share: the way between trials and Optuna's study."""

    #: Whether the sampler wants vectors of one length: parameters that play no role are then
    #: suggested too, and dropped.
    is_fixed_length = False

    @abc.abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A new sampler."""

    def propose(self, number: int, rng: np.random.Generator) -> Point:
        """What the sampler suggests after the trials known."""
        with _quiet():
            sampler = self.sampler(int(rng.integers(2**32)))
            study = optuna.create_study(sampler=sampler, directions=["minimize"] * self.objectives)
            study.add_trials(self._frozen_trials())
            trial = study.ask()
            suggested: dict[str, Value] = {}
            active: dict[str, Value] = {}
            for parameter in self.space.parameters:
                is_active = parameter.is_active(active)
                if is_active or self.is_fixed_length:
                    suggested[parameter.name] = _suggest(trial, parameter)
                if is_active:
                    active[parameter.name] = suggested[parameter.name]
        return self.space.point(active)

    def system_attrs(self, index: int) -> dict[str, int]:
        """What Optuna itself would have noted on the complete trial number `index`."""
        return {}

    def _frozen_trials(self) -> list[FrozenTrial]:
        measured = [t.outcome.values for t in self.told if isinstance(t.outcome, Measured)]
        placeholder = tuple(np.max(measured, axis=0)) if measured else (0.0,) * self.objectives
        frozen = []
        for index, trial in enumerate(self.told):
            values, violation = placeholder, 0.0
            if isinstance(trial.outcome, Measured):
                values = trial.outcome.values
            elif isinstance(trial.outcome, Infeasible):
                violation = trial.outcome.violation
            params, distributions = self._encoded(trial)
            frozen.append(
                optuna.create_trial(
                    state=TrialState.COMPLETE,
                    values=[float(value) for value in values],
                    constraints={"violation": violation},
                    system_attrs=self.system_attrs(index),
                    params=params,
                    distributions=distributions,
                )
            )
        for trial in self.trials:
            if trial.outcome is None:
                params, distributions = self._encoded(trial)
                frozen.append(
                    optuna.create_trial(
                        state=TrialState.RUNNING, params=params, distributions=distributions
                    )
                )
        return frozen

    def _encoded(self, trial: Trial) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
        values = trial.point.to_dict()
        rng = np.random.default_rng([self.seed, trial.number])
        params: dict[str, Value] = {}
        distributions: dict[str, BaseDistribution] = {}
        for parameter in self.space.parameters:
            value = values.get(parameter.name)
            if value is None and not self.is_fixed_length:
                continue
            if value is None:  # genes that play no role drift at random, as in nature
                value = parameter.choices[rng.integers(len(parameter.choices))]
            is_ordered = _is_ordered(parameter)
            params[parameter.name] = parameter.choices.index(value) if is_ordered else value
            distributions[parameter.name] = (
                IntDistribution(0, len(parameter.choices) - 1)
                if is_ordered
                else CategoricalDistribution(parameter.choices)
            )
        return params, distributions


@register("nsga2")
class NsgaII(OptunaStrategy):
    """NSGA-II with constrained domination, by Optuna.

    Source: Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
    doi:10.1109/4235.996017.

    Differs from the paper: children come one at a time, so a generation is P consecutive trials
    that were told.

    Args:
        space: where points come from.
        objectives: number of values of a measured trial.
        seed: of every draw.
        key: what makes two points the same trial.
        population_size: P; the first generation is random.
    """

    is_fixed_length = True

    def __init__(
        self,
        space: Space,
        *,
        objectives: int,
        seed: int,
        key: Key = lambda point: point,
        population_size: int = 20,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed, key=key)
        if population_size < 2:
            raise ValueError(f"population_size {population_size} should be at least 2")
        self.population_size = population_size

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A new NSGA-II sampler."""
        return optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=seed)

    def system_attrs(self, index: int) -> dict[str, int]:
        """The generation, under the key by which the sampler finds it."""
        generation_key = optuna.samplers.NSGAIISampler._get_generation_key()
        return {generation_key: index // self.population_size}


@register("tpe")
class Tpe(OptunaStrategy):
    """Multi-objective TPE, multivariate and by groups of parameters, by Optuna.

    Source: Ozaki et al. 2022, "Multiobjective Tree-Structured Parzen Estimator",
    doi:10.1613/jair.1.13188.

    Args:
        space: where points come from.
        objectives: number of values of a measured trial.
        seed: of every draw.
        key: what makes two points the same trial.
        startup_trials: random ones before the first model.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: int,
        seed: int,
        key: Key = lambda point: point,
        startup_trials: int = 10,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed, key=key)
        if startup_trials < 1:
            raise ValueError(f"startup_trials {startup_trials} should be at least 1")
        self.startup_trials = startup_trials

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A new TPE sampler."""
        return optuna.samplers.TPESampler(
            n_startup_trials=self.startup_trials, multivariate=True, group=True, seed=seed
        )


def _is_ordered(parameter: Parameter) -> bool:
    return all(isinstance(choice, int) for choice in parameter.choices)


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Value:
    if _is_ordered(parameter):
        index = trial.suggest_int(parameter.name, 0, len(parameter.choices) - 1)
        return parameter.choices[index]
    value = trial.suggest_categorical(parameter.name, parameter.choices)
    assert isinstance(value, int | str), "choices are numbers and words"
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from reporting its own, short-lived study and from warning of `group`."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
