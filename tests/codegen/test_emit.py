"""What is around the kernels: files, banners, names, choice of kernels, limits of the board."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import model_runner
import numpy as np
import pytest
from graphs import Builder
from kernel_cases import FAMILIES, suite

from codegen import ir, passes, reference
from codegen.emit import c_array, write_if_changed
from codegen.engines import OBJECTIVES, EngineOptions, engine_names
from codegen.errors import CodegenError, DoesNotFit, GraphInvalid
from codegen.export_tflite import export_tflite
from codegen.generate import generate, generated
from codegen.import_tflite import import_tflite
from codegen.kernels import choose, working_bytes

LIMITS = model_runner.LIMITS


def small_network(name: str = "net") -> bytes:
    b = Builder(np.random.default_rng(3), name)
    x = b.input((1, 6, 6, 3))
    x = b.conv2d(x, 4, (3, 3))
    x = b.depthwise_conv2d(x, (3, 3))
    x = b.conv2d(x, 8, (1, 1))
    return export_tflite(b.graph([b.fully_connected(b.reshape(x, (1, 288)), 10)]))


def test_equal_input_gives_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        generated.cache_clear()
        generate(
            small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path / folder
        )

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_same_model_is_worked_on_once(tmp_path):
    generated.cache_clear()
    for folder in ("a", "b"):
        generate(
            small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path / folder
        )

    assert (generated.cache_info().misses, generated.cache_info().hits) == (1, 1)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(
        p.name for p in (tmp_path / "a").iterdir()
    )


def test_a_second_generation_touches_no_file(tmp_path):
    generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["model.c", "manifest.json"])
def test_a_file_of_the_users_is_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")

    with pytest.raises(CodegenError, match=f"'{name}' in the folder is not ours"):
        generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    assert (tmp_path / name).read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_of_a_generation_that_was_killed_are_written_again(tmp_path):
    generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100] if path.name == "model.c" else b"")

    manifest = generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    assert (tmp_path / "manifest.json").read_text() == manifest.to_json()


def test_sources_of_another_engine_are_removed_but_nothing_of_the_users(tmp_path):
    generate(small_network(), name="net", engine="reference", board=LIMITS, out_dir=tmp_path)
    left_over = {path.name for path in tmp_path.glob("*.c")}
    (tmp_path / "mine.c").write_text("/* mine */\n")

    generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    now = {path.name for path in tmp_path.glob("*.c")}
    assert now == {"mine.c", "model.c", "model_weights.c"}
    assert left_over


def test_the_banner_names_what_the_file_was_made_from(tmp_path):
    manifest = generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    for name in ("model.c", "model_weights.c", "model_weights.h"):
        head = (tmp_path / name).read_text()[:600]
        assert "do not edit" in head
        for fact in (manifest.model.sha256, "net", LIMITS.board, "codegen/templates/"):
            assert fact in head


def test_the_manifest_says_what_the_c_says(tmp_path):
    manifest = generate(small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path)

    written = json.loads((tmp_path / "manifest.json").read_text())
    code = (tmp_path / "model.c").read_text()
    assert written["arena_bytes"] == manifest.arena_bytes
    assert f"ARENA_BYTES = {manifest.arena_bytes} " in code
    assert f".layer_count = {len(written['layers'])}," in code
    assert written["model"]["nominal_macs"] == sum(layer["macs"] for layer in written["layers"])
    assert [each["shape"] for each in written["inputs"]] == [[1, 6, 6, 3]]


@pytest.mark.parametrize("name", ['x"; int y', "a*/b", "a\nb", "int", "", "n" * 5000, "é\x00"])
def test_hostile_names_never_reach_the_c(name, tmp_path):
    generate(small_network(name), name=name, engine="tiny", board=LIMITS, out_dir=tmp_path)

    for path in tmp_path.glob("*.[ch]"):
        text = path.read_text()
        assert text.isascii()
        assert "int y" not in text and "a*/b" not in text
        assert max(map(len, re.findall(r"\w+", text))) <= 64


def test_an_arena_that_does_not_fit_names_the_op_at_the_peak(tmp_path):
    tiny_board = replace(LIMITS, ram_bytes=4300)

    with pytest.raises(DoesNotFit, match=r"at op .\w+_\d") as caught:
        generate(small_network(), name="net", engine="tiny", board=tiny_board, out_dir=tmp_path)

    assert caught.value.have_bytes == 4300 - 4096
    assert caught.value.needed_bytes > caught.value.have_bytes
    assert not list(tmp_path.iterdir())


def test_what_fits_with_little_memory_only_gets_kernels_that_fit(tmp_path):
    arena_bytes = {}
    for objective in ("latency", "sram"):
        manifest = generate(
            small_network(), name="net", engine="tiny", board=LIMITS, out_dir=tmp_path / objective,
            options=EngineOptions(objective=objective),
        )  # fmt: skip
        arena_bytes[objective] = manifest.arena_bytes
    assert arena_bytes["sram"] < arena_bytes["latency"]
    ram_bytes = 4096 + arena_bytes["sram"]
    small_board = replace(LIMITS, ram_bytes=ram_bytes, quick_ram_bytes=ram_bytes)

    manifest = generate(
        small_network(), name="net", engine="tiny", board=small_board, out_dir=tmp_path / "fits"
    )

    assert manifest.arena_bytes == arena_bytes["sram"]
    assert manifest.engine_options["kernels"] == "that fit"
    assert "objective latency, kernels that fit" in (tmp_path / "fits" / "model.c").read_text()


def test_a_hopeless_tensor_is_refused_at_once(tmp_path):
    b = Builder(np.random.default_rng(0))
    huge = export_tflite(b.graph([b.conv2d(b.input((1, 16_000, 16_000, 1)), 1, (3, 3))]))

    with pytest.raises(DoesNotFit) as caught:
        generate(huge, name="huge", engine="tiny", board=LIMITS, out_dir=tmp_path)

    assert caught.value.needed_bytes >= 16_000 * 16_000


def test_weights_that_do_not_fit_name_the_layer_with_most_of_them(tmp_path):
    with pytest.raises(DoesNotFit, match="flash") as caught:
        generate(
            small_network(), name="net", engine="tiny", board=replace(LIMITS, flash_bytes=2000),
            out_dir=tmp_path,
        )  # fmt: skip

    assert "dense" in caught.value.op


def test_unknown_engines_and_objectives_are_refused_with_what_is_known(tmp_path):
    with pytest.raises(CodegenError, match=r"known engines are reference, tflm, tiny"):
        generate(small_network(), name="n", engine="tinny", board=LIMITS, out_dir=tmp_path)
    with pytest.raises(CodegenError, match=r"known objectives are latency, sram, flash"):
        generate(
            small_network(), name="n", engine="tiny", board=LIMITS, out_dir=tmp_path,
            options=EngineOptions(objective="speed"),  # type: ignore[arg-type]
        )  # fmt: skip
    assert "tiny" in engine_names()


def test_a_broken_file_writes_nothing(tmp_path):
    with pytest.raises(GraphInvalid):
        generate(b"\x00" * 40, name="n", engine="tiny", board=LIMITS, out_dir=tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("objective", ["latency", "sram", "flash"])
def test_every_objective_computes_the_same_bytes(objective, tmp_path):
    data = small_network()
    manifest = generate(
        data, name="net", engine="tiny", board=LIMITS, out_dir=tmp_path,
        options=EngineOptions(objective=objective),
    )  # fmt: skip
    inputs = [np.random.default_rng(0).integers(-128, 128, (1, 6, 6, 3), dtype=np.int8)]

    [[got]] = model_runner.run_model(tmp_path, manifest, [inputs])

    [want] = reference.run(import_tflite(data, "net"), inputs)
    assert np.array_equal(got, want)


def test_a_model_of_views_alone_returns_its_input(tmp_path):
    b = Builder(np.random.default_rng(0))
    data = export_tflite(b.graph([b.reshape(b.input((2, 3)), (3, 2))]))
    manifest = generate(data, name="view", engine="tiny", board=LIMITS, out_dir=tmp_path)
    x = np.arange(6, dtype=np.int8).reshape(2, 3)

    results = model_runner.run_model(tmp_path, manifest, [[x], [x]])

    assert all(np.array_equal(result[0], x.reshape(3, 2)) for result in results)


def test_an_objective_is_met_by_the_kernel_that_is_best_at_it():
    graph = passes.run(import_tflite(small_network(), "net"))

    for op in graph.ops:
        if not isinstance(op, ir.Reshape):
            kernels = {o: choose(graph, op, o, LIMITS) for o in OBJECTIVES}
            cost = {o: kernel.cost(graph, op, LIMITS) for o, kernel in kernels.items()}
            assert cost["latency"].cycles == min(each.cycles for each in cost.values())
            assert cost["flash"].flash_bytes == min(each.flash_bytes for each in cost.values())
            working = {o: working_bytes(graph, op, each) for o, each in cost.items()}
            assert working["sram"] == min(working.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_state_the_scratch_and_constants_that_the_context_has(family):
    cases = suite(family)

    for index, kernel in cases.kernels.items():
        cost = kernel.cost(cases.graph, cases.graph.ops[index], LIMITS)
        context = kernel.context(cases.graph, cases.graph.ops[index])
        assert cost.scratch_bytes == context.scratch_bytes
        assert cost.flash_bytes >= context.constant_bytes


def test_arrays_are_wrapped_and_the_lowest_int32_is_no_literal():
    text = c_array(np.array([-(2**31), *range(100)], np.int32), width=40)

    assert text.startswith("    INT32_MIN, 0, 1,")
    assert max(map(len, text.splitlines())) <= 40


def test_a_file_is_written_only_if_its_text_changed(tmp_path):
    path = tmp_path / "model.c"

    assert write_if_changed(path, "a")
    assert not write_if_changed(path, "a")
    assert write_if_changed(path, "b")
    assert path.read_text() == "b"
