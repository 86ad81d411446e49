from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hil.errors import UsageError
from hil.manifest import Manifest, Tensor
from hil.mlperf_data import (
    BENCHMARKS,
    DataSet,
    accuracy,
    decode,
    find_benchmark,
    form_of,
    random_items,
)

AD, IC, KWS, VWW, IC2 = BENCHMARKS


def tensor(elements: int, dtype: str = "s8", scale: float = 0.5, zero_point: int = 3) -> Tensor:
    return Tensor("x", dtype, (1, elements), scale, zero_point)


def manifest(*tensors: Tensor) -> Manifest:
    return Manifest(
        model_name="m",
        model_sha256="0" * 64,
        nominal_macs=1,
        effective_macs=1,
        engine="tiny",
        engine_options={},
        board="nrf52840_dk",
        inputs=tensors,
        outputs=(tensor(4),),
        layers=(),
        arena_bytes=1,
        scratch_bytes=0,
    )


def test_a_model_is_known_by_its_name_and_else_by_its_tensors() -> None:
    assert find_benchmark("kws01_mine", [9], [9]) is KWS
    assert find_benchmark("ic02", [3072], [10]) is IC2
    assert find_benchmark("pretrainedResnet_quant", [3072], [10]) is IC
    assert find_benchmark("ad01_int8", [640], [640]) is AD
    assert find_benchmark("net", [27648], [2]) is VWW
    assert find_benchmark("net", [27648], [3]) is None
    assert find_benchmark("net", [20, 20], [2]) is None


def test_only_one_int8_input_is_converted() -> None:
    assert form_of(IC, manifest(tensor(4))) == "pixels"
    assert form_of(IC, manifest(tensor(4, "f32"))) == "tensor"
    assert form_of(IC, manifest(tensor(4), tensor(4))) == "tensor"
    assert form_of(None, manifest(tensor(4))) == "tensor"


def test_pixels_are_shifted_and_tensors_are_taken_as_they_are() -> None:
    (pixels,) = decode(bytes([0, 127, 128, 255]), "pixels", [tensor(4)])
    first, second = decode(bytes([1, 2, 255, 254]), "tensor", [tensor(2), tensor(2, "u8")])

    assert pixels.tolist() == [[-128, -1, 0, 127]]
    assert first.tolist() == [[1, 2]]
    assert second.tolist() == [[255, 254]]


def test_floats_are_rounded_half_away_from_zero_and_cut_off() -> None:
    values = [0.25, -0.25, 0.75, 0.24999999, 1000.0, -1e30, float("nan"), float("inf")]

    (found,) = decode(np.array(values, "<f4").tobytes(), "floats", [tensor(8)])

    assert found.tolist() == [[4, 2, 5, 3, 127, -128, -128, 127]]  # scale 0.5, zero point 3


@pytest.mark.parametrize("form", ["tensor", "pixels", "floats"])
def test_random_inputs_differ_and_fill_the_tensor(form: str) -> None:
    items = random_items(5, form, manifest(tensor(600)))

    arrays = [decode(item.data, form, [tensor(600)])[0] for item in items]
    assert len({array.tobytes() for array in arrays}) == 5
    for array in arrays:
        assert array.min() < -100
        assert array.max() > 100


def written(tmp_path: Path, folder: str, labels: str, **files: bytes) -> Path:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "y_labels.csv").write_text(labels)
    for name, data in files.items():
        (tmp_path / folder / name).write_bytes(data)
    return tmp_path


def test_a_file_is_one_input(tmp_path: Path) -> None:
    root = written(tmp_path, "ic01", "a,10,3,4,0\nb,10,9,4,0\n", a=b"abcd", b=b"efgh")

    files = DataSet(root, IC, 4)

    assert files.labels == [3, 9]
    (item,) = files.items(1)
    assert (item.file, item.classes, item.label, item.data) == ("b", 10, 9, b"efgh")


def test_a_sound_is_cut_into_windows(tmp_path: Path) -> None:
    root = written(tmp_path, "ad01", "a,2,1,6,2\n", a=bytes(range(11)))

    items = DataSet(root, AD, 6).items(0)

    assert [item.data[0] for item in items] == [0, 2, 4]  # what is left is too short
    assert {len(item.data) for item in items} == {6}
    assert {item.segments for item in items} == {3}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "names no file"),
        ("a,10,3,4\n", "line 1: 'a,10,3,4' should be file, classes, class"),
        ("a,10,3,4,0\na,10,10,4,0\n", "line 2"),
        ("a,x,3,4,0\n", "line 1"),
    ],
)
def test_labels_that_make_no_sense_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataSet(written(tmp_path, "ic01", labels), IC, 4)


def test_files_that_are_not_there_or_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"y_labels.csv cannot be read .*dataset_path"):
        DataSet(tmp_path, KWS, 4)
    files = DataSet(written(tmp_path, "ic01", "a,10,3,4,0\nb,10,3,4,0\n", a=b"abc"), IC, 4)
    with pytest.raises(UsageError, match="gives inputs of 3 B; the model takes 4 B"):
        files.items(0)
    with pytest.raises(UsageError, match="b cannot be read"):
        files.items(1)


def test_a_classifier_is_judged_by_its_most_likely_class() -> None:
    answers = [
        (0, [[0.9, 0.05, 0.04]]),
        (1, [[0.5, 0.4, 0.1]]),
        (2, [[0.1, 0.1, 0.8]]),
        (2, [[0.3, 0.3, 0.4]]),
    ]

    found = accuracy(answers)

    assert found.top1_percent == 75.0
    assert found.by_class == ((0, 1, 1), (1, 1, 0), (2, 2, 2))
    shares = np.array([results[0] for _, results in answers])
    shares = shares / shares.sum(axis=1, keepdims=True)
    expected = roc_auc_score([0, 1, 2, 2], shares, multi_class="ovr")
    assert found.auc == pytest.approx(expected)


def test_two_classes_are_judged_by_the_second_ones_share() -> None:
    found = accuracy([(0, [[0.8, 0.2]]), (1, [[0.7, 0.3]]), (0, [[0.9, 0.1]])])

    assert found.auc == 1.0
    assert found.top1_percent == pytest.approx(200 / 3)


def test_an_anomaly_is_judged_by_the_mean_error_of_its_windows() -> None:
    found = accuracy([(0, [[1.0], [3.0]]), (1, [[2.0], [6.0]]), (1, [[1.0], [1.5]]), (0, [[1.0]])])

    assert found.auc == 0.75  # means 2, 4, 1.25, 1
    # the best threshold lies between 1 and 1.25: three are flagged, two of them rightly
    assert found.top1_percent == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found.by_class == ()


def test_a_class_without_files_and_results_without_a_sum_are_refused() -> None:
    with pytest.raises(UsageError, match=r"files of the classes 0, 2; .* each of 0 to 2"):
        accuracy([(0, [[0.1, 0.2, 0.7]]), (2, [[0.1, 0.2, 0.7]])])
    with pytest.raises(UsageError, match="no probabilities"):
        accuracy([(0, [[0.0, 0.0]]), (1, [[0.0, 1.0]])])
