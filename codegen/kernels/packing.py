"""Weights in the form that firmware/kernels multiplies with.

The C side of each layout is described in firmware/kernels/{column,dot_s8}.h.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int64s = NDArray[np.int64]

#: The second sum of a packed pair must fit 24 bits.
PAIR_SUM_LIMIT = 2**23
#: Largest magnitude of an int8 activation.
MAX_MAGNITUDE = 128


def column_order(runs: tuple[int, ...]) -> NDArray[np.intp]:
    """Which element of the weights stands at each position of a column (column.h).

    Args:
        runs: lengths of the runs that are copied one after another.
    """
    groups: list[int] = []
    rest: list[int] = []
    start = 0
    for run in runs:
        in_groups = run // 4 * 4
        for group in range(start, start + in_groups, 4):
            groups += [group, group + 2, group + 1, group + 3]
        rest += range(start + in_groups, start + run)
        start += run
    return np.array(groups + rest, np.intp)


class Layout(enum.StrEnum):
    """How a word holds two elements of two channels, by its name in dot_s8.h."""

    PAIRS = "DOT_PAIRS"
    BYTES = "DOT_BYTES"


def refuse_pairs(weights: Int8s) -> str | None:
    """Why weights (out_c, depth) cannot be laid out as PAIRS, or None."""
    low, high = _channel_pairs(weights)
    if np.any((high == -128) & (low < 0)):
        return "a weight of -128 stands beside a negative one in the pair of channels"
    return None


def pair_segment(weights: Int8s) -> int:
    """The most elements whose sums fit 24 bits in every pair: all of them, or a power of two.

    Args:
        weights: (out_c, depth) in the order in which they are multiplied.
    """
    _, high = _channel_pairs(weights)
    magnitudes = np.abs(high.astype(np.int16))
    depth = int(weights.shape[1])
    segment = depth
    starts = np.array([0])
    while np.any(_sums(magnitudes, starts) * MAX_MAGNITUDE >= PAIR_SUM_LIMIT):
        segment = 1 << ((segment - 1).bit_length() - 1)
        starts = np.arange(0, depth, segment)
    return segment


def _sums(rows: NDArray[np.int16], starts: NDArray[np.intp]) -> Int64s:
    """The sum of each row from each start to the next."""
    sums: Int64s = np.add.reduceat(rows, starts, axis=1, dtype=np.int64)
    return sums


def _channel_pairs(weights: Int8s) -> tuple[Int8s, Int8s]:
    """Channels 0, 2, 4, ... and 1, 3, 5, ...; an odd number is filled up with zeros."""
    out_c = weights.shape[0]
    padded = np.pad(weights, ((0, out_c % 2), (0, 0)))
    return padded[0::2], padded[1::2]


def pack_words(weights: Int8s, layout: Layout) -> NDArray[np.uint32]:
    """Words of dot_s8.h: (ceil(out_c / 2), depth / 2), two elements of two channels each."""
    low, high = _channel_pairs(weights)
    if layout is Layout.PAIRS:
        halves = (high.astype(np.int32) << 8) + low
    else:
        halves = (high.astype(np.int32) << 8) | (low.astype(np.int32) & 0xFF)
    return np.ascontiguousarray(halves.astype("<i2")).view("<u4").astype(np.uint32)


def pack_tiles(
    words: NDArray[np.uint32], *, tiles: int, tile_pairs: int, step: int
) -> NDArray[np.uint32]:
    """Words in the order of use: in a tile its pairs take turns; then come single pairs.

    Args:
        words: (pairs, words of a pair); the number of words is a multiple of `step`.
        tiles: how many tiles there are.
        tile_pairs: pairs of channels in a tile, whose sums are computed together.
        step: words of one pair that are used one after another.
    """
    tiled = tiles * tile_pairs
    in_tiles = words[:tiled].reshape(tiles, tile_pairs, words.shape[1] // step, step)
    in_turns = in_tiles.transpose(0, 2, 1, 3).reshape(-1)
    return np.concatenate([in_turns, words[tiled:].reshape(-1)])
