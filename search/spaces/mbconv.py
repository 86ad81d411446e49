"""A small space of inverted residual blocks (MBConv) with skip connections."""

from __future__ import annotations

from search.architecture import Architecture, Builder, Shape
from search.errors import SpaceError
from search.space import Parameter, Point, Space, checked_choices, register

#: Images at least this large are halved by the first convolution.
LARGE_IMAGE = 32


@register("mbconv")
def mbconv(
    stages: tuple[int, ...] = (2, 3, 4),
    depth: tuple[int, ...] = (1, 2, 3),
    widths: tuple[int, ...] = (8, 16, 24, 32, 48),
    expand: tuple[int, ...] = (1, 3, 6),
    kernels: tuple[int, ...] = (3, 5, 7),
) -> Space:
    """Number of stages, and per stage its depth, width, expansion ratio and kernel size.

    Block: Sandler et al. 2018, "MobileNetV2", arXiv:1801.04381, section 3.3; stages with one
    setting each as in Tan et al. 2019, "MnasNet", arXiv:1807.11626, section 4. Every stage but the
    first starts with stride 2.

    Differs from the papers: ReLU instead of ReLU6 (int8 ranges are calibrated), no widening
    convolution before the classifier.

    Args:
        stages: numbers of stages.
        depth: numbers of blocks of a stage.
        widths: numbers of channels at the ends of a block.
        expand: ratios of the channels inside a block to those at its start; 1 leaves the first
            convolution out.
        kernels: sizes of the depthwise kernels, odd.
    """
    stages = checked_choices("mbconv", "stages", stages, low=1, high=8)
    depth = checked_choices("mbconv", "depth", depth, low=1, high=8)
    widths = checked_choices("mbconv", "widths", widths, low=1, high=512)
    expand = checked_choices("mbconv", "expand", expand, low=1, high=8)
    kernels = checked_choices("mbconv", "kernels", kernels, low=1, high=15)
    for kernel in kernels:
        if kernel % 2 == 0:
            raise SpaceError("mbconv", f"option 'kernels': {kernel} is even")
    parameters = [Parameter("stem", widths), Parameter("stages", stages)]
    for stage in range(max(stages)):
        deeper = ("stages", frozenset(s for s in stages if s > stage))
        parameters += [
            Parameter(f"depth_{stage}", depth, when=deeper),
            Parameter(f"width_{stage}", widths, when=deeper),
            Parameter(f"expand_{stage}", expand, when=deeper),
            Parameter(f"kernel_{stage}", kernels, when=deeper),
        ]
    return Space("mbconv", tuple(parameters), _build)


def _build(point: Point, input_shape: Shape, classes: int) -> Architecture:
    builder = Builder(input_shape)
    is_large = max(input_shape[:2]) >= LARGE_IMAGE
    x = builder.conv(0, point.number("stem"), 3, stride=2 if is_large else 1)
    for stage in range(point.number("stages")):
        for block in range(point.number(f"depth_{stage}")):
            x = _inverted_residual(
                builder,
                x,
                out_c=point.number(f"width_{stage}"),
                expand=point.number(f"expand_{stage}"),
                kernel=point.number(f"kernel_{stage}"),
                stride=2 if stage > 0 and block == 0 else 1,
            )
    return builder.classifier(x, classes)


def _inverted_residual(
    builder: Builder, x: int, *, out_c: int, expand: int, kernel: int, stride: int
) -> int:
    inner = builder.conv(x, expand * builder.shape(x)[2], 1) if expand > 1 else x
    inner = builder.depthwise(inner, kernel, stride=stride)
    out = builder.conv(inner, out_c, 1, relu=False)
    return builder.sum(x, out) if builder.shape(x) == builder.shape(out) else out
