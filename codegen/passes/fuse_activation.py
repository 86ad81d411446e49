"""A Relu behind an op that can clamp becomes that op's activation.

Exact where both tensors have one scale and zero point: the Relu then only clamps, and to the same
integers.
"""

from __future__ import annotations

from dataclasses import replace

from codegen import ir
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
        if (
            isinstance(producer, _Clamping)
            and producer.activation is ir.Activation.NONE
            and readers(ops, between) == [ops.index(relu)]
            and between not in graph.outputs
            and graph.tensors[between].quant == graph.tensors[result].quant
        ):
            ops[source] = replace(producer, outputs=(result,), activation=relu.activation)
            ops.remove(relu)
    return graph.with_ops(tuple(ops))
