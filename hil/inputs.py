"""Random inputs that the board and this machine make alike from a seed.

The board's `seed` command fills its inputs with the same bytes, so they need not cross the serial
port. Bytes that are no sensible float32 would be (NaN, infinities), so models with such inputs are
fed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.manifest import Tensor

Words = NDArray[np.uint32]


def xorshift_bytes(seed: int, size: int) -> bytes:
    """The stream of the firmware's `seed` command: xorshift32, four bytes a step, lowest first.

    A step is linear over GF(2), and so are many: words known so far give as many again at once.
    Source: Marsaglia 2003, doi:10.18637/jss.v008.i14.
    """
    x = (seed ^ 0x9E3779B9) & 0xFFFFFFFF  # small seeds differ in many bits
    words = np.full(-(-size // 4), x or 1, "<u4")  # 0 is the one fixed point
    words[:1] = _step(words[:1])
    known, power = 1, 0
    while known < words.size:
        more = words[known : 2 * known]
        more[:] = _leap(_leap_table(power), words[: more.size])
        known, power = 2 * known, power + 1
    return words.tobytes()[:size]


def _step(x: Words) -> Words:
    x = x ^ (x << np.uint32(13))
    x = x ^ (x >> np.uint32(17))
    stepped: Words = x ^ (x << np.uint32(5))
    return stepped


def _leap(table: Words, x: Words) -> Words:
    """As many steps as the table is for."""
    parts = [table[i][x >> np.uint32(8 * i) & np.uint32(0xFF)] for i in range(4)]
    leapt: Words = parts[0] ^ parts[1] ^ parts[2] ^ parts[3]
    return leapt


@functools.cache
def _leap_table(power: int) -> Words:
    """(4, 256) what 2**power steps make of each byte of a word."""
    if power == 0:
        return _step(
            np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
        )
    half = _leap_table(power - 1)
    return _leap(half, half)


def can_be_seeded(tensors: tuple[Tensor, ...]) -> bool:
    """Whether any bytes make sense as these inputs."""
    return all(tensor.dtype != "f32" for tensor in tensors)


def random_inputs(tensors: tuple[Tensor, ...], seed: int) -> list[NDArray[Any]]:
    """One array for each input; float32 values lie in [-1, 1), all other types take any value."""
    stream = xorshift_bytes(seed, sum(tensor.size_bytes for tensor in tensors))
    arrays: list[NDArray[Any]] = []
    offset = 0
    for tensor in tensors:
        chunk = stream[offset : offset + tensor.size_bytes]
        offset += tensor.size_bytes
        if tensor.dtype == "f32":
            values = (np.frombuffer(chunk, "<i4") / 2.0**31).astype("<f4")
            values[values == 1] = 0  # rounding reached the open end
        else:
            values = np.frombuffer(chunk, tensor.numpy)
        arrays.append(values.reshape(tensor.shape))
    return arrays
