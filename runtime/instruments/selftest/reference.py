"""What is taken to be right: another engine's answers on the CPU, to model inputs made on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.engine import EngineSpec
from edge_ad.errors import MissingExtraError
from edge_ad.image.preprocess import ModelInput, Preprocessor
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.instruments.selftest.agreement import Judged, infer_in_batches, judged, scale_of, threshold_for
from edge_ad.runtime.instruments.selftest.images import FrameSet
from edge_ad.runtime.instruments.selftest.options import EngineName

REFERENCES: dict[EngineName, tuple[EngineName, ...]] = {
    "tensorrt": ("onnxruntime", "openvino"),
    "openvino": ("onnxruntime",),
    "onnxruntime": ("openvino",),
}
"""What an engine is compared with: the first that is installed. ONNX Runtime computes the graph as it is written."""


@dataclass(frozen=True)
class Reference:
    """What is known to be right.

    Attributes:
        engine: whose answers these are.
        inputs: model inputs of the frames, made on the CPU.
        judged: its answers.
        in_fp32: its answers with the bundle's float32 model; None where that is the model in question, or is not there.
        threshold: where masks and verdicts are compared.
        threshold_of: where that comes from, in words.
        postprocess: of the bundle.
    """

    engine: EngineName
    inputs: tuple[ModelInput, ...]
    judged: Judged
    in_fp32: Judged | None
    threshold: float
    threshold_of: str
    postprocess: PostprocessSpec

    @property
    def scale(self) -> float:
        return scale_of(self.judged.outputs)


def make_reference(engine: EngineName, bundle: Bundle, spec: EngineSpec, frames: FrameSet) -> Reference:
    """The reference for an engine.

    Args:
        engine: that is tested.
        spec: what it computes.

    Raises: EngineError; MissingExtraError when no other engine is installed.
    """
    inputs = _inputs(bundle, frames)
    name, right = _first_answers(REFERENCES[engine], bundle, spec, inputs)
    in_fp32 = None
    if spec.precision != "fp32" and "fp32" in bundle.manifest.models:
        sha256 = bundle.manifest.files[bundle.model_file("fp32")]
        in_fp32 = _answers(name, bundle, replace(spec, precision="fp32", model_sha256=sha256), inputs)
    own = bundle.thresholds(spec.precision).image
    return Reference(
        engine=name,
        inputs=inputs,
        judged=right,
        in_fp32=in_fp32,
        threshold=threshold_for(own, right),
        threshold_of="the bundle's threshold"
        if own is not None
        else "the 99 % quantile of the reference's maps, for the bundle has no threshold",
        postprocess=bundle.manifest.postprocess,
    )


def _inputs(bundle: Bundle, frames: FrameSet) -> tuple[ModelInput, ...]:
    preprocess = Preprocessor(bundle.manifest.preprocess)
    try:
        return tuple(preprocess(frame) for frame in frames.judged)
    finally:
        preprocess.close()


def _first_answers(
    names: tuple[EngineName, ...], bundle: Bundle, spec: EngineSpec, inputs: tuple[ModelInput, ...]
) -> tuple[EngineName, Judged]:
    for name in names[:-1]:
        try:
            return name, _answers(name, bundle, spec, inputs)
        except MissingExtraError:
            continue  # the next one will do as well
    return names[-1], _answers(names[-1], bundle, spec, inputs)


def _answers(name: EngineName, bundle: Bundle, spec: EngineSpec, inputs: tuple[ModelInput, ...]) -> Judged:
    with make_engine(name, lambda: bundle.read_graph(spec.precision), spec) as engine:
        outputs = infer_in_batches(engine, [made.image_hwc for made in inputs], spec.batch or 1)
    return judged(outputs, [made.geometry for made in inputs], bundle.manifest.postprocess)
