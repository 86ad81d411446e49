"""Three tiny models whose generated C is kept: a change of a template shows as a diff."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from graphs import Builder

from codegen import ir
from codegen.export_tflite import export_tflite
from codegen.generate import generate
from codegen.limits import BoardLimits

FOLDER = Path(__file__).resolve().parent
BOARD = BoardLimits("golden_board", "cortex-m4", ("dsp",), ram_bytes=65_536, flash_bytes=262_144)


def convolutional(b: Builder) -> int:
    """What image classifiers are made of: convolution, depthwise, 1x1, pool, dense, softmax."""
    x = b.input((1, 8, 8, 3))
    x = b.conv2d(x, 4, (3, 3), stride=(2, 2), activation=ir.Activation.RELU)
    x = b.depthwise_conv2d(x, (3, 3), activation=ir.Activation.RELU6)
    x = b.conv2d(x, 7, (1, 1))
    x = b.pool(ir.AveragePool2D, x, (4, 4))
    x = b.fully_connected(b.reshape(x, (1, 7)), 3)
    return b.softmax(x)


def residual(b: Builder) -> int:
    """A branch that is added to its input, a broadcast gate, a concatenation and a mean."""
    x = b.input((1, 5, 4, 4))
    branch = b.depthwise_conv2d(x, (1, 4), stride=(1, 1), depth_multiplier=1)
    total = b.elementwise(ir.Add, x, branch)
    gate = b.logistic(b.mean(total, (1, 2), keep_dims=True))
    gated = b.elementwise(ir.Mul, total, gate)
    joined = b.concatenation([gated, gated], 3)
    return b.mean(b.transpose(joined, (0, 2, 1, 3)), (2,))


def dense(b: Builder) -> int:
    """An autoencoder: dense layers whose sizes are and are not multiples of the tile."""
    x = b.input((1, 18))
    x = b.fully_connected(x, 8, activation=ir.Activation.RELU)
    x = b.fully_connected(x, 3, activation=ir.Activation.RELU)
    return b.fully_connected(x, 18)


MODELS: dict[str, Callable[[Builder], int]] = {
    "convolutional": convolutional,
    "residual": residual,
    "dense": dense,
}


def write(name: str, folder: Path) -> None:
    """Generates one of the models into a folder."""
    b = Builder(np.random.default_rng(7), name)
    tflite = export_tflite(b.graph([MODELS[name](b)]))
    generate(tflite, name=name, engine="tiny", board=BOARD, out_dir=folder)
