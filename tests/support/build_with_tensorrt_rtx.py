"""Builds TensorRT-RTX plans of one ONNX file without a GPU and says on stdout, as JSON, what came of it.

    python build_with_tensorrt_rtx.py MODEL.onnx SM86 SM89 [--batches 1 2 4]

A process of its own: a builder that crashes takes nothing but itself down. The plan's own text lists every constant
with its type and size, which is how int8 weights are told from float ones without a GPU to run them on.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import tensorrt_rtx as trt

from edge_ad.runtime.engines.tensorrt.builder.payload import plan_payload


class Log(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
    """Keeps what was said from warnings upwards."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.Severity.WARNING:
            self.lines.append(f"{severity.name}: {message}")


def build(path: str, target: str, batches: tuple[int, int, int]) -> dict[str, Any]:
    """Parse and compile for one compute capability.

    A graph of open batch is built for batches from the first to the last, best at the middle one.
    """
    log = Log()
    builder = trt.Builder(log)
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        refusals = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"parsed": False, "built": False, "said": refusals + log.lines}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    chosen = config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    image, usable = network.get_input(0), True
    if image.shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, *((batch, *tuple(image.shape)[1:]) for batch in batches))
        usable = config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {
        "parsed": True,
        "built": plan is not None and chosen and usable,
        "said": log.lines,
        "tensors": {tensor.name: [tensor.dtype.name, *tensor.shape] for tensor in tensors},
        "plan_bytes": 0 if plan is None else plan.nbytes,
        "payload_bytes": {} if plan is None else plan_payload(bytes(plan)),
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("onnx")
    arguments.add_argument("targets", nargs="+")
    arguments.add_argument("--batches", nargs=3, type=int, default=(1, 2, 4))
    given = arguments.parse_args()
    results = {target: build(given.onnx, target, tuple(given.batches)) for target in given.targets}
    print(json.dumps({"version": trt.__version__, "plans": results}))


if __name__ == "__main__":
    main()
