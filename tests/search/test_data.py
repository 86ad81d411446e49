from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from search import data as data_module
from search.data import DataSet, Part, TestData, load_data, stratified_split
from search.errors import DataError


def write_cifar(folder: Path, samples: int = 50) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        raw = rng.integers(0, 256, size=(samples, 3073)).astype(np.uint8)
        raw[:, 0] = np.arange(samples) % 10
        (folder / name).write_bytes(raw.tobytes())
    return folder


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, *, packed: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, size=(n, 6, 5)).astype(np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            raw = idx(array)
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(raw) if packed else raw)
    return folder


def write_signals(path: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(size=(40, 30, 2)),
        "y_train": np.arange(40) % 3,
        "x_test": rng.normal(size=(10, 30, 2)),
        "y_test": np.arange(10) % 3,
    }
    np.savez(path, **(arrays | changes))
    return path


def parts(found: DataSet) -> list[Part]:
    return [found.search.train, found.search.validation, found.test.part()]


def test_digits_need_no_folder_and_their_parts_share_no_sample() -> None:
    found = load_data("digits")

    assert found.search.input_shape == (8, 8, 1) and found.search.classes == 10
    assert sum(len(part) for part in parts(found)) == 1797
    assert all(len(np.unique(part.y)) == 10 for part in parts(found))


def test_a_split_takes_the_same_share_of_every_class_and_keeps_every_sample() -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 10)
    whole = Part(np.arange(90, dtype=np.float32).reshape(90, 1, 1, 1), labels)

    rest, share = stratified_split(whole, 0.2)

    assert np.bincount(share.y).tolist() == [10, 6, 2]
    assert sorted(np.concatenate([rest.x, share.x]).ravel()) == list(range(90))
    again = stratified_split(whole, 0.2)[1]
    assert np.array_equal(again.x, share.x)


def test_a_search_sees_no_test_set_and_it_is_not_even_read(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path)
    (folder / "test_batch.bin").write_bytes(b"not yet looked at")

    found = load_data("cifar10", folder)

    assert not hasattr(found.search, "test")
    with pytest.raises(DataError, match=r"test_batch.bin: holds 17 B"):
        found.test.part()


def test_cifar_planes_become_channels(tmp_path: Path) -> None:
    sample = np.zeros(3073, np.uint8)
    sample[0], sample[1 + 1024 + 32 * 2 + 5] = 1, 200  # green, row 2, column 5
    raw = np.tile(sample, (10, 1))
    raw[:5, 0] = 0
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(raw.tobytes())

    train = load_data("cifar10", tmp_path).search.train

    assert train.x.shape[1:] == (32, 32, 3)
    assert train.x[0, 2, 5].tolist() == [0, 200, 0] and train.x[0].sum() == 200


def test_all_batches_of_cifar_are_used_wherever_the_folder_is(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin")

    found = load_data("cifar10", tmp_path)

    assert len(found.search.train) + len(found.search.validation) == 100
    assert len(found.test.part()) == 50


def test_the_folder_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIL_DATA", str(write_cifar(tmp_path)))

    assert len(load_data("cifar10").test.part()) == 50


def test_real_cifar_is_read(data_dir: Path) -> None:
    found = load_data("cifar10", data_dir)

    assert [len(part) for part in parts(found)] == [8000, 2000, 2000]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_plain_and_packed(tmp_path: Path, name: str, packed: bool) -> None:
    write_idx(tmp_path / name, packed=packed)

    found = load_data(name, tmp_path)

    assert found.search.input_shape == (6, 5, 1)
    assert [len(part) for part in parts(found)] == [50, 10, 20]


def test_signals_become_images_of_height_one(tmp_path: Path) -> None:
    write_signals(tmp_path / "ecg.npz")

    found = load_data("ecg.npz", tmp_path)

    assert found.search.input_shape == (1, 30, 2) and found.search.classes == 3
    assert [len(part) for part in parts(found)] == [31, 9, 10]


def test_signals_with_their_own_validation_set_are_not_split(tmp_path: Path) -> None:
    validation = {"x_validation": np.ones((4, 30, 2)), "y_validation": np.arange(4) % 3}
    write_signals(tmp_path / "ecg.npz", **validation)

    found = load_data(str(tmp_path / "ecg.npz"))

    assert [len(part) for part in parts(found)] == [40, 4, 10]


def test_the_first_samples_are_of_all_classes_even_if_the_file_is_sorted(tmp_path: Path) -> None:
    validation = {"x_validation": np.ones((4, 30, 2)), "y_validation": np.arange(4) % 3}
    write_signals(tmp_path / "s.npz", y_train=np.repeat([0, 1], 20), **validation)

    train = load_data("s.npz", tmp_path).search.train

    assert set(train.first(10).y.tolist()) == {0, 1}


def test_bytes_become_int8_without_loss_and_signals_fill_the_range(tmp_path: Path) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    quant = load_data("digits").search.input_quant
    assert quant.quantised(images).ravel().tolist() == list(range(-128, 128))

    signals = load_data(str(write_signals(tmp_path / "s.npz"))).search
    quantised = signals.input_quant.quantised(signals.train.x)
    assert quantised.min() == -128 and quantised.max() == 127
    real = (quantised.astype(float) - signals.input_quant.zero_point) * signals.input_quant.scale
    assert np.abs(real - signals.train.x).max() <= 0.51 * signals.input_quant.scale


def test_the_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    first = load_data(str(write_signals(tmp_path / "a.npz"))).search
    again = load_data(str(write_signals(tmp_path / "b.npz"))).search
    other = load_data(str(write_signals(tmp_path / "c.npz", x_train=np.zeros((40, 30, 2))))).search

    assert first.sha256 == again.sha256 != other.sha256


def test_an_unknown_data_set_is_refused_with_those_that_exist() -> None:
    with pytest.raises(DataError, match="'imagenet': is not known; known are cifar10, digits"):
        load_data("imagenet")


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_a_missing_folder_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIL_DATA", raising=False)
    with pytest.raises(DataError, match="name it with --data-dir or HIL_DATA"):
        load_data(name)
    with pytest.raises(DataError, match=f"for data set '{name}'; looked in the folder itself"):
        load_data(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 B"),
        (b"\0" * 3072, "no multiple of 3,073 B"),
        (b"\x0b" + b"\0" * 3072, "label 11; CIFAR-10 has 0 to 9"),
        (b"\0" * 3073, "single class"),
    ],
)
def test_a_malformed_cifar_batch_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(content * 5)

    with pytest.raises(DataError, match=message):
        load_data("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (b"\0\0\x08\x01\0\0\0\x01\0", "is no IDX file of bytes in 3 dimensions"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 1, 6, 5) + b"\0" * 29, "claims .1, 6, 5. but holds 29 B"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "claims"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 0, 6, 5), "claims"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 7, 6, 5) + b"\0" * 210, "7 images but 60 labels"),
    ],
)
def test_a_malformed_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (write_idx(tmp_path, packed=False) / "train-images-idx3-ubyte").write_bytes(content)

    with pytest.raises(DataError, match=message):
        load_data("mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no gzip at all", id="no gzip"),
        pytest.param(gzip.compress(b"x" * 999, mtime=0)[:-9], id="cut short"),
    ],
)
def test_a_broken_gz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (write_idx(tmp_path, packed=True) / "train-images-idx3-ubyte.gz").write_bytes(content)

    with pytest.raises(DataError, match=r"cannot be read|is no IDX file"):
        load_data("mnist", tmp_path)


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "MAX_BYTES", 1000)
    write_idx(tmp_path, packed=True)
    write_signals(tmp_path / "s.npz")

    with pytest.raises(DataError, match="holds more than 1,000 B"):
        load_data("mnist", tmp_path)
    with pytest.raises(DataError, match="unpacks to more than 1,000 B"):
        load_data("s.npz", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((40, 30, 2, 2))}, r"expected numbers of shape .n, length. or"),
        ({"x_train": np.zeros((40, 0))}, "expected numbers"),
        ({"x_train": np.full((40, 30, 2), "a")}, "expected numbers"),
        ({"x_train": np.full((40, 30, 2), np.nan)}, "not finite"),
        ({"x_train": np.full((40, 30, 2), None)}, "'x_train' cannot be read: Object arrays"),
        ({"y_train": np.arange(39)}, "expected 40 classes from 0"),
        ({"y_train": np.arange(40) - 1}, "expected 40 classes from 0"),
        ({"y_train": np.linspace(0, 1, 40)}, "expected 40 classes from 0"),
        ({"y_train": np.full(40, 2**40)}, "class 1099511627776"),
        ({"y_train": np.zeros(40, int)}, "single class"),
    ],
)
def test_malformed_signals_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    write_signals(tmp_path / "s.npz", **changes)

    with pytest.raises(DataError, match=message):
        load_data("s.npz", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((10, 29, 2))}, "test samples .1, 29, 2. are not like"),
        ({"y_test": np.full(10, 3)}, "test label 3 is not among the 3 classes"),
    ],
)
def test_a_test_set_of_another_kind_is_refused_when_it_is_used(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    found = load_data(str(write_signals(tmp_path / "s.npz", **changes)))

    with pytest.raises(DataError, match=message):
        found.test.part()


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**20)}
        )
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", header.getvalue())

    for name, message in (
        ("missing.npz", "there is no such file"),
        ("text.npz", "is no .npz file"),
        ("empty.npz", "lacks 'x_train'; it has nothing"),
        ("lies.npz", "array 'x_train' cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(name, tmp_path)


def test_the_test_set_is_read_once() -> None:
    calls: list[int] = []

    def load() -> Part:
        calls.append(1)
        return Part(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64))

    test = TestData("t", load)

    assert test.part() is test.part()
    assert len(calls) == 1
