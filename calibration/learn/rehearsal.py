"""What a graph would say of a picture if it had learned other patches, without computing the network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.tiles import TileGrid
from edge_ad.calibration.learn.graph import Floats, Place, serialized, wired
from edge_ad.errors import ExportError, one_line
from edge_ad.image.tiles import joined_map, shared_cells

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from onnxruntime import InferenceSession

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Scene:
    """One picture, as far as the network goes.

    Attributes:
        tensors: what the rest of the graph is computed from.
        patches: (D, h, w) float32, minus the centre.
    """

    tensors: Tensors
    patches: Floats


@dataclass(frozen=True)
class Said:
    """The three outputs of a graph for one picture: (h, w), (H, W) and a number."""

    patch_map: Floats
    anomaly_map: Floats
    score: float


class Rehearsal:
    """A graph in two parts: what no learned patch changes, and what follows from them.

    Args:
        base: a graph without learned patches.
        place: where it takes them in.
        none: of them, (0, D).
        tiles: how the graph cuts a picture apart; None where it does not.
    """

    def __init__(self, base: ModelProto, place: Place, none: Floats, tiles: TileGrid | None = None) -> None:
        self._place, self._tiles = place, tiles
        self._model = wired(base, place)
        graph = self._model.graph
        makers = {name: node for node in graph.node for name in node.output}
        fixed = {tensor.name for tensor in graph.initializer}
        self._affected: list[NodeProto] = []
        changed = set(place.constants_of(none))
        for node in graph.node:
            if changed & set(node.input):
                self._affected.append(node)
                changed |= set(node.output)
        read = [name for node in self._affected for name in node.input if name and name not in changed]
        read += [value.name for value in graph.output if value.name not in changed]
        self._constants = {name: makers[name] for name in read if name in makers and makers[name].op_type == "Constant"}
        self._read = [name for name in dict.fromkeys(read) if name not in fixed and name not in self._constants]
        self._network = _session(_part(self._model, [n for n in graph.node if n not in self._affected], self._wanted))
        self._rest: InferenceSession | None = None

    @property
    def _wanted(self) -> list[str]:
        return list(dict.fromkeys([*self._read, self._place.patches]))

    def scene(self, image_hwc: NDArray[np.uint8]) -> Scene:
        """Compute the network. Args: image_hwc: (H, W, 3) uint8 RGB at model size. Raises: ExportError."""
        found = dict(zip(self._wanted, run(self._network, self._wanted, image_hwc), strict=True))
        patches = self._whole(found[self._place.patches]) / np.float32(-2)
        return Scene({name: found[name] for name in self._read}, patches)

    def _whole(self, patches: Floats) -> Floats:
        """(N, D, h, w) or, in tiles, (N·T, D, h, w) → (D, h, w) of the first picture."""
        if self._tiles is None:
            first: Floats = patches[0]
            return first
        rows, columns = patches.shape[2:]
        of_picture = patches[: self._tiles.count]
        return joined_map(of_picture, self._tiles, shared_cells(self._tiles, (rows, columns)))

    def say(self, scene: Scene, rows: Floats) -> Said:
        """What the graph says with learned patches (K, D)."""
        given = {**scene.tensors, **self._place.constants_of(rows)}
        if self._rest is None:
            self._rest = self._second_part(given)
        names = [value.name for value in self._model.graph.output]
        values = dict(zip(names, self._rest.run(names, given), strict=True))
        return Said(values["patch_map"][0], values["anomaly_map"][0], float(values["pred_score"][0]))

    def _second_part(self, values: Tensors) -> InferenceSession:
        from onnx import helper

        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
            for name, value in values.items()
        ]
        names = [value.name for value in self._model.graph.output]
        part = _part(self._model, [*self._constants.values(), *self._affected], names)
        del part.graph.input[:]
        part.graph.input.extend(inputs)
        return _session(part)


class Whole:
    """A graph as it is.

    Args:
        model: with what it has learned.
    """

    def __init__(self, model: ModelProto) -> None:
        self._session = _session(model)

    def say(self, image_hwc: NDArray[np.uint8]) -> Said:
        """What it says of a picture, (H, W, 3) uint8 RGB at model size. Raises: ExportError."""
        patch_map, anomaly_map, score = run(self._session, ["patch_map", "anomaly_map", "pred_score"], image_hwc)
        return Said(patch_map[0], anomaly_map[0], float(score[0]))


def run(session: InferenceSession, names: list[str], image_hwc: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Outputs of a graph for one picture, which stands for all of a fixed batch. Raises: ExportError."""
    image = session.get_inputs()[0]
    batch = image.shape[0] if isinstance(image.shape[0], int) else 1
    try:
        values: list[NDArray[Any]] = session.run(names, {image.name: np.repeat(image_hwc[None], batch, axis=0)})
    except Exception as exc:
        raise ExportError(f"the float graph cannot be computed: {one_line(exc)}; export the bundle again") from exc
    return values


def shapes_of(base: ModelProto, names: list[str], image_hw: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of inner tensors without the batch. Raises: ExportError."""
    session = _session(_part(base, list(base.graph.node), names))
    return [tuple(value.shape[1:]) for value in run(session, names, np.zeros((*image_hw, 3), np.uint8))]


def _part(model: ModelProto, nodes: list[NodeProto], outputs: list[str]) -> ModelProto:
    from onnx import ModelProto, helper

    part = ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:]
    part.graph.node.extend(nodes)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    return part


def _session(model: ModelProto) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(serialized(model), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise ExportError(f"the float graph cannot be computed: {one_line(exc)}; export the bundle again") from exc
