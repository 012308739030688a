"""What a model family offers to the rest: training, reading its checkpoints, giving a module for export.

What is declared here and in a family's own `family.py` is read without PyTorch; its network and its trainer are
imported when they are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from edge_ad.bundle.graph.operators import COMMON
from edge_ad.bundle.specs import ChannelOrder, PostprocessSpec, PreprocessSpec, ScoreKind, ScoreRange
from edge_ad.bundle.tiles import STRIDE, TileGrid
from edge_ad.training_run import RunRecord
from edge_ad.validation import strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edge_ad.models.backbone import Backbone
    from edge_ad.models.progress import Progress
    from edge_ad.models.references import References
    from edge_ad.models.training.options import TrainOptions
    from edge_ad.models.training.session import Material, Recipe

NetworkT = TypeVar("NetworkT")


@strict
@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Of a family whose checkpoints say all."""


@dataclass(frozen=True)
class About:
    """What a user wants to know before choosing a family; one line each.

    Attributes:
        paper: who published it, and where.
        good_at: what it is good at, and what not.
        cost: of one picture at the default size.
        training: how long it takes.
        checkpoints: which files it reads.
        licence: of the original code.
    """

    paper: str
    good_at: str
    cost: str
    training: str
    checkpoints: str
    licence: str


@dataclass(frozen=True)
class LoadedNetwork(Generic[NetworkT]):
    """A trained network and where it came from.

    Attributes:
        network: in eval mode.
        config: plain values for the manifest.
        checkpoint_sha256: hash of the checkpoint file.
        notes: what had to be assumed, one line each, for the user to confirm.
        channel_order: that it was trained with; None where it is that of the family.
        preprocess, postprocess: defaults of an export where those of the file's source are others than the family's;
            what the user says comes before them.
    """

    network: NetworkT
    config: dict[str, Any]
    checkpoint_sha256: str
    notes: tuple[str, ...] = ()
    channel_order: ChannelOrder | None = None
    preprocess: PreprocessSpec | None = None
    postprocess: PostprocessSpec | None = None


class ModelFamily(ABC):
    """One kind of detector.

    Attributes:
        name: as users write it.
        about: for those who choose.
        network_options: dataclass of what a user may say of a trained network, see `option_types.option`.
        train_options: dataclass of what training can be told.
        preprocess, postprocess: defaults of an export; the size, the resize and the score may be told otherwise.
        score_ranges: scores that only its graph knows and that a user may ask for, with their bounds.
        known_by: ends of names of tensors that only its checkpoints hold.
        builds_on: families of whose networks it has one too, so that its checkpoints hold their tensors as well.
        known_by_bytes: what files of another kind begin with that only it reads.
        multiple: sides of the model input have to be multiples of it.
        border: pixels along the edge of its input of which its map says nothing; tiles have to share more than twice
            that many.
        untiled: why its pictures cannot be judged in tiles; None where they can.
        bank: module of its exported network that searches a bank of good patches, see `edge_ad.models.patchcore.bank`;
            `edge-ad learn` adds to it. None where it has none.
        appearance: modules of its exported network whose outputs tell what a patch looks like; beside a network without
            a bank, `edge-ad learn` keeps good patches in these terms.
        rounding_unit: size of the numbers whose difference its patch map is, where that is no probability: 1 of a map
            of 1 - cosine. Float32 rounds those, however small their difference is, and the export check allows it; 0
            where the map's own size is all that counts.
        takes_students: whether its head goes with another backbone that gives the same features: `on_backbone`,
            `refit` and `checkpoint` are its own then, see `edge_ad.models.distillation`.
        operators: those of ONNX that its exports are written in, see `edge_ad.bundle.graph.operators`; the export holds
            every graph to it.
    """

    name: ClassVar[str]
    about: ClassVar[About]
    network_options: ClassVar[type[Any]] = NoOptions
    train_options: ClassVar[type[TrainOptions]]
    preprocess: ClassVar[PreprocessSpec]
    postprocess: ClassVar[PostprocessSpec] = PostprocessSpec()
    score_ranges: ClassVar[Mapping[ScoreKind, ScoreRange]] = {}
    known_by: ClassVar[tuple[str, ...]] = ()
    builds_on: ClassVar[tuple[str, ...]] = ()
    known_by_bytes: ClassVar[tuple[bytes, ...]] = ()
    multiple: ClassVar[int] = 1
    border: ClassVar[int] = 0
    untiled: ClassVar[str | None] = None
    bank: ClassVar[str | None] = None
    appearance: ClassVar[tuple[str, ...]] = ()
    rounding_unit: ClassVar[float] = 0.0
    takes_students: ClassVar[bool] = False
    operators: ClassVar[frozenset[str]] = COMMON

    def size_faults(self, size_hw: tuple[int, int]) -> list[str]:
        """What is wrong with a model input of (height, width) pixels.

        Exports and trainings of every family ask it before any file is read.
        """
        if any(side % self.multiple for side in size_hw):
            return [f"imgsz: family {self.name!r} wants multiples of {self.multiple}, got {size_hw[0]}x{size_hw[1]}"]
        return []

    def tile_faults(self, asked: bool, overlap: int) -> list[str]:
        """What is wrong with tiles.

        Args:
            asked: whether there are to be some.
            overlap: model pixels that neighbours share.
        """
        if asked and self.untiled is not None:
            return [f"tiles: family {self.name!r} has none, for {self.untiled}; leave it out"]
        if asked and overlap <= 2 * self.border:
            least = 2 * self.border // STRIDE * STRIDE + STRIDE
            return [f"tile_overlap: family {self.name!r} wants {least} pixels or more, got {overlap}"]
        return []

    def faults(self, options: Any, faulty: set[str]) -> list[str]:
        """What can be said against network options before any file is read, each with its key.

        Args:
            options: of `network_options`.
            faulty: keys that have been complained of; what depends on them is not looked at.
        """
        return []

    def noise(self, config: Mapping[str, Any], size_hw: tuple[int, int], seed: int) -> dict[str, NDArray[np.float32]]:
        """Constants of its exported graphs that are chance, as another draw has them, by name; by default none are.

        Args:
            config: of the network, as in the manifest.
            size_hw: of the pictures, or tiles, that its network sees.
        """
        return {}

    @abstractmethod
    def load(self, checkpoint: Path, options: Any, references: References) -> LoadedNetwork[Any]:
        """Read a trained network.

        Args:
            options: of `network_options`.
            references: good pictures, for a checkpoint that does not hold all; none where the user gave none, which
                `References.required` refuses. Only options that are `ReferenceOptions` can name some.

        Raises: CheckpointError, ConfigError.
        """

    @abstractmethod
    def recipe(self) -> Recipe[Any, Any]:
        """What it brings to a training with `train_options`."""

    def train(
        self,
        values: Mapping[str, Any],
        where: str,
        progress: Progress,
        *,
        resume: bool = False,
        force: bool = False,
        known: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Train a network and write a run (see `edge_ad.training_run`).

        Args:
            values: options by name; None is the same as not given.
            where: what messages call the options.
            resume: go on with an interrupted run that was told the same.
            force: replace an earlier run.
            known: what was found out before, by name, for the record.

        Raises: EdgeAdError; what was written before is still there.
        """
        from edge_ad.models.training.session import train

        options = self.train_options.checked(values, where, self.size_faults, self.tile_faults)
        border, untiled = self.border, self.untiled
        return train(
            self.recipe(), options, progress, resume=resume, force=force, border=border, untiled=untiled, known=known
        )

    def on_backbone(self, network: Any, backbone: Backbone) -> Any:
        """A network whose head stays, on another backbone, which gives features of the same shapes."""
        raise NotImplementedError

    def refit(self, network: Any, told: Mapping[str, Any], material: Material[Any]) -> None:
        """Fit anew what of a head is made in one pass over the features of the good pictures; by default nothing is.

        Args:
            told: options of the training that the head came from.
            material: the good pictures, and the options of whoever changed the backbone.
        """
        return

    def checkpoint(self, network: Any) -> dict[str, Any]:
        """What is kept of a network beside its backbone, in the official format."""
        raise NotImplementedError

    def on_canvas(
        self, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, tiles: TileGrid | None
    ) -> LoadedNetwork[Any]:
        """A network that was told where in a picture its input lies; by default it does not care.

        Args:
            preprocess: of a picture, or of a tile.
            tiles: how pictures are cut apart; None where they are not.
        """
        return loaded

    @abstractmethod
    def published(
        self, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        """The network as published, the oracle of the export check.

        It takes (N, 3, H, W) float32, normalised, and gives what the activation of the post-process makes a patch map
        of, (N, h, w) float32; or an `edge_ad.models.contract.Answer`, where the anomaly map or the score is its own.
        """

    @abstractmethod
    def fast(self, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> nn.Module:
        """The same in the form that runs fastest; standard operators only."""


def option_names(kind: type[Any]) -> tuple[str, ...]:
    """Names of the fields of an options dataclass."""
    return tuple(field.name for field in fields(kind))
