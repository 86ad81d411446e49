"""Random inputs that the board and this machine make alike from a seed.

The board's `seed` command fills its inputs with the same bytes, so they need not cross the serial
port. Bytes that are no sensible float32 would be (NaN, infinities), so models with such inputs are
fed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.manifest import Tensor


def xorshift_bytes(seed: int, size: int) -> bytes:
    """The stream of the firmware's `seed` command: xorshift32, four bytes a step, lowest first.

    Source: Marsaglia 2003, doi:10.18637/jss.v008.i14.
    """
    x = (seed ^ 0x9E3779B9) & 0xFFFFFFFF  # small seeds differ in many bits
    x = x or 1  # 0 is the one fixed point
    stream = bytearray()
    while len(stream) < size:
        x ^= (x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x ^= (x << 5) & 0xFFFFFFFF
        stream += x.to_bytes(4, "little")
    return bytes(stream[:size])


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
