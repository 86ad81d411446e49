"""Which pairs of inputs and weights the outputs of a depthwise tile are sums of.

A word of inputs holds two neighbouring columns. Weights lie in registers as pairs, so that a word
is multiplied with two taps at once wherever both of its inputs meet taps of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.kernels.window import Window


@dataclass(frozen=True, slots=True)
class Word:
    """A pair of weights: taps in row-major order, -1 for none."""

    lo: int
    hi: int

    @property
    def lo_c(self) -> str:
        """C of the lower one."""
        return f"weight[{self.lo}]"

    @property
    def hi_c(self) -> str:
        """C of the upper one."""
        return "0" if self.hi < 0 else f"weight[{self.hi}]"


@dataclass(frozen=True, slots=True)
class Sum:
    """One output of a tile."""

    name: str
    row_name: str
    column: int


@dataclass(frozen=True, slots=True)
class Use:
    """A pair of inputs times a pair of weights, or a half of either."""

    sum: str
    function: str
    word: int


@dataclass(frozen=True, slots=True)
class Load:
    """A pair of inputs and all that it is multiplied with."""

    block: int
    row: int
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """Outputs that are computed together, and their inputs in the order of the buffer."""

    sums: tuple[Sum, ...]
    loads: tuple[Load, ...]


def _pairs(shape: Window) -> list[list[tuple[int, int]]]:
    """For the first and the second column of outputs: (lo, hi) taps of a kernel row on each word.

    -1: the word has an input there that the output does not need.
    """
    found = []
    for column in (0, shape.stride_w):
        odd = column % 2
        starts = range(-odd, shape.kw, 2)
        found.append([(max(lo, -1), lo + 1 if lo + 1 < shape.kw else -1) for lo in starts])
    return found


def weight_words(shape: Window) -> tuple[Word, ...]:
    """Every pair of taps that meets a word of inputs; then single taps that no pair holds."""
    pairs, singles = [], []
    for row in range(shape.kh):
        base = row * shape.kw
        wanted = sorted({pair for column in _pairs(shape) for pair in column})
        whole = [(lo, hi) for lo, hi in wanted if lo >= 0 and hi >= 0]
        held = {tap for pair in whole for tap in pair}
        pairs += [Word(base + lo, base + hi) for lo, hi in whole]
        alone = {max(lo, hi) for lo, hi in wanted if min(lo, hi) < 0}
        singles += [base + tap for tap in sorted(alone - held)]
    singles += [-1] * (len(singles) % 2)
    return (*pairs, *(Word(lo, hi) for lo, hi in zip(singles[::2], singles[1::2], strict=True)))


def tile(shape: Window, rows: int) -> Tile:
    """The products of so many rows and two columns of outputs."""
    words = weight_words(shape)
    names = ("sum0", "sum1", "sum2", "sum3")
    row_names = ("to", "below")
    loads: dict[tuple[int, int], list[Use]] = {}
    for row in range(rows):
        for column, pairs in enumerate(_pairs(shape)):
            for ky in range(shape.kh):
                for i, (lo, hi) in enumerate(pairs):
                    block = column * shape.stride_w // 2 + i
                    function, word = _product(words, *(_tap(shape, ky, tap) for tap in (lo, hi)))
                    use = Use(names[2 * row + column], function, word)
                    loads.setdefault((block, row * shape.stride_h + ky), []).append(use)
    return Tile(
        sums=tuple(
            Sum(names[2 * row + column], row_names[row], column)
            for row in range(rows)
            for column in range(2)
        ),
        loads=tuple(Load(block, row, tuple(uses)) for (block, row), uses in sorted(loads.items())),
    )


def _tap(shape: Window, ky: int, kx: int) -> int:
    return ky * shape.kw + kx if kx >= 0 else -1


def _product(words: tuple[Word, ...], lo: int, hi: int) -> tuple[str, int]:
    """The function of intrinsics.h and the word of weights for inputs that meet these taps."""
    if lo >= 0 and hi >= 0:
        return "smlad", words.index(Word(lo, hi))
    tap, half = (lo, "b") if lo >= 0 else (hi, "t")
    index = next(i for i, word in enumerate(words) if tap in (word.lo, word.hi))
    return f"smla{half}{'b' if words[index].lo == tap else 't'}", index
