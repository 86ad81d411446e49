"""Engine `reference`: every op and every real model on the emulated Cortex-M4, byte for byte."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tflite
from graphs import Builder, random_inputs, random_quant
from model_runner import FIRMWARE, LIMITS, RunnerFailed, run_model

from codegen import import_ops, ir, reference
from codegen.embedded import check_layout
from codegen.engines.reference_interpreter import KINDS, arena_of
from codegen.errors import CodegenError, DoesNotFit, GraphInvalid
from codegen.export_tflite import export_tflite
from codegen.generate import generate
from codegen.manifest import Manifest
from codegen.tflite_file import read_tflite
from hil.oracle import Oracle

RELUS = (ir.Activation.NONE, ir.Activation.RELU, ir.Activation.RELU6, ir.Activation.RELU_N1_TO_1)
INFERENCES = 4


def generate_graph(graph: ir.Graph, folder: Path) -> Manifest:
    return generate(
        export_tflite(graph), name=graph.name, engine="reference", board=LIMITS, out_dir=folder
    )


def convolutions(b: Builder) -> list[int]:
    outputs = []
    for _ in range(40):
        kernel = (int(b.rng.integers(1, 5)), int(b.rng.integers(1, 5)))
        stride = (int(b.rng.integers(1, 4)), int(b.rng.integers(1, 4)))
        dilation = (1, 1) if b.rng.random() < 0.7 else (2, int(b.rng.integers(1, 3)))
        x = b.input(
            (1, int(b.rng.integers(9, 12)), int(b.rng.integers(9, 12)), int(b.rng.integers(1, 6)))
        )
        options = {
            "stride": stride,
            "dilation": dilation,
            "padding": str(b.rng.choice(["SAME", "VALID"])),
            "activation": RELUS[int(b.rng.integers(4))],
            "bias": bool(b.rng.random() < 0.8),
            "per_channel": bool(b.rng.random() < 0.7),
        }
        if b.rng.random() < 0.5:
            outputs.append(b.conv2d(x, int(b.rng.integers(1, 7)), kernel, **options))
        else:
            multiplier = int(b.rng.integers(1, 4))
            outputs.append(b.depthwise_conv2d(x, kernel, depth_multiplier=multiplier, **options))
    return outputs


def dense_layers(b: Builder) -> list[int]:
    outputs = []
    for i in range(16):
        shape = ((1, 17), (3, 8), (2, 2, 5), (1, 64))[i % 4]
        outputs.append(
            b.fully_connected(
                b.input(shape),
                int(b.rng.integers(1, 12)),
                activation=RELUS[i % 4],
                bias=i % 3 != 0,
                per_channel=i % 5 == 0,
            )
        )
    return outputs


def pools(b: Builder) -> list[int]:
    outputs = []
    for i in range(24):
        x = b.input((1 + i % 2, 7, 8, int(b.rng.integers(1, 5))))
        kernel = (int(b.rng.integers(1, 6)), int(b.rng.integers(1, 6)))
        stride = (int(b.rng.integers(1, 4)), int(b.rng.integers(1, 4)))
        outputs.append(
            b.pool(
                (ir.AveragePool2D, ir.MaxPool2D)[i % 2],
                x,
                kernel,
                stride=stride,
                padding=("SAME", "VALID")[i // 2 % 2],
                activation=RELUS[i % 4],
            )
        )
    return outputs


def elementwise_ops(b: Builder) -> list[int]:
    shapes = [
        ((1, 3, 4, 5), (1, 3, 4, 5)),
        ((1, 3, 4, 5), (1, 1, 1, 5)),
        ((2, 1, 4, 1), (1, 3, 1, 5)),
        ((7,), (2, 3, 7)),
        ((3, 4), (1,)),
    ]
    outputs = []
    for i in range(45):
        a_shape, b_shape = shapes[i % 5]
        outputs.append(
            b.elementwise(
                (ir.Add, ir.Sub, ir.Mul)[i // 5 % 3],
                b.input(a_shape),
                b.input(b_shape),
                activation=RELUS[i % 4],
            )
        )
    return outputs


def means(b: Builder) -> list[int]:
    return [
        b.mean(b.input((2, 5, 4, 3)), axes, keep_dims=keep_dims)
        for axes in ((1, 2), (0,), (3,), (0, 2), (0, 1, 2, 3), (1, 3))
        for keep_dims in (False, True)
    ]


def moves(b: Builder) -> list[int]:
    outputs = []
    for perm in ((0, 2, 1, 3), (3, 1, 0, 2), (0, 3, 1, 2)):
        outputs.append(b.transpose(b.input((2, 3, 4, 5)), perm))
    outputs.append(b.transpose(b.input((4, 7)), (1, 0)))
    outputs.append(b.reshape(b.input((2, 3, 4)), (6, 4)))
    quant = random_quant(b.rng)
    for axis in range(3):
        parts = []
        for size in (1, 3, 2):
            shape = [2, 3, 4]
            shape[axis] = size
            parts.append(b.input(tuple(shape), quant))
        outputs.append(b.concatenation(parts, axis))
    outputs.append(b.pad(b.input((1, 3, 4, 2)), ((0, 0), (1, 2), (0, 3), (0, 0))))
    outputs.append(b.pad(b.input((2, 3)), ((1, 0), (0, 2)), value=-7))
    outputs.append(
        b.strided_slice(b.input((2, 6, 7, 3)), (0, 1, 6, 0), (2, 6, -1, 3), (1, 2, -2, 1))
    )
    outputs.append(b.strided_slice(b.input((4, 5)), (1, 0), (2, 5), (1, 2), shrink=(0,)))
    return outputs


def activations(b: Builder) -> list[int]:
    outputs = []
    for scale in (0.002, 0.02, 0.1, 0.7):
        for zero_point in (-128, 3, 127):
            quant = random_quant(b.rng, scale=scale, zero_point=zero_point)

            def x(shape: tuple[int, ...] = (2, 128), quant: ir.Quant = quant) -> int:
                return b.input(shape, quant)

            outputs += [
                b.softmax(x((3, 11))),
                b.softmax(x((2, 1, 5)), beta=0.7),
                b.logistic(x()),
                b.tanh(x()),
                b.relu(x()),
                b.relu(x(), out_quant=random_quant(b.rng, scale=scale * 1.3)),
                b.relu(x(), ir.Activation.RELU6),
                b.relu(x(), ir.Activation.RELU_N1_TO_1),
                b.leaky_relu(x(), 0.1),
                b.leaky_relu(x(), 1.7),
                b.hard_swish(x()),
            ]
    return outputs


def conversions(b: Builder) -> list[int]:
    outputs = []
    for scale in (0.001, 0.05, 0.3):
        outputs += [
            b.quantize(
                b.input((3, 50), dtype=ir.DType.F32),
                ir.DType.S8,
                out_quant=random_quant(b.rng, scale=scale),
            ),
            b.quantize(b.input((3, 50)), ir.DType.S8),
            b.quantize(b.input((3, 50), dtype=ir.DType.U8), ir.DType.S8),
            b.quantize(b.input((3, 50)), ir.DType.U8),
            b.quantize(b.input((3, 50), dtype=ir.DType.S16), ir.DType.S8),
            b.dequantize(b.input((3, 50))),
            b.dequantize(b.input((3, 50), dtype=ir.DType.U8)),
        ]
    return outputs


GROUPS: dict[str, Callable[[Builder], list[int]]] = {
    "convolutions": convolutions,
    "dense_layers": dense_layers,
    "pools": pools,
    "elementwise_ops": elementwise_ops,
    "means": means,
    "moves": moves,
    "activations": activations,
    "conversions": conversions,
}


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[ir.Op]]:
    """Per group, the ops whose bytes differ; all ops side by side in one graph, built once."""
    rng = np.random.default_rng(20)
    b = Builder(rng)
    groups = {name: ops(b) for name, ops in GROUPS.items()}
    graph = b.graph([output for outputs in groups.values() for output in outputs])
    batch = [random_inputs(rng, graph) for _ in range(INFERENCES)]
    folder = tmp_path_factory.mktemp("ops")

    found = run_model(folder, generate_graph(graph, folder), batch)

    wrong = set()
    for inputs, outputs in zip(batch, found, strict=True):
        expected = reference.run(graph, inputs)
        for index, values, truth in zip(graph.outputs, outputs, expected, strict=True):
            if values.tobytes() != truth.tobytes():
                wrong.add(index)
    return {
        name: [op for op in graph.ops if wrong.intersection(op.outputs).intersection(outputs)]
        for name, outputs in groups.items()
    }


@pytest.mark.parametrize("group", GROUPS)
def test_every_op_gives_the_bytes_of_the_numpy_reference(group: str, differences) -> None:
    assert differences[group] == []


def small_network(seed: int = 3) -> tuple[np.random.Generator, ir.Graph]:
    """Convolutions with a residual, a dense layer and a softmax, in the shape of a real network."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, name="small")
    x = b.input((1, 8, 8, 3))
    a = b.conv2d(x, 6, (3, 3), stride=(2, 2), activation=ir.Activation.RELU)
    c = b.depthwise_conv2d(a, (3, 3), activation=ir.Activation.RELU6)
    d = b.elementwise(ir.Add, a, b.conv2d(c, 6, (1, 1)))
    e = b.reshape(b.pool(ir.AveragePool2D, d, (4, 4), stride=(4, 4)), (1, 6))
    return rng, b.graph([b.softmax(b.fully_connected(e, 5))])


def test_layers_are_the_operators_of_the_file_with_their_macs(tmp_path: Path) -> None:
    _, graph = small_network()

    manifest = generate_graph(graph, tmp_path)

    assert [layer.op for layer in manifest.layers] == [op.kind for op in graph.ops]
    assert sum(layer.macs for layer in manifest.layers) == graph.nominal_macs


def test_the_board_plans_exactly_the_arena_that_was_generated(tmp_path: Path) -> None:
    rng, graph = small_network()
    manifest = generate_graph(graph, tmp_path)
    batch = [random_inputs(rng, graph)]
    assert run_model(tmp_path, manifest, batch)[0][0].tobytes() == (
        reference.run(graph, batch[0])[0].tobytes()
    )

    model_c = tmp_path / "model.c"
    text = model_c.read_text()
    line = next(line for line in text.splitlines() if "PLANNED_BYTES =" in line)
    planned = int(line.split("=")[1].split(",")[0])
    model_c.write_text(text.replace(line, line.replace(f"{planned},", f"{planned - 16},")))

    with pytest.raises(RunnerFailed, match="model_init: the arena is too small"):
        run_model(tmp_path, manifest, batch)


def test_the_plan_takes_as_much_as_that_of_tflm(models_dir: Path) -> None:
    raw = read_tflite((models_dir / "vww_96_int8.tflite").read_bytes())

    # 73,728 B is the head of the arena that TFLM reports for this model.
    assert arena_of(raw, list(range(len(raw.ops)))).planned_bytes == 73_728


def test_every_op_that_is_imported_has_a_kind_with_its_number() -> None:
    text = (FIRMWARE / "interpreter" / "schema.h").read_text()
    numbers = dict(re.findall(r"^    OPCODE_(\w+) = (\d+),$", text, re.MULTILINE))

    assert set(KINDS) == set(import_ops._BUILDERS)
    assert {name: int(number) for name, number in numbers.items()} == {
        name: getattr(tflite.BuiltinOperator, name) for name in KINDS
    }


def test_operators_that_no_output_needs_are_not_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    b = Builder(rng)
    x = b.input((1, 20))
    b.tanh(x)
    graph = b.graph([b.logistic(x)])
    batch = [random_inputs(rng, graph) for _ in range(2)]

    manifest = generate_graph(graph, tmp_path)
    found = run_model(tmp_path, manifest, batch)

    assert [layer.op for layer in manifest.layers] == ["LOGISTIC"]
    assert "op_tanh" not in (tmp_path / "model.c").read_text()
    for inputs, outputs in zip(batch, found, strict=True):
        np.testing.assert_array_equal(outputs[0], reference.run(graph, inputs)[0])


def test_only_the_kinds_of_operators_of_the_model_are_named(tmp_path: Path) -> None:
    _, graph = small_network()

    generate_graph(graph, tmp_path)

    text = (tmp_path / "model.c").read_text()
    named = {name for name, kind in KINDS.items() if f"OPCODE_{name}, &{kind.symbol}}}" in text}
    assert named == {op.kind for op in graph.ops}


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    _, graph = small_network()
    for name in ("a", "b"):
        generate_graph(graph, tmp_path / name)

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_model_that_does_not_fit_names_the_need_and_the_op(tmp_path: Path) -> None:
    _, graph = small_network()
    tflite = export_tflite(graph)

    small_ram = dataclasses.replace(LIMITS, ram_bytes=5000)
    with pytest.raises(
        DoesNotFit, match=r"B of RAM but there are 904 B; the peak is at op 'conv2d_0'"
    ):
        generate(tflite, name="m", engine="reference", board=small_ram, out_dir=tmp_path)

    small_flash = dataclasses.replace(LIMITS, flash_bytes=1000)
    with pytest.raises(DoesNotFit, match="B of flash but there are 1,000 B"):
        generate(tflite, name="m", engine="reference", board=small_flash, out_dir=tmp_path)


def test_an_offset_before_the_file_is_refused() -> None:
    data = bytearray(export_tflite(small_network()[1]))
    root = int.from_bytes(data[:4], "little")
    data[root : root + 4] = (root + 8).to_bytes(4, "little")  # the vtable of the root

    with pytest.raises(GraphInvalid, match="points to byte -8"):
        check_layout(bytes(data))


def test_a_vector_that_is_not_aligned_is_refused() -> None:
    data = export_tflite(small_network()[1])
    shifted = bytearray(data[:4] + b"TFL3" + b"\0" + data[8:])
    shifted[:4] = (int.from_bytes(data[:4], "little") + 1).to_bytes(4, "little")

    check_layout(data)
    with pytest.raises(GraphInvalid, match="expected a multiple of 4"):
        check_layout(bytes(shifted))


def test_damaged_files_are_refused_or_generated_but_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    data = export_tflite(small_network()[1])
    accepted = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(256)
        try:
            generate(bytes(damaged), name="m", engine="reference", board=LIMITS, out_dir=tmp_path)
            accepted += 1
        except CodegenError:
            pass
    assert 0 < accepted < 150


@pytest.mark.parametrize(
    "name",
    [
        "ad01_int8",
        "kws_ref_model",
        pytest.param("person_detect", marks=pytest.mark.slow),
        pytest.param("pretrainedResnet_quant", marks=pytest.mark.slow),
        pytest.param("vww_96_int8", marks=pytest.mark.slow),
    ],
)
def test_real_models_give_the_bytes_of_tflm(name: str, models_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    tflite = (models_dir / f"{name}.tflite").read_bytes()
    manifest = generate(tflite, name=name, engine="reference", board=LIMITS, out_dir=tmp_path)
    shape = manifest.inputs[0].shape
    batch = [[rng.integers(-128, 128, shape).astype(np.int8)] for _ in range(2)]

    found = run_model(tmp_path, manifest, batch)

    with Oracle(tflite) as oracle:
        expected = oracle.run_many(batch)
    for outputs, truth in zip(found, expected, strict=True):
        np.testing.assert_array_equal(outputs[0], truth[0])
