"""An architecture as a torch module, and its weights with batch normalisation folded in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from search.architecture import (
    Architecture,
    Conv,
    Dense,
    Depthwise,
    GlobalMean,
    Node,
    Shape,
    Sum,
    same_padding,
)
from search.quantize import LayerWeights


class Network(nn.Module):
    """An architecture with batch normalisation after every convolution; input (n, c, h, w)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = nn.ModuleList(
            _layer(node, architecture.shapes) for node in architecture.nodes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """Every value of the architecture by its number: the input, then what each node gives."""
        values = [x]
        for node, layer in zip(self.architecture.nodes, self.layers, strict=True):
            if isinstance(node, Sum):
                values.append(values[node.a] + values[node.b])
            elif isinstance(node, GlobalMean):
                values.append(values[node.x].mean(dim=(2, 3)))
            else:
                values.append(layer(values[node.x]))
        return values

    @torch.no_grad()
    def folded(self) -> dict[int, LayerWeights]:
        """Weights by node, with batch normalisation (its running statistics) folded in."""
        folded = {}
        for index, (node, layer) in enumerate(
            zip(self.architecture.nodes, self.layers, strict=True)
        ):
            if isinstance(layer, _NormalisedConv):
                weight, bias = layer.folded()
                if isinstance(node, Depthwise):  # (c, 1, kh, kw) -> (1, kh, kw, c)
                    weight = weight.permute(1, 2, 3, 0)
                else:  # (out_c, in_c, kh, kw) -> (out_c, kh, kw, in_c)
                    weight = weight.permute(0, 2, 3, 1)
                folded[index] = _layer_weights(weight, bias)
            elif isinstance(layer, nn.Linear):
                folded[index] = _layer_weights(layer.weight, layer.bias)
        return folded


class _NormalisedConv(nn.Module):
    """Convolution with SAME padding, batch normalisation, and ReLU if the node has one."""

    def __init__(self, node: Conv | Depthwise, in_shape: Shape) -> None:
        super().__init__()
        in_c = in_shape[2]
        is_depthwise = isinstance(node, Depthwise)
        out_c = in_c if isinstance(node, Depthwise) else node.out_c
        pad = same_padding(in_shape, node.kernel, node.stride)
        # torch pads evenly by itself; an odd element after needs a step of its own
        is_even = pad.top == pad.bottom and pad.left == pad.right
        self.pad = () if is_even else (pad.left, pad.right, pad.top, pad.bottom)
        self.conv = nn.Conv2d(
            in_c,
            out_c,
            node.kernel,
            node.stride,
            padding=(pad.top, pad.left) if is_even else 0,
            groups=in_c if is_depthwise else 1,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_c)
        self.relu = isinstance(node, Depthwise) or node.relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(functional.pad(x, self.pad) if self.pad else x))
        return functional.relu(x) if self.relu else x

    def folded(self) -> tuple[Tensor, Tensor]:
        norm = self.norm
        assert norm.running_var is not None and norm.running_mean is not None
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = self.conv.weight.double() * factor[:, None, None, None]
        return weight, norm.bias.double() - norm.running_mean.double() * factor


def _layer(node: Node, shapes: tuple[Shape, ...]) -> nn.Module:
    if isinstance(node, Conv | Depthwise):
        return _NormalisedConv(node, shapes[node.x])
    if isinstance(node, Dense):
        return nn.Linear(shapes[node.x][2], node.out)
    return nn.Identity()  # Sum and GlobalMean have no weights


def _layer_weights(weight: Tensor, bias: Tensor) -> LayerWeights:
    return LayerWeights(
        np.ascontiguousarray(weight.detach().cpu().numpy().astype(np.float32)),
        bias.detach().cpu().numpy().astype(np.float32),
    )
