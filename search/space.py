"""Search spaces as data: parameters with choices, some only for some values of an earlier one.

A space is a tuple of parameters plus a function from a point to an architecture. Sampling,
mutation, enumeration and validation follow from the parameters alone. Points are canonical:
parameters that play no role (the kernel of a layer that a shallow network lacks) are not part of
them. The spaces themselves are in search/spaces, one file each.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.architecture import Architecture, Shape
from search.errors import SpaceError

Value = int | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One decision.

    `choices` are in their natural order, if they have one. With `when` = (name, values) the
    parameter exists only if the earlier parameter `name` exists and has one of `values`.
    """

    name: str
    choices: tuple[Value, ...]
    when: tuple[str, frozenset[Value]] | None = None

    @property
    def kind(self) -> str:
        """The name without the layer that it belongs to: "kernel" for "kernel_3"."""
        return self.name.partition("_")[0]

    def is_active(self, chosen: Mapping[str, Value]) -> bool:
        """Whether it exists, given the parameters before it."""
        return self.when is None or chosen.get(self.when[0]) in self.when[1]


@dataclass(frozen=True, slots=True)
class Point:
    """One choice for every active parameter, in the space's order."""

    choices: tuple[tuple[str, Value], ...]

    def to_dict(self) -> dict[str, Value]:
        """Name to value."""
        return dict(self.choices)

    def __getitem__(self, name: str) -> Value:
        return self.to_dict()[name]

    def number(self, name: str) -> int:
        """The value of a parameter whose choices are integers."""
        value = self[name]
        assert isinstance(value, int), f"{name} is not a number"
        return value


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters, each after the one that its `when` names, and the network of a point."""

    name: str
    parameters: tuple[Parameter, ...]
    build: Callable[[Point, Shape, int], Architecture]

    def point(self, values: Mapping[str, Any]) -> Point:
        """The point of a stored mapping; raises SpaceError if it is not of this space."""
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if not parameter.is_active(chosen):
                continue
            if parameter.name not in values:
                raise SpaceError(self.name, f"a point lacks {parameter.name!r}")
            value = values[parameter.name]
            if value not in parameter.choices:
                known = ", ".join(str(choice) for choice in parameter.choices)
                raise SpaceError(
                    self.name, f"{parameter.name!r} is {value!r}; the choices are {known}"
                )
            chosen[parameter.name] = value
        if extra := sorted(set(values) - set(chosen)):
            raise SpaceError(self.name, f"a point has {extra[0]!r}, which plays no role in it")
        return Point(tuple(chosen.items()))

    def sample(self, rng: np.random.Generator) -> Point:
        """A point with every active parameter drawn uniformly."""
        return self._complete({}, rng)

    def mutate(self, point: Point, rng: np.random.Generator) -> Point:
        """A point that differs in exactly one decision.

        Every kind of decision is equally likely, so that the few that shape the whole network are
        not drowned by those of its layers. Parameters that come into being by it (the layers of a
        deeper network) are drawn uniformly, those that go are dropped.
        """
        values = point.to_dict()
        kinds: dict[str, list[Parameter]] = {}
        for parameter in self.parameters:
            if parameter.name in values and len(parameter.choices) > 1:
                kinds.setdefault(parameter.kind, []).append(parameter)
        if not kinds:
            return point
        of_kind = list(kinds.values())[rng.integers(len(kinds))]
        changed = of_kind[rng.integers(len(of_kind))]
        others = [choice for choice in changed.choices if choice != values[changed.name]]
        return self._complete(values | {changed.name: others[rng.integers(len(others))]}, rng)

    def points(self) -> Iterator[Point]:
        """Every point, each once, in a fixed order; a real space has too many to finish."""
        return self._extend({}, 0)

    def _complete(self, values: Mapping[str, Value], rng: np.random.Generator) -> Point:
        chosen: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.is_active(chosen):
                known = values.get(parameter.name)
                if known is None:
                    known = parameter.choices[rng.integers(len(parameter.choices))]
                chosen[parameter.name] = known
        return Point(tuple(chosen.items()))

    def _extend(self, chosen: dict[str, Value], index: int) -> Iterator[Point]:
        if index == len(self.parameters):
            yield Point(tuple(chosen.items()))
            return
        parameter = self.parameters[index]
        if not parameter.is_active(chosen):
            yield from self._extend(chosen, index + 1)
            return
        for choice in parameter.choices:
            yield from self._extend(chosen | {parameter.name: choice}, index + 1)


#: Makes a space; its keyword arguments, all tuples of integers, are the space's options.
SpaceFactory = Callable[..., Space]

_FACTORIES: dict[str, SpaceFactory] = {}


def register(name: str) -> Callable[[SpaceFactory], SpaceFactory]:
    """Adds the decorated factory under `name`."""

    def add(factory: SpaceFactory) -> SpaceFactory:
        assert name not in _FACTORIES, f"two spaces are called {name!r}"
        _FACTORIES[name] = factory
        return factory

    return add


@functools.cache
def _load_all() -> None:
    import search.spaces

    for module in pkgutil.iter_modules(search.spaces.__path__):
        importlib.import_module(f"search.spaces.{module.name}")


def space_names() -> list[str]:
    """Names of all spaces, sorted."""
    _load_all()
    return sorted(_FACTORIES)


def get_space(name: str, options: Mapping[str, tuple[int, ...]] | None = None) -> Space:
    """The space of that name; `options` narrow or widen the choices of its parameters.

    Raises:
        SpaceError: no such space, no such option, or choices that make no network.
    """
    _load_all()
    if name not in _FACTORIES:
        raise SpaceError(name, f"is not known; known spaces are {', '.join(sorted(_FACTORIES))}")
    factory = _FACTORIES[name]
    known = list(inspect.signature(factory).parameters)
    for option in options or {}:
        if option not in known:
            raise SpaceError(name, f"no option {option!r}; its options are {', '.join(known)}")
    return factory(**{option: tuple(choices) for option, choices in (options or {}).items()})


def checked_choices(
    space: str, option: str, choices: tuple[int, ...], *, low: int, high: int
) -> tuple[int, ...]:
    """Choices of an option, sorted; raises SpaceError if none, or one is out of [low, high]."""
    if not choices:
        raise SpaceError(space, f"option {option!r} has no choices")
    for choice in choices:
        if not low <= choice <= high:
            raise SpaceError(space, f"option {option!r}: {choice} is not between {low} and {high}")
    return tuple(sorted(set(choices)))
