"""Regularized (aging) evolution with random scalarisation for several objectives."""

from __future__ import annotations

import numpy as np

from search.space import Point, Space
from search.strategy import Key, Proposer, register
from search.trial import Infeasible, Measured, Trial

#: Weights of the scalarisation are drawn from (SMALLEST_WEIGHT, 1]: they divide.
SMALLEST_WEIGHT = 1e-3


@register("regularized_evolution")
class RegularizedEvolution(Proposer):
    """A child of the best of S trials drawn from the latest P.

    Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search",
    arXiv:1802.01548, algorithm 1: the population is a queue, the oldest leaves, not the worst.

    Several objectives: the weighted Chebyshev scalarisation with weights drawn anew for every
    tournament, as Liberis et al. 2021, "uNAS", arXiv:2010.14246, section 3.2: the parent minimises
    max_i f_i / lambda_i.

    Differs from the papers: P and S are smaller, for budgets that boards can afford; objectives are
    scaled to [0, 1] by the population's own range instead of by user-given bounds. A trial that
    does not fit takes part: it loses against every one that fits, and against one that violates
    less. Failed trials leave no trace.

    Args:
        space: where points come from.
        objectives: number of values of a measured trial.
        seed: of every draw.
        key: what makes two points the same trial.
        population_size: P.
        sample_size: S.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: int,
        seed: int,
        key: Key = lambda point: point,
        population_size: int = 24,
        sample_size: int = 8,
    ) -> None:
        super().__init__(space, objectives=objectives, seed=seed, key=key)
        if not 1 <= sample_size <= population_size:
            raise ValueError(
                f"sample_size {sample_size} is not between 1 and population_size {population_size}"
            )
        self.population_size, self.sample_size = population_size, sample_size

    def propose(self, number: int, rng: np.random.Generator) -> Point:
        """A random point for the first P trials, then a mutation of a tournament's winner."""
        population = self.told[-self.population_size :]
        if number < self.population_size or not population:
            return self.space.sample(rng)
        drawn = rng.integers(len(population), size=self.sample_size)  # with replacement
        parent = self._winner([population[i] for i in drawn], population, rng)
        return self.space.mutate(parent.point, rng)

    def _winner(
        self, candidates: list[Trial], population: list[Trial], rng: np.random.Generator
    ) -> Trial:
        weights = 1.0 - (1.0 - SMALLEST_WEIGHT) * rng.random(self.objectives)
        values = np.array([t.outcome.values for t in population if isinstance(t.outcome, Measured)])
        if len(values):
            low, span = values.min(axis=0), np.ptp(values, axis=0)
        else:
            low = span = np.zeros(self.objectives)
        span = np.where(span > 0, span, 1.0)  # an objective that does not vary decides nothing

        def rank(trial: Trial) -> tuple[int, float]:
            if isinstance(trial.outcome, Measured):
                scaled = (np.array(trial.outcome.values) - low) / span
                return 0, float(np.max(scaled / weights))
            assert isinstance(trial.outcome, Infeasible)
            return 1, trial.outcome.violation

        return min(candidates, key=rank)
