"""Torch module → ONNX bytes that honour the contract.

The TorchScript-based exporter is used because it writes the opset that is asked for; torch's newer default writes 18
where 17 was wanted and says nothing. The opset, the names, types and shapes of the saved graph are asserted either way.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_ad.bundle.specs import TensorSpec, contract
from edge_ad.errors import ExportError, one_line

ELEMENT_TYPES = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}


@dataclass(frozen=True)
class OnnxGraph:
    """A serialised graph and what its tensors look like."""

    data: bytes
    image: TensorSpec
    outputs: tuple[TensorSpec, ...]
    opset: int


def graph_from_module(module: nn.Module, size_hw: tuple[int, int], *, batch: int | None, opset: int) -> OnnxGraph:
    """Trace a contract module into ONNX.

    Args:
        module: (N, H, W, 3) uint8 → patch_map, anomaly_map, pred_score; in eval mode.
        size_hw: model input in pixels.
        batch: fixed N, or None for a dynamic one.
        opset: operator set of the saved graph.

    Raises: ExportError when the graph cannot be written or breaks the contract.
    """
    example = torch.zeros((batch or 1, *size_hw, 3), dtype=torch.uint8)
    with torch.no_grad():
        patch_map, _, _ = module(example)
    image, outputs = contract(*size_hw, (int(patch_map.shape[1]), int(patch_map.shape[2])), batch)
    names = [tensor.name for tensor in outputs]
    model = _traced(module, example, [image.name], names, dynamic=batch is None, opset=opset)
    for node in model.graph.node:
        node.doc_string = ""
    check_contract(model, image, outputs, opset)
    return OnnxGraph(model.SerializeToString(), image, outputs, opset)


def _traced(
    module: nn.Module, example: torch.Tensor, inputs: list[str], outputs: list[str], *, dynamic: bool, opset: int
) -> onnx.ModelProto:
    axes = {name: {0: "N"} for name in (*inputs, *outputs)} if dynamic else None
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        _silent_stdout(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                module,
                (example,),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
            )
            return onnx.load_model(path)
        except Exception as exc:
            raise ExportError(f"the network cannot be written as ONNX opset {opset}: {one_line(exc)}") from exc


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Drop what is printed: when it fails, the exporter prints whole graphs, from C++ and past `sys.stdout`."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def check_contract(model: onnx.ModelProto, image: TensorSpec, outputs: tuple[TensorSpec, ...], opset: int) -> None:
    """Raise ExportError unless the graph has this opset, only standard operators, and exactly these tensors."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:
        raise ExportError(f"the exported graph is no valid ONNX: {one_line(exc)}") from exc
    written = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if written != {"ai.onnx": opset}:
        raise ExportError(f"the exporter wrote operator sets {written}, wanted ai.onnx {opset} alone")
    for kind, found, wanted in (("input", model.graph.input, (image,)), ("output", model.graph.output, outputs)):
        names = [value.name for value in found]
        if names != [tensor.name for tensor in wanted]:
            raise ExportError(f"the graph has {kind}s {names}, the contract wants {[tensor.name for tensor in wanted]}")
        for value, tensor in zip(found, wanted, strict=True):
            _check_tensor(kind, value, tensor)


def _check_tensor(kind: str, value: onnx.ValueInfoProto, wanted: TensorSpec) -> None:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    # Shape inference may leave a fixed size unnamed; a size that is named must be the right one.
    same = len(shape) == len(wanted.shape) and all(a in (b, None) for a, b in zip(shape, wanted.shape, strict=True))
    if tensor.elem_type != ELEMENT_TYPES[wanted.dtype] or not same:
        raise ExportError(f"{kind} {wanted.name!r} is {shape}, the contract wants {wanted.shape} {wanted.dtype}")
