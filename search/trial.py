"""What a strategy knows of a trial. The stored form is that of hil/store.py."""

from __future__ import annotations

from dataclasses import dataclass

from search.space import Point


@dataclass(frozen=True, slots=True)
class Measured:
    """Trained and measured on every place; `values` in the order of the study's objectives."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Does not fit; `violation` > 0 sums (needed - have) / have over boards and memories."""

    violation: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Something broke; says nothing about the point. `kind` is the name of the error's class."""

    kind: str
    reason: str


Outcome = Measured | Infeasible | Failed


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposed point; `outcome` is None while it is not known yet."""

    number: int
    point: Point
    outcome: Outcome | None = None
