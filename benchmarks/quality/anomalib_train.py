"""One of anomalib's models, trained on the good pictures of a data set and exported by anomalib itself.

    python anomalib_train.py '{"model": "padim", "data": …}'

Runs in the environment of `../peers/anomalib.txt`, which has no edge-ad. The backbone is timm's MobileNetV2 on the same
packaged weights as ours, with pictures of 256x256 as ours. Training ends at `max_s` seconds at the latest, whatever
epochs are left. The last line of standard output is JSON with the paths of the exports.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from anomalib_export import in_order, write_exports

BACKBONE, LAYERS = "mobilenetv2_100", ["blocks.2", "blocks.4"]
EPOCHS = {"patchcore": 1, "padim": 1, "stfpm": 100, "fastflow": 100, "glass": 640}
"""anomalib's own; the clock ends those that take longer.

PaDiM's number of features is the one that anomalib has for its smallest network, PatchCore's share that of our preset.
"""


FETCHING = ("stfpm", "glass")
"""Models that ask for published weights: STFPM always, and GLASS trains its backbone where it is told not to."""


def built(model: str, side: int) -> Any:
    """The model with random weights in its backbone, for none are fetched."""
    from anomalib import models
    from anomalib.post_processing import PostProcessor

    kind = {name.lower(): name for name in ("Patchcore", "Padim", "Stfpm", "Fastflow", "Glass")}[model]
    family: Any = getattr(models, kind)
    given: dict[str, Any] = {
        "pre_processor": family.configure_pre_processor((side, side)),
        "post_processor": PostProcessor(enable_normalization=False),
        "evaluator": False,
        "visualizer": False,
        "backbone": BACKBONE,
    }
    given |= {} if model == "fastflow" else {"layers": LAYERS}
    given |= {} if model in FETCHING else {"pre_trained": False}
    given |= {"padim": {"n_features": 100}, "patchcore": {"coreset_sampling_ratio": 0.01}}.get(model, {})
    if model == "glass":
        given |= {"input_shape": (side, side)}
    if model in FETCHING:
        without_fetching()
    return family(**given)


def without_fetching() -> None:
    """Let timm build the network without the published weights that the model asks for."""
    import timm

    create = timm.create_model

    def untrained(*names: Any, **options: Any) -> Any:
        return create(*names, **{**options, "pretrained": False})

    timm.create_model = untrained


def load(model: Any, weights: dict[str, Any]) -> int:
    """Put the weights into every frozen MobileNetV2 of a model. Returns: how many there are."""
    found = 0
    for name, part in model.named_modules():
        names = list(part.state_dict())
        if names and names[0] == "conv_stem.weight" and "student" not in name:
            part.load_state_dict(in_order(part.state_dict(), weights, last_block(names)))
            found += 1
    return found


def last_block(names: list[str]) -> str:
    """The last block of which all but the head hangs, such as `blocks.4`."""
    return max((".".join(name.split(".")[:2]) for name in names if name.startswith("blocks.")), key=block_number)


def block_number(name: str) -> int:
    return int(name.split(".")[1])


def main() -> None:
    warnings.simplefilter("ignore")
    told = json.loads(sys.argv[1])
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    seed_everything(told["seed"], workers=True)
    torch.set_num_threads(told["threads"])
    model = built(told["model"], told["side"])
    loaded = load(model, torch.load(told["weights"], map_location="cpu", weights_only=True))
    if not loaded:
        raise ValueError(f"{told['model']}: no backbone {BACKBONE} was found in it")
    print(f"weights loaded into {loaded} backbones", file=sys.stderr)
    root = Path(told["data"])
    abnormal = sorted(str(each.relative_to(root)) for each in (root / "test").iterdir() if each.name != "good")
    data = Folder(
        name=root.name,
        root=root,
        normal_dir="train/good",
        abnormal_dir=abnormal,
        normal_test_dir="test/good",
        train_batch_size=8,
        eval_batch_size=8,
        num_workers=0,
        val_split_mode="none",
    )
    engine = Engine(
        max_epochs=EPOCHS[told["model"]],
        max_time={"seconds": told["max_s"]},
        accelerator="cpu",
        default_root_dir=told["output"],
        logger=False,
        barebones=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    engine.fit(model, datamodule=data)
    write_exports(model, told)


if __name__ == "__main__":
    main()
