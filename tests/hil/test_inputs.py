from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hil.inputs import can_be_seeded, random_inputs, xorshift_bytes
from hil.manifest import Tensor


def test_the_stream_is_that_of_the_firmware():
    # Worked out by hand for seed 0: x starts at 0x9E3779B9.
    x = 0x9E3779B9
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF

    assert xorshift_bytes(0, 4) == x.to_bytes(4, "little")
    assert xorshift_bytes(0, 3) == x.to_bytes(4, "little")[:3]


def test_the_seed_that_would_give_zeros_gives_another_stream():
    assert any(xorshift_bytes(0x9E3779B9, 8))


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_every_step_is_one_of_xorshift(seed, size):
    x, stream = (seed ^ 0x9E3779B9) or 1, b""
    for _ in range(-(-size // 4)):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        stream += x.to_bytes(4, "little")

    assert xorshift_bytes(seed, size) == stream[:size]


@given(st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_a_longer_stream_begins_with_the_shorter_one(seed, size):
    assert xorshift_bytes(seed, size + 5)[:size] == xorshift_bytes(seed, size)


def test_inputs_are_cut_from_one_stream_in_their_order():
    tensors = (Tensor("a", "s8", (3,), 1.0, 0), Tensor("b", "s16", (2, 2), 1.0, 0))

    a, b = random_inputs(tensors, 7)

    assert a.tobytes() + b.tobytes() == xorshift_bytes(7, 11)
    assert (a.dtype, b.dtype, b.shape) == (np.int8, np.int16, (2, 2))
    assert can_be_seeded(tensors)


def test_float_inputs_are_numbers_within_the_unit_range():
    tensors = (Tensor("x", "f32", (50, 50), 1.0, 0),)

    (x,) = random_inputs(tensors, 3)

    assert x.dtype == np.float32
    assert float(x.min()) >= -1
    assert float(x.max()) < 1
    assert not can_be_seeded(tensors)
