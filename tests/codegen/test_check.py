"""The rules: every op has one, sound graphs pass, and each broken rule is named with its op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import graphs
import numpy as np
import pytest

from codegen import ir
from codegen.check import RULES, check
from codegen.errors import CodegenError, GraphInvalid, UnsupportedOp

Build = Callable[[graphs.Builder], int]


def made(build: Build, seed: int = 0) -> ir.Graph:
    b = graphs.Builder(np.random.default_rng(seed), "net")
    return b.graph([build(b)])


def quant(scale: float, zero_point: int = 0) -> ir.Quant:
    return ir.Quant((graphs.f32(scale),), (zero_point,))


def unary(op: ir.Op, x: ir.Quant, y: ir.Quant, shape: tuple[int, ...] = (1, 4)) -> Build:
    """One op from tensor 0 to tensor 1, with these scales."""

    def build(b: graphs.Builder) -> int:
        b.input(shape, x)
        b.activation(shape, y)
        return b.add(op)

    return build


def concatenated(count: int, activation: ir.Activation = ir.Activation.NONE) -> Build:
    def build(b: graphs.Builder) -> int:
        y = b.concatenation([b.input((1, 2), quant(0.1)) for _ in range(count)], 1)
        b.ops[-1] = replace(b.ops[-1], activation=activation)
        return y

    return build


def sum_of(a: float, b: float, out: float) -> Build:
    return lambda net: net.elementwise(
        ir.Add, net.input((1, 4), quant(a)), net.input((1, 4), quant(b)), out_quant=quant(out)
    )


def misfit_sum(b: graphs.Builder) -> int:
    inputs = (b.input((1, 4)), b.input((1, 3)))
    return b.add(ir.Add(name="sum", inputs=inputs, outputs=(b.activation((1, 4)),)))


IN_OUT = {"name": "op_0", "inputs": (0,), "outputs": (1,)}
POOL = {**IN_OUT, "kh": 1, "kw": 1, "stride_h": 1, "stride_w": 1}

#: Sound for us and for TFLM; each was run by it.
SOUND: dict[str, Build] = {
    "concatenation of ten": concatenated(10),
    "sum near the limit": sum_of(0.1, 0.2, 1e-6),
    "relu that rescales": unary(
        ir.Relu(**IN_OUT, activation=ir.Activation.RELU), quant(0.1, 3), quant(0.05, -128)
    ),
    "dense over three axes": lambda b: b.fully_connected(b.input((2, 3, 4)), 5),
    "broadcast in both ways": lambda b: b.elementwise(
        ir.Mul, b.input((1, 3, 1)), b.input((2, 1, 4))
    ),
    "transpose of five axes": lambda b: b.transpose(b.input((1, 2, 3, 2, 3)), (4, 3, 2, 1, 0)),
    "float to s8": lambda b: b.quantize(b.input((1, 3), dtype=ir.DType.F32), ir.DType.S8),
    "u8 to s8": lambda b: b.quantize(b.input((1, 3), quant(0.1, 7), ir.DType.U8), ir.DType.S8),
    "s16 to s8": lambda b: b.quantize(b.input((1, 3), quant(0.1), ir.DType.S16), ir.DType.S8),
}

#: Refused by TFLM too, or wrong there: tried on each.
REFUSED: dict[str, Build] = {
    "CONCATENATION .* 11 inputs; the limit is 10": concatenated(11),
    "CONCATENATION .* fused activation": concatenated(2, ir.Activation.RELU),
    "ADD .* too small for inputs": sum_of(0.1, 0.2, 2e-7),
    "SOFTMAX .* expected 1/256, -128": unary(ir.Softmax(**IN_OUT), quant(0.1), quant(1 / 128, 0)),
    "SOFTMAX .* too small": unary(ir.Softmax(**IN_OUT), quant(1e-8), quant(1 / 256, -128)),
    "beta is nan": unary(ir.Softmax(**IN_OUT, beta=float("nan")), quant(1), quant(1 / 256, -128)),
    "LOGISTIC .* expected 1/256, -128": unary(ir.Logistic(**IN_OUT), quant(1), quant(1 / 256)),
    "TANH .* expected 1/128, 0": unary(ir.Tanh(**IN_OUT), quant(1), quant(1 / 256)),
    "AVERAGE_POOL_2D .* must be equal": unary(
        ir.AveragePool2D(**POOL), quant(0.1, 3), quant(0.1, 4), (1, 2, 2, 1)
    ),
    "PAD .* must be equal": unary(
        ir.Pad(**IN_OUT, pads=((0, 0), (0, 0)), value=3), quant(0.1, 3), quant(0.1, 4)
    ),
    "value 300 is outside": unary(
        ir.Pad(**IN_OUT, pads=((0, 0), (0, 0)), value=300), quant(0.1), quant(0.1)
    ),
    "RELU .* must be equal": unary(
        ir.Relu(**IN_OUT, activation=ir.Activation.RELU6), quant(0.1), quant(0.2)
    ),
    "RELU .* multiplier": unary(
        ir.Relu(**IN_OUT, activation=ir.Activation.RELU), quant(0.1), quant(1e-12)
    ),
    "it has no activation": unary(
        ir.Relu(**IN_OUT, activation=ir.Activation.NONE), quant(0.1), quant(0.1)
    ),
    "alpha is inf": unary(ir.LeakyRelu(**IN_OUT, alpha=float("inf")), quant(1), quant(1)),
    "HARD_SWISH .* too small for an input": unary(ir.HardSwish(**IN_OUT), quant(1), quant(1e-5)),
    "HARD_SWISH .* input's scale .* too small": unary(
        ir.HardSwish(**IN_OUT), quant(1e-8), quant(1e-8)
    ),
    "QUANTIZE .* f32 -> u8": lambda b: b.quantize(b.input((1, 3), dtype=ir.DType.F32), ir.DType.U8),
    "STRIDED_SLICE .* 5 dimensions; the limit is 4": lambda b: b.strided_slice(
        b.input((1,) * 5), (0,) * 5, (1,) * 5, (1,) * 5
    ),
    "cannot be broadcast": misfit_sum,
    "slice range.* leaves axis 1": unary(
        ir.StridedSlice(**IN_OUT, begin=(0, 2), end=(1, 9), stride=(1, 1)), quant(1), quant(1)
    ),
    "not a permutation": unary(ir.Transpose(**IN_OUT, perm=(1, 1)), quant(1), quant(1)),
    "axes .* are not sorted": unary(ir.Mean(**IN_OUT, axes=(1, 0)), quant(1), quant(1)),
    "does not fit 2 elements": unary(
        ir.MaxPool2D(**{**POOL, "kh": 3}), quant(1), quant(1), (1, 2, 2, 1)
    ),
    "not smaller than the window": unary(
        ir.MaxPool2D(**POOL, padding=ir.Padding(top=1)), quant(1), quant(1), (1, 2, 2, 1)
    ),
    "negative padding": unary(
        ir.MaxPool2D(**POOL, padding=ir.Padding(top=-1)), quant(1), quant(1), (1, 2, 2, 1)
    ),
}


def test_every_op_has_a_rule() -> None:
    classes = [value for value in vars(ir).values() if isinstance(value, type)]

    assert set(RULES) == {cls for cls in classes if issubclass(cls, ir.Op)} - {ir.Op}


@pytest.mark.parametrize("name", SOUND)
def test_sound_ops_pass(name: str) -> None:
    check(made(SOUND[name]))


@pytest.mark.parametrize("rule", REFUSED)
def test_what_breaks_a_rule_is_refused(rule: str) -> None:
    with pytest.raises(CodegenError, match=rule):
        check(made(REFUSED[rule]))


@pytest.mark.parametrize("name", ["int x", "X", "7a", "a*/", "a" * 49, ""])
def test_a_name_that_is_no_identifier_never_reaches_the_generator(name: str) -> None:
    graph = made(lambda b: b.tanh(b.input((1, 2))))
    renamed = replace(graph, ops=(replace(graph.ops[0], name=name),))

    with pytest.raises(GraphInvalid, match="not a C identifier"):
        check(renamed)


def test_two_things_of_one_name_are_refused() -> None:
    graph = made(lambda b: b.tanh(b.input((1, 2))))

    with pytest.raises(GraphInvalid, match="'t0' is used twice"):
        check(replace(graph, ops=(replace(graph.ops[0], name="t0"),)))


def test_an_op_without_a_rule_is_refused() -> None:
    graph = made(lambda b: b.tanh(b.input((1, 2))))
    plain = ir.Op(name="plain", inputs=(0,), outputs=(1,))

    with pytest.raises(UnsupportedOp, match="no rule"):
        check(replace(graph, ops=(plain,)))


def test_the_error_names_the_op_and_carries_its_data() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        check(made(concatenated(11)))

    assert caught.value.op == "CONCATENATION"
    assert caught.value.node == "op concat_0"
    assert caught.value.exit_code == 2
