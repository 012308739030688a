"""From good pictures to a bank: one pass of the backbone, and the greedy choice of the patches that stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_ad.errors import ConfigError
from edge_ad.image.frame import ImageArray
from edge_ad.models.patch_head.features import FrozenTaps
from edge_ad.models.patchcore.bank import check_fits, constant_bytes
from edge_ad.models.patchcore.checkpoint import checkpoint_parts
from edge_ad.models.patchcore.coreset import entries_of, k_centre, random_projection, random_start
from edge_ad.models.patchcore.embedding import check_single_patch, fast_embedding
from edge_ad.models.patchcore.network import PatchCore, as_rows, reweighted_score
from edge_ad.models.patchcore.position import AXES, places_of, spread
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions
from edge_ad.models.training.drawing import chunks
from edge_ad.models.training.epochs import EpochFigures
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.session import Material, SamplePair
from edge_ad.validation import build

PARTS = 20  # steps of the progress bar in which the entries are chosen
FLOAT_BYTES = 4


def refit(network: PatchCore, told: Mapping[str, Any], material: Material[Any]) -> None:
    """Fill the bank of a network anew, from the features of its own backbone.

    Args:
        told: options of the training that the old bank came from.
    """
    now = material.options
    options = build(PatchCoreTrainOptions, dict(told), "options of the run")
    options = options.seeing(now.resize_mode, None if now.tiles == "off" else now.tiles).varying(now.rotate)
    options = replace(options, cache_mb=now.cache_mb)
    fit = BankFit(network, replace(material, options=options, labelled=None))
    for _ in fit.epochs(0, lambda _: None):
        pass


class BankFit:
    """A network and the pictures that its bank is made of; see `edge_ad.models.training.session.Trainer`.

    Attributes:
        patches: of all pictures.
        entries: how many of them stay.

    Raises: ConfigError for more entries than patches or than a file holds, patches that memory does not hold, and
    places of parts that lie at any angle.
    """

    state_keys = ()

    def __init__(self, network: PatchCore, material: Material[PatchCoreTrainOptions]) -> None:
        self.network, self._pictures, self._labelled = network, material.pictures, material.labelled
        self._options = options = material.options
        if faults := options.place_faults():
            raise ConfigError("train options", faults)
        self._taps = FrozenTaps(network.backbone, options.preprocess, amp=options.amp)
        shapes = network.backbone.shapes(*options.imgsz)
        check_single_patch(shapes[0][1:], options.layers[0])
        self._embedding = fast_embedding(network.config, [width for width, _, _ in shapes]).to(self._taps.device)
        self._per_picture = shapes[0][1] * shapes[0][2]
        self.patches = len(material.pictures) * self._per_picture
        self.entries = entries_of(options.coreset, self.patches)
        self._dim = network.config.embed_dim
        self._axes = AXES if network.config.tile_position else 0
        reweighted = options.postprocess.score == "reweighted"
        check_fits(
            self.entries,
            self._dim + self._axes,
            options.neighbours if reweighted else 0,
            constant_bytes(network.backbone),
        )
        self._projection = random_projection(self._dim, options.seed)
        held = self.patches * (self._projected + self._axes) * FLOAT_BYTES
        if held > options.cache_mb * 1_000_000:
            raise ConfigError(
                "cache_mb",
                [
                    f"the patches of {len(self._pictures)} pictures take {held // 1_000_000 + 1} MB while entries are"
                    f" chosen, {options.cache_mb} are allowed; raise it, or give fewer pictures"
                ],
            )

    @property
    def _projected(self) -> int:
        return self._dim if self._projection is None else int(self._projection.shape[1])

    def steps(self) -> int:
        """Batches of pictures, and parts of the choice."""
        return len(self._batches()) + PARTS

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """The one pass, unless it is done."""
        if first:
            return
        began = time.perf_counter()
        projected, kept = self._features(lambda: after_step("features"))
        seen = time.perf_counter()
        picks, radius = self._choose(projected, after_step)
        self.network.bank = self._entries(picks, kept)
        if self._axes:
            self.network.places = self._places[picks % len(self._places)].float()
        figures = {
            "entries": float(self.entries),
            "radius": radius,
            "features_s": seen - began,
            "coreset_s": time.perf_counter() - seen,
        }
        standing = None if self._labelled is None else self._standing(self._labelled)
        yield EpochFigures(0, {}, figures, standing)

    def checkpoint(self) -> dict[str, Any]:
        return checkpoint_parts(self.network)

    def state(self) -> dict[str, Any]:
        """None beside the checkpoint: what is interrupted begins anew."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass

    def samples(self) -> Iterator[SamplePair]:
        """None: nothing is synthesised."""
        return iter(())

    def _batches(self) -> list[Sequence[int]]:
        return chunks(range(len(self._pictures)), self._options.batch)

    def _embedded(self, images: Sequence[ImageArray]) -> Tensor:
        """(N, D, h, w) on the device."""
        with torch.no_grad():
            embedding: Tensor = self._embedding(self._taps(images))
        return embedding

    def _features(self, after_batch: Callable[[], None]) -> tuple[Tensor, list[Tensor]]:
        """Projected patches (P, d) in the order of the pictures, and the unprojected ones as far as memory goes.

        The latter are parts (·, D) of the first batches, on the CPU. Where places count, (P, 2) of them are behind the
        projected ones, as far apart as they are.
        """
        width = self._projected
        projected = torch.empty(self.patches, width + self._axes, device=self._taps.device)
        projection = None if self._projection is None else self._projection.to(projected.device)
        kept: list[Tensor] = []
        room = self._options.cache_mb * 1_000_000 - projected.nbytes
        total, squares = torch.zeros(2, self._dim, dtype=torch.float64, device=projected.device)
        done = 0
        for indices in self._batches():
            rows = as_rows(self._embedded([self._pictures[index].image_hwc for index in indices]))
            projected[done : done + len(rows), :width] = rows if projection is None else rows @ projection
            done += len(rows)
            if self._axes:
                total += rows.double().sum(0)
                squares += rows.double().square().sum(0)
            room -= rows.nbytes if projection is not None else 0
            if projection is not None and room >= 0:
                kept.append(rows.cpu())
            after_batch()
        if self._axes:
            self._know_places(spread(total, squares, self.patches))
            own = (self._places * self.network.config.place_scale).to(projected)
            projected.view(-1, len(own), width + self._axes)[:, :, width:] = own
        return projected, [projected[:, :width].cpu()] if projection is None else kept

    def _know_places(self, found: float) -> None:
        """Args: found: spread of the good embeddings."""
        options, network = self._options, self.network
        tiles = self._pictures.tiles
        canvas_hw = options.imgsz if tiles is None else tiles.canvas_hw
        network.config = replace(network.config, spread=found, canvas_hw=canvas_hw)
        network.lie_on(options.imgsz, tiles)
        _, rows, columns = network.backbone.shapes(*options.imgsz)[0]
        self._places = as_rows(places_of((rows, columns), canvas_hw, tiles))

    def _choose(self, projected: Tensor, after_step: Callable[[str], None]) -> tuple[Tensor, float]:
        told = 0
        chosen = 0

        def more(count: int) -> None:
            nonlocal told, chosen
            chosen += count
            while told < PARTS * chosen // self.entries:
                told += 1
                after_step(f"{chosen} of {self.entries} entries")

        return k_centre(projected, self.entries, random_start(projected, self._options.seed), more)

    def _entries(self, picks: Tensor, kept: list[Tensor]) -> Tensor:
        """The picked patches (M, D); those of pictures that memory did not hold are computed once more."""
        bank = torch.empty(len(picks), self._dim)
        done, held = 0, iter(kept)
        for indices in self._batches() if self._projection is not None else [range(len(self._pictures))]:
            count = len(indices) * self._per_picture
            mine = torch.nonzero((picks >= done) & (picks < done + count))[:, 0]
            rows = next(held, None)
            if rows is None and len(mine):
                rows = as_rows(self._embedded([self._pictures[index].image_hwc for index in indices])).cpu()
            if rows is not None:
                bank[mine] = rows[picks[mine] - done]
            done += count
        return bank

    def _standing(self, labelled: LabelledPictures) -> Standing:
        maps, scores = [], []
        reweighted = self._options.postprocess.score == "reweighted"
        self.network.bank = self.network.bank.to(self._taps.device)
        self.network.places = self.network.places.to(self._taps.device)
        images = labelled.images
        for indices in chunks(range(len(images)), self._options.batch):
            embedding = self._embedded([images[index] for index in indices])
            if self.network.positions is not None:
                embedding = torch.cat([embedding, self.network.positions.of(indices).to(embedding)], dim=1)
            patches = self.network.patch_map(embedding)
            maps += list(patches.cpu().numpy())
            if reweighted:
                config = self.network.config
                found = reweighted_score(patches, embedding, self.network.entries, config.neighbours)
                scores += [float(score) for score in found]
        return labelled.ranked(list(map(np.asarray, maps)), scores=scores or None)
