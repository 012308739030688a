"""ONNX bytes → a network definition of TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.builder.request import EngineRequest
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, optional
from edge_ad.runtime.engines.tensorrt.messages import Messages, plain

MAX_REFUSALS = 3
PATCH_MAP = "patch_map"  # output of every graph that comes before maps and scores


@dataclass(frozen=True)
class ParsedNetwork:
    """A network and what has to outlive it.

    Attributes:
        network: an `INetworkDefinition`.
        parser, model: the parser and the ONNX bytes, into which the network's weights point.
        image: its one input.
    """

    network: Any
    parser: Any
    model: CheckedGraph
    image: Any

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the input; -1 where it is open."""
        return tuple(self.image.shape)

    @property
    def takes_any_batch(self) -> bool:
        return self.image_shape[0] == -1


def parsed_network(
    trt: Any, builder: Any, model: CheckedGraph, request: EngineRequest, messages: Messages
) -> ParsedNetwork:
    """Parse a graph.

    Precision lives in the graph, so the network is strongly typed where TensorRT knows that. On the DLA it is not as
    long as there is a flag that says fp16: that is how those versions reach it.

    Raises: EngineError that names the node which the parser refuses.
    """
    title = FLAVOURS[request.flavour].title
    network = builder.create_network(_network_flags(trt, request))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(model):
        refusals = [_refusal(parser.get_error(index)) for index in range(parser.num_errors)] or [messages.cause]
        more = f" (and {len(refusals) - MAX_REFUSALS} more)" if len(refusals) > MAX_REFUSALS else ""
        raise EngineError(
            f"{title} {trt.__version__} cannot read the bundle's {request.precision} graph:"
            f" {'; '.join(refusals[:MAX_REFUSALS])}{more}"
        )
    if network.num_inputs != 1:
        raise EngineError(
            f"{title} {trt.__version__} sees {network.num_inputs} inputs in the bundle's {request.precision} graph,"
            " wanted the image alone; export it again"
        )
    if request.tail == "kernel":
        _end_at_patch_map(network)
    return ParsedNetwork(network, parser, model, network.get_input(0))


def _end_at_patch_map(network: Any) -> None:
    """Leave out the other outputs, and with them the layers that nothing else needs."""
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    if PATCH_MAP not in [output.name for output in outputs]:
        held = ", ".join(output.name for output in outputs)
        raise EngineError(f"the graph has no output {PATCH_MAP!r} (it has {held}) that a kernel could go on with")
    for output in outputs:
        if output.name != PATCH_MAP:
            network.unmark_output(output)


def is_strongly_typed(trt: Any, request: EngineRequest) -> bool:
    """Whether the graph alone decides the arithmetic."""
    has_flag = optional(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is not None
    return has_flag and (request.dla is None or optional(trt.BuilderFlag, "FP16") is None)


def _network_flags(trt: Any, request: EngineRequest) -> int:
    flags = 0
    if is_strongly_typed(trt, request):
        flags |= 1 << int(optional(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"))
    if trt.__version__.startswith("8."):  # later versions know no other batch
        flags |= 1 << int(optional(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"))
    return flags


def _refusal(error: Any) -> str:
    """What the parser says of one node; TensorRT 8 knows its number alone."""
    name_of, operator_of = optional(error, "node_name"), optional(error, "node_operator")
    name = name_of() if name_of is not None else ""
    operator = operator_of() if operator_of is not None else ""
    text = plain(error.desc())
    if name:
        return f"node {name!r} ({operator}): {text}"
    return text if error.node() < 0 or name_of is not None else f"node {error.node()}: {text}"
