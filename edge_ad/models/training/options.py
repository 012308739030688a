"""What the training of every family can be told, the same from the command line, from YAML and from a run's record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from edge_ad.bundle.consistency import MAX_SIDE
from edge_ad.bundle.specs import Filter, PostprocessSpec, PreprocessSpec, ResizeMode, ScoreKind, ScoreRange
from edge_ad.bundle.tiles import STRIDE, TileGrid
from edge_ad.datasets import Dataset, open_dataset, plain_dataset
from edge_ad.errors import ConfigError, one_line
from edge_ad.models.option_types import Positive, Share, Size, Tiles, option
from edge_ad.models.training.variations import Flip, Turn, Variations, copies_of
from edge_ad.validation import build_rest, strict

View = Literal["auto", "shorter_side_crop", "stretch", "letterbox"]
"""How pictures are brought to the model's size: a `ResizeMode`, or `auto`, which sees all of them."""
CROP = "shorter_side_crop"
OptionsT = TypeVar("OptionsT", bound="TrainOptions")


def score_faults(spec: PostprocessSpec, score: ScoreKind | None, ranges: Mapping[ScoreKind, ScoreRange]) -> list[str]:
    """What is wrong with a score that somebody wants in place of a family's. Args: ranges: of those of its graph."""
    try:
        spec.with_score(score, ranges)
    except ValueError:
        *others, last = dict.fromkeys(("map_max", "patch_max", *ranges, spec.score))
        return [f"score: wanted {', '.join(others)} or {last}, as the family has them, got {score}"]
    return []


def padded_score(score: ScoreKind) -> str:
    """What is wrong with a score that the graph gives of its whole canvas."""
    return f"score: padding would count in {score!r}; give --resize-mode stretch, or --score map_max or patch_max"


def tile_grid(rows_columns: tuple[int, int], tile_hw: tuple[int, int], overlap: int) -> TileGrid | None:
    """The grid that options tell; None for a single tile, which is the whole picture. Raises: ValueError."""
    grid = TileGrid(*rows_columns, *tile_hw, overlap)
    return None if grid.count == 1 else grid


def grid_faults(tiles: str | tuple[int, int] | None, tile_hw: tuple[int, int], overlap: int) -> list[str]:
    """What is wrong with tiles that somebody wants, one line each. Args: tiles: rows and columns, a word, or None."""
    if tiles in (None, "off"):
        return []
    try:
        grid = TileGrid(*((1, 1) if isinstance(tiles, str) else tiles), *tile_hw, overlap)
    except ValueError as exc:
        return [f"tile_{one_line(exc)}"]
    height, width = grid.canvas_hw
    if max(height, width) > MAX_SIDE:
        return [f"tiles: {grid} make {width}x{height} pixels, wanted sides of at most {MAX_SIDE}; give fewer"]
    return []


@strict
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `edge-ad train` that all families have. A family derives from it, with defaults of its own.

    Attributes:
        output: folder of the run.
        data: folder in the layout of a known data set, or of good pictures alone.
        good, bad, masks: folders of good pictures, defective ones and their ground truth, in place of `data`.
        textures: folder of pictures that anomalies are made of; drawn patterns when None.
        preset: where the defaults come from.
        imgsz, resize, resize_mode, filter: as for export; `auto` is chosen by the pictures, see `view`.
        tiles: into how many rows and columns of tiles a picture is cut, each of `imgsz`; `auto` is chosen by the
            pictures, see `view`; `off` makes each picture one.
        tile_overlap: model pixels that neighbouring tiles share.
        rotate: at which angles parts may lie: as in the pictures (`none`), in quarters of a turn, `any`; `auto` looks
            at the pictures. Good pictures are learned from in so many angles.
        flip, shift, light: how else good pictures may vary, see `Variations`.
        copies: variations of each picture; None for as many as are useful.
        batch: pictures in a step; of tiles, so many of them.
        epochs: how often the pictures are gone through, or as the family counts.
        select: which epoch's weights are kept: the `best` on labelled test pictures (by training losses where there
            is none), or the `last`.
        eval_every: epochs between two looks at the labelled test pictures; 0 never looks.
        patience: epochs without a better result after which training stops; 0 never stops early.
        score: which score labelled pictures are ranked by, and the bundle's.
        seed: of everything that is drawn.
        device: `auto` takes a CUDA device where there is one.
        cache_mb: memory for decoded pictures and features, each.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    """Values by the name of a preset; the defaults are those of `paper`."""
    input_spec: ClassVar[PreprocessSpec] = PreprocessSpec(256, 256)
    output_spec: ClassVar[PostprocessSpec] = PostprocessSpec()
    """What of the two specs no option tells."""
    score_ranges: ClassVar[Mapping[ScoreKind, ScoreRange]] = {}
    """Of the scores that the family's graph can give, see `ModelFamily`."""

    output: Path
    data: Path | None = None
    good: Path | None = option(None, "Good pictures, in place of DATA.", "DIR")
    bad: Path | None = option(None, "Defective pictures, to choose the best epoch by (with --good).", "DIR")
    masks: Path | None = option(None, "Ground truth of --bad, under the same names.", "DIR")
    textures: Path | None = option(None, "Pictures to make anomalies of, such as DTD (default: drawn patterns).", "DIR")
    preset: Literal["paper", "fast"] = option(
        "paper", "auto (default: tries some), fast (minutes on a CPU) or paper (as published).", "NAME"
    )
    imgsz: Size = option((256, 256), "Model input in pixels (paper: 256).", "N|HxW")
    resize: Positive | None = option(None, "Shorter side before the centre crop (default: imgsz).")
    resize_mode: View = option("stretch", "stretch (paper), shorter_side_crop, letterbox or auto (fast).", "MODE")
    filter: Filter = option(
        "pillow_bilinear", "Of the resize: pillow_bilinear, pillow_bicubic, opencv_bilinear or opencv_area.", "NAME"
    )
    tiles: Tiles = option("off", "Judge each picture in RxC tiles of imgsz, auto (by the pictures) or off.", "RxC")
    tile_overlap: Positive = option(STRIDE, "Pixels that tiles share (default: 32).")
    rotate: Turn | Literal["auto"] = option(
        "none", "Angles that parts lie at: none (as shown), 90, any or auto (by the pictures).", "ANGLES"
    )
    flip: Flip = option("none", "Mirror images that are good too: none, across, down or both.", "WAY")
    shift: Share = option(0.0, "Parts may lie so far off, as a share of the picture (default: 0).", "X")
    light: Share = option(0.0, "Pictures may be so much brighter or darker (default: 0).", "X")
    copies: Positive | None = option(None, "Variations of each picture by these (default: 3 to 11).")
    batch: Annotated[int, Field(gt=0, le=1024)] = option(8, "Pictures in a step (paper: 8).")
    epochs: Positive = option(1, "Epochs.")
    select: Literal["best", "last"] = option("best", "Keep the best epoch (paper) or the last.", "RULE")
    eval_every: Annotated[int, Field(ge=0)] = option(
        1, "Epochs between looks at labelled pictures; 0: never (paper: 1)."
    )
    patience: Annotated[int, Field(ge=0)] = option(
        0, "Stop after so many epochs without a better one (default: never)."
    )
    score: ScoreKind | None = option(None, "map_max, patch_max or another of the family's (default: its own).", "KIND")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = option(0, "Seed of everything that is drawn (default: 0).")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto (default), cpu or cuda.", "NAME")
    cache_mb: Positive = option(2048, "Memory for pictures and for features, each (default: 2048).")

    @property
    def tile(self) -> PreprocessSpec:
        """How a picture would become one tile, once that is chosen (`seeing`)."""
        assert self.resize_mode != "auto"
        height, width = self.imgsz
        crop = self.resize_mode == CROP
        resize = (self.resize or min(self.imgsz)) if crop else None
        of_family = self.input_spec
        return replace(
            of_family, height=height, width=width, resize_mode=self.resize_mode, resize=resize, filter=self.filter
        )

    @property
    def grid(self) -> TileGrid | None:
        """Its tiles, once they are chosen; None where a picture is one."""
        assert self.tiles != "auto"
        return None if self.tiles == "off" else tile_grid(self.tiles, self.imgsz, self.tile_overlap)

    @property
    def preprocess(self) -> PreprocessSpec:
        """How pictures become the model's input, in tiles the canvas of all of them."""
        grid = self.grid
        return self.tile if grid is None else grid.canvas(self.tile)

    def seeing(self: OptionsT, mode: ResizeMode, tiles: tuple[int, int] | None = None) -> OptionsT:
        """The same, and where the view or its tiles are to be chosen, these."""
        chosen = replace(self, resize_mode=mode) if self.resize_mode == "auto" else self
        return replace(chosen, tiles=tiles or "off") if chosen.tiles == "auto" else chosen

    def varying(self: OptionsT, turn: Turn) -> OptionsT:
        """The same, and where the angles are to be chosen, these."""
        return replace(self, rotate=turn) if self.rotate == "auto" else self

    def variations(self, pictures: int) -> Variations:
        """Of each of so many pictures, once the angles are chosen (`varying`)."""
        assert self.rotate != "auto"
        useful = copies_of(self.rotate, self.flip, self.shift, self.light, pictures)
        copies = (self.copies or useful) if useful else 0
        return Variations(self.rotate, self.flip, self.shift, self.light, copies, self.seed)

    @property
    def postprocess(self) -> PostprocessSpec:
        """How labelled pictures are scored."""
        return self.output_spec.with_score(self.score, self.score_ranges)

    @property
    def export(self) -> dict[str, Any]:
        """What `edge-ad export` has to know of the finished run, by option name."""
        placed = {"imgsz": list(self.imgsz), "resize": self.resize, "resize_mode": self.resize_mode}
        told = {**placed, "filter": self.filter, "score": self.score}
        grid = self.grid
        return told if grid is None else {**told, "tiles": [grid.rows, grid.columns], "tile_overlap": grid.overlap}

    def dataset(self) -> Dataset:
        """The pictures. Raises: SourceError when there is no good one, or a folder cannot be read."""
        if self.data is not None:
            return open_dataset(self.data)
        assert self.good is not None
        return plain_dataset(self.good, self.bad, self.masks)

    def contradictions(self) -> Iterator[str]:
        """What is wrong between the options, one line each that begins with a key; a family adds its own."""
        if (self.data is None) == (self.good is None):
            yield "data: give either a data set or --good DIR" + (", not both" if self.data else "")
        for name in ("bad", "masks"):
            if getattr(self, name) is not None and self.good is None:
                yield f"{name}: belongs to --good DIR; a data set has its own"
        if self.masks is not None and self.bad is None:
            yield "masks: are those of --bad DIR, which is not given"
        if self.resize is not None and self.resize_mode != CROP:
            yield f"resize: belongs to resize_mode shorter_side_crop, not to {self.resize_mode}; leave it out"
        if self.copies is not None and (self.rotate, self.flip, self.shift, self.light) == ("none", "none", 0, 0):
            yield "copies: of nothing that varies; give --rotate, --flip, --shift or --light too"
        yield from grid_faults(self.tiles, self.imgsz, self.tile_overlap)
        faults = score_faults(self.output_spec, self.score, self.score_ranges)
        yield from faults
        if not faults and self.resize_mode == "letterbox" and self.postprocess.scored_map is None:
            yield padded_score(self.postprocess.score)
        if self.select == "best" and 0 < self.patience < self.eval_every:
            yield (
                f"patience: {self.patience} epochs would pass without a look at the labels; wanted eval_every or more"
            )
        if self.select == "last" and self.patience:
            yield "patience: with select last nothing is better or worse; give --select best, or leave it out"

    def network_faults(self, faulty: set[str]) -> list[str]:
        """What is wrong with the network that the options name, before any file is read.

        Args:
            faulty: keys that have been complained of; what depends on them is not looked at.
        """
        return []

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the preset that `given` asks for, as far as they hold beside what else is given."""
        preset = str(given.get("preset", "paper"))
        values = dict(cls.presets.get(preset, {}))
        if preset != "paper":
            values["rotate"] = "auto"
        if preset != "paper" and "resize" not in given:
            values["resize_mode"] = "auto"
        if given.get("resize_mode", values.get("resize_mode", CROP)) != CROP:
            values["resize"] = None
        if given.get("backbone", values.get("backbone")) != values.get("backbone"):
            values.pop("backbone_weights", None)  # those of another network
        return values

    @classmethod
    def checked(
        cls: type[OptionsT],
        values: Mapping[str, Any],
        where: str,
        size_faults: Callable[[tuple[int, int]], list[str]] | None = None,
        tile_faults: Callable[[bool, int], list[str]] | None = None,
    ) -> OptionsT:
        """Options by name; None is the same as not given.

        Args:
            size_faults: (height, width) → what the family has against that input, see `ModelFamily.size_faults`.
            tile_faults: what it has against tiles, see `ModelFamily.tile_faults`.

        Raises: ConfigError with every fault.
        """
        given = {key.replace("-", "_"): value for key, value in values.items() if value is not None}
        options, wrong = build_rest(cls, {**cls.preset_values(given), **given}, {"output": Path()})
        faults = [fault.line for fault in wrong]
        faults += options.contradictions()
        faulty = {fault.key for fault in wrong}
        faults += options.network_faults(faulty)
        if size_faults is not None and "imgsz" not in faulty:
            faults += size_faults(options.imgsz)
        if tile_faults is not None and not faulty & {"tiles", "tile_overlap"}:
            faults += tile_faults(options.tiles != "off", options.tile_overlap)
        if faults:
            raise ConfigError(where, faults)
        return options
