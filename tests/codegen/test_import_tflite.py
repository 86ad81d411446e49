"""The importer: real models, and files that are wrong in every way that we know."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
import tflite

from codegen import ir
from codegen.check import check
from codegen.errors import CodegenError, GraphInvalid, UnsupportedOp
from codegen.export_tflite import export_tflite
from codegen.import_tflite import import_tflite
from codegen.names import MAX_IDENTIFIER
from codegen.tflite_file import MAX_FILE_BYTES

NOMINAL_MACS = {
    "ad01_int8": 264_192,
    "kws_ref_model": 2_656_768,
    "pretrainedResnet_quant": 12_501_632,
    "vww_96_int8": 7_489_664,
}


@pytest.fixture(scope="module")
def small_net() -> ir.Graph:
    """Convolution, pool, dense layer, softmax: tensors t0 (input) to t9."""
    b = graphs.Builder(np.random.default_rng(0), "small")
    x = b.conv2d(b.input((1, 6, 5, 2)), 4, (3, 3))
    x = b.pool(ir.MaxPool2D, x, (2, 2), stride=(2, 2))
    x = b.fully_connected(b.reshape(x, (1, 24)), 3)
    return b.graph([b.softmax(x)])


@pytest.fixture(scope="module")
def small_file(small_net: ir.Graph) -> bytes:
    return export_tflite(small_net)


def with_tensor(graph: ir.Graph, index: int, **changes: object) -> ir.Graph:
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(graph, tensors=tuple(tensors))


def with_op(graph: ir.Graph, position: int, **changes: object) -> ir.Graph:
    ops = list(graph.ops)
    ops[position] = replace(ops[position], **changes)
    return replace(graph, ops=tuple(ops))


def position_of(graph: ir.Graph, cls: type[ir.Op]) -> int:
    return next(i for i, op in enumerate(graph.ops) if isinstance(op, cls))


# Sound files


@pytest.mark.parametrize("name", sorted(NOMINAL_MACS))
def test_real_models_have_the_macs_that_everybody_quotes(models_dir: Path, name: str) -> None:
    graph = import_tflite((models_dir / f"{name}.tflite").read_bytes(), name)

    assert graph.nominal_macs == NOMINAL_MACS[name]
    assert graph.name == name


def test_every_real_model_is_imported_and_passes_its_checks(models_dir: Path) -> None:
    for path in sorted(models_dir.glob("*.tflite")):
        check(import_tflite(path.read_bytes(), path.stem))


def test_same_padding_with_stride_two_is_asymmetric(models_dir: Path) -> None:
    graph = import_tflite((models_dir / "vww_96_int8.tflite").read_bytes(), "vww")

    first = graph.ops[0]

    assert isinstance(first, ir.Conv2D)
    assert first.padding == ir.Padding(top=0, bottom=1, left=0, right=1)


@pytest.mark.parametrize("seed", range(6))
def test_what_was_exported_is_imported_again(seed: int) -> None:
    b = graphs.Builder(np.random.default_rng(seed), "round_trip")
    x = b.input((1, 9, 7, 3))
    dilated = b.conv2d(x, 4, (3, 2), dilation=(2, 1), activation=ir.Activation.RELU6)
    y = b.depthwise_conv2d(dilated, (3, 3), stride=(2, 2), depth_multiplier=2)
    y = b.elementwise(ir.Sub, b.pool(ir.AveragePool2D, y, (2, 2), padding="SAME"), y)
    sliced = b.strided_slice(y, (0, 4, 0, 1), (1, -1, 4, 2), (1, -2, 3, 1), shrink=(3,))
    graph = b.graph([b.mean(y, (1, 2), keep_dims=True), b.transpose(sliced, (2, 0, 1))])

    again = import_tflite(export_tflite(graph), "round trip")

    assert again.name == "round_trip"
    assert again.nominal_macs == graph.nominal_macs
    for ours, theirs in zip(again.ops, graph.ops, strict=True):
        assert replace(ours, name="", inputs=(), outputs=(), source=-1) == replace(
            theirs, name="", inputs=(), outputs=(), source=-1
        )
        for mine, other in zip(ours.inputs, theirs.inputs, strict=True):
            assert again.tensors[mine].shape == graph.tensors[other].shape
            if graph.tensors[other].is_constant:
                assert np.array_equal(again.tensors[mine].data, graph.tensors[other].data)


def test_a_dense_layer_over_an_image_gets_its_flattening_said() -> None:
    b = graphs.Builder(np.random.default_rng(0))
    x = b.input((1, 2, 3, 4))
    y = b.fully_connected(b.reshape(x, (1, 24)), 5)
    graph = b.graph([y])
    dense = replace(graph.ops[1], inputs=(x, *graph.ops[1].inputs[1:]))
    silent = replace(graph, ops=(dense,))

    imported = import_tflite(export_tflite(silent), "dense")

    assert [op.kind for op in imported.ops] == ["RESHAPE", "FULLY_CONNECTED"]
    assert imported.tensors[imported.ops[1].inputs[0]].shape == (1, 24)


def test_ops_that_no_output_needs_are_left_out() -> None:
    b = graphs.Builder(np.random.default_rng(0))
    x = b.input((1, 8))
    b.tanh(x)
    graph = b.graph([b.logistic(x)])

    assert [op.kind for op in import_tflite(export_tflite(graph), "dead").ops] == ["LOGISTIC"]


def test_the_file_is_never_changed(small_file: bytes) -> None:
    graph = import_tflite(small_file, "small")

    for tensor in graph.tensors:
        assert tensor.data is None or not tensor.data.flags.writeable


# Names


@pytest.mark.parametrize(
    "name",
    [
        "*/ int evil(void) { return 1; } /*",
        'a"b\n#include "x"',
        "nul\0nul",
        "",
        "int",
        "7up",
        "_Reserved",
        "ünïcode/名前",
        "a" * 2_000_000,
        "a" * 47 + "/" + "_" * 99,
        "%s%n{{ jinja }}",
    ],
)
def test_no_name_of_a_model_leaves_as_anything_but_an_identifier(
    small_net: ir.Graph, name: str
) -> None:
    hostile = replace(
        small_net, tensors=tuple(replace(tensor, name=name) for tensor in small_net.tensors)
    )

    graph = import_tflite(export_tflite(hostile), name)

    names = [tensor.name for tensor in graph.tensors] + [op.name for op in graph.ops]
    for identifier in names:
        assert re.fullmatch(r"[a-z][a-z0-9_]*_t?[0-9]+", identifier)
        assert len(identifier) <= MAX_IDENTIFIER
    assert len(set(names)) == len(names)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", graph.name)


def test_a_name_that_is_not_utf8_is_read(small_file: bytes) -> None:
    broken = small_file.replace(b"t0", b"\xff\xfe")

    assert import_tflite(broken, "small").ops


def test_messages_quote_names_escaped_and_short(small_net: ir.Graph) -> None:
    out = small_net.ops[0].outputs[0]
    hostile = with_tensor(small_net, out, name="\x1b[2J\n" * 5_000, quant=None)

    with pytest.raises(CodegenError) as caught:
        import_tflite(export_tflite(hostile), "x")

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# Broken files


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "not a .tflite"),
        (b"TFL3", "not a .tflite"),
        (b"\0\0\0\0TFL3", "schema version 0"),
        (b"\xff\xff\xff\xffTFL3" + b"\xff" * 64, "not a readable flatbuffer"),
        (b"PK\x03\x04" + b"\0" * 100, "not a .tflite"),
        (bytes(MAX_FILE_BYTES + 1), "too large"),
    ],
)
def test_what_is_no_tflite_is_refused(data: bytes, rule: str) -> None:
    with pytest.raises(GraphInvalid, match=rule):
        import_tflite(data, "x")


def test_every_truncation_is_refused_or_sound(small_file: bytes) -> None:
    for length in range(len(small_file)):
        try:
            check(import_tflite(small_file[:length], "x"))
        except CodegenError:
            continue


def test_another_schema_version_and_several_subgraphs_are_refused(small_file: bytes) -> None:
    model = tflite.Model.GetRootAs(small_file, 0)
    version_at = model._tab.Pos + model._tab.Offset(4)
    subgraphs_at = model._tab.Vector(model._tab.Offset(8)) - 4

    for position, rule in ((version_at, "schema version 2"), (subgraphs_at, "2 subgraphs")):
        broken = bytearray(small_file)
        broken[position : position + 4] = (2).to_bytes(4, "little")
        with pytest.raises(GraphInvalid, match=rule):
            import_tflite(bytes(broken), "x")


def test_vectors_that_claim_more_than_the_file_holds_are_refused(small_file: bytes) -> None:
    subgraph = tflite.Model.GetRootAs(small_file, 0).Subgraphs(0)
    tensors_at = subgraph._tab.Vector(subgraph._tab.Offset(4)) - 4

    for count in (0x7FFFFFFF, 10_000):
        broken = bytearray(small_file)
        broken[tensors_at : tensors_at + 4] = count.to_bytes(4, "little")
        with pytest.raises(GraphInvalid):
            import_tflite(bytes(broken), "x")


# Sound flatbuffers of broken graphs


@pytest.fixture(scope="module")
def chain() -> ir.Graph:
    """t2 = t0 (input) + t1 (constant), t3 = tanh(t2), t4 = logistic(t3)."""
    b = graphs.Builder(np.random.default_rng(0), "chain")
    x, constant = b.input((1, 8)), b.constant(np.zeros((1, 8)), ir.DType.S8, ir.Quant((0.1,), (0,)))
    return b.graph([b.logistic(b.tanh(b.elementwise(ir.Add, x, constant)))])


BAD_WIRING: dict[str, Callable[[ir.Graph], ir.Graph]] = {
    "tensor 999 does not exist": lambda g: with_op(g, 1, inputs=(999,)),
    "tensor -7 does not exist": lambda g: with_op(g, 1, inputs=(-7, 2)),
    "tensor 1000 does not exist": lambda g: with_op(g, 1, outputs=(1000,)),
    "model outputs: tensor 99 does": lambda g: replace(g, outputs=(99,)),
    "op 0: it reads tensor 3, .* cycle": lambda g: replace(g, ops=tuple(reversed(g.ops))),
    "op 1: it reads tensor 3, .* cycle": lambda g: with_op(g, 1, inputs=(3,)),
    "op 1: tensor 2 is written a second": lambda g: replace(g, ops=(g.ops[0], *g.ops)),
    "op 2: tensor 0 is written a second": lambda g: with_op(g, 2, outputs=(0,)),
    "op 1: tensor 1 has constant data": lambda g: with_op(g, 1, outputs=(1,)),
    "tensor 1 is written by no op": lambda g: replace(g, outputs=(1,)),
    "inputs: tensor 1 has constant": lambda g: replace(g, inputs=(0, 1)),
    "inputs: tensor 0 is written a second": lambda g: replace(g, inputs=(0, 0)),
    "needs at least one input": lambda g: replace(g, inputs=()),
    "at least one input, one output": lambda g: replace(g, outputs=()),
    "input, one output and one op": lambda g: replace(g, ops=()),
    "op 1: it has no output": lambda g: with_op(g, 1, outputs=()),
    "its inputs are .2, 2., expected 1": lambda g: with_op(g, 1, inputs=(2, 2)),
    "its inputs are .0., expected 2": lambda g: with_op(g, 0, inputs=(0,)),
    "it has 2 outputs, expected 1": lambda g: replace(
        with_op(g, 2, outputs=(4, 5)), tensors=(*g.tensors, g.tensors[4])
    ),
}


@pytest.mark.parametrize("rule", BAD_WIRING)
def test_bad_wiring_is_refused(chain: ir.Graph, rule: str) -> None:
    with pytest.raises(GraphInvalid, match=rule):
        import_tflite(export_tflite(BAD_WIRING[rule](chain)), "x")


def quant(scale: float | tuple[float, ...], *zero_point: int, axis: int | None = None) -> ir.Quant:
    return ir.Quant(scale if isinstance(scale, tuple) else (scale,), zero_point or (0,), axis)


# small_net: t0 input, t1 conv weight, t2 conv bias, t3 conv output, ... ; op 0 is the convolution
BAD_TENSORS: dict[str, Callable[[ir.Graph], ir.Graph]] = {
    "shape is .1, -1, 5, 2.": lambda g: with_tensor(g, 0, shape=(1, -1, 5, 2)),
    "shape is .1, 0, 5, 2.": lambda g: with_tensor(g, 0, shape=(1, 0, 5, 2)),
    "more than 268,435,456 elements": lambda g: with_tensor(g, 0, shape=(1, 2**30, 2**30, 2**30)),
    "9 dimensions": lambda g: with_tensor(g, 8, shape=(1,) * 9),
    "7 dimensions; the limit is 6": lambda g: with_tensor(g, 8, shape=(1,) * 7),
    "72 B of data, but shape .4, 3, 3, 4. of s8 needs 144 B": lambda g: with_tensor(
        g, 1, shape=(4, 3, 3, 4)
    ),
    "16 B of data, .* needs 32 B": lambda g: with_tensor(g, 2, shape=(8,)),
    "is s8 but lacks scale": lambda g: with_tensor(g, 3, quant=None),
    "is s8 but lacks scale or zero": lambda g: with_tensor(g, 3, quant=ir.Quant((0.1,), ())),
    "scale nan": lambda g: with_tensor(g, 3, quant=quant(float("nan"))),
    "scale inf": lambda g: with_tensor(g, 3, quant=quant(float("inf"))),
    "scale 0 is": lambda g: with_tensor(g, 3, quant=quant(0.0)),
    "scale -0.5": lambda g: with_tensor(g, 3, quant=quant(-0.5)),
    "scale 1.4.*e-45": lambda g: with_tensor(g, 3, quant=quant(1.4e-45)),
    "scale 3.4e.38": lambda g: with_tensor(g, 3, quant=quant(3.4e38)),
    "zero point 128 is outside": lambda g: with_tensor(g, 3, quant=quant(0.5, 128)),
    "zero point -9000000000 is outside": lambda g: with_tensor(
        g, 3, quant=quant(0.5, -(9 * 10**9))
    ),
    "2 scales but 1 zero points": lambda g: with_tensor(g, 1, quant=ir.Quant((0.1, 0.1), (0,), 0)),
    "3 scales along axis 0": lambda g: with_tensor(g, 1, quant=quant((0.1,) * 3, 0, 0, 0, axis=0)),
    "scales along axis 99": lambda g: with_tensor(
        g, 1, quant=quant((0.1,) * 4, 0, 0, 0, 0, axis=99)
    ),
    "scales along axis -1": lambda g: with_tensor(
        g, 1, quant=quant((0.1,) * 4, 0, 0, 0, 0, axis=-1)
    ),
    "its weights have no scale": lambda g: with_tensor(g, 1, quant=ir.Quant((), ())),
    "its bias has scale": lambda g: with_tensor(g, 7, quant=quant(1e6)),
    "weights are for 2 channels, but its input has 3": lambda g: with_tensor(
        g, 0, shape=(1, 6, 5, 3)
    ),
    "its output is declared as": lambda g: with_tensor(g, 3, shape=(1, 6, 5, 5)),
    "stride -1": lambda g: with_op(g, 1, stride_w=-1),
}


@pytest.mark.parametrize("rule", BAD_TENSORS)
def test_bad_tensors_and_attributes_are_refused(small_net: ir.Graph, rule: str) -> None:
    with pytest.raises(GraphInvalid, match=rule):
        import_tflite(export_tflite(BAD_TENSORS[rule](small_net)), "x")


# Sound models that we do not run: the message names the op

UNSUPPORTED: dict[str, Callable[[ir.Graph], ir.Graph]] = {
    "CONV_2D .* types are u8, s8, s32 -> s8": lambda g: with_tensor(
        g, 0, dtype=ir.DType.U8, quant=quant(0.1)
    ),
    "CONV_2D .* types are f32": lambda g: with_tensor(g, 0, dtype=ir.DType.F32),
    "CONV_2D .* 2 groups": lambda g: with_tensor(
        g, 1, shape=(4, 3, 3, 1), data=np.zeros((4, 3, 3, 1), np.int8)
    ),
    "CONV_2D .* zero point other than 0": lambda g: with_tensor(
        g, 1, quant=quant((0.1,) * 4, 0, 0, 1, 0, axis=0)
    ),
    "CONV_2D .* scales along axis 1, expected": lambda g: with_tensor(
        g, 1, quant=quant((0.1,) * 3, 0, 0, 0, axis=1)
    ),
    "CONV_2D .* one scale per channel": lambda g: with_tensor(
        g, 3, quant=quant((0.1,) * 4, 0, 0, 0, 0, axis=3)
    ),
    "CONV_2D .* weights are computed at run time": lambda g: replace(
        with_tensor(g, 1, data=None), inputs=(0, 1)
    ),
    "CONV_2D .* multiplier": lambda g: with_tensor(g, 3, quant=quant(2.0**-50)),
    "MAX_POOL_2D .* must be equal": lambda g: with_tensor(g, 4, quant=quant(77.0)),
    "MAX_POOL_2D .* window of 99,999": lambda g: with_op(
        with_tensor(g, 4, shape=(1, 1, 1, 4)), 1, kh=99_999, padding=ir.Padding()
    ),
    "SOFTMAX .* expected 1/256, -128": lambda g: with_tensor(g, 9, quant=quant(1 / 256)),
}


@pytest.mark.parametrize("rule", UNSUPPORTED)
def test_what_we_do_not_run_is_refused_by_name(small_net: ir.Graph, rule: str) -> None:
    with pytest.raises(UnsupportedOp, match=rule) as caught:
        import_tflite(export_tflite(UNSUPPORTED[rule](small_net)), "x")

    assert re.match(r"op ", caught.value.node)


@pytest.mark.parametrize(
    ("code", "rule"), [(32, "custom op"), (77, "SHAPE is not supported"), (9_999, "code 9999")]
)
def test_ops_that_we_do_not_know_are_refused_by_name(
    small_file: bytes, code: int, rule: str
) -> None:
    model = tflite.Model.GetRootAs(small_file, 0)
    patched = bytearray(small_file)
    for i in range(model.OperatorCodesLength()):
        entry = model.OperatorCodes(i)
        if entry.BuiltinCode() == tflite.BuiltinOperator.SOFTMAX:
            at = entry._tab.Pos + entry._tab.Offset(10)
            patched[at : at + 4] = code.to_bytes(4, "little")

    with pytest.raises(UnsupportedOp, match=rule):
        import_tflite(bytes(patched), "x")


@pytest.mark.parametrize(
    ("field", "rule"), [(4, "its padding is 7"), (10, "its fused activation is 7")]
)
def test_codes_that_we_do_not_know_are_refused(field: int, rule: str) -> None:
    b = graphs.Builder(np.random.default_rng(0))
    x = b.input((1, 3, 3, 1))
    y = b.conv2d(x, 2, (2, 2), padding="VALID", activation=ir.Activation.RELU)
    data = export_tflite(b.graph([y]))
    table = tflite.Model.GetRootAs(data, 0).Subgraphs(0).Operators(0).BuiltinOptions()
    patched = bytearray(data)
    patched[table.Pos + table.Offset(field)] = 7

    with pytest.raises(CodegenError, match=rule):
        import_tflite(bytes(patched), "x")


def test_a_depth_multiplier_that_the_shapes_contradict_is_refused() -> None:
    b = graphs.Builder(np.random.default_rng(0))
    y = b.depthwise_conv2d(b.input((1, 3, 3, 2)), (2, 2), depth_multiplier=3)
    lying = with_op(b.graph([y]), 0, depth_multiplier=0)

    with pytest.raises(GraphInvalid, match="2 channels with a depth multiplier of 0 do not give 6"):
        import_tflite(export_tflite(lying), "x")


def test_options_of_another_op_are_refused(small_file: bytes) -> None:
    operator = tflite.Model.GetRootAs(small_file, 0).Subgraphs(0).Operators(0)
    patched = bytearray(small_file)
    patched[operator._tab.Pos + operator._tab.Offset(10)] = tflite.BuiltinOptions.SoftmaxOptions

    with pytest.raises(GraphInvalid, match=r"op 0: its options are of type 9, expected 1"):
        import_tflite(bytes(patched), "x")
