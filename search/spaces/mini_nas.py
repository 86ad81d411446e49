"""The space of Mini-NAS: plain networks, every layer with its own operation and kernel."""

from __future__ import annotations

from search.architecture import Architecture, Builder, Shape
from search.errors import SpaceError
from search.space import Parameter, Point, Space, checked_choices, register

SEPARABLE, PLAIN = "sep", "conv"


@register("mini_nas")
def mini_nas(
    depth: tuple[int, ...] = tuple(range(3, 16)),
    channels: tuple[int, ...] = (16, 32, 48, 64),
    kernels: tuple[int, ...] = (3, 5, 7),
) -> Space:
    """Depth, base channels, and per layer an operation and a kernel size.

    Source: "Mini-NAS: A Neural Architecture Search Framework for Small Scale Image Classification
    Applications", tinyML 2021, sections 3.1 and 4.2.2. The defaults are the paper's bounds; the
    paper says to lower them for small budgets.

    Args:
        depth: numbers of searched layers, at least 3.
        channels: numbers of channels before the first stride.
        kernels: kernel sizes, odd.
    """
    depth = checked_choices("mini_nas", "depth", depth, low=3, high=64)
    channels = checked_choices("mini_nas", "channels", channels, low=1, high=512)
    kernels = checked_choices("mini_nas", "kernels", kernels, low=1, high=15)
    for kernel in kernels:
        if kernel % 2 == 0:
            raise SpaceError("mini_nas", f"option 'kernels': {kernel} is even")
    parameters = [Parameter("depth", depth), Parameter("channels", channels)]
    for layer in range(max(depth)):
        deeper = ("depth", frozenset(d for d in depth if d > layer))
        parameters.append(Parameter(f"op_{layer}", (SEPARABLE, PLAIN), when=deeper))
        parameters.append(Parameter(f"kernel_{layer}", kernels, when=deeper))
    return Space("mini_nas", tuple(parameters), _build)


def _build(point: Point, input_shape: Shape, classes: int) -> Architecture:
    builder = Builder(input_shape)
    depth, channels = point.number("depth"), point.number("channels")
    # Section 4.2.2: the network starts with a convolution of twice the base channels.
    x = builder.conv(0, 2 * channels, 3)
    for layer in range(depth):
        # Table 1: with 8 layers the third and the sixth have stride 2 and double the channels.
        is_reduction = layer in (depth // 3, 2 * depth // 3)
        channels *= 2 if is_reduction else 1
        stride = 2 if is_reduction else 1
        kernel = point.number(f"kernel_{layer}")
        if point[f"op_{layer}"] == SEPARABLE:
            x = builder.conv(builder.depthwise(x, kernel, stride=stride), channels, 1)
        else:
            x = builder.conv(x, channels, kernel, stride=stride)
    return builder.classifier(x, classes)
