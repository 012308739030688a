"""What a model family offers to the rest: training, reading its checkpoints, giving a module for export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.training_run import RunRecord

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class NetworkOptions:
    """What a user says about a network; None is read from the checkpoint or left to the family's default."""

    backbone: str | None = None
    backbone_weights: Path | None = None
    layers: tuple[str, ...] | None = None
    embed_dim: int | None = None
    pretrain_embed_dim: int | None = None
    hidden_dim: int | None = None


@dataclass(frozen=True)
class LoadedNetwork(Generic[NetworkT]):
    """A trained network and where it came from.

    Attributes:
        network: in eval mode.
        config: plain values for the manifest.
        checkpoint_sha256: hash of the checkpoint file.
        notes: what had to be assumed, one line each, for the user to confirm.
    """

    network: NetworkT
    config: dict[str, Any]
    checkpoint_sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """What the caller of a long job wants to hear; the defaults hear nothing.

    Attributes:
        say: receives a line for each step and each assumption.
        begin: receives the title of a part and how much there is to do.
        step: one more is done; receives what to show beside the bar.
    """

    say: Callable[[str], None] = lambda _: None
    begin: Callable[[str, int], None] = lambda _, __: None
    step: Callable[[str], None] = lambda _: None


class ModelFamily(Protocol):
    """One kind of detector. Both modules take (N, H, W, 3) uint8 RGB and return the three outputs of the contract."""

    name: str

    def faults(self, options: NetworkOptions) -> list[str]:
        """What can be said against the options before any file is read, each with its key path.

        An empty `layers` asks about the rest alone.
        """
        ...

    def load(self, checkpoint: Path, options: NetworkOptions) -> LoadedNetwork[Any]:
        """Read a trained network. Raises: CheckpointError, ConfigError."""
        ...

    def train(
        self, values: Mapping[str, Any], where: str, progress: Progress, *, resume: bool = False, force: bool = False
    ) -> RunRecord:
        """Train a network and write a run (see `edge_ad.training_run`).

        Args:
            values: options by name; None is the same as not given.
            where: what messages call the options.
            resume: go on with an interrupted run that was told the same.
            force: replace an earlier run.

        Raises: EdgeAdError; what was written before is still there.
        """
        ...

    def reference_module(
        self, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        """The network as published, the oracle of the export check."""
        ...

    def export_module(
        self, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        """The network in the form that runs fastest; standard operators only."""
        ...
