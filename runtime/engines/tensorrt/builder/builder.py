"""ONNX bytes → plan, through the builder of TensorRT 8.6, 10, 11 or TensorRT-RTX.

The modules are used as they are. polygraphy's loaders wrap the same calls, but choose between `tensorrt` and
`tensorrt_rtx` once for the whole process, by an environment variable, print through a logger of their own, and report
a failed parse without the node; so polygraphy is for people, who look at a plan or a graph with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.disk.private import NotPrivateError, read_private
from edge_ad.disk.storage import write_atomically
from edge_ad.errors import EngineError, OutputError, os_reason
from edge_ad.runtime.engines.tensorrt.builder.network import ParsedNetwork, is_strongly_typed, parsed_network
from edge_ad.runtime.engines.tensorrt.builder.progress import NoProgress, Progress, progress_monitor
from edge_ad.runtime.engines.tensorrt.builder.request import EngineRequest
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, optional
from edge_ad.runtime.engines.tensorrt.gpu import current_gpu
from edge_ad.runtime.engines.tensorrt.messages import Messages

Result = TypeVar("Result")
MEBIBYTE = 1 << 20
NO_FLOAT32_GEMM = 75  # Turing, in TensorRT-RTX


@dataclass(frozen=True)
class Plan:
    """What came of a build.

    Attributes:
        data: the plan.
        notes: what TensorRT warned of, and what could not be done as asked, one line each.
    """

    data: bytes
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Outlook:
    """What is known of a build before it is run.

    Attributes:
        builder: name and version of the TensorRT that would build.
        layers: of the network.
        tensors: inputs and outputs, such as `image uint8 (any, 288, 288, 3)`.
        settings: what the builder is told, one line each.
        notes: as in `Plan`.
    """

    builder: str
    layers: int
    tensors: tuple[str, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Session:
    """Objects of one build. They go all at once, for they point into one another."""

    trt: Any
    request: EngineRequest
    messages: Messages
    logger: Any
    builder: Any
    parsed: ParsedNetwork
    config: Any
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{FLAVOURS[self.request.flavour].title} {self.trt.__version__}"

    @property
    def all_notes(self) -> tuple[str, ...]:
        return (*self.notes, *(f"{self.title}: {line}" for line in self.messages.warnings))


def build_plan(model: CheckedGraph, request: EngineRequest, progress: Progress | None = None) -> Plan:
    """Compile a graph.

    Ctrl-C ends the build at its next step where TensorRT reports steps (from 10 on), else after it.

    Args:
        model: ONNX graph with the one input `image`.
        request: what for.
        progress: told how far it is, where TensorRT says so.

    Raises: EngineError with TensorRT's reason and the node that it names.
    """
    cancelled = Event()
    return _on_gpu(request, lambda: _build(model, request, progress or NoProgress(), cancelled), cancelled)


def foresee(model: CheckedGraph, request: EngineRequest) -> Outlook:
    """Parse a graph and set the builder up, but build nothing. Raises: EngineError as `build_plan` does."""
    return _on_gpu(request, lambda: _outlook(model, request), Event())


def _on_gpu(request: EngineRequest, work: Callable[[], Result], cancelled: Event) -> Result:
    """Run in a thread whose current GPU is the wanted one, so that this thread keeps hearing signals."""

    def run() -> Result:
        with nullcontext() if request.gpu is None else current_gpu(request.gpu):
            return work()

    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(run).result()
        except KeyboardInterrupt:
            cancelled.set()
            raise  # the pool waits for the thread


def _build(model: CheckedGraph, request: EngineRequest, progress: Progress, cancelled: Event) -> Plan:
    session = _session(model, request, Messages())
    monitor = progress_monitor(session.trt, progress, cancelled)
    if monitor is not None:
        session.config.progress_monitor = monitor
    serialized = session.builder.build_serialized_network(session.parsed.network, session.config)
    if serialized is None and cancelled.is_set():
        raise EngineError("the build was interrupted")
    if serialized is None:
        raise _cannot_build(session)
    data = bytes(serialized)
    _keep_timing_cache(session)
    return Plan(data, session.all_notes)


def _outlook(model: CheckedGraph, request: EngineRequest) -> Outlook:
    session = _session(model, request, Messages())
    network = session.parsed.network
    if not session.builder.is_network_supported(network, session.config):
        raise _cannot_build(session)
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    return Outlook(
        session.title,
        network.num_layers,
        tuple(f"{tensor.name} {tensor.dtype.name.lower()} {_shape(tensor.shape)}" for tensor in tensors),
        tuple(_settings(session)),
        session.all_notes,
    )


def _session(model: CheckedGraph, request: EngineRequest, messages: Messages) -> _Session:
    flavour = FLAVOURS[request.flavour]
    trt = flavour.load()
    logger = messages.logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as exc:  # the bindings get no builder and cannot say why
        raise EngineError(
            f"{flavour.title} {trt.__version__} makes no builder on this machine: {messages.cause}"
        ) from exc
    parsed = parsed_network(trt, builder, model, request, messages)
    session = _Session(trt, request, messages, logger, builder, parsed, builder.create_builder_config())
    _configure(session)
    return session


def _configure(session: _Session) -> None:
    trt, config, request = session.trt, session.config, session.request
    if request.flavour == "rtx":
        _set_compute_capabilities(session)
    if not is_strongly_typed(trt, request) and request.precision != "fp32":
        config.set_flag(_needed(session, trt.BuilderFlag, request.precision.upper(), request.precision))
    if request.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb * MEBIBYTE)
    if request.hardware_compatible:
        levels = _needed(session, trt, "HardwareCompatibilityLevel", "hardware compatibility")
        config.hardware_compatibility_level = levels.AMPERE_PLUS
    if request.version_compatible:
        config.set_flag(_needed(session, trt.BuilderFlag, "VERSION_COMPATIBLE", "version compatibility"))
    if request.dla is not None:
        _choose_dla(session)
    if request.timing_cache is not None:
        _load_timing_cache(session)
    _set_profile(session)


def _set_compute_capabilities(session: _Session) -> None:
    config, request = session.config, session.request
    known = optional(session.trt, "ComputeCapability")
    config.num_compute_capabilities = len(request.sm)
    for index, sm in enumerate(request.sm):
        target = optional(known, f"SM{sm}")
        if target is None or not config.set_compute_capability(target, index):
            raise EngineError(f"{session.title} does not build for SM{sm}: {session.messages.cause}")


def _cannot_build(session: _Session) -> EngineError:
    request = session.request
    remedy = ""
    if request.flavour == "rtx" and NO_FLOAT32_GEMM in request.sm and request.tail == "graph":
        remedy = "; --tail kernel leaves what resizes and smooths to a kernel of ours"
    cause = session.messages.cause.rstrip(".") if remedy else session.messages.cause
    return EngineError(f"{session.title} cannot build {request.precision} for {request.target}: {cause}{remedy}")


def _choose_dla(session: _Session) -> None:
    trt, config, dla = session.trt, session.config, session.request.dla
    cores = session.builder.num_DLA_cores
    if not 0 <= (dla or 0) < cores:
        raise EngineError(f"{session.title} sees {cores} DLA cores here, wanted core {dla}; leave out --dla")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = dla
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_profile(session: _Session) -> None:
    parsed, batches = session.parsed, session.request.batches
    if not parsed.takes_any_batch:
        return
    profile = session.builder.create_optimization_profile()
    one = parsed.image_shape[1:]
    profile.set_shape(parsed.image.name, (batches.smallest, *one), (batches.best, *one), (batches.largest, *one))
    if session.config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{session.title} refuses a profile of {batches}: {session.messages.cause}")
    if session.trt.__version__.startswith("8."):
        _share_profile(session)


def _share_profile(session: _Session) -> None:
    """Let several execution contexts use the profile, which CUDA graphs need and later versions always do."""
    features = optional(session.trt, "PreviewFeature")
    sharing = optional(features, "PROFILE_SHARING_0806")
    if sharing is not None:  # 8.5 does not know it
        session.config.set_preview_feature(sharing, True)


def _load_timing_cache(session: _Session) -> None:
    """Start with what an earlier build has measured; a cache of another GPU or version is left out."""
    path, config = session.request.timing_cache, session.config
    assert path is not None
    try:
        data = bytes(read_private(path))
    except FileNotFoundError:
        data = b""
    except NotPrivateError as exc:
        session.notes.append(f"timing cache {path} is not used: {exc}; starting a new one")
        data = b""
    except OSError as exc:
        raise EngineError(f"timing cache {path}: cannot be read: {os_reason(exc)}") from exc
    known = len(session.messages.errors)
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        session.notes.append(f"timing cache {path} is of another GPU or version, or damaged; starting a new one")
        del session.messages.errors[known:]
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timing_cache(session: _Session) -> None:
    path = session.request.timing_cache
    cache = session.config.get_timing_cache() if path is not None else None
    if path is None or cache is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, bytes(cache.serialize()))
    except OSError as exc:
        raise OutputError(f"timing cache {path}: cannot be written: {os_reason(exc)}") from exc


def _needed(session: _Session, owner: Any, name: str, what: str) -> Any:
    found = optional(owner, name)
    if found is None:
        raise EngineError(f"{session.title} has no {what}; leave it out, or take another version of TensorRT")
    return found


def _settings(session: _Session) -> list[str]:
    """What the builder is told, in words."""
    request, parsed = session.request, session.parsed
    typed = "the graph's own types" if is_strongly_typed(session.trt, request) else "by builder flags"
    lines = [f"precision {request.precision}, {typed}", f"for {request.target}"]
    if parsed.takes_any_batch:
        lines.append(f"profile of {request.batches}")
    else:
        lines.append(f"no profile, the graph takes batches of {parsed.image_shape[0]}")
    return [*lines, *request.flags]


def _shape(shape: Any) -> str:
    return f"({', '.join('any' if size < 0 else str(size) for size in tuple(shape))})"
