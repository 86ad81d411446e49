"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

import numpy as np

from search.space import Point
from search.strategy import Proposer, register


@register("random")
class RandomSearch(Proposer):
    """Every point is drawn from the space as `Space.sample` does."""

    def propose(self, number: int, rng: np.random.Generator) -> Point:
        """A random point."""
        return self.space.sample(rng)
