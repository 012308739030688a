"""A plan of TensorRT, loaded and ready to be executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_ad.bundle.specs import TensorSpec
from edge_ad.engine import EngineSpec
from edge_ad.errors import EngineError, one_line
from edge_ad.runtime.engines.tensorrt.flavour import Flavour, optional
from edge_ad.runtime.engines.tensorrt.messages import Messages
from edge_ad.runtime.engines.tensorrt.plans import FoundPlan
from edge_ad.runtime.engines.tensorrt.runner.execution import Executions
from edge_ad.runtime.engines.tensorrt.runner.pipeline import Enqueue

TYPES = {"uint8": "UINT8", "float32": "FLOAT"}
HOW_TO_BUILD = "build one on this machine with 'edge-ad build'"


class LoadedPlan:
    """A plan, ready to be executed. Made, used and closed while the device is current.

    No local variable holds an object of TensorRT: a traceback would keep it until there is no current device any more.

    Args:
        flavour: which TensorRT loads it.
        plan: what it loads.
        spec: what it is to compute.

    Attributes:
        fewest, largest: images that it takes at once.
        enqueue: puts the graph onto its stream; raises EngineError with TensorRT's reason.

    Raises: EngineError when TensorRT refuses the plan, or it computes something else.
    """

    fewest: int
    largest: int
    enqueue: Enqueue

    def __init__(self, flavour: Flavour, plan: FoundPlan, spec: EngineSpec) -> None:
        trt = self._trt = flavour.load()
        self._title = f"{flavour.title} {trt.__version__}"
        self._image = spec.image
        self._messages = Messages()
        self._logger = self._messages.logger(trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._executions: Executions | None = None
        try:
            self._load(plan, spec)
        except (TypeError, RuntimeError) as exc:  # the bindings got nothing to make an object of
            self.close()
            raise self._refused(f"cannot load the engine ({one_line(exc)})") from exc
        except BaseException:
            self.close()
            raise
        self._messages.errors.clear()

    def _load(self, plan: FoundPlan, spec: EngineSpec) -> None:
        self._runtime = self._trt.Runtime(self._logger)
        if spec.dla is not None:
            self._runtime.DLA_core = spec.dla
        # Engines that run with later versions bring a small runtime of their own. The sidecar vouches for them.
        if optional(self._trt.Runtime, "engine_host_code_allowed") is not None:  # from 8.6 on
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise self._refused("refuses the engine")
        outputs = spec.outputs if plan.fingerprint.tail == "graph" else spec.outputs[:1]
        self._check_tensors(spec.image, outputs)
        self.fewest, self.largest = self._batches()
        image, names = spec.image, self._names
        self._executions = Executions(self._trt, self._engine, image, names, self._messages, self._title)
        self.enqueue = self._executions.first()

    def check(self, images: int) -> None:
        """Raises: EngineError for a batch of which some piece would be too small."""
        rest = images % self.largest or min(images, self.largest)
        if rest < self.fewest:
            raise EngineError(
                f"the engine takes {self.fewest} to {self.largest} images at once, got {images}; build one that takes"
                " fewer"
            )

    def another(self, driver: Any) -> Enqueue:
        """As `enqueue`, with an execution context of its own, see `Executions.another`."""
        assert self._executions is not None  # until it is closed
        return self._executions.another(driver)

    def close(self) -> None:
        """Free what TensorRT holds on the device, last made first."""
        if self._executions is not None:
            self._executions.close()
        self._executions = None
        self._engine = None
        self._runtime = None

    def _check_tensors(self, image: TensorSpec, outputs: Sequence[TensorSpec]) -> None:
        modes = self._trt.TensorIOMode
        wanted = {image.name: (modes.INPUT, *_shape_of(image))}
        wanted |= {tensor.name: (modes.OUTPUT, *_shape_of(tensor)) for tensor in outputs}
        self._names = tuple(wanted)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        held = {
            name: (
                self._engine.get_tensor_mode(name),
                self._engine.get_tensor_dtype(name).name,
                *tuple(self._engine.get_tensor_shape(name))[1:],
            )
            for name in names
        }
        for name in sorted(wanted.keys() | held.keys()):
            if wanted.get(name) != held.get(name):
                raise EngineError(
                    f"the engine computes something else: tensor {name!r} is {_words(held.get(name))}, the bundle has"
                    f" {_words(wanted.get(name))}; {HOW_TO_BUILD}, with --force"
                )

    def _batches(self) -> tuple[int, int]:
        name = self._image.name
        fixed = int(self._engine.get_tensor_shape(name)[0])
        if fixed != -1:
            return fixed, fixed
        fewest, _, most = self._engine.get_tensor_profile_shape(name, 0)
        return int(fewest[0]), int(most[0])

    def _refused(self, what: str) -> EngineError:
        return EngineError(f"{self._title} {what}: {self._messages.cause}; {HOW_TO_BUILD}, with --force")


def _shape_of(tensor: TensorSpec) -> tuple[Any, ...]:
    """Type and shape of one image's part, as TensorRT names them."""
    return (TYPES[tensor.dtype], *(-1 if size is None else size for size in tensor.shape[1:]))


def _words(tensor: tuple[Any, ...] | None) -> str:
    if tensor is None:
        return "absent"
    mode, dtype, *shape = tensor
    return f"{mode.name.lower()} {dtype.lower()} (N, {', '.join(map(str, shape))})".replace(", )", ")")
