"""Data sets: training, validation and test apart; nothing is downloaded.

A search gets a `SearchData`, which has no test set; the `TestData` beside it is read from disk only
when the final table is made. Images are bytes (real value = byte / 255), signals are float32 images
of height 1.

To add one: a function from a folder to `Parts` under `@register("name")`.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.architecture import Shape
from search.errors import DataError

#: Share of the training samples that is kept for validation where the data set has no validation
#: set of its own.
VALIDATION_SHARE = 0.2
#: Seeds the split; fixed, so that every study of a data set sees the same parts.
SPLIT_SEED = 20250101
#: A file that claims to be larger is refused before memory is taken.
MAX_BYTES = 4 << 30

Samples = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Samples (n, h, w, c) and their classes (n,)."""

    x: Samples
    y: Labels

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int) -> Part:
        """At most the first n samples; all if n is 0."""
        return Part(self.x[:n], self.y[:n]) if n else self


@dataclass(frozen=True, slots=True)
class InputQuant:
    """How a real input becomes int8: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int

    def quantised(self, x: Samples) -> NDArray[np.int8]:
        """What a board is fed, same shape."""
        q = np.rint(real(x) / np.float32(self.scale)) + self.zero_point
        clipped: NDArray[np.int8] = np.clip(q, -128, 127).astype(np.int8)
        return clipped


def real(x: Samples) -> NDArray[np.float32]:
    """What a network is trained on, same shape."""
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(255)
    return np.asarray(x, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SearchData:
    """What a search may see: no test set."""

    name: str
    classes: int
    train: Part
    validation: Part

    @property
    def input_shape(self) -> Shape:
        """(h, w, c) of one sample."""
        h, w, c = self.train.x.shape[1:]
        return h, w, c

    @property
    def input_quant(self) -> InputQuant:
        """Bytes map to int8 without loss; signals by the range of the training samples."""
        if self.train.x.dtype == np.uint8:
            return InputQuant(float(np.float32(1 / 255)), -128)
        low, high = min(float(self.train.x.min()), 0.0), max(float(self.train.x.max()), 0.0)
        scale = float(np.float32((high - low) / 255)) or 1.0
        return InputQuant(scale, int(np.clip(round(-128 - low / scale), -128, 127)))

    @property
    def sha256(self) -> str:
        """Digest of all samples and labels: a study is resumed on the data that it began with."""
        digest = hashlib.sha256()
        for array in (self.train.x, self.train.y, self.validation.x, self.validation.y):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class TestData:
    """The test set; read when `part` is first called, which only the final table does."""

    __test__ = False  # no test case, whatever its name says

    def __init__(self, name: str, load: Callable[[], Part]) -> None:
        self.name = name
        self._load = functools.cache(load)

    def part(self) -> Part:
        """The samples and labels."""
        return self._load()


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """What a search sees, and what only its final table sees."""

    search: SearchData
    test: TestData


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a loader gives; without `validation`, a share of `train` is split off."""

    train: Part
    test: Callable[[], Part]
    validation: Part | None = None


Loader = Callable[[Path | None], Parts]

_LOADERS: dict[str, Loader] = {}


def register(name: str) -> Callable[[Loader], Loader]:
    """Adds the decorated loader under `name`; it gets the user's data folder, or None."""

    def add(loader: Loader) -> Loader:
        assert name not in _LOADERS, f"two data sets are called {name!r}"
        _LOADERS[name] = loader
        return loader

    return add


def data_names() -> list[str]:
    """Names of the data sets, sorted; a path that ends in .npz is one too."""
    return sorted(_LOADERS)


def load_data(name: str, data_dir: Path | None = None) -> DataSet:
    """The data set of that name, or the signals of an .npz file (relative to `data_dir`).

    Args:
        name: of a data set, or a path ending in .npz.
        data_dir: the user's folder of data; None is the folder named by HIL_DATA, if that is set.

    Raises:
        DataError: unknown name, missing folder or file, or a file that does not hold what it
            should.
    """
    if data_dir is None and (variable := os.environ.get("HIL_DATA")):
        data_dir = Path(variable)
    if name.endswith(".npz"):
        parts = _signals((data_dir or Path()) / name)
    elif name in _LOADERS:
        parts = _LOADERS[name](data_dir)
    else:
        known = ", ".join(data_names())
        raise DataError(repr(name), f"is not known; known are {known}, and files ending in .npz")
    train, validation = parts.train, parts.validation
    if validation is None:
        train, validation = stratified_split(train, VALIDATION_SHARE)
    else:
        train, validation = _shuffled(train), _shuffled(validation)
    classes = int(max(train.y.max(), validation.y.max())) + 1
    shape = train.x.shape[1:]
    if classes < 2:
        raise DataError(name, "has a single class; nothing can be learnt from it")
    if validation.x.shape[1:] != shape:
        raise DataError(name, f"validation samples {validation.x.shape[1:]} are not like {shape}")

    def test() -> Part:
        part = parts.test()
        if part.x.shape[1:] != shape or part.x.dtype != train.x.dtype:
            raise DataError(name, f"test samples {part.x.shape[1:]} are not like {shape}")
        if int(part.y.max()) >= classes:
            raise DataError(name, f"test label {part.y.max()} is not among the {classes} classes")
        return part

    return DataSet(SearchData(name, classes, train, validation), TestData(name, test))


def stratified_split(part: Part, share: float) -> tuple[Part, Part]:
    """(rest, share) of the samples in a fixed random order, each class divided alike."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(part))
    is_taken = np.zeros(len(part), dtype=bool)
    for label in np.unique(part.y):
        members = order[part.y[order] == label]
        is_taken[members[: max(1, round(share * len(members)))]] = True
    taken, rest = order[is_taken[order]], order[~is_taken[order]]
    if len(rest) == 0:
        raise DataError("split", f"{len(part)} samples are too few for training and validation")
    return Part(part.x[rest], part.y[rest]), Part(part.x[taken], part.y[taken])


def _shuffled(part: Part) -> Part:
    """The samples in a fixed random order: the first few are then like all of them."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(part))
    return Part(part.x[order], part.y[order])


@register("digits")
def _digits(_: Path | None) -> Parts:
    """scikit-learn's 1,797 hand-written digits of 8 x 8 pixels; a fifth of them is the test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    rest, test = stratified_split(Part(x, digits.target.astype(np.int64)), 0.2)
    return Parts(train=rest, test=lambda: test)


CIFAR_SAMPLE_BYTES = 1 + 3 * 32 * 32


@register("cifar10")
def _cifar10(data_dir: Path | None) -> Parts:
    """CIFAR-10 in its binary layout: every data_batch_*.bin of the folder, and test_batch.bin."""
    folder = _folder(data_dir, "cifar10", ("cifar-10-batches-bin",), "data_batch_1.bin")
    batches = [_cifar_batch(path) for path in sorted(folder.glob("data_batch_*.bin"))]
    train = Part(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))
    return Parts(train=train, test=lambda: _cifar_batch(folder / "test_batch.bin"))


def _cifar_batch(path: Path) -> Part:
    raw = np.frombuffer(_read(path), np.uint8)
    if len(raw) == 0 or len(raw) % CIFAR_SAMPLE_BYTES:
        raise DataError(
            path, f"holds {len(raw):,} B, which is no multiple of {CIFAR_SAMPLE_BYTES:,} B a sample"
        )
    samples = raw.reshape(-1, CIFAR_SAMPLE_BYTES)
    if samples[:, 0].max() > 9:
        raise DataError(path, f"has a label {samples[:, 0].max()}; CIFAR-10 has 0 to 9")
    x = samples[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # planes -> (n, h, w, c)
    return Part(np.ascontiguousarray(x), samples[:, 0].astype(np.int64))


@register("mnist")
def _mnist(data_dir: Path | None) -> Parts:
    """MNIST as IDX files, plain or .gz."""
    return _idx(data_dir, "mnist", ("mnist", "MNIST", "MNIST/raw"))


@register("fashion_mnist")
def _fashion_mnist(data_dir: Path | None) -> Parts:
    """Fashion-MNIST as IDX files, plain or .gz."""
    names = ("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    return _idx(data_dir, "fashion_mnist", names)


def _idx(data_dir: Path | None, name: str, subfolders: tuple[str, ...]) -> Parts:
    folder = _folder(data_dir, name, subfolders, "train-images-idx3-ubyte")
    return Parts(train=_idx_part(folder, "train"), test=lambda: _idx_part(folder, "t10k"))


def _idx_part(folder: Path, prefix: str) -> Part:
    images = _idx_array(folder / f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _idx_array(folder / f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise DataError(folder, f"{prefix}: {len(images):,} images but {len(labels):,} labels")
    return Part(images[..., np.newaxis], labels.astype(np.int64))


def _idx_array(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    raw = _read(path if path.exists() else path.with_name(path.name + ".gz"))
    header_bytes = 4 + 4 * dimensions
    if len(raw) < header_bytes or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(path, f"is no IDX file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", raw[4:header_bytes])
    if 0 in shape or math.prod(shape) != len(raw) - header_bytes:
        raise DataError(path, f"claims {shape} but holds {len(raw) - header_bytes:,} B")
    return np.frombuffer(raw, np.uint8, offset=header_bytes).reshape(shape)


def _signals(path: Path) -> Parts:
    """1-D signals.

    x_train (n, length) or (n, length, channels) numbers, y_train (n,) classes from 0; the same
    with _test, and with _validation if there is one.
    """
    keys = _npz_keys(path)
    validation = None
    if "x_validation" in keys:
        validation = _signals_part(path, keys, "validation")
    train = _signals_part(path, keys, "train")
    if "x_test" not in keys:
        raise DataError(path, f"lacks 'x_test'; it has {', '.join(sorted(keys))}")
    return Parts(train, lambda: _signals_part(path, keys, "test"), validation)


def _npz_keys(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FileNotFoundError:
        raise DataError(path, "there is no such file") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(path, f"is no .npz file: {error}") from None
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise DataError(path, f"unpacks to more than {MAX_BYTES:,} B")
    return {member.filename.removesuffix(".npy") for member in members}


def _signals_part(path: Path, keys: set[str], part: str) -> Part:
    arrays = []
    for key in (f"x_{part}", f"y_{part}"):
        if key not in keys:
            raise DataError(path, f"lacks {key!r}; it has {', '.join(sorted(keys)) or 'nothing'}")
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays.append(archive[key])
        except (
            OSError,
            ValueError,
            EOFError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise DataError(path, f"array {key!r} cannot be read: {error}") from None
    x, y = arrays
    if x.ndim not in (2, 3) or 0 in x.shape or x.dtype.kind not in "fiu":
        raise DataError(
            path,
            f"'x_{part}' is {x.dtype} of shape {x.shape}; expected numbers of shape "
            "(n, length) or (n, length, channels)",
        )
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu" or int(y.min()) < 0:
        raise DataError(
            path, f"'y_{part}' is {y.dtype} of shape {y.shape}; expected {len(x):,} classes from 0"
        )
    if int(y.max()) > 10_000:
        raise DataError(path, f"'y_{part}' has class {y.max()}; classes are counted from 0")
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise DataError(path, f"'x_{part}' has values that are not finite")
    channels = 1 if x.ndim == 2 else x.shape[2]
    return Part(x.reshape(len(x), 1, x.shape[1], channels), y.astype(np.int64))


def _folder(data_dir: Path | None, name: str, subfolders: tuple[str, ...], file: str) -> Path:
    """The folder in or under `data_dir` that has `file`, plain or .gz."""
    if data_dir is None:
        raise DataError(name, "needs a folder; name it with --data-dir or HIL_DATA")
    for folder in (data_dir, *(data_dir / sub for sub in subfolders)):
        if (folder / file).is_file() or (folder / f"{file}.gz").is_file():
            return folder
    places = ", ".join(("the folder itself", *subfolders))
    raise DataError(data_dir, f"has no {file} for data set {name!r}; looked in {places}")


def _read(path: Path) -> bytes:
    """Bytes of a file, unpacked if it ends in .gz; never more than MAX_BYTES."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as packed:
                raw = packed.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as plain:
                raw = plain.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataError(path, "there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    if len(raw) > MAX_BYTES:
        raise DataError(path, f"holds more than {MAX_BYTES:,} B")
    return raw
