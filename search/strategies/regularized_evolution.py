"""Regularized (aging) evolution with random scalarisation for several objectives."""

from __future__ import annotations

import numpy as np

from search.space import Point, Space
from search.strategy import Key, Proposer, register
from search.trial import Infeasible, Measured, Trial


@register("regularized_evolution")
class RegularizedEvolution(Proposer):
    """A child of the best of S trials drawn from the latest P.

    Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search",
    arXiv:1802.01548, algorithm 1: the population is a queue, the oldest leaves, not the worst.

    Several objectives: a weighted Chebyshev scalarisation whose weights are drawn anew for every
    tournament, as Liberis et al. 2021, "uNAS", arXiv:2010.14246: the winner minimises
    max_i lambda_i f_i with lambda_i uniform in [0, 1).

    Differs from the papers: P and S are smaller, for budgets that boards can afford; f_i is the
    share of the population that is better in objective i, instead of a value over a user-given
    bound. A trial that does not fit takes part: it loses against every one that fits, and against
    one that violates less. Failed trials leave no trace.

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
        population_size: int = 20,
        sample_size: int = 10,
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
        weights = rng.random(self.objectives)
        values = np.array([t.outcome.values for t in population if isinstance(t.outcome, Measured)])

        def rank(trial: Trial) -> tuple[int, float]:
            if isinstance(trial.outcome, Measured):
                better = (values < np.array(trial.outcome.values)).mean(axis=0)
                return 0, float(np.max(weights * better))
            assert isinstance(trial.outcome, Infeasible)
            return 1, trial.outcome.violation

        return min(candidates, key=rank)
