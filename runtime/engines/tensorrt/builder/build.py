"""A graph and options → a plan that is kept: looked for first, built once, checked, described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import Precision
from edge_ad.disk.blob_cache import ENGINE_FOLDER, default_cache_dir
from edge_ad.disk.private import fault_of_folder
from edge_ad.disk.vouching import fault_of_key
from edge_ad.errors import ConfigError, EngineError, OutputError
from edge_ad.runtime.engines.tensorrt.builder.builder import Outlook, build_plan, foresee
from edge_ad.runtime.engines.tensorrt.builder.lock import locked
from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions
from edge_ad.runtime.engines.tensorrt.builder.payload import plan_payload
from edge_ad.runtime.engines.tensorrt.builder.progress import Progress
from edge_ad.runtime.engines.tensorrt.builder.request import BatchRange, EngineRequest
from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint, this_platform
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, RTX_SM
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, find_gpu
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import kernel_fault
from edge_ad.runtime.engines.tensorrt.plans import SUFFIX, PlanFile, UntrustedPlanError

Say = Callable[[str], None]


@dataclass(frozen=True)
class SourceGraph:
    """The graph that an engine is built from.

    Attributes:
        precision: that it was made for.
        batch: images per call that it has fixed; None leaves them open.
        onnx_sha256: hash of its bytes.
        read: returns them.
        kernel_fault: why the kernel cannot make its maps and scores; None where it can.
    """

    precision: Precision
    batch: int | None
    onnx_sha256: str
    read: Callable[[], CheckedGraph]
    kernel_fault: str | None = None


@dataclass(frozen=True)
class Built:
    """A plan on disk.

    Attributes:
        path: of the plan.
        size_bytes: of the plan.
        from_cache: True when it was there already.
        payload: see `plan_payload`.
        notes: what TensorRT warned of.
    """

    path: Path
    size_bytes: int
    from_cache: bool
    payload: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What a graph and options come to on this machine.

    Attributes:
        graph: to build from.
        request: for the builder.
        fingerprint: that the plan will have.
        place: where it will lie.
    """

    graph: SourceGraph
    request: EngineRequest
    fingerprint: Fingerprint
    place: PlanFile


def graph_of(bundle: Bundle, precision: Precision | None) -> SourceGraph:
    """The graph of a bundle; of its default precision when None. Raises: BundleError when it does not hold it."""
    chosen = bundle.precision(precision)
    file = bundle.model_file(chosen)
    batch = bundle.manifest.input.shape[0]
    fault = kernel_fault(bundle.manifest.postprocess)
    return SourceGraph(chosen, batch, bundle.manifest.files[file], lambda: bundle.read_graph(chosen), fault)


def check_machine(options: BuildOptions) -> None:
    """Raise EngineError unless TensorRT is there, and a GPU where one is needed; before long work that comes first."""
    FLAVOURS[options.flavour].load()
    if not options.sm:
        _gpu(options)


def plan_job(graph: SourceGraph, options: BuildOptions) -> Job:
    """Settle what is to be built, before any of it is; of the options, `bundle` and `precision` are not looked at.

    Raises: EngineError without TensorRT or without the GPU that it needs; ConfigError for what the graph does not
        allow; OutputError for a file that is in the way.
    """
    precision = graph.precision
    if options.dla is not None and precision != "fp16":
        raise ConfigError(
            "build options",
            [f"dla: computes in fp16 alone, and an explicit Q/DQ graph not at all; got {precision}, wanted fp16"],
        )
    if options.tail == "kernel" and graph.kernel_fault is not None:
        raise ConfigError("build options", [f"tail: kernel is not for this bundle, {graph.kernel_fault}; take graph"])
    flavour = FLAVOURS[options.flavour]
    trt_version = str(flavour.load().__version__)
    gpu = None if options.sm else _gpu(options)
    request = EngineRequest(
        precision=precision,
        batches=_batches(graph, options),
        flavour=options.flavour,
        sm=options.sm if gpu is None else (gpu.sm,),
        gpu=gpu,
        workspace_mb=options.workspace,
        timing_cache=options.timing_cache,
        dla=options.dla,
        hardware_compatible=options.hardware_compatible,
        version_compatible=options.version_compatible,
        tf32=options.tf32,
        tail=options.tail,
    )
    if options.flavour == "rtx":
        unknown = [sm for sm in request.sm if sm not in RTX_SM]
        if unknown:
            known = ", ".join(f"SM{sm}" for sm in RTX_SM)
            raise EngineError(
                f"TensorRT-RTX does not build for SM{unknown[0]}, only for {known}; take --flavour tensorrt"
            )
        request = replace(request, gpu=None)  # it compiles for the architecture, and needs no GPU to do so
    fingerprint = Fingerprint(
        flavour=request.flavour,
        version=trt_version,
        sm=request.sm,
        gpu=None if request.gpu is None or request.hardware_compatible else request.gpu.name,
        precision=precision,
        batch_min=request.batches.smallest,
        batch_best=request.batches.best,
        batch_max=request.batches.largest,
        dla=request.dla,
        flags=request.flags,
        onnx_sha256=graph.onnx_sha256,
        platform=this_platform(),
        edge_ad=version("edge-ad"),
    )
    return Job(graph, request, fingerprint, _place(options, fingerprint))


def foresee_job(job: Job) -> Outlook:
    """Let the parser and the builder look at a job, but build nothing. Raises: EngineError with the reason."""
    return foresee(job.graph.read(), job.request)


def is_there(job: Job) -> bool:
    """Whether the plan of a job is there, and this user has built it."""
    if job.place.fingerprint() != job.fingerprint:
        return False
    try:
        job.place.read()
    except UntrustedPlanError:
        return False
    return True


def build_job(job: Job, *, force: bool = False, say: Say = lambda _: None, progress: Progress | None = None) -> Built:
    """Build the plan of a job, unless it is there.

    Of several processes that build the same, one builds and the others wait for what it makes.

    Args:
        force: build even if it is there.
        say: receives what a user may want to know while it takes its time.

    Raises: EngineError when TensorRT cannot, or when an int8 graph has not become an int8 plan; OutputError.
    """
    place = job.place
    place.prepare()
    with locked(place.path, lambda: say(f"another process builds {place.path}; waiting for it")):
        if not force and place.fingerprint() == job.fingerprint:
            try:
                found = place.read()
                return Built(place.path, len(found), True, plan_payload(found))
            except UntrustedPlanError as exc:
                say(f"engine {place.path} {exc}")
        request = job.request
        say(f"building {request.precision} for {request.target}, {request.batches}")
        plan = build_plan(job.graph.read(), request, progress)
        payload = plan_payload(plan.data)
        if request.precision == "int8" and payload and not payload.get("int8"):
            raise EngineError(
                f"{FLAVOURS[request.flavour].title} {job.fingerprint.version} kept none of the int8 weights"
                f" (constants: {', '.join(payload)}); nothing was written"
            )
        place.write(job.fingerprint, plan.data)
    return Built(place.path, len(plan.data), False, payload, plan.notes)


def _gpu(options: BuildOptions) -> Gpu:
    try:
        return find_gpu(options.device)
    except EngineError as exc:
        if options.flavour == "rtx":
            raise EngineError(f"{exc}; to build for other machines name their GPUs, such as --sm 86,89") from exc
        raise


def _batches(graph: SourceGraph, options: BuildOptions) -> BatchRange:
    fixed = graph.batch
    if fixed is not None:
        wrong = [size for size in (options.batch, options.optimum) if size not in (None, fixed)]
        if wrong:
            raise ConfigError(
                "build options",
                [f"batch: the graph takes batches of {fixed}, wanted {wrong[0]}; export it without --batch"],
            )
        return BatchRange(fixed, fixed, fixed)
    largest = options.batch or options.optimum or 1
    best = options.optimum or largest
    # What runs on the DLA has one shape, so there all batches are of one size.
    return BatchRange(1 if options.dla is None else largest, best if options.dla is None else largest, largest)


def cached_place(engine_cache: Path | None, fingerprint: Fingerprint) -> PlanFile:
    """Where the cache keeps a plan. Raises: OutputError where a run would not take it from."""
    folder = engine_cache or default_cache_dir(ENGINE_FOLDER)
    fault = fault_of_folder(folder)
    if fault is not None:
        raise OutputError(f"engine cache {folder} is not used: {fault}; choose another with --engine-cache")
    fault = fault_of_key()
    if fault is not None:
        raise OutputError(f"engine cache {folder} is not used: {fault}")
    return PlanFile(folder / f"{fingerprint.key}{SUFFIX}")


def _place(options: BuildOptions, fingerprint: Fingerprint) -> PlanFile:
    if options.output is None:
        return cached_place(options.engine_cache, fingerprint)
    place = PlanFile(options.output)
    if place.path.is_dir():
        raise OutputError(f"engine {place.path}: is a folder; wanted the name of a file, such as bottle.plan")
    taken = next((path for path in (place.path, place.sidecar) if path.exists()), None)
    if taken is not None and not options.force and place.fingerprint() != fingerprint:
        raise OutputError(f"{taken} exists and is not this engine; give --force to replace it, or choose another name")
    return place
