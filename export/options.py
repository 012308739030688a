"""Options of `edge-ad export`, the same from the command line and from a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edge_ad.bundle.consistency import MAX_BATCH, MAX_OPSET, MIN_OPSET
from edge_ad.bundle.specs import Filter, PostprocessSpec, PreprocessSpec, ResizeMode, ScoreKind
from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.models import DEFAULT_FAMILY, FAMILIES, model_family
from edge_ad.models.family import ModelFamily, option_names
from edge_ad.models.option_types import Grid, Name, Positive, Size
from edge_ad.models.training.options import grid_faults, padded_score, score_faults, tile_grid
from edge_ad.training_run import export_values, is_run
from edge_ad.validation import build_rest, by_name, strict

ExportFormat = Literal["onnx", "openvino", "engine"]


@strict
@dataclass(frozen=True)
class ExportOptions:
    """Everything `edge-ad export` can be told.

    Attributes:
        checkpoint: trained model in the official format of its family, or the folder of a training run, which then
            says the rest.
        output: directory of the bundle to write.
        family: model family.
        imgsz: model input, (height, width) in pixels; written `288` or `256x320`; None for the family's.
        resize: shorter side before the centre crop; `min(imgsz)` when None.
        resize_mode: see PreprocessSpec; None for the family's.
        filter: see PreprocessSpec; None for the family's.
        score: see PostprocessSpec; None for the family's.
        tiles: rows and columns of tiles of `imgsz` that a picture is cut into; None for none.
        tile_overlap: model pixels that neighbouring tiles share; None for the family's.
        threshold: raw score from which on a frame is anomalous, written into the bundle.
        format: `onnx` alone, or with `openvino` IR beside it; `engine` writes what `onnx` does, and the command then
            builds an engine from it.
        batch: fixed batch size of the graph; None leaves it open.
        opset: ONNX operator set, 13 to 17.
        force: replace an existing bundle.
        network: what the family's own options say, see `ModelFamily.network_options`.
        assumed: what had to be assumed about the options, one line each.
    """

    checkpoint: Path
    output: Path
    family: Name = DEFAULT_FAMILY
    imgsz: Size | None = None
    resize: Positive | None = None
    resize_mode: ResizeMode | None = None
    filter: Filter | None = None
    score: ScoreKind | None = None
    tiles: Grid | None = None
    tile_overlap: Positive | None = None
    threshold: float | None = None
    format: ExportFormat = "onnx"
    batch: Annotated[int, Field(gt=0, le=MAX_BATCH)] | None = None
    opset: Annotated[int, Field(ge=MIN_OPSET, le=MAX_OPSET)] = MAX_OPSET
    force: bool = False
    network: Any = field(default=None, kw_only=True)
    assumed: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def preprocess(self) -> PreprocessSpec:
        return self.preprocess_from(model_family(self.family).preprocess)

    @property
    def postprocess(self) -> PostprocessSpec:
        return self.postprocess_from(model_family(self.family).postprocess)

    @property
    def overlap(self) -> int:
        """Model pixels that tiles share."""
        usual: int = model_family(self.family).train_options.tile_overlap
        return self.tile_overlap or usual

    def grid_of(self, tile: PreprocessSpec) -> TileGrid | None:
        """The tiles; None where a picture is one. Args: tile: of a tile."""
        return None if self.tiles is None else tile_grid(self.tiles, tile.size_hw, self.overlap)

    def preprocess_from(self, default: PreprocessSpec) -> PreprocessSpec:
        """How pictures become the network's input, where nothing being said means `default`; in tiles, one tile."""
        height, width = self.imgsz or default.size_hw
        mode = self.resize_mode or default.resize_mode
        same = (height, width, mode) == (*default.size_hw, default.resize_mode)
        usual = default.resize if same else min(height, width)
        resize = (self.resize or usual) if mode == "shorter_side_crop" else None
        chosen = self.filter or default.filter
        return replace(default, height=height, width=width, resize_mode=mode, resize=resize, filter=chosen)

    def postprocess_from(self, default: PostprocessSpec) -> PostprocessSpec:
        """What is made of the network's answers, where nothing being said means `default`."""
        return default.with_score(self.score, model_family(self.family).score_ranges)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, and what is allowed and yet hardly meant, one line each."""
        least, most = self.postprocess.scores
        if self.threshold is None or least <= self.threshold <= most:
            return self.assumed
        hardly = (
            f"scores lie between {least:g} and {most:g}; threshold {self.threshold:g} gives one verdict to all frames"
        )
        return (*self.assumed, hardly)


NOT_GIVEN = frozenset({"network", "assumed"})  # what is found out
OWN = frozenset(entry.name for entry in fields(ExportOptions)) - NOT_GIVEN


def of_families() -> frozenset[str]:
    """Options of trained networks, of whatever family, beside those that all have."""
    found = (option_names(model_family(family).network_options) for family in FAMILIES)
    return frozenset(name for names in found for name in names) - OWN


def export_options(values: dict[str, Any], where: str, overrides: dict[str, Any] | None = None) -> ExportOptions:
    """Check options by name.

    A file that lacks is a fault only beside others: alone, reading it raises CheckpointError.

    Args:
        values: by name, words joined by `_` or `-`; None is the same as not given.
        overrides: by field name; they win.

    Raises: ConfigError with every fault; CheckpointError for the folder of a run without a checkpoint.
    """
    named, faults = by_name(values)
    of_some = of_families()
    named |= {key: value for key, value in (overrides or {}).items() if value is not None}
    given = {key: value for key, value in named.items() if value is not None or key not in OWN | of_some}
    if isinstance(given.get("checkpoint"), (str, Path)) and is_run(Path(given["checkpoint"])):
        given = export_values(Path(given["checkpoint"])) | {k: v for k, v in given.items() if k != "checkpoint"}
    assumed: tuple[str, ...] = ()
    if given.get("family") is None:
        given["family"], assumed = _recognised(given.get("checkpoint"))
    known = given["family"] in tuple(FAMILIES)
    if not known:
        faults.append(f"family: {given['family']!r} is unknown, wanted one of {', '.join(FAMILIES)}")
        given = {key: value for key, value in given.items() if key not in of_some} | {"family": DEFAULT_FAMILY}
    family = model_family(given["family"])
    of_network = set(option_names(family.network_options))
    told = {key: value for key, value in given.items() if key in of_network}
    rest = {key: value for key, value in given.items() if key not in of_network}
    faults += [_foreign(key, family) for key in rest if key in of_some]
    faults += [f"{key}: unknown key" for key in rest if key in NOT_GIVEN]
    rest = {key: value for key, value in rest.items() if key not in of_some | NOT_GIVEN}
    options, wrong = build_rest(ExportOptions, rest, {"checkpoint": Path(), "output": Path()})
    network, wrong_network = build_rest(family.network_options, told, {})
    faulty = {fault.key for fault in (*wrong, *wrong_network)}
    faults += [fault.line for fault in (*wrong, *wrong_network)]
    options = replace(options, network=network, assumed=assumed)
    faults += _contradictions(options)
    faults += family.faults(network, faulty) if known else []
    if "imgsz" not in faulty and known:
        faults += family.size_faults(options.preprocess.size_hw)
        if not faulty & {"tiles", "tile_overlap"}:
            faults += grid_faults(options.tiles, options.preprocess.size_hw, options.overlap)
            faults += family.tile_faults(options.tiles is not None, options.overlap)
    faults += _missing(options, faulty, folders=True)
    if faults:
        raise ConfigError(where, [*faults, *_missing(options, faulty, folders=False)])
    return options


def _recognised(checkpoint: object) -> tuple[str, tuple[str, ...]]:
    """The family of a checkpoint that nobody has named one for, and what is to be said of that."""
    from edge_ad.models.recognise import families_of

    found = families_of(Path(checkpoint)) if isinstance(checkpoint, (str, Path)) else {}
    if len(found) != 1 or DEFAULT_FAMILY in found:
        return DEFAULT_FAMILY, ()
    ((name, tensor),) = found.items()
    return name, (f"with {tensor!r} in it taken for a checkpoint of {name}, else give --family",)


def _foreign(key: str, family: ModelFamily) -> str:
    owners = [name for name in FAMILIES if key in option_names(model_family(name).network_options)]
    return f"{key}: family {family.name!r} has no such option; it is one of {', '.join(owners)}"


def _contradictions(options: ExportOptions) -> list[str]:
    mode = options.preprocess.resize_mode
    family = model_family(options.family)
    faults = score_faults(family.postprocess, options.score, family.score_ranges)
    if options.tile_overlap is not None and options.tiles is None:
        faults.append("tile_overlap: belongs to --tiles RxC, which is not given; leave it out")
    if options.resize is not None and mode != "shorter_side_crop":
        faults.append(f"resize: belongs to resize_mode shorter_side_crop, not to {mode}; leave it out")
    if not faults and mode == "letterbox" and options.postprocess.scored_map is None:
        faults.append(padded_score(options.postprocess.score))
    return faults


def _missing(options: ExportOptions, faulty: set[str], *, folders: bool) -> list[str]:
    """Folders, or files, that are named and are not there."""
    from edge_ad.models.weights import file_fault, folder_fault

    kinds = {entry.name: entry.metadata.get("metavar") for entry in fields(options.network)}
    named: dict[str, Any] = {"checkpoint": options.checkpoint}
    named |= {name: getattr(options.network, name) for name in option_names(type(options.network))}
    if options.checkpoint.is_dir():
        del named["checkpoint"]  # some families read folders; loading says what is wrong with another one
    paths = {key: path for key, path in named.items() if key not in faulty and isinstance(path, Path)}
    wanted = {key: path for key, path in paths.items() if (kinds.get(key) == "DIR") == folders}
    found = {key: (path, folder_fault(path) if folders else file_fault(path)) for key, path in wanted.items()}
    return [f"{key}: {path}: {fault}" for key, (path, fault) in found.items() if fault]
