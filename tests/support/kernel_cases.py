"""Shapes that every kernel is tried on: one list per op, and all ops of a family as one graph.

A family is one graph of independent ops, so that one program runs them all; each case is in it once
for every kernel that takes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from graphs import Builder, f32, random_inputs, random_quant
from model_runner import LIMITS

from codegen import ir
from codegen.kernels import Kernel, all_kernels
from codegen.liveness import Overlap, aligned_offers
from codegen.planner import Plan

Case = Callable[[Builder], int]
NONE, RELU, RELU6 = ir.Activation.NONE, ir.Activation.RELU, ir.Activation.RELU6


def zero_point(value: int, scale: float = 0.05) -> ir.Quant:
    return ir.Quant((f32(scale),), (value,))


def conv(shape, out_c, kernel, zp=3, **keywords) -> Case:
    return lambda b: b.conv2d(b.input(shape, zero_point(zp)), out_c, kernel, **keywords)


def depthwise(shape, kernel, zp=3, **keywords) -> Case:
    return lambda b: b.depthwise_conv2d(b.input(shape, zero_point(zp)), kernel, **keywords)


def dense(shape, out_features, zp=3, **keywords) -> Case:
    return lambda b: b.fully_connected(b.input(shape, zero_point(zp)), out_features, **keywords)


def with_weights(case: Case, change: Callable[[np.ndarray], None], bias: int | None = None) -> Case:
    """The case with other weights, and every bias set."""

    def build(b: Builder) -> int:
        out = case(b)
        _, weight, *rest = b.ops[-1].inputs
        data = b.tensors[weight].data.copy()
        change(data)
        b.tensors[weight] = replace(b.tensors[weight], data=data)
        if rest and bias is not None:
            shape = b.tensors[rest[0]].shape
            data = np.full(shape, bias, np.int32) * np.resize([1, -1], shape).astype(np.int32)
            b.tensors[rest[0]] = replace(b.tensors[rest[0]], data=data)
        return out

    return build


def lowest(weights: np.ndarray) -> None:
    """-128 beside negative ones, which the pairs refuse."""
    weights[...] = -128


def lowest_above_zero(weights: np.ndarray) -> None:
    """-128 in every second channel, beside 0 or more: the most that pairs take."""
    weights[...] = np.abs(weights.astype(np.int64))
    weights[1::2] = -128


def highest(weights: np.ndarray) -> None:
    weights[...] = 127


def some_dead_channels(weights: np.ndarray) -> None:
    axis = 3 if weights.shape[0] == 1 else 0
    np.moveaxis(weights, axis, 0)[::2] = 0


#: Of outputs, so that factors are from far above 1 to far below 2^-22, 0.5 to 1 among them.
SCALES = (1e-8, 1e-5, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 1e-3, 2e-3, 1e4, 1e6, 1e8)
#: Of which the sum wraps around, or nearly.
BIASES = (2**30, 2**31 - 1)

CONV_CASES: list[Case] = [
    *(conv((1, 1, 1, c), out_c, (1, 1)) for c, out_c in itertools.product((1, 3, 4), (1, 2, 5))),
    *(conv((1, 3, 5, c), c + 1, (1, 1), zp) for c, zp in ((3, -128), (4, 0), (7, 127), (8, 1))),
    *(conv((1, 5, 3, 6), c, (1, 1)) for c in (1, 2, 3, 4, 5, 8, 9)),
    conv((1, 4, 4, 8), 8, (1, 1), activation=RELU),
    conv((1, 4, 4, 8), 4, (1, 1), activation=RELU6, per_channel=False),
    conv((2, 3, 3, 5), 6, (1, 1), bias=False),
    conv((1, 7, 6, 3), 5, (1, 1), stride=(2, 2)),
    *(conv((1, 6, 7, c), 5, (3, 3)) for c in (1, 3, 4, 5)),
    *(conv((1, 8, 8, 3), 4, (3, 3), zp, stride=(2, 2)) for zp in (-128, 0, 127)),
    conv((1, 9, 8, 2), 3, (2, 5), stride=(2, 1), padding="VALID"),
    conv((1, 10, 11, 1), 8, (10, 4), stride=(2, 2)),
    conv((1, 7, 7, 2), 3, (2, 2), stride=(3, 3)),
    conv((1, 5, 5, 3), 3, (3, 3), padding=ir.Padding(top=2, bottom=0, left=0, right=1)),
    *(conv((1, 9, 9, c), 3, (3, 3), dilation=(2, 2)) for c in (2, 4)),
    conv((1, 9, 9, 4), 2, (3, 2), dilation=(1, 3), padding="VALID"),
    conv((2, 5, 5, 3), 4, (3, 3), stride=(2, 2)),
    conv((1, 3, 4, 5), 6, (3, 4), padding="VALID"),
    conv((1, 2, 2, 2), 3, (5, 5)),
    with_weights(conv((1, 4, 4, 4), 4, (3, 3)), lowest),
    with_weights(conv((1, 4, 4, 4), 5, (1, 1), -128), highest, bias=2**28),
    with_weights(conv((1, 3, 3, 4), 4, (1, 1)), highest, bias=2**31 - 1),
    with_weights(conv((1, 3, 3, 8), 7, (1, 1)), some_dead_channels, bias=2**31 - 1),
    with_weights(conv((1, 3, 3, 8), 7, (3, 3)), some_dead_channels),
    *(conv((1, 3, 3, 4), 5, (1, 1), out_quant=zero_point(-7, scale)) for scale in SCALES),
    *(conv((1, 3, 3, 4), 4, (3, 3), out_quant=zero_point(127, scale)) for scale in SCALES[:5]),
    *(
        with_weights(conv((1, 3, 3, 4), 4, (1, 1), out_quant=zero_point(5, scale)), lowest, bias=b)
        for scale, b in itertools.product((1e-5, 3e-4, 1e6), BIASES)
    ),
    # Runs over the edge of the image, in whole groups of four.
    *(
        conv((1, 4, 5, 8), 2, kernel, dilation=d)
        for kernel, d in (((3, 5), (1, 1)), ((3, 3), (2, 3)))
    ),
    conv((1, 2, 2, 4), 3, (5, 5), padding=ir.Padding(top=4, bottom=4, left=4, right=4)),
    # Outputs on one side of the zero point: every number of steps ahead of the loop, channels that
    # are left over, more pixels than a block, more rows than a band.
    *(
        conv((1, 3, 5, depth), c, (1, 1), -128, activation=RELU, out_quant=zero_point(-128, 0.9))
        for depth, c in (
            (1, 4),
            (3, 4),
            (6, 8),
            (8, 5),
            (9, 4),
            (13, 4),
            (16, 7),
            (18, 4),
            (37, 13),
        )
    ),
    *(conv((1, h, 13, 4), 6, (1, 1), activation=RELU) for h in (5, 10)),
    conv((2, 7, 5, 8), 9, (1, 1), -128, out_quant=zero_point(-128, 0.9)),
    conv((1, 21, 9, 13), 4, (3, 3), -128, activation=RELU, out_quant=zero_point(-128, 0.9)),
    conv((1, 31, 10, 7), 5, (3, 3), 4, stride=(2, 2), activation=RELU),
    conv((2, 23, 8, 6), 4, (5, 3), stride=(2, 1), activation=RELU),
]

DEPTHWISE_CASES: list[Case] = [
    *(depthwise((1, 5, 6, c), (3, 3)) for c in (1, 2, 3, 4, 5, 8)),
    *(depthwise((1, 6, 5, 4), (3, 3), zp) for zp in (-128, 0, 127)),
    *(depthwise((1, 7, 8, 4), (3, 3), stride=s) for s in ((2, 2), (1, 2), (2, 1), (3, 3))),
    *(depthwise((1, 6, 9, 4), (2, kw), padding="VALID") for kw in (1, 2, 3, 4, 5, 7, 8, 9)),
    *(depthwise((1, 6, 6, c), (3, 3), depth_multiplier=m) for c, m in ((1, 8), (2, 3), (4, 2))),
    depthwise((1, 9, 9, 4), (3, 3), dilation=(2, 1)),
    depthwise((1, 9, 9, 4), (3, 3), dilation=(2, 2)),
    depthwise((1, 1, 1, 4), (3, 3)),
    depthwise((1, 1, 1, 5), (1, 1), activation=RELU6),
    depthwise((2, 5, 5, 4), (3, 3), activation=RELU, bias=False),
    depthwise((1, 5, 5, 4), (3, 3), per_channel=False),
    depthwise((1, 5, 5, 4), (3, 3), padding=ir.Padding(top=0, bottom=2, left=2, right=0)),
    depthwise((1, 2, 3, 4), (5, 5)),
    depthwise((1, 13, 14, 2), (12, 13), padding="VALID"),
    depthwise((1, 4, 4, 4), (2, 2), stride=(3, 3)),
    # More rows than a strip, odd ones and columns that are left over.
    *(depthwise((1, h, w, 4), (3, 3), zp) for h, w, zp in ((11, 1, 0), (1, 11, 5))),
    *(depthwise((1, h, w, 5), (3, 3), stride=(2, 2)) for h, w in ((19, 3), (6, 1))),
    depthwise((1, 5, 10, 4), (5, 5), activation=RELU),
    depthwise((1, 11, 10, 3), (3, 3), stride=(2, 1), activation=RELU),
    depthwise((2, 9, 3, 6), (3, 3), 127, activation=RELU),
    depthwise((1, 9, 20, 4), (3, 3), stride=(4, 5)),
    depthwise((1, 10, 9, 7), (3, 3), -128, activation=RELU),
    depthwise((1, 19, 5, 5), (3, 3), -128, stride=(2, 2), activation=RELU),
    depthwise((1, 6, 7, 2), (7, 7), -128, activation=RELU),
    depthwise((1, 5, 9, 5), (3, 4), padding=ir.Padding(top=1, bottom=2, left=3, right=0)),
    *(
        depthwise((1, h, w, 4), (3, 3), -128, out_quant=zero_point(-128, 0.9), stride=s)
        for h, w, s in ((9, 5, (1, 1)), (5, 10, (1, 1)), (17, 6, (2, 2)), (1, 1, (2, 2)))
    ),
    with_weights(depthwise((1, 4, 4, 4), (3, 3), -128), lowest, bias=2**20),
    with_weights(depthwise((1, 4, 4, 4), (3, 3)), highest, bias=2**31 - 1),
    with_weights(depthwise((1, 4, 4, 8), (3, 3)), some_dead_channels, bias=2**31 - 1),
    *(depthwise((1, 4, 4, 4), (3, 3), out_quant=zero_point(5, scale)) for scale in SCALES),
    with_weights(depthwise((1, 4, 4, 4), (2, 5), out_quant=zero_point(5, 1e-5)), lowest, 2**31 - 1),
]

DENSE_CASES: list[Case] = [
    *(dense((1, n), m) for n, m in itertools.product((1, 3, 4, 7, 8, 13), (1, 2, 7, 8, 9, 17))),
    *(dense((1, 12), 10, zp) for zp in (-128, 0, 127)),
    dense((3, 6), 5, activation=RELU),
    dense((2, 2, 5), 9, activation=RELU6, per_channel=True),
    dense((1, 64), 12, bias=False),
    with_weights(dense((1, 8), 8), lowest),
    with_weights(dense((1, 700), 8, -128), highest),
    with_weights(dense((1, 8), 9), highest, bias=2**31 - 1),
    with_weights(dense((1, 8), 9), some_dead_channels, bias=2**31 - 1),
    *(dense((1, 8), 9, out_quant=zero_point(5, scale)) for scale in SCALES),
    *(with_weights(dense((2, 11), 11, out_quant=zero_point(5, 1e-5)), lowest, b) for b in BIASES),
]

#: Sums that may need more than 24 bits, with and without channels that are left over.
DEEP_CASES: list[Case] = [
    conv((1, 1, 3, 64), 4, (7, 7)),
    conv((1, 7, 8, 64), 6, (7, 7), padding="VALID"),
    with_weights(conv((1, 1, 3, 511), 5, (1, 1), 127), lowest),
    with_weights(conv((1, 1, 3, 520), 6, (1, 1), -128), lowest_above_zero),
    with_weights(conv((1, 1, 3, 1029), 7, (1, 1)), highest),
    with_weights(
        conv((1, 1, 2, 700), 4, (1, 1), out_quant=zero_point(5, 1e-5)), highest, 2**31 - 1
    ),
    dense((1, 3136), 9),
    with_weights(dense((1, 511), 10, 127), lowest_above_zero),
    with_weights(dense((1, 1030), 10, 127), lowest),
    with_weights(dense((1, 1030), 9, -128, out_quant=zero_point(5, 1e-5)), highest, 2**31 - 1),
]


#: Tiles of 4x4 outputs, inputs in groups of 4 and 16, blocks of 4 and 8 tiles.
WINOGRAD_CASES: list[Case] = [
    *(conv((1, h, w, 8), 2, (3, 3)) for h, w in ((1, 1), (2, 2), (3, 3), (4, 5), (9, 12))),
    *(conv((1, 4, 6, c), 3, (3, 3), zp) for c, zp in ((11, -128), (17, 127))),
    *(conv((1, 8, 8, 16), out_c, (3, 3), 0, activation=RELU) for out_c in (1, 4)),
    conv((1, 13, 17, 16), 3, (3, 3), padding="VALID"),
    conv((1, 3, 3, 32), 2, (3, 3), padding="VALID"),
    conv((1, 6, 9, 8), 3, (3, 3), padding=ir.Padding(top=2, bottom=0, left=0, right=1)),
    conv((3, 5, 4, 9), 3, (3, 3), bias=False),
]

#: Sums, scales and zero points; tiles have scratch, so that these are a family of their own.
WINOGRAD_VALUE_CASES: list[Case] = [
    *(conv((1, 3, 5, 8), 2, (3, 3), out_quant=zero_point(-7, scale)) for scale in SCALES[1::2]),
    *(with_weights(conv((1, 5, 5, 48), 2, (3, 3), -128), w) for w in (lowest, highest)),
    with_weights(conv((1, 5, 9, 24), 4, (3, 3), 127), lowest, bias=2**31 - 1),
    with_weights(conv((1, 5, 5, 16), 3, (3, 3)), some_dead_channels, bias=2**28),
]


def pool(cls, shape, kernel, **keywords) -> Case:
    return lambda b: b.pool(cls, b.input(shape), kernel, **keywords)


POOL_CASES: list[Case] = [
    pool(cls, *case[:2], **case[2])
    for cls in (ir.AveragePool2D, ir.MaxPool2D)
    for case in (
        ((1, 1, 1, 1), (1, 1), {}),
        ((1, 6, 5, 3), (6, 5), {}),
        ((1, 6, 6, 4), (2, 2), {"stride": (2, 2)}),
        ((1, 7, 5, 3), (3, 3), {"stride": (2, 2), "padding": "SAME"}),
        ((2, 5, 5, 2), (2, 3), {"padding": "SAME", "activation": RELU}),
        ((1, 7, 7, 2), (2, 2), {"stride": (3, 3), "activation": RELU6}),
        ((1, 5, 4, 64), (5, 4), {}),
        ((1, 25, 5, 7), (25, 5), {"activation": RELU6}),
        ((2, 7, 5, 5), (3, 3), {"stride": (2, 2), "padding": "SAME"}),
        ((1, 4, 9, 13), (4, 6), {"stride": (1, 3), "activation": RELU}),
        ((1, 17, 16, 4), (16, 16), {}),
        ((1, 17, 17, 4), (17, 17), {"padding": "SAME"}),
    )
]

MEAN_CASES: list[Case] = [
    lambda b: b.mean(b.input((1, 4, 5, 6)), (1, 2)),
    lambda b: b.mean(b.input((1, 4, 5, 6)), (1, 2), keep_dims=True),
    lambda b: b.mean(b.input((2, 3, 5, 4)), (3,)),
    lambda b: b.mean(b.input((2, 3, 4)), (0, 2)),
    lambda b: b.mean(b.input((3, 7)), (1,), keep_dims=True),
    lambda b: b.mean(b.input((1, 1, 1, 5)), (1, 2)),
    lambda b: b.mean(b.input((2, 7, 7, 9)), (1, 2)),
    lambda b: b.mean(b.input((3, 6, 5, 4)), (2,)),
    lambda b: b.mean(b.input((1, 16, 16, 8)), (1, 2)),
    lambda b: b.mean(b.input((1, 17, 16, 8)), (1, 2)),
    lambda b: b.mean(b.input((8, 11)), (0,)),
]


def elementwise(cls, shape_a, shape_b, **keywords) -> Case:
    return lambda b: b.elementwise(cls, b.input(shape_a), b.input(shape_b), **keywords)


def with_constant(cls, shape, constant_shape, *, first: bool) -> Case:
    def build(b: Builder) -> int:
        x = b.input(shape)
        data = b.rng.integers(-128, 128, constant_shape)
        constant = b.constant(data, ir.DType.S8, random_quant(b.rng))
        return b.elementwise(cls, *((constant, x) if first else (x, constant)))

    return build


def twice(cls) -> Case:
    def build(b: Builder) -> int:
        x = b.input((1, 3, 3, 2))
        return b.elementwise(cls, x, x)

    return build


ELEMENTWISE_CASES: list[Case] = [
    case
    for cls in (ir.Add, ir.Sub, ir.Mul)
    for case in (
        elementwise(cls, (1,), (1,)),
        elementwise(cls, (1, 4, 3, 5), (1, 4, 3, 5)),
        elementwise(cls, (1, 4, 3, 5), (1, 4, 3, 5), activation=RELU6),
        elementwise(cls, (1, 4, 3, 5), (1, 1, 1, 5)),
        elementwise(cls, (1, 1, 3, 1), (2, 4, 3, 5), activation=RELU),
        elementwise(cls, (5,), (3, 2, 5)),
        elementwise(cls, (4, 1), (1, 6)),
        with_constant(cls, (1, 3, 3, 4), (4,), first=False),
        with_constant(cls, (1, 3, 3, 4), (1, 3, 3, 4), first=True),
        elementwise(cls, (1, 31), (1, 31)),
        elementwise(cls, (1, 3, 64), (3, 64)),
        elementwise(cls, (1, 5, 3, 8), (1, 5, 1, 8)),
        twice(cls),
    )
]

MOVEMENT_CASES: list[Case] = [
    *(
        (lambda b, perm=perm: b.transpose(b.input((2, 3, 4, 5)), perm))
        for perm in ((0, 3, 1, 2), (3, 2, 1, 0), (0, 2, 1, 3))
    ),
    lambda b: b.transpose(b.input((3, 7)), (1, 0)),
    lambda b: b.strided_slice(b.input((1, 6, 7, 3)), (0, 1, 2, 0), (1, 6, 7, 3), (1, 2, 3, 1)),
    lambda b: b.strided_slice(b.input((4, 5)), (3, 4), (-1, -1), (-1, -2)),
    lambda b: b.strided_slice(b.input((4, 5)), (2, 0), (3, 5), (1, 1), (0,)),
    lambda b: b.pad(b.input((1, 3, 4, 2)), ((0, 0), (1, 2), (0, 3), (0, 0))),
    lambda b: b.pad(b.input((2, 3)), ((1, 0), (2, 1)), value=-128),
    lambda b: b.pad(b.input((5,)), ((0, 0),)),
    lambda b: b.concatenation([b.input((1, 2, 3, n), zero_point(1)) for n in (1, 4, 2)], 3),
    lambda b: b.concatenation([b.input((n, 3), zero_point(1)) for n in (1, 2)], 0),
    *(
        (lambda b, size=size: b.concatenation([b.input((1, size), zero_point(1))], 1))
        for size in (1, 3, 4, 15, 16, 19, 31, 64)
    ),
]


VALUE_CASES: list[Case] = [
    *(
        (lambda b, s=shape, beta=beta: b.softmax(b.input(s, zero_point(4, 0.3)), beta=beta))
        for shape, beta in (((1, 1), 1.0), ((1, 12), 1.0), ((3, 5), 0.5), ((1, 2, 300), 2.0))
    ),
    lambda b: b.softmax(b.input((2, 40), zero_point(-128, 1e-4))),
    lambda b: b.logistic(b.input((1, 300))),
    lambda b: b.tanh(b.input((3, 100))),
    lambda b: b.relu(b.input((1, 300))),
    lambda b: b.relu(b.input((1, 300)), RELU6),
    lambda b: b.leaky_relu(b.input((1, 300)), 0.1),
    lambda b: b.hard_swish(b.input((1, 300))),
    lambda b: b.quantize(b.input((1, 37), dtype=ir.DType.F32), ir.DType.S8),
    lambda b: b.quantize(b.input((1, 300)), ir.DType.S8),
    lambda b: b.quantize(b.input((1, 300), dtype=ir.DType.U8), ir.DType.S8),
    lambda b: b.quantize(b.input((1, 300)), ir.DType.U8),
    lambda b: b.quantize(b.input((1, 300), dtype=ir.DType.S16), ir.DType.S8),
    lambda b: b.dequantize(b.input((1, 300))),
    lambda b: b.dequantize(b.input((7,), dtype=ir.DType.U8)),
]

FAMILIES: dict[str, list[Case]] = {
    "conv": CONV_CASES,
    "depthwise": DEPTHWISE_CASES,
    "dense": DENSE_CASES,
    "deep": DEEP_CASES,
    "winograd": WINOGRAD_CASES,
    "winograd_values": WINOGRAD_VALUE_CASES,
    "pool": POOL_CASES + MEAN_CASES,
    "elementwise": ELEMENTWISE_CASES,
    "movement": MOVEMENT_CASES,
    "value": VALUE_CASES,
}


@dataclass(frozen=True)
class Suite:
    """All cases of a family, once for each kernel that takes them."""

    graph: ir.Graph
    kernels: dict[int, Kernel]


def kernels_for(case: Case, seed: int) -> Iterator[Kernel]:
    b = Builder(np.random.default_rng(seed))
    graph = b.graph([case(b)])
    for kernel in all_kernels():
        if isinstance(graph.ops[0], kernel.op) and kernel.refuse(graph, graph.ops[0]) is None:
            yield kernel


def suite(family: str) -> Suite:
    return suite_of(FAMILIES[family], family)


def suite_of(cases: Iterable[Case], name: str) -> Suite:
    b = Builder(np.random.default_rng(0), name)
    outputs, kernels = [], {}
    for seed, case in enumerate(cases):
        for kernel in kernels_for(case, seed):
            b.rng = np.random.default_rng(seed)
            outputs.append(case(b))
            kernels[len(b.ops) - 1] = kernel
    return Suite(b.graph(outputs), kernels)


def offers_of(graph: ir.Graph, index: int, kernel: Kernel) -> tuple[Overlap, ...]:
    """The overlaps that a kernel offers for an op, on words."""
    return tuple(aligned_offers(kernel.cost(graph, graph.ops[index], LIMITS).overlaps))


def private_places(
    graph: ir.Graph,
    kernels: dict[int, Kernel],
    *,
    overlapping: bool,
    offer: int = 0,
    too_close_bytes: int = 0,
) -> Plan:
    """Bytes of its own for each op; its output as far over its input as offered, or apart.

    Args:
        graph: independent ops.
        kernels: by op.
        overlapping: whether outputs lie over inputs.
        offer: which of the offers, where there are several.
        too_close_bytes: how much further over the input than offered, where the offer is no exact
            distance.
    """
    offsets, scratch = [-1] * len(graph.tensors), [0] * len(graph.ops)
    end = 0
    for index, op in enumerate(graph.ops):
        cost = kernels[index].cost(graph, op, LIMITS)
        for i in {*op.inputs} & {*graph.inputs}:
            offsets[i], end = end, aligned(end + graph.tensors[i].size_bytes)
        out = op.outputs[0]
        offsets[out], end = end, aligned(end + graph.tensors[out].size_bytes)
        if overlapping and (offers := offers_of(graph, index, kernels[index])):
            overlap = offers[offer % len(offers)]
            distance = overlap.distance - (0 if overlap.is_exact else too_close_bytes)
            over = op.inputs[overlap.input]
            # The input moves up as far as the output must start below it.
            offsets[over] += max(0, overlap.distance)
            offsets[out] = offsets[over] - distance
            end = max(
                end, *(aligned(offsets[i] + graph.tensors[i].size_bytes) for i in (over, out))
            )
        scratch[index] = aligned(cost.scratch_bytes)
    # All share their scratch: nobody may rely on what is in it.
    scratch_offsets = [end if size else -1 for size in scratch]
    end += max(scratch, default=0)
    return Plan(
        order=tuple(range(len(graph.ops))),
        offsets=tuple(offsets),
        scratch_offsets=tuple(scratch_offsets),
        arena_bytes=end,
        scratch_bytes=0,
        lower_bound_bytes=end,
        peak_op=0,
        rows=(),
    )


def aligned(size_bytes: int) -> int:
    return -(-size_bytes // 4) * 4


def some_inputs(graph: ir.Graph, count: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(1)
    return [random_inputs(rng, graph) for _ in range(count)]
