"""Random cases for kernels: shapes around every tile, all attributes, weights at their ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graphs import ZERO_POINTS
from kernel_cases import (
    SCALES,
    Case,
    conv,
    dense,
    depthwise,
    elementwise,
    highest,
    lowest,
    lowest_above_zero,
    pool,
    some_dead_channels,
    with_weights,
    zero_point,
)

from codegen import ir

Rng = np.random.Generator
#: Of channels: around every tile, and odd ones.
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 24, 31, 33)
BIASES = (0, 2**20, 2**30, 2**31 - 1)


def random_cases(seed: int, count: int) -> list[Case]:
    """Cases of one op each; equal seeds give equal cases."""
    rng = np.random.default_rng(seed)
    return [_KINDS[rng.integers(len(_KINDS))](rng) for _ in range(count)]


def _channels(rng: Rng) -> int:
    return int(rng.choice(CHANNELS))


def _zero_point(rng: Rng) -> int:
    return int(rng.choice(ZERO_POINTS))


def _image(rng: Rng, low: int, high: int) -> tuple[int, int, int, int]:
    h, w = (int(side) for side in rng.integers(low, high, 2))
    return (int(rng.choice([1, 1, 1, 2])), h, w, _channels(rng))


def _layer(rng: Rng) -> dict[str, object]:
    """What convolutions and dense layers have besides shapes."""
    chosen: dict[str, object] = {
        "activation": list(ir.Activation)[rng.integers(4)],
        "bias": bool(rng.random() < 0.8),
        "per_channel": bool(rng.random() < 0.7),
    }
    if rng.random() < 0.2:
        chosen["out_quant"] = zero_point(_zero_point(rng), float(rng.choice(SCALES)))
    return chosen


def _window(rng: Rng, shape: tuple[int, ...]) -> dict[str, object]:
    """Stride, dilation and padding of a window that fits."""
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
    stride = tuple(int(s) for s in rng.choice([1, 1, 2, 3], 2))
    dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2], 2))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    fits = reach[0] <= shape[1] and reach[1] <= shape[2]
    if rng.random() < 0.3:
        # At least as much as the window needs; less than the window.
        least = [max(0, r - n) for r, n in zip(reach, shape[1:3], strict=True)]
        top, left = (int(rng.integers((m + 1) // 2, r)) for m, r in zip(least, reach, strict=True))
        bottom, right = (int(rng.integers(m // 2, r)) for m, r in zip(least, reach, strict=True))
        padding: object = ir.Padding(top=top, bottom=bottom, left=left, right=right)
    else:
        padding = "VALID" if fits and rng.random() < 0.5 else "SAME"
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def _changed(rng: Rng, case: Case, layer: dict[str, object]) -> Case:
    """Now and then the weights are at their ends, zero in part, or the bias makes sums wrap."""
    changes: tuple[Callable[[np.ndarray], None], ...] = (
        lowest, highest, lowest_above_zero, some_dead_channels, lambda weights: None,
    )  # fmt: skip
    if rng.random() < 0.3:
        change = changes[rng.integers(len(changes))]
        return with_weights(case, change, int(rng.choice(BIASES)) if layer["bias"] else None)
    return case


def _pointwise(rng: Rng) -> Case:
    layer = _layer(rng)
    case = conv(_image(rng, 1, 8), _channels(rng), (1, 1), _zero_point(rng), **layer)
    return _changed(rng, case, layer)


def _three_by_three(rng: Rng) -> Case:
    layer, padding = _layer(rng), ("SAME", "VALID")[rng.integers(2)]
    shape = _image(rng, 3, 11)
    case = conv(shape, _channels(rng), (3, 3), _zero_point(rng), padding=padding, **layer)
    return _changed(rng, case, layer)


def _convolution(rng: Rng) -> Case:
    layer, shape = _layer(rng), _image(rng, 1, 10)
    window = _window(rng, shape)
    case = conv(shape, _channels(rng), zp=_zero_point(rng), **window, **layer)
    return _changed(rng, case, layer)


def _depthwise(rng: Rng) -> Case:
    layer, shape = _layer(rng), _image(rng, 1, 12)
    multiplier = int(rng.choice([1, 1, 1, 2, 3]))
    window = _window(rng, shape)
    case = depthwise(shape, zp=_zero_point(rng), depth_multiplier=multiplier, **window, **layer)
    return _changed(rng, case, layer)


def _depthwise_three_by_three(rng: Rng) -> Case:
    layer, shape = _layer(rng), _image(rng, 1, 14)
    stride = (1, 1) if rng.random() < 0.6 else (2, 2)
    case = depthwise(shape, (3, 3), _zero_point(rng), stride=stride, **layer)
    return _changed(rng, case, layer)


def _dense(rng: Rng) -> Case:
    layer = _layer(rng)
    shape = (int(rng.choice([1, 1, 1, 2, 3])), int(rng.integers(1, 300)))
    case = dense(shape, int(rng.integers(1, 40)), _zero_point(rng), **layer)
    return _changed(rng, case, layer)


def _pool(rng: Rng) -> Case:
    shape = _image(rng, 1, 12)
    window = _window(rng, shape)
    del window["dilation"]
    kernel = tuple(min(k, n) for k, n in zip(window.pop("kernel"), shape[1:3], strict=True))
    window["padding"] = ("SAME", "VALID")[rng.integers(2)]
    cls = (ir.AveragePool2D, ir.MaxPool2D)[rng.integers(2)]
    return pool(cls, shape, kernel, activation=list(ir.Activation)[rng.integers(4)], **window)


def _elementwise(rng: Rng) -> Case:
    shape = _image(rng, 1, 7)
    other = tuple(n if rng.random() < 0.7 else 1 for n in shape)
    shapes = (shape, other) if rng.random() < 0.5 else (other, shape)
    cls = (ir.Add, ir.Sub, ir.Mul)[rng.integers(3)]
    return elementwise(cls, *shapes, activation=list(ir.Activation)[rng.integers(4)])


def _mean(rng: Rng) -> Case:
    shape = _image(rng, 1, 10)
    axes = ((1, 2), (1, 2), (1,), (2,), (3,), (1, 2, 3))[rng.integers(6)]
    keep_dims = bool(rng.random() < 0.5)
    return lambda b: b.mean(b.input(shape), axes, keep_dims=keep_dims)


_KINDS: tuple[Callable[[Rng], Case], ...] = (
    _pointwise, _pointwise, _three_by_three, _convolution, _depthwise, _depthwise_three_by_three,
    _dense, _pool, _elementwise, _mean,
)  # fmt: skip
