"""Which operators a graph may hold: those of which a rule is known, and no others.

A family says which of them its exports write (`ModelFamily.operators`), in the sets below or by name, and its exports
are held to that. A bundle is held to all of them: whose it says it is, is the word of whoever made it. An operator that
no family has written before gets a rule in one of the modules with rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_ad.bundle.graph import elementwise, layout, products, windows
from edge_ad.bundle.graph.operation import Operator

RULES: Mapping[str, Operator] = {
    **elementwise.OPERATORS,
    **layout.OPERATORS,
    **windows.OPERATORS,
    **products.OPERATORS,
}
"""What is known of every operator; "Constant" is the reader's own."""

KNOWN = frozenset({"Constant", *RULES})
"""What the graph of a bundle may hold."""

CONTRACT = frozenset({"Add", "Cast", "Constant", "Identity", "MatMul", "Mul", "ReduceMax", "Sigmoid", "Transpose"})
"""From the picture to the network, and from its answer to maps and score."""
PRECISIONS = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})
"""What fp16 and int8 write into a graph."""
CONVOLUTIONS = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Conv",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LeakyRelu",
        "MaxPool",
        "Pad",
        "ReduceMean",
        "Relu",
        "Resize",
    }
)
"""Convolutional backbones."""
SHAPES = frozenset(
    {
        "Concat",
        "ConstantOfShape",
        "Div",
        "Expand",
        "Gather",
        "Mod",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Unsqueeze",
    }
)
"""What tracing writes for sizes that depend on the picture's, and for parts of tensors."""
ATTENTION = frozenset(
    {
        "CumSum",
        "Cos",
        "Erf",
        "Exp",
        "LayerNormalization",
        "Not",
        "Pow",
        "ReduceL2",
        "ReduceSum",
        "Sin",
        "Softmax",
        "Sqrt",
    }
)
"""Backbones with attention or its normalisation: ConvNeXt, EdgeNeXt, MaxViT and others."""
CHOICES = frozenset({"ArgMax", "ArgMin", "ReduceMin", "TopK"})
"""The one way, beside constants, to positions that may be gathered."""

COMMON = CONTRACT | PRECISIONS | CONVOLUTIONS | SHAPES | CHOICES
"""What the graphs of every family may hold."""
ANY_BACKBONE = COMMON | ATTENTION
"""What the graphs of a family may hold whose features any network gives."""
