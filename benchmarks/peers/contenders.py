"""The peers: which they are, and the files that each is to open."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import UnavailableError
from exports import THIS_PYTHON, Weights, anomalib_exports, installed_mib, own_files_mib, published_graph
from measure import Contender, Say
from suite.networks import NETWORKS, Network, export_weights, with_int8, write_weights
from suite.scenes import SIZES

from edge_ad.bundle.specs import Precision, PreprocessSpec

HERE = Path(__file__).parent
AUTHORS = "authors' graph, ONNX Runtime"
ANOMALIB = {
    "anomalib 2.7.0, OpenVINO": ("openvino", {}),
    "anomalib 2.7.0, OpenVINO, fp32": ("openvino", {"INFERENCE_PRECISION_HINT": "f32"}),
    "anomalib 2.7.0, ONNX": ("onnx", {}),
}
"""Export, and what its inferencer passes to OpenVINO; without a word OpenVINO chooses the arithmetic itself."""
OURS: dict[str, Precision] = {"edge-ad, fp32": "fp32", "edge-ad, int8": "int8"}
COOKIES = Network("mobilenet_v2", ("features.6", "features.13"), 256, 512, 256)
COOKIES_HW = (768, 576)


@dataclass
class Peers:
    """Attributes:
    contenders: those that can be run.
    missing: why the others cannot.
    installed_mib: disk that each takes with all that it requires.
    """

    contenders: dict[str, Contender] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    installed_mib: dict[str, float] = field(default_factory=dict)


def make_peers(
    network: str, size: str, folder: Path, anomalib: Path | UnavailableError, shared: Path | None, say: Say
) -> Peers:
    """Export the same weights for every peer.

    Args:
        network: a key of `NETWORKS`, with random weights, for the speed.
        size: of the frame, a key of `SIZES`.
        folder: for everything that is made.
        anomalib: Python of its environment, or why there is none.
        shared: folder with `checkpoints/cookies` and `data/cookies`, for the accuracy.
    """
    peers = Peers()
    speed = Weights(NETWORKS[network], *write_weights(NETWORKS[network], folder))
    cookies = None
    if shared is not None:
        trained = shared / "checkpoints" / "cookies"
        cookies = Weights(COOKIES, trained / "ckpt_best.pth", trained / "backbone.pth")
    say("exporting the published graph")
    _add_authors(peers, speed, cookies, folder)
    say("exporting and quantizing with edge-ad")
    _add_ours(peers, speed, cookies, shared, folder)
    say("exporting with anomalib")
    try:
        if isinstance(anomalib, UnavailableError):
            raise anomalib
        _add_anomalib(peers, speed, cookies, anomalib, SIZES[size], folder)
    except UnavailableError as exc:
        say(f"warning: anomalib is not available: {exc}")
        peers.missing |= dict.fromkeys(ANOMALIB, str(exc))
    return peers


def _add_authors(peers: Peers, speed: Weights, cookies: Weights | None, folder: Path) -> None:
    given = _authors_graph(speed, folder / "published.onnx")
    for_pictures = _authors_graph(cookies, folder / "published-cookies.onnx") if cookies else None
    command = [THIS_PYTHON, str(HERE / "authors.py")]
    peers.contenders[AUTHORS] = Contender(command, own_folder(folder, AUTHORS), given, for_pictures)
    roots = ("onnxruntime", "numpy", "opencv-python", "pillow", "scipy")
    peers.installed_mib[AUTHORS] = installed_mib(THIS_PYTHON, *roots)


def _authors_graph(weights: Weights, path: Path) -> dict[str, Any]:
    return {"graph": str(published_graph(weights, path)), "side": weights.network.side}


def _add_ours(peers: Peers, speed: Weights, cookies: Weights | None, shared: Path | None, folder: Path) -> None:
    plain = export_weights(speed.network, speed.checkpoint, speed.backbone, folder / "speed-fp32.edgead")
    bundle = with_int8(plain, folder / "speed.edgead").path
    for_pictures = calibrated(cookies, shared, folder) if cookies and shared else None
    installed = ours_mib()
    for name, precision in OURS.items():
        peers.contenders[name] = ours(name, folder, precision, bundle, for_pictures)
        peers.installed_mib[name] = installed


def ours_mib() -> float:
    """Disk that edge-ad takes with all that it requires."""
    return installed_mib(THIS_PYTHON, "edge-ad") + own_files_mib()


def ours(name: str, folder: Path, precision: Precision, bundle: Path, for_pictures: Path | None) -> Contender:
    """edge-ad with a bundle, and with another one or none for the pictures."""
    given = {"bundle": str(bundle), "precision": precision, "engine_cache": str(folder / "engines")}
    pictures = {**given, "bundle": str(for_pictures)} if for_pictures else None
    return Contender([THIS_PYTHON, str(HERE / "ours.py")], own_folder(folder, name), given, pictures)


def calibrated(cookies: Weights, shared: Path, folder: Path) -> Path:
    """A bundle of the trained checkpoint, quantized by `edge-ad calibrate` with the good pictures of its training.

    Its score is that of the authors' code and of anomalib, the largest patch, so that accuracies can be compared.
    """
    plain = export_weights(
        cookies.network, cookies.checkpoint, cookies.backbone, folder / "cookies-fp32.edgead", "patch_max"
    )
    return quantized(plain.path, shared / "data" / "cookies", folder / "cookies.edgead")


def quantized(plain: Path, data: Path, output: Path) -> Path:
    """The bundle with an int8 model beside its float one, by the good pictures of `data`; the gate only reports."""
    folder = output.parent
    caches = ("--calibration-cache", folder / "calibrations", "--engine-cache", folder / "engines")
    edge_ad("calibrate", plain, "--data", data / "train" / "good", "--gate", "report", *caches, "-o", output)
    return output


def edge_ad(*arguments: Any) -> None:
    """The command line, as users have it."""
    from edge_ad.cli.main import main

    with redirect_stdout(sys.stderr):  # standard output is the table's
        code = main([str(argument) for argument in arguments])
    if code != 0:
        raise RuntimeError(f"edge-ad {arguments[0]} failed; see above")


def _add_anomalib(
    peers: Peers, speed: Weights, cookies: Weights | None, python: Path, frame_hw: tuple[int, int], folder: Path
) -> None:
    paths = anomalib_exports(speed, python, frame_hw, folder / "anomalib")
    for_pictures = anomalib_exports(cookies, python, COOKIES_HW, folder / "anomalib-cookies") if cookies else None
    installed = anomalibs_mib(python)
    for name in ANOMALIB:
        peers.contenders[name] = anomalibs(name, folder, python, paths, for_pictures)
        peers.installed_mib[name] = installed


def anomalibs_mib(python: Path) -> float:
    """Disk that anomalib takes with all that it requires."""
    return installed_mib(python, "anomalib", "openvino", "torch", "torchvision")


def anomalibs(
    name: str, folder: Path, python: Path, paths: Mapping[str, str], for_pictures: Mapping[str, str] | None
) -> Contender:
    """anomalib with an export, and with another one or none for the pictures. Args: name: a key of `ANOMALIB`."""
    form, config = ANOMALIB[name]
    given = {"graph": paths[form], "config": config}
    pictures = {"graph": for_pictures[form], "config": config} if for_pictures else None
    return Contender([str(python), str(HERE / "anomalib_peer.py")], own_folder(folder, name), given, pictures)


def cookies_input() -> PreprocessSpec:
    """How the trained checkpoint sees a picture, with every peer: the shorter side resized, and its centre."""
    return PreprocessSpec(COOKIES.side, COOKIES.side, resize=COOKIES.side)


def own_folder(folder: Path, name: str) -> Path:
    """A folder of its own for a peer's caches."""
    made = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return made


def shared_folder() -> Path | None:
    """Folder with the photographs, or None: EDGE_AD_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("EDGE_AD_SHARED", HERE.parents[2] / "shared"))
    wanted = (folder / "data" / "cookies" / "test", folder / "checkpoints" / "cookies")
    return folder if all(each.is_dir() for each in wanted) else None
