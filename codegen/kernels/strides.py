"""Axes with strides: the form in which strided.h walks a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Axis = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Axes:
    """(size, stride) of each axis, outermost first; adjoining axes that step evenly are one.

    There is always at least one axis.
    """

    axes: tuple[Axis, ...]

    @property
    def outer(self) -> tuple[Axis, ...]:
        """All but the innermost axis."""
        return self.axes[:-1]

    @property
    def outer_size(self) -> int:
        """Elements of all axes but the innermost."""
        return math.prod(size for size, _ in self.outer)

    @property
    def inner_size(self) -> int:
        """Elements of the innermost axis."""
        return self.axes[-1][0]

    @property
    def inner_stride(self) -> int:
        """Stride of the innermost axis."""
        return self.axes[-1][1]

    @property
    def size(self) -> int:
        """Elements of all axes."""
        return self.outer_size * self.inner_size


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor, last axis fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def collapsed(axes: Sequence[Axis]) -> Axes:
    """The same elements in the same order with as few axes as possible."""
    return Axes(tuple((size, stride) for size, (stride,) in _merge([(n, (s,)) for n, s in axes])))


def collapsed_together(
    shape: Sequence[int], strides_a: Sequence[int], strides_b: Sequence[int]
) -> tuple[Axes, Axes]:
    """Axes of two tensors that are walked together, merged only where both step evenly."""
    together = list(zip(shape, zip(strides_a, strides_b, strict=True), strict=True))
    merged = _merge(together)
    a = Axes(tuple((size, strides[0]) for size, strides in merged))
    b = Axes(tuple((size, strides[1]) for size, strides in merged))
    return a, b


def _merge(axes: Sequence[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, strides in axes:
        if size == 1:
            continue
        if merged and all(
            before == after * size for before, after in zip(merged[-1][1], strides, strict=True)
        ):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    return merged or [(1, (1,) * (len(axes[0][1]) if axes else 1))]
