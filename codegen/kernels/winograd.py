"""3x3 convolutions by Winograd's minimal filters F(4x4, 3x3), in integers, with the same bytes.

A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks (2015), section 4. Differs from
the paper: the matrices hold integers only. What they scale the sums by is divided out exactly, see
firmware/kernels/winograd.h. Four times fewer products; eight bytes for each weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from codegen.ir import Conv2D, Graph, Op
from codegen.kernels import Cost, Kernel, register
from codegen.kernels.context import Array, Context, common
from codegen.kernels.overlap import forward_overlap
from codegen.kernels.window import Window, conv_weights, window
from codegen.limits import BoardLimits
from codegen.planner import Overlap
from codegen.requantization import Product, Scaling, product, scaling

Int64s = NDArray[np.int64]

#: The matrices of winograd.h: V = B d B', U = G w G', Y = A M A'.
B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.int64,
)
G = np.array([[3, 0, 0], [-2, -2, -2], [-2, 2, -2], [1, 2, 4], [1, -2, 4], [0, 0, 12]], np.int64)
A = np.array(
    [[2, 2, 2, 1, 1, 0], [0, 1, -1, 1, -1, 0], [0, 1, 1, 2, 2, 0], [0, 1, -1, 4, -4, 1]], np.int64
)

TILE = 4
INPUTS = 6
POSITIONS = INPUTS * INPUTS
MIN_CHANNELS = 8
QUAD = 4  # tiles whose products are computed together
#: What winograd_input adds to the low channels' inputs: WINOGRAD_LOW, and WINOGRAD_CORNER to four.
ADDED = np.full((INPUTS, INPUTS), 128)
ADDED[TILE:, TILE:] += 12800

#: An output is 24 or 12 (rows 1 to 3) times 24 or 12 (columns 1 to 3) times the convolution's sum.
#: The first one's factor is 24 * 24 = 9 * 64; this is 1 / 9 modulo 2^32.
INVERSE = pow(9, -1, 2**32)
LOG2 = 6
#: 64 times a sum must fit 32 bits.
SUM_LIMIT = 2**31 >> LOG2


def transformed_weights(weights: NDArray[np.int8]) -> Int64s:
    """(out_c, 6, 6, in_c) U of weights (out_c, 3, 3, in_c); fits int16."""
    transformed: Int64s = np.einsum(
        "ik,jl,oklc->oijc", G, G, weights.astype(np.int64), optimize=True
    )
    return transformed


def starts(transformed: Int64s) -> Int64s:
    """(out_c, 6, 6) what M starts with, so that what is added to low channels does not count."""
    low = np.isin(np.arange(transformed.shape[3]) % 4, (0, 1))
    added: Int64s = (B @ ADDED @ B.T) * transformed[..., low].sum(axis=3)
    return -added


def pack_transformed(transformed: Int64s) -> NDArray[np.uint32]:
    """Words in the order of use; the layout is described in winograd.h.

    Args:
        transformed: (out_c, 6, 6, depth), out_c even, depth a multiple of 16.
    """
    out_c, depth = transformed.shape[0], transformed.shape[3]
    # Channels c and c + 2 of a group of four are a word.
    pairs = transformed.reshape(out_c, POSITIONS, depth // 4, 2, 2).swapaxes(3, 4)
    words = np.ascontiguousarray(pairs.astype("<i2")).view("<u4").reshape(out_c, POSITIONS, -1)
    first = starts(transformed).reshape(out_c, POSITIONS, 1).astype("<i4").view("<u4")
    rows = np.concatenate([first, words], axis=2).reshape(out_c // 2, 2, POSITIONS, -1)
    return rows.transpose(0, 2, 3, 1).reshape(-1).astype(np.uint32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WinogradContext(Context):
    """conv2d_winograd_s8; `block` tiles are transformed before any product of them.

    `depth` counts the channels that are transformed, `u_depth` those that are multiplied.
    """

    window: Window
    depth: int
    u_depth: int
    block: int
    in_zp: int
    scaling: Scaling

    @property
    def log2(self) -> int:
        """Outputs times the inverse are 2^log2 times the sums, modulo 2^32; what needs no shift."""
        return max(LOG2, self.scaling.left_shift)

    @property
    def inverse(self) -> int:
        """Of the first output's factor, times 2^log2."""
        return (INVERSE << (self.log2 - LOG2)) % 2**32

    @property
    def row_tiles(self) -> int:
        """Tiles from left to right."""
        return -(-self.window.out_w // TILE)

    @property
    def image_tiles(self) -> int:
        """Tiles of one image."""
        return _tiles(self.window)


def _in_whole(step: int, count: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step


def _depth(shape: Window) -> int:
    """Input channels in whole groups of four, which are transformed together."""
    return _in_whole(4, shape.in_c)


def _u_depth(shape: Window) -> int:
    """Input channels in whole groups of those that winograd_products takes at once."""
    return _in_whole(16, shape.in_c)


def _scratch_bytes(shape: Window, block: int) -> int:
    """Transformed inputs, the sums of two output channels, and one tile at the image's edge."""
    return block * POSITIONS * (2 * _u_depth(shape) + 8) + POSITIONS * _depth(shape)


def _tiles(shape: Window) -> int:
    """Tiles of one image."""
    return -(-shape.out_h // TILE) * -(-shape.out_w // TILE)


def _layer(graph: Graph, op: Op) -> tuple[Window, Product]:
    assert isinstance(op, Conv2D)
    weights = conv_weights(graph, op)
    return window(graph, op), product(graph, op, weights.reshape(weights.shape[0], -1))


def _refuse(graph: Graph, op: Op, *, block: int) -> str | None:
    shape, layer = _layer(graph, op)
    steps = (shape.stride_h, shape.stride_w, shape.dilation_h, shape.dilation_w)
    if (shape.kh, shape.kw) != (3, 3) or steps != (1, 1, 1, 1):
        return "needs a 3x3 kernel with stride and dilation 1"
    if shape.in_c < MIN_CHANNELS:
        return f"transforms cost more than they save with fewer than {MIN_CHANNELS} input channels"
    if block > QUAD and block - QUAD >= shape.batch * _tiles(shape):
        return f"the image has only {_tiles(shape)} tiles"
    if np.any(np.abs(layer.weights.astype(np.int64)).sum(axis=1) * 128 >= SUM_LIMIT):
        return "64 times a sum may not fit 32 bits"
    return None


def _context(graph: Graph, op: Op, *, block: int) -> WinogradContext:
    shape, layer = _layer(graph, op)
    scales = scaling(layer)
    u_depth = _u_depth(shape)
    weights = scales.weights.reshape(shape.out_c, 3, 3, shape.in_c)
    padded = np.pad(weights, ((0, shape.out_c % 2), (0, 0), (0, 0), (0, u_depth - shape.in_c)))
    arrays = (
        Array(
            f"{op.name}_weight",
            "uint32_t",
            pack_transformed(transformed_weights(padded)),
            f"{shape.out_c} channels in pairs, {u_depth} deep, transformed; order of winograd.h",
        ),
        Array(f"{op.name}_channel", scales.c_type, scales.rows, scales.comment),
    )
    return WinogradContext(
        **common(graph, op, arrays, scratch_bytes=_scratch_bytes(shape, block)),
        window=shape,
        depth=_depth(shape),
        u_depth=u_depth,
        block=block,
        in_zp=layer.quant.in_zp,
        scaling=scales,
    )


def _overlap(shape: Window, block: int) -> Overlap:
    """Blocks of tiles, row by row, read whole before their outputs are written."""
    columns = -(-shape.out_w // TILE)
    image, tile = np.divmod(np.arange(shape.batch * _tiles(shape)), _tiles(shape))
    y, x = tile // columns * TILE, tile % columns * TILE
    top = np.maximum(y - shape.pad_top, 0)
    left = np.maximum(x - shape.pad_left, 0)
    lowest_read = ((image * shape.in_h + top) * shape.in_w + left) * shape.in_c
    bottom, right = np.minimum(y + TILE, shape.out_h), np.minimum(x + TILE, shape.out_w)
    written_end = ((image * shape.out_h + bottom - 1) * shape.out_w + right) * shape.out_c
    starts = np.arange(0, tile.size, block)
    return forward_overlap(
        np.minimum.reduceat(lowest_read, starts),
        np.maximum.accumulate(np.maximum.reduceat(written_end, starts)),
    )


@dataclass(frozen=True, slots=True)
class _Cycles:
    """What a core takes for the parts; measured on 22 shapes, of which the sum is within 8 %.

    Args:
        group: the inputs of a tile, four channels.
        edge: as much of a tile at the image's edge, to copy it.
        position: one position of a block and of two output channels.
        quad: as much, each quad of tiles.
        products: as much, 16 input channels.
        load: as many channels of U into registers.
        outputs: those of a tile and a channel, and how often Scaling.cycles.
    """

    group: int
    edge: int
    position: int
    quad: int
    products: int
    load: int
    outputs: tuple[int, int]


_CYCLES = {
    "cortex-m4": _Cycles(800, 770, 46, 12, 121, 17, (180, 36)),
    "cortex-m7": _Cycles(500, 390, 0, 28, 66, 0, (160, 13)),
}
#: Of code: the functions of winograd.h, and those of one layer.
SHARED_BYTES, LAYER_BYTES = 2600, 700


def _inside(out_size: int, in_size: int, pad: int) -> int:
    """Tiles along a side whose inputs are all in the image."""
    first = np.arange(0, out_size, TILE) - pad
    return int(np.count_nonzero((first >= 0) & (first + INPUTS <= in_size)))


def _cost(graph: Graph, op: Op, board: BoardLimits, *, block: int) -> Cost:
    shape, layer = _layer(graph, op)
    scales = scaling(layer)
    core = _CYCLES[board.core]
    tiles = shape.batch * _tiles(shape)
    inner = _inside(shape.out_h, shape.in_h, shape.pad_top)
    inner *= shape.batch * _inside(shape.out_w, shape.in_w, shape.pad_left)
    edges = tiles if shape.in_c % 4 else tiles - inner
    blocks, quads = -(-tiles // block), -(-tiles // QUAD)
    chunks = _u_depth(shape) // 16
    loads = blocks * chunks if chunks <= 2 else blocks + quads * (chunks - 1)
    pairs = -(-shape.out_c // 2)
    weight_bytes = pairs * POSITIONS * (8 + 4 * _u_depth(shape))

    cycles = _depth(shape) // 4 * (tiles * core.group + edges * core.edge)
    products = blocks * core.position + quads * (core.quad + chunks * core.products)
    cycles += pairs * POSITIONS * (products + loads * core.load)
    cycles += tiles * shape.out_c * (core.outputs[0] + core.outputs[1] * scales.cycles)
    cycles += int(blocks * weight_bytes * board.flash_byte_cycles)
    return Cost(
        cycles=cycles,
        flash_bytes=weight_bytes + scales.rows.nbytes + SHARED_BYTES + LAYER_BYTES,
        scratch_bytes=_scratch_bytes(shape, block),
        overlaps=(_overlap(shape, block),),
    )


for _block in (4, 8):
    register(
        Kernel(
            name=f"conv2d_winograd_s8_{_block}_tiles",
            op=(Conv2D,),
            template="conv2d_winograd_s8.c.j2",
            refuse=partial(_refuse, block=_block),
            cost=partial(_cost, block=_block),
            context=partial(_context, block=_block),
        )
    )
