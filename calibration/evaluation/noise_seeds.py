"""What other draws of the noise in a graph would give: how far scores of the same pictures spread over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import Precision
from edge_ad.calibration.evaluation.evaluate import ImageResult
from edge_ad.errors import ConfigError, ExportError
from edge_ad.metrics.ranking import auroc
from edge_ad.models import model_family

FLOAT_TYPES = (np.dtype(np.float32), np.dtype(np.float16))


@dataclass(frozen=True)
class NoiseSpread:
    """Scores of the same pictures under several draws.

    Attributes:
        seeds: how many draws.
        image_auroc: of each, in order; None where there are only good or only defective pictures.
        score_std: standard deviation of a picture's score over the draws, mean over pictures.
        shift_std: of the mean score of all pictures: what moves a threshold.
        good, defective: mean scores; None where there is no such picture.
    """

    seeds: int
    image_auroc: tuple[float | None, ...]
    score_std: float
    shift_std: float
    good: float | None
    defective: float | None

    @property
    def content(self) -> dict[str, Any]:
        """For results.json."""
        return {**asdict(self), "image_auroc": list(self.image_auroc)}

    @property
    def lines(self) -> list[str]:
        """For people."""
        found = [value for value in self.image_auroc if value is not None]
        ranks = f"; image AUROC {min(found):.3f} to {max(found):.3f}" if found else ""
        gap = ""
        if self.good is not None and self.defective is not None:
            gap = f", where defective pictures lie {self.defective - self.good:.4f} above good ones"
        return [
            f"under {self.seeds} other draws of the noise the score of a picture varies by {self.score_std:.4f}"
            f" (standard deviation){gap}; that of all together by {self.shift_std:.4f}{ranks}",
            "a threshold belongs to the noise that it was chosen with",
        ]


def noise_of(bundle: Bundle, seed: int) -> Mapping[str, NDArray[np.float32]]:
    """Constants of a bundle's graphs that are chance, drawn anew. Raises: ConfigError where it has none."""
    manifest = bundle.manifest
    family = model_family(manifest.model.family)
    size_hw = manifest.preprocess.size_hw if manifest.tiles is None else manifest.tiles.tile_hw
    found = family.noise(manifest.model.config, size_hw, seed)
    if not found:
        raise ConfigError(
            "eval options", [f"noise_seeds: graphs of family {family.name!r} hold no noise; leave it out"]
        )
    return found


def with_noise(data: CheckedGraph, noise: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A graph with other values of some constants. Raises: ExportError where it does not hold one of them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(data)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in noise.items():
        tensor = tensors.get(name)
        kept = None if tensor is None else numpy_helper.to_array(tensor)
        if tensor is None or kept is None or kept.shape != value.shape or kept.dtype not in FLOAT_TYPES:
            raise ExportError(f"the graph has no constant {name!r} of shape {value.shape}; export the bundle again")
        tensor.CopyFrom(numpy_helper.from_array(value.astype(kept.dtype), name))
    changed: bytes = model.SerializeToString()
    return changed


def redrawn(bundle: Bundle, precision: Precision, seeds: int, folder: Path) -> Iterator[Bundle]:
    """The bundle with other noise, `seeds` times one after the other, in `folder`."""
    name, data = bundle.model_file(precision), bundle.read_graph(precision)
    for seed in range(seeds):
        config = {**bundle.manifest.model.config, "noise_seed": seed}
        changes = {
            "model": replace(bundle.manifest.model, config=config),
            "models": {precision: name},
            "quantization": {key: kept for key, kept in bundle.manifest.quantization.items() if key == precision},
            "openvino_ir": {},
            "openvino_ir_parity": None,
        }
        files = {name: with_noise(data, noise_of(bundle, seed))}
        with TemporaryDirectory(prefix=f"noise-{seed}-", dir=folder) as own:
            yield write_changed(bundle, Path(own) / "noise.edgead", changes, files=files)


def noise_spread(bundles: Iterator[Bundle], judge: Callable[[Bundle], Sequence[ImageResult]]) -> NoiseSpread:
    """Args: judge: gives the results of a bundle, of the same pictures in the same order."""
    results = [judge(bundle) for bundle in bundles]
    scored = [index for index in range(len(results[0])) if all(each[index].score is not None for each in results)]
    scores = np.array([[each[index].score for index in scored] for each in results], np.float64)
    truth = np.array([results[0][index].sample.anomalous for index in scored], np.bool_)
    means = scores.mean(0)
    return NoiseSpread(
        len(results),
        tuple(auroc(row, truth) for row in scores),
        float(scores.std(0).mean()),
        float(scores.mean(1).std()),
        float(means[~truth].mean()) if not truth.all() else None,
        float(means[truth].mean()) if truth.any() else None,
    )
