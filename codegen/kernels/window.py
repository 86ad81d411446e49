"""The geometry of convolutions and pooling: images, windows, strides, and what windows read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.ir import Conv2D, DepthwiseConv2D, Graph, Op


@dataclass(frozen=True, slots=True)
class Window:
    """The shape of a convolution or pooling op."""

    batch: int
    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.out_h * self.out_w

    @property
    def all_pixels(self) -> int:
        """Output pixels of all images."""
        return self.batch * self.pixels

    @property
    def is_pointwise(self) -> bool:
        """Whether output pixel i depends on input pixel i alone."""
        is_same = (self.in_h, self.in_w) == (self.out_h, self.out_w)
        return (self.kh, self.kw, self.stride_h, self.stride_w) == (1, 1, 1, 1) and is_same

    def lowest_read(self, pixel: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offset of the first input byte in each output pixel's window; pixels of all images."""
        image, in_image = pixel // self.pixels, pixel % self.pixels
        top = np.maximum(in_image // self.out_w * self.stride_h - self.pad_top, 0)
        left = np.maximum(in_image % self.out_w * self.stride_w - self.pad_left, 0)
        return ((image * self.in_h + top) * self.in_w + left) * self.in_c

    @property
    def run_taps(self) -> int:
        """Taps of a kernel row whose inputs adjoin each other."""
        return self.kw if self.dilation_w == 1 else 1

    @property
    def is_padded(self) -> bool:
        """Whether any window reaches over the edge of the image."""
        bottom = (self.out_h - 1) * self.stride_h + (self.kh - 1) * self.dilation_h - self.pad_top
        right = (self.out_w - 1) * self.stride_w + (self.kw - 1) * self.dilation_w - self.pad_left
        reaches_over = bottom >= self.in_h or right >= self.in_w
        return reaches_over or self.pad_top > 0 or self.pad_left > 0


def window(graph: Graph, op: Conv2D | DepthwiseConv2D) -> Window:
    """The shape of `op`."""
    n, in_h, in_w, in_c = graph.tensors[op.inputs[0]].shape
    _, out_h, out_w, out_c = graph.tensors[op.outputs[0]].shape
    _, kh, kw, _ = graph.tensors[op.inputs[1]].shape
    return Window(
        batch=n,
        in_h=in_h,
        in_w=in_w,
        in_c=in_c,
        out_h=out_h,
        out_w=out_w,
        out_c=out_c,
        kh=kh,
        kw=kw,
        stride_h=op.stride_h,
        stride_w=op.stride_w,
        dilation_h=op.dilation_h,
        dilation_w=op.dilation_w,
        pad_top=op.padding.top,
        pad_left=op.padding.left,
    )


def conv_weights(graph: Graph, op: Op) -> NDArray[np.int8]:
    """Weights as (out_c, kh, kw, in_c) int8; those of a depthwise op with one input channel too."""
    data = graph.tensors[op.inputs[1]].data
    assert data is not None, "check has made sure that weights are constant"
    weights = data.astype(np.int8)
    return weights.transpose(3, 1, 2, 0) if isinstance(op, DepthwiseConv2D) else weights
