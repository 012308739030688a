"""`edge-ad train`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.option import text_option
from edge_ad.cli.printable import console_on, shown
from edge_ad.errors import ConfigError, MissingExtraError
from edge_ad.validation import read_yaml

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge_ad.models.family import Progress
    from edge_ad.training_run import BestEpoch

FAMILY = "glass"


@click.command(name="train", short_help="Train a detector on good pictures.")
@click.argument("data", required=False)
@text_option("-o", "--output", metavar="RUN", help="Folder of the run to write.")
@text_option("--good", metavar="DIR", help="Good pictures, in place of DATA.")
@text_option("--bad", metavar="DIR", help="Defective pictures, to choose the best epoch by (with --good).")
@text_option("--masks", metavar="DIR", help="Ground truth of --bad, under the same names.")
@text_option("--textures", metavar="DIR", help="Pictures to make anomalies of, such as DTD (default: drawn patterns).")
@text_option("--preset", metavar="NAME", help="paper (default, the published values) or fast (minutes on a CPU).")
@text_option("--backbone", metavar="NAME", help="torchvision network, or timm:<name> (paper: wide_resnet50_2).")
@text_option("--backbone-weights", metavar="FILE", help="Its state dict, or packaged (default: torchvision's, timm's).")
@text_option("--layers", metavar="A,B", help="Layers that give the features (paper: layer2,layer3).")
@text_option("--imgsz", metavar="N|HxW", help="Model input in pixels (paper: 288).")
@text_option("--resize", metavar="N", help="Shorter side before the centre crop (default: imgsz).")
@text_option("--resize-mode", metavar="MODE", help="shorter_side_crop (default), stretch or letterbox.")
@text_option("--pretrain-embed-dim", metavar="N", help="Pooled vector of one layer (paper: 1536).")
@text_option("--embed-dim", metavar="N", help="Patch embedding (paper: 1536).")
@text_option("--hidden-dim", metavar="N", help="Discriminator's hidden layer (paper: 1024).")
@text_option("--discriminator-layers", metavar="N", help="Layers of the discriminator (paper: 2).")
@text_option(
    "--whiten", metavar="RIDGE", help="Start the adaptor as a whitening of normal features (paper: none, random)."
)
@click.option("--freeze-adaptor/--train-adaptor", default=None, help="Leave it so (paper: it is trained).")
@text_option("--hypothesis", metavar="NAME", help="manifold, hypersphere or auto (default).")
@text_option("--noise-std", metavar="X", help="Gaussian noise on normal features (paper: 0.015).")
@text_option("--noise-spread", metavar="OCTAVES", help="Vary it from patch to patch (paper: 0).")
@text_option("--jitter-std", metavar="X", help="Noise on what counts as normal (paper: 0).")
@text_option("--ascent-steps", metavar="N", help="Steps of gradient ascent; 0 for none (paper: 20).")
@text_option("--ascent-step-size", metavar="X", help="Length of one (paper: 0.001).")
@text_option("--project-every", metavar="N", help="Ascent steps between projections (paper: 5).")
@text_option("--manifold-radii", metavar="A,B", help="Bounds of the manifold projection (paper: 0.5,1).")
@text_option("--radius-quantile", metavar="Q", help="Quantile that makes the hypersphere's radius (paper: 0.75).")
@text_option("--hard-quantile", metavar="Q", help="Patches easier than this share are left out (paper: 0.5).")
@text_option("--focal-gamma", metavar="X", help="Exponent of the focal loss (paper: 2).")
@text_option("--overlay-share", metavar="X", help="Share of the pictures that get a texture (paper: 1).")
@text_option("--beta-mean", metavar="X", help="Share of the good picture under a texture (paper: 0.5).")
@text_option("--beta-std", metavar="X", help="Its standard deviation (paper: 0.1).")
@text_option("--augmentations", metavar="N", help="Changes of a texture, of nine (paper: 3).")
@text_option("--foreground", metavar="RULE", help="Where textures lie: none (everywhere, default), auto or files.")
@text_option("--learning-rate", metavar="X", help="Adaptor's; the discriminator's is twice that (paper: 1e-4).")
@text_option("--schedule", metavar="NAME", help="constant (paper) or cosine.")
@text_option("--batch", metavar="N", help="Pictures in a step (paper: 8).")
@text_option("--epochs", metavar="N", help="Meta-epochs (paper: 640).")
@text_option("--epoch-images", metavar="N", help="Pictures in a meta-epoch at most (paper: 392).")
@text_option("--repeat", metavar="N", help="Times that an epoch goes through the pictures (default: 1).")
@text_option("--select", metavar="RULE", help="Keep the best epoch (paper) or the last.")
@text_option("--eval-every", metavar="N", help="Epochs between looks at labelled pictures; 0: never (paper: 1).")
@text_option("--patience", metavar="N", help="Stop after so many epochs without a better one (default: never).")
@text_option("--score", metavar="KIND", help="map_max (default) or patch_max.")
@text_option("--seed", metavar="N", help="Seed of everything that is drawn (default: 0).")
@text_option("--device", metavar="NAME", help="auto (default), cpu or cuda.")
@click.option("--amp/--no-amp", default=None, help="Half precision for the backbone on CUDA (default: yes).")
@text_option("--cache-mb", metavar="N", help="Memory for pictures and for features, each (default: 2048).")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run; give the same options.")
@click.option("--force", is_flag=True, help="Replace an earlier run.")
@click.option(
    "-c", "--config", "config", metavar="FILE", help="YAML file with any of these options; the command line wins."
)
def command(config: str | None, resume: bool, force: bool, **given: Any) -> None:
    """Train on the good pictures of DATA: a folder in the layout of MVTec AD or VisA, or of good pictures alone.

    Writes a run: a checkpoint in the authors' format, logs, pictures of what was synthesised. Then
    'edge-ad export RUN -o BUNDLE' needs no other option, and 'edge-ad eval RUN DATA' says how good it is.
    """
    where = f"train options ({config})" if config else "train options"
    values = _by_name(read_yaml(Path(config)), where) if config else {}
    values |= {key: value for key, value in given.items() if value is not None}
    if isinstance(values.get("manifold_radii"), str):
        values["manifold_radii"] = values["manifold_radii"].split(",")
    try:
        from edge_ad.models import model_family

        family = model_family(FAMILY)
    except ImportError as exc:
        raise MissingExtraError("edge-ad train", exc.name or "torch", "train") from exc
    with terminal_progress() as progress:
        record = family.train(values, where, progress, resume=resume, force=force)
    run = Path(str(values["output"]))
    if record.best is not None:
        click.echo(summary(record.best), err=True)
    click.echo(f"next: edge-ad export {run} -o {run.name}.edgead", err=True)
    click.echo(str(run / str(record.checkpoint)))


def _by_name(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values of a file under the names of the options. Raises: ConfigError for one that is given in two spellings."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in named:
            raise ConfigError(where, [f"{name}: given twice, as {name} and {name.replace('_', '-')}"])
        named[name] = value
    return named


def summary(best: BestEpoch) -> str:
    """Which epoch was kept, why, and its figures, on one line."""
    found = {"loss": best.loss, "image AUROC": best.image_auroc, "pixel AUROC": best.pixel_auroc}
    figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items() if value is not None)
    return f"kept epoch {best.epoch} ({best.rule}): {figures}"


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Lines and a bar on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from edge_ad.models.family import Progress

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: list[TaskID] = []
    with Bar(*columns, TextColumn("{task.description}", markup=False), console=console_on(sys.stderr)) as bar:

        def say(line: str) -> None:
            bar.console.print(shown(line))

        def begin(title: str, total: int) -> None:
            for task in tasks:
                bar.remove_task(task)
            tasks[:] = [bar.add_task(title, total=total)]

        def step(text: str) -> None:
            if text:
                bar.update(tasks[0], advance=1, description=text)
            else:
                bar.advance(tasks[0])

        yield Progress(say, begin, step)
