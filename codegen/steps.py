"""Scaled sums that give a layer's very outputs: constants for one multiply and one shift, proved.

The output f(sum) = clamp(oracle(sum) + zero point) never falls as the sum grows, and neither does
g(sum) = clamp((sum * 2^shift + offset) * multiplier >> (32 + places)). Two such functions are equal
on a range of sums if and only if each output level above the lowest is first reached by the same
sum. That g reaches `level` at the oracle's first sum of it, and not at the one before, is an
interval of offsets. An offset in the intersection of the intervals of all levels is a proof that f
and g are equal for all sums that any input can cause.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen import fixed_point

Int64s = NDArray[np.int64]

#: More would shift an output level out of 62 bits.
MAX_PLACES = 22
#: An offset far beyond all that are possible.
NO_LIMIT = np.int64(2**62)
#: What is added to a multiplier in turns until it is proved to be exact.
CHANGES = tuple(
    sign * (mantissa << exponent) >> 2
    for exponent in range(13)
    for mantissa in range(4, 8)
    for sign in (1, -1)
)


def ceil_divide(a: Int64s, b: Int64s) -> Int64s:
    """The quotient a / b, rounded up; b > 0."""
    quotient: Int64s = -(-a // b)
    return quotient


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """(channels,) multiplier and offset that are exact, and the constants that they are for."""

    multiplier: Int64s
    offset: Int64s
    shift: int
    places: int


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Where the outputs of some channels step up.

    Args:
        levels: (levels,), the output levels above the lowest.
        first_sums: (channels, levels), the first sum of each, or one after the highest sum.
        lowest: (channels,), the lowest sum of each channel.
        highest: (channels,), the highest.
        shift: of the sum to the left.
        places: how far left the product stands of the output.
    """

    levels: Int64s
    first_sums: Int64s
    lowest: Int64s
    highest: Int64s
    shift: int
    places: int

    def prove(self, nearest: Int64s) -> tuple[Int64s, Int64s, NDArray[np.bool_]]:
        """(channels,) multiplier, offset and whether they are proved to be exact.

        Args:
            nearest: (channels,), the multipliers to try first.
        """
        multiplier = nearest.copy()
        least, most = self._offsets(np.arange(len(nearest)), nearest)
        # Where most channels fail, the cause is not bad luck, and neighbours would fail too.
        is_hopeless = np.count_nonzero(least > most) > max(8, len(nearest) // 2)
        for change in () if is_hopeless else CHANGES:
            missing = np.flatnonzero(least > most)
            if not missing.size:
                break
            tried = np.clip(nearest[missing] + change, 1, fixed_point.INT32_MAX)
            multiplier[missing] = tried
            least[missing], most[missing] = self._offsets(missing, tried)
        return multiplier, least + most >> 1, least <= most

    def fit_32_bits(self, offset: Int64s) -> NDArray[np.bool_]:
        """(channels,) whether no sum overflows when it is shifted and its offset added."""
        extremes = (np.stack([self.lowest, self.highest]) << self.shift) + offset
        fits = (extremes >= fixed_point.INT32_MIN) & (extremes <= fixed_point.INT32_MAX)
        return np.asarray(fits.all(axis=0))

    def _offsets(self, which: NDArray[np.intp], multiplier: Int64s) -> tuple[Int64s, Int64s]:
        """The least and the greatest offset that put every step of channels `which` in place."""
        first = self.first_sums[which]
        # offset + first * 2^shift must reach this, and one sum less must not.
        wanted = ceil_divide((self.levels << (32 + self.places))[None, :], multiplier[:, None])
        least = wanted - (first << self.shift)
        most = least + (1 << self.shift) - 1
        is_reached = first <= self.highest[which, None]
        is_missed = first > self.lowest[which, None]
        return (
            np.where(is_reached, least, -NO_LIMIT).max(axis=1, initial=-NO_LIMIT),
            np.where(is_missed, most, NO_LIMIT).min(axis=1, initial=NO_LIMIT),
        )


def finest(
    largest_scale: int,
    nearest: Int64s,
    levels: Int64s,
    first_sums: Int64s,
    lowest: Int64s,
    highest: Int64s,
) -> Proof | None:
    """The proof with the largest shift that leaves sums within 32 bits; see `Steps`.

    The largest scale's exponent is `largest_scale`; `nearest` times 2^-(31 + largest_scale) is the
    scale of each channel.
    """
    for places in range(MAX_PLACES, 0, -1):
        shift = places + 1 - largest_scale
        if shift < 0:
            break
        steps = Steps(levels, first_sums, lowest, highest, shift, places)
        multiplier, offset, is_proved = steps.prove(nearest)
        if not steps.fit_32_bits(offset).all():
            continue
        return Proof(multiplier, offset, shift, places) if is_proved.all() else None
    return None
