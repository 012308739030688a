"""ONNX → OpenVINO IR with float32 weights, for tools that read that. Our own engine starts from the ONNX graph."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from edge_ad.errors import ExportError
from edge_ad.export.parity import Runner
from edge_ad.openvino_core import load_openvino, openvino_core, openvino_reason


def ir_from_onnx(data: bytes, stem: str) -> dict[str, bytes]:
    """Convert a graph. Returns: the `.xml` and `.bin` files by name. Raises: ExportError."""
    openvino = load_openvino()
    try:
        model = openvino_core().read_model(io.BytesIO(data))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{stem}.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return {name: (Path(folder) / name).read_bytes() for name in (f"{stem}.xml", f"{stem}.bin")}
    except (RuntimeError, UnicodeDecodeError) as exc:
        raise ExportError(f"OpenVINO cannot read the exported graph: {openvino_reason(exc)}") from exc


def ir_runner(files: dict[str, bytes], stem: str) -> Runner:
    """The IR on OpenVINO's CPU device in float32."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        core = openvino_core()
        model = core.read_model(Path(folder) / f"{stem}.xml")
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch_nhwc: list(compiled(batch_nhwc).values())
