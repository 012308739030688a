"""The solar cells of the package elpv-dataset as a data set: what no setting of this project was chosen on.

    pip install '.[solar]'
    python benchmarks/quality/solar_cells.py -o FOLDER [--kind mono] [--seed 0]

Electroluminescence pictures of cells, 300x300, by Buerhop-Lutz and others (CC BY-NC-SA 4.0: for measuring only, and
never shipped). Cells that an expert called surely sound are good, half of them to learn from; cells that were called
surely defective are the defective ones. Those in doubt are left out. There are no masks.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np

SOUND, DEFECTIVE = 0.0, 1.0


@click.command(help=__doc__.split("\n")[0])
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--kind", default="mono", type=click.Choice(["mono", "poly"]))
@click.option("--seed", default=0)
def main(output: Path, kind: str, seed: int) -> None:
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise click.ClickException("the package elpv-dataset is not installed: pip install '.[solar]'")
    folder = Path(spec.origin).parent / "data"
    lines = [line.split() for line in (folder / "labels.csv").read_text("utf-8").splitlines()]
    cells = [(folder / path, float(probability)) for path, probability, of_kind in lines if of_kind == kind]
    good = [path for path, probability in cells if probability == SOUND]
    bad = [path for path, probability in cells if probability == DEFECTIVE]
    order = np.random.default_rng(seed).permutation(len(good))
    half = len(good) // 2
    copy([good[index] for index in order[:half]], output / "train" / "good")
    copy([good[index] for index in order[half:]], output / "test" / "good")
    copy(bad, output / "test" / "defective")
    print(f"{half} good cells to learn from, {len(good) - half} good and {len(bad)} defective ones", file=sys.stderr)


def copy(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main()
