"""What a picture costs in every family: GMAC, files, and milliseconds of float and int8, in turns.

    python benchmarks/families.py [--rounds 25] [--published] [--network NAME ...] [--json FILE]

Random weights, through the project's own export and quantization: time does not depend on them. Batch 1, OpenVINO,
the engine alone, one interleaved run. Milliseconds are medians; ratios are medians of those within a round, so that
what else the machine does meanwhile cancels as far as it can. `--published` adds DRAEM and DiffusionAD in
their published widths, which needs some GB of memory and seconds for each round.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import click
from interleaved import times_ms
from suite.networks import NETWORKS, OTHER_FAMILIES, export_network, with_int8
from suite.threads import fix_threads

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Precision
from edge_ad.export.parity import probe_images
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.instruments.bench.macs import graph_macs
from edge_ad.runtime.judge.loader import engine_spec

PUBLISHED = ("draem-128-256", "diffusionad-128-256")
ROWS = ("mobilenet_v2-256", "wide_resnet50_2-288", *(name for name in OTHER_FAMILIES if name not in PUBLISHED))
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True)
class Row:
    """One network: sizes in MB of its two graphs, medians in milliseconds, and the ratio of float to int8."""

    network: str
    gmac: float
    fp32_mb: float
    int8_mb: float
    fp32_ms: float
    int8_ms: float
    int8_times_faster: float
    fp32_computes_in: str
    int8_computes_in: str


@click.command()
@click.option("--rounds", default=25)
@click.option("--published", is_flag=True, help="DRAEM and DiffusionAD in their published widths too.")
@click.option("--network", "networks", multiple=True, help="These alone; keys of the suite.")
@click.option("--cores", default=2)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(rounds: int, published: bool, networks: tuple[str, ...], cores: int, json_file: Path | None) -> None:
    fix_threads(cores)
    chosen = networks or (*ROWS, *(PUBLISHED if published else ()))
    with tempfile.TemporaryDirectory() as folder:
        rows = measured({name: made(name, Path(folder)) for name in chosen}, Path(folder) / "engines", rounds)
    print("| network | GMAC | fp32 MB | int8 MB | fp32 ms | int8 ms | int8 is faster |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        sizes = f"{row.gmac:.1f} | {row.fp32_mb:.1f} | {row.int8_mb:.1f}"
        print(f"| {row.network} | {sizes} | {row.fp32_ms:.4g} | {row.int8_ms:.4g} | {row.int8_times_faster:.2f}× |")
    computed = {(row.fp32_computes_in, row.int8_computes_in) for row in rows}
    print(f"{rounds} rounds; OpenVINO computes in {', '.join(' and '.join(each) for each in sorted(computed))}")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def made(name: str, folder: Path) -> Bundle:
    exported = export_network({**NETWORKS, **OTHER_FAMILIES}[name], folder / name)
    return with_int8(exported, folder / name / "int8.edgead")


def measured(bundles: dict[str, Bundle], engine_cache: Path, rounds: int) -> list[Row]:
    with ExitStack() as stack:
        subjects: dict[tuple[str, Precision], Callable[[], object]] = {}
        arithmetic = {}
        for name, bundle in bundles.items():
            image = probe_images(bundle.manifest.preprocess.size_hw, count=2)[1:]
            for precision in PRECISIONS:
                file = bundle.model_file(precision)
                spec = engine_spec(bundle, precision, bundle.manifest.files[file], engine_cache)
                engine = stack.enter_context(make_engine("openvino", partial(bundle.read_file, file), spec))
                subjects[name, precision] = partial(engine.infer, image)
                arithmetic[name, precision] = engine.effective_precision
        times = times_ms(subjects, rounds=rounds, pause_s=0.02)
    rows = []
    for name, bundle in bundles.items():
        fp32, int8 = times[name, "fp32"], times[name, "int8"]
        rows.append(
            Row(
                name,
                graph_macs(bundle.read_graph("fp32"), (1, *bundle.manifest.preprocess.size_hw, 3)).count / 1e9,
                *(len(bundle.read_file(bundle.model_file(precision))) / 1e6 for precision in PRECISIONS),
                median(fp32),
                median(int8),
                median(one / other for one, other in zip(fp32, int8, strict=True)),
                *(arithmetic[name, precision] for precision in PRECISIONS),
            )
        )
    return rows


if __name__ == "__main__":
    main()
