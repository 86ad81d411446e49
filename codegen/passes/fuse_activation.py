"""A Relu behind an op that can clamp becomes that op's activation.

Exact where both tensors have one scale and zero point: the Relu then only clamps, and to the same
integers. Two clamps one after the other become one where an activation has the range of both.
"""

from __future__ import annotations

from dataclasses import replace

from codegen import ir
from codegen.fixed_point import activation_range
from codegen.passes.rewrite import readers, writer

_Clamping = (
    ir.Conv2D
    | ir.DepthwiseConv2D
    | ir.FullyConnected
    | ir.AveragePool2D
    | ir.MaxPool2D
    | ir.Add
    | ir.Sub
    | ir.Mul
)


def run(graph: ir.Graph) -> ir.Graph:
    """The graph with activations fused."""
    ops = list(graph.ops)
    for relu in graph.ops:
        if not isinstance(relu, ir.Relu):
            continue
        between, result = relu.inputs[0], relu.outputs[0]
        source = writer(ops, between)
        producer = ops[source] if source != -1 else None
        if not isinstance(producer, _Clamping):
            continue
        activation = _both(producer.activation, relu.activation, graph.tensors[result])
        if (
            activation is not None
            and readers(ops, between) == [ops.index(relu)]
            and between not in graph.outputs
            and graph.tensors[between].quant == graph.tensors[result].quant
        ):
            ops[source] = replace(producer, outputs=(result,), activation=activation)
            ops.remove(relu)
    return graph.with_ops(tuple(ops))


def _both(first: ir.Activation, second: ir.Activation, tensor: ir.Tensor) -> ir.Activation | None:
    """The activation that clamps a tensor as two one after the other do, if there is one."""
    ranges = [activation_range(each, tensor) for each in (first, second)]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low > high:
        return None
    for activation in (second, first):
        if activation_range(activation, tensor) == (low, high):
            return activation
    return None
