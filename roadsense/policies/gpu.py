"""TensorRT and the GPU: what they are here, and a plan that decides on batches there."""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import NUM_EGO, NUM_PEER
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.extras import missing
from roadsense.policies.signature import Signature

MAJOR = 11
"""Release of TensorRT whose interface is used."""
REMEDY = "build the engine again on this machine"

_SINGLE = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a plan is made for: TensorRT promises nothing where any of it differs."""

    name: str
    compute_capability: str
    """Such as ``"9.0"``."""
    tensorrt: str
    """Version, in full."""

    @property
    def folder(self) -> str:
        """Name of the folder for its plans."""
        return f"sm{self.compute_capability.replace('.', '')}-{self.tensorrt}"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability}) with TensorRT {self.tensorrt}"


def tensorrt_and_cuda() -> tuple[Any, Any]:
    """The modules ``tensorrt`` and ``cuda.bindings.runtime``.

    Raises:
        RoadsenseError: one is not installed, cannot be loaded, or is of another release.
    """
    found = []
    for name in ("tensorrt", "cuda.bindings.runtime"):
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError:
            raise missing(name) from None
        except (ImportError, OSError) as error:  # of a library below it
            raise RoadsenseError(f"{name} cannot be loaded ({error}); install it again.") from None
    tensorrt, cuda = found
    if tensorrt.__version__.partition(".")[0] != str(MAJOR):
        raise RoadsenseError(f"tensorrt {tensorrt.__version__} is installed; install a release {MAJOR} of it.")
    return tensorrt, cuda


def this_device() -> Device:
    """The current GPU and the TensorRT that is installed.

    Raises:
        RoadsenseError: there is none, or a module is missing.
    """
    tensorrt, cuda = tensorrt_and_cuda()
    properties = _checked(cuda, cuda.cudaGetDeviceProperties(_checked(cuda, cuda.cudaGetDevice())))
    return Device(
        name=properties.name.partition(b"\0")[0].decode(),
        compute_capability=f"{properties.major}.{properties.minor}",
        tensorrt=tensorrt.__version__,
    )


def listener(tensorrt: Any) -> Any:
    """A logger for TensorRT that keeps errors, for :func:`reason`, and shows nothing."""

    class Listener(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR):
                self.errors.append(msg)

    return Listener()


def reason(heard: Any) -> str:
    """The first thing that a logger heard go wrong; further ones mostly follow from it."""
    return str(heard.errors[0]).strip().rstrip(".") if heard.errors else "TensorRT does not say why"


def input_shapes(signature: Signature, batch: int, rows: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a plan's inputs by name."""
    shapes: dict[str, tuple[int, ...]] = {
        "ego": (batch, NUM_EGO), "peers": (batch, rows, NUM_PEER), "peer_mask": (batch, rows)
    }  # fmt: skip
    lstm = signature.widths.lstm
    return {**shapes, "hidden": (batch, lstm), "cell": (batch, lstm)} if lstm else shapes


def output_shapes(signature: Signature, batch: int) -> dict[str, tuple[int, int]]:
    """Shapes of a plan's outputs by name."""
    lstm = signature.widths.lstm
    return {"action": (batch, 1), **({"next_hidden": (batch, lstm), "next_cell": (batch, lstm)} if lstm else {})}


class Engine:
    """A deserialised plan with a stream and memory of its own; decides on one batch at a time.

    What it holds on the GPU is freed with it.

    Args:
        plan: content of the file. Deserialising it runs what is in it.
        signature: of the network.
        max_batch, max_rows: of its profile.
        where: names the plan in errors.

    Raises:
        InputMismatchError: it takes or gives something else than the network.
        RoadsenseError: it cannot be opened here.
    """

    def __init__(self, plan: bytes, signature: Signature, max_batch: int, max_rows: int, where: object) -> None:
        tensorrt, self._cuda = tensorrt_and_cuda()
        # the logger has to outlive the runtime, and the runtime the engine
        self._where, self._heard = where, listener(tensorrt)
        try:
            self._runtime = tensorrt.Runtime(self._heard)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            self._context: Any = None if self._engine is None else self._engine.create_execution_context()
        except (TypeError, RuntimeError) as error:  # how its constructors say that there is no object
            raise RoadsenseError(f"{where}: cannot be opened ({error}); {REMEDY}.") from None
        if self._context is None:
            raise RoadsenseError(f"{where}: cannot be opened ({reason(self._heard)}); {REMEDY}.")
        self._outputs = output_shapes(signature, max_batch)
        shapes = {**input_shapes(signature, max_batch, max_rows), **self._outputs}
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        # memory is sized by this: a plan that reads or writes anything else would do so in memory that is not its own
        types = {name: np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        if types != dict.fromkeys(shapes, _SINGLE) or any(
            tuple(self._engine.get_tensor_shape(name)) != shape
            for name, shape in input_shapes(signature, -1, -1).items()
        ):
            raise InputMismatchError(f"{where}: takes or gives something else than its run states; {REMEDY}.")
        held: list[tuple[Callable[[Any], Any], Any]] = []
        weakref.finalize(self, _release, held)
        self._stream = _checked(self._cuda, self._cuda.cudaStreamCreate())
        held.append((self._cuda.cudaStreamDestroy, self._stream))
        self._buffers: dict[str, tuple[NDArray[Any], int]] = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape)) * _SINGLE.itemsize
            device = int(_checked(self._cuda, self._cuda.cudaMalloc(size)))
            held.append((self._cuda.cudaFree, device))
            host = int(_checked(self._cuda, self._cuda.cudaMallocHost(size)))
            held.append((self._cuda.cudaFreeHost, host))
            pinned = np.ctypeslib.as_array((ctypes.c_byte * size).from_address(host)).view(_SINGLE)
            self._buffers[name] = pinned, device
            self._must(self._context.set_tensor_address(name, device))

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Decides on a batch within the profile: arrays by input → new arrays by output."""
        kind = self._cuda.cudaMemcpyKind
        for name, array in inputs.items():
            host, device = self._buffers[name]
            host[: array.size].reshape(array.shape)[...] = array
            self._copy(device, host.ctypes.data, array.size * host.itemsize, kind.cudaMemcpyHostToDevice)
            self._must(self._context.set_input_shape(name, array.shape))
        self._must(self._context.execute_async_v3(int(self._stream)))
        found, batch = {}, len(inputs["ego"])
        for name, (_, width) in self._outputs.items():
            host, device = self._buffers[name]
            found[name] = host[: batch * width].reshape(batch, width)
            self._copy(host.ctypes.data, device, found[name].nbytes, kind.cudaMemcpyDeviceToHost)
        _checked(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
        return {name: array.copy() for name, array in found.items()}

    def _copy(self, to: int, of: int, size: int, kind: Any) -> None:
        _checked(self._cuda, self._cuda.cudaMemcpyAsync(to, of, size, kind, self._stream))

    def _must(self, succeeded: bool) -> None:
        if not succeeded:
            raise RoadsenseError(f"{self._where}: does not run ({reason(self._heard)}); {REMEDY}.")


def _release(held: list[tuple[Callable[[Any], Any], Any]]) -> None:
    while held:
        free, what = held.pop()
        free(what)  # what fails here, nobody can act on


def _checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """What a function of CUDA returned beside its status."""
    status, *values = answer
    if status != cuda.cudaError_t.cudaSuccess:
        said = cuda.cudaGetErrorString(status)[1].decode()
        raise RoadsenseError(f"the GPU cannot be used ({said}); see what nvidia-smi says of it and of its driver.")
    return values[0] if values else None
