"""Strategies: what is proposed next. They know nothing of boards, files, threads or time.

A strategy is one file in search/strategies with a subclass of `Proposer` under `@register("name")`.
It only says how one point is proposed; what every strategy owes to the loop is done here, once:

* State is a function of (seed, trials told): a proposal draws from a generator seeded with (seed,
  trial number, attempt), so a search is resumed by telling its log to a new strategy.
* Several proposals may be open. Those that `ask` gave are known as pending; after a resume they are
  told without an outcome.
* No network is proposed twice: a point whose `key` is known is drawn again, and when that does not
  help the space is enumerated, until SpaceExhausted.
"""

from __future__ import annotations

import abc
import functools
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from search.errors import SettingsError, SpaceExhausted
from search.space import Point, Space
from search.trial import Infeasible, Measured, Trial

#: Fresh draws for one trial before turning to mutations of what was drawn, and these before
#: enumerating.
MAX_DRAWS = 16
MAX_MUTATIONS = 200
#: Points looked at when enumerating; a space with more distinct networks than that is never
#: exhausted in practice.
MAX_ENUMERATED = 100_000

#: What makes two points the same trial; the loop gives the hash of the network.
Key = Callable[[Point], Hashable]


class Strategy(Protocol):
    """What the loop asks of a strategy."""

    def ask(self, n: int) -> list[Point]:
        """The next n points, all new; raises SpaceExhausted."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """What became of trials, or (outcome None) that they are under way; by number."""


class Proposer(abc.ABC):
    """A strategy that proposes one point at a time from the trials known so far.

    Args:
        space: where points come from.
        objectives: how many values a measured trial has.
        seed: of every draw.
        key: what makes two points the same trial.
    """

    def __init__(
        self, space: Space, *, objectives: int, seed: int, key: Key = lambda point: point
    ) -> None:
        self.space, self.objectives, self.seed = space, objectives, seed
        self._key = key
        self._trials: dict[int, Trial] = {}
        self._seen: set[Hashable] = set()

    @abc.abstractmethod
    def propose(self, number: int, rng: np.random.Generator) -> Point:
        """A point for trial `number`: a function of the arguments and of the trials known."""

    @property
    def trials(self) -> list[Trial]:
        """Every trial known, pending ones too, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def told(self) -> list[Trial]:
        """Trials that say something of their point, by number: measured and infeasible ones."""
        return [t for t in self.trials if isinstance(t.outcome, Measured | Infeasible)]

    def ask(self, n: int) -> list[Point]:
        """The next n points, all new; raises SpaceExhausted."""
        points = []
        for _ in range(n):
            number = max(self._trials, default=-1) + 1
            point = self._new_point(number)
            self._remember(Trial(number, point))
            points.append(point)
        return points

    def tell(self, trials: Sequence[Trial]) -> None:
        """What became of trials, or (outcome None) that they are under way."""
        for trial in trials:
            outcome = trial.outcome
            if isinstance(outcome, Measured):
                assert len(outcome.values) == self.objectives, "one value for every objective"
            self._remember(trial)

    def _remember(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._seen.add(self._key(trial.point))

    def _new_point(self, number: int) -> Point:
        for attempt in range(MAX_DRAWS):
            point = self.propose(number, np.random.default_rng([self.seed, number, attempt]))
            if self._key(point) not in self._seen:
                return point
        rng = np.random.default_rng([self.seed, number, MAX_DRAWS])
        for _ in range(MAX_MUTATIONS):
            point = self.space.mutate(point, rng)
            if self._key(point) not in self._seen:
                return point
        for point in itertools.islice(self.space.points(), MAX_ENUMERATED):
            if self._key(point) not in self._seen:
                return point
        raise SpaceExhausted(self.space.name, len(self._seen))


P = TypeVar("P", bound=type[Proposer])

_STRATEGIES: dict[str, type[Proposer]] = {}


def register(name: str) -> Callable[[P], P]:
    """Adds the decorated class under `name`."""

    def add(cls: P) -> P:
        assert name not in _STRATEGIES, f"two strategies are called {name!r}"
        _STRATEGIES[name] = cls
        return cls

    return add


@functools.cache
def _load_all() -> None:
    import search.strategies

    for module in pkgutil.iter_modules(search.strategies.__path__):
        importlib.import_module(f"search.strategies.{module.name}")


def strategy_names() -> list[str]:
    """Names of all strategies, sorted."""
    _load_all()
    return sorted(_STRATEGIES)


def get_strategy(
    name: str,
    space: Space,
    *,
    objectives: int,
    seed: int,
    key: Key = lambda point: point,
    options: Mapping[str, int] | None = None,
) -> Proposer:
    """A new strategy of that name; `options` are keyword arguments of its class, whole numbers.

    Raises:
        SettingsError: no such strategy, no such option, or a value that the strategy cannot work
            with.
    """
    _load_all()
    if name not in _STRATEGIES:
        known = ", ".join(sorted(_STRATEGIES))
        raise SettingsError("strategy", f"{name!r} is not known; known strategies are {known}")
    cls = _STRATEGIES[name]
    known_options = _option_names(cls)
    for option in options or {}:
        if option not in known_options:
            known = ", ".join(known_options) or "none"
            raise SettingsError("strategy_options", f"{name!r} has no {option!r}; it has: {known}")
    try:
        return cls(space, objectives=objectives, seed=seed, key=key, **(options or {}))
    except ValueError as error:
        raise SettingsError("strategy_options", f"{name}: {error}") from None


def _option_names(cls: type[Proposer]) -> list[str]:
    base = inspect.signature(Proposer.__init__).parameters
    own = inspect.signature(cls.__init__).parameters.values()
    return [p.name for p in own if p.kind is p.KEYWORD_ONLY and p.name not in base]
