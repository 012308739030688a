"""ONNX → OpenVINO IR, weights kept in float32."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from edge_ad.errors import ExportError, one_line


def ir_from_onnx(data: bytes, stem: str) -> dict[str, bytes]:
    """Convert a graph. Returns: the `.xml` and `.bin` files by name. Raises: ExportError."""
    import openvino

    try:
        model = openvino.Core().read_model(io.BytesIO(data))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{stem}.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return {name: (Path(folder) / name).read_bytes() for name in (f"{stem}.xml", f"{stem}.bin")}
    except RuntimeError as exc:
        raise ExportError(f"OpenVINO cannot read the exported graph: {one_line(exc)}") from exc
