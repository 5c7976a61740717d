"""What the engines need of the CUDA runtime: memory, streams, events and captured graphs.

A thin layer over `cuda.bindings.runtime` (package cuda-bindings, NVIDIA's own), imported at first use. A failing call
raises EngineError with CUDA's name of the failure; memory that cannot be had says how much was asked for, how much is
free, and what to do. Device pointers are plain ints.
"""

import ctypes
import importlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import EngineError

BINDING = "cuda.bindings.runtime"
LESS_MEMORY = "take a smaller --size, build engines for a smaller batch, or free memory of other programs"


def runtime() -> Any:
    """The binding; ImportError where it is not installed."""
    return importlib.import_module(BINDING)


def device_count() -> int:
    """GPUs that this process may use; 0 also where there is no driver. ImportError as `runtime`."""
    status, count = runtime().cudaGetDeviceCount()
    return 0 if int(status) else int(count)


@dataclass(frozen=True)
class Gpu:
    """The current device. compute_capability: "9.0"."""

    name: str
    compute_capability: str

    @classmethod
    def current(cls) -> "Gpu":
        cuda = runtime()
        device = _call("cudaGetDevice")
        attributes = cuda.cudaDeviceAttr
        major = _call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, device)
        minor = _call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, device)
        name = _call("cudaGetDeviceProperties", device).name
        return cls(name.decode() if isinstance(name, bytes) else str(name), f"{major}.{minor}")


def memory() -> tuple[int, int]:
    """(free, total) bytes of the current device."""
    _free_unused()
    free, total = _call("cudaMemGetInfo")
    return int(free), int(total)


_unused: deque[tuple[Any, int]] = deque()  # memory whose object is gone: what frees it, and its address
_capturing = threading.RLock()


def _free_unused() -> None:
    """Free it once the device is done with it: queued work may still name it, and its object may go at any moment."""
    with _capturing:  # waiting for the device would break a capture
        if _unused:
            _call("cudaDeviceSynchronize")
        while _unused:
            free, address = _unused.popleft()
            free(address)


def _free_with(owner: object, free: Any, address: int) -> None:
    weakref.finalize(owner, _unused.append, (free, address)).atexit = False


class Buffer:
    """Device memory, freed some time after the object. what: names it in the error when there is not enough."""

    def __init__(self, size: int, what: str) -> None:
        self.size = size
        _free_unused()
        status, pointer = runtime().cudaMalloc(max(size, 1))
        if int(status):
            raise out_of_memory(what, size) if "MemoryAllocation" in status.name else _error("cudaMalloc", status)
        self.address = int(pointer)
        _free_with(self, runtime().cudaFree, self.address)


class Pinned:
    """Page-locked host memory as an array: copies from and to it run beside the host and the device."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        _free_unused()
        self.address = int(_call("cudaMallocHost", size))
        _free_with(self, runtime().cudaFreeHost, self.address)
        memory = memoryview((ctypes.c_uint8 * size).from_address(self.address)).cast("B")
        self.array: NDArray[Any] = np.frombuffer(memory, dtype=dtype, count=int(np.prod(shape))).reshape(shape)


class Event:
    """A mark in a stream."""

    def __init__(self) -> None:
        self.handle = _call("cudaEventCreateWithFlags", runtime().cudaEventDisableTiming)
        weakref.finalize(self, runtime().cudaEventDestroy, self.handle).atexit = False

    @property
    def passed(self) -> bool:
        """Whether everything before the last record is done; True if nothing was recorded."""
        status = runtime().cudaEventQuery(self.handle)[0]
        if int(status) and "NotReady" not in status.name:
            raise _error("cudaEventQuery", status)
        return not int(status)

    def wait(self) -> None:
        """Let the host wait for it."""
        _call("cudaEventSynchronize", self.handle)


class Stream:
    """Work in order, beside the host. Not the default stream: that one waits for all others."""

    def __init__(self) -> None:
        self._handle = _call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)
        weakref.finalize(self, runtime().cudaStreamDestroy, self._handle).atexit = False

    @property
    def handle(self) -> int:
        return int(self._handle)

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy from pinned memory to the device; the source must stay as it is until the copy is done."""
        self._copy(target, source, size, "cudaMemcpyHostToDevice")

    def download(self, target: int, source: int, size: int) -> None:
        """Copy from the device to pinned memory; read the target after the copy is done, not before."""
        self._copy(target, source, size, "cudaMemcpyDeviceToHost")

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        _call("cudaMemcpyAsync", target, source, size, getattr(runtime().cudaMemcpyKind, kind), self._handle)

    def record(self, event: Event) -> None:
        _call("cudaEventRecord", event.handle, self._handle)

    def wait_for(self, event: Event) -> None:
        """Let the stream, not the host, wait for a mark in another stream."""
        _call("cudaStreamWaitEvent", self._handle, event.handle, 0)

    def synchronize(self) -> None:
        """Let the host wait for all work of this stream."""
        _call("cudaStreamSynchronize", self._handle)

    @contextmanager
    def capture(self, into: "Graph") -> Iterator[None]:
        """Record what is queued inside instead of running it. Only this thread's calls are restricted meanwhile."""
        mode = runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with _capturing:
            _call("cudaStreamBeginCapture", self._handle, mode)
            try:
                yield
            except BaseException:
                runtime().cudaStreamEndCapture(self._handle)  # leave the stream usable; tell of the first error
                raise
            into.set(_call("cudaStreamEndCapture", self._handle))

    def launch(self, graph: "Graph") -> None:
        _call("cudaGraphLaunch", graph.executable, self._handle)


class Graph:
    """Captured work, replayed by `Stream.launch`: one call for all its kernels, on the same addresses each time."""

    executable: Any = None

    def set(self, captured: Any) -> None:
        self.executable = _call("cudaGraphInstantiate", captured, 0)
        weakref.finalize(self, runtime().cudaGraphExecDestroy, self.executable).atexit = False
        _call("cudaGraphDestroy", captured)


def out_of_memory(what: str, size: int) -> EngineError:
    """EngineError: how much was needed, how much is free, which option lowers it."""
    free, total = memory()
    return EngineError(
        f"out of device memory: {what} needs {_gb(size)}, {_gb(free)} of {_gb(total)} are free; {LESS_MEMORY}"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10_000_000 else f"{size / 1e6:.2f} MB"


def _call(name: str, *arguments: Any) -> Any:
    """The results of a call of the binding, which returns (status, result...); EngineError where it failed."""
    status, *results = getattr(runtime(), name)(*arguments)
    if int(status):
        raise _error(name, status)
    return results[0] if len(results) == 1 else tuple(results)


def _error(name: str, status: Any) -> EngineError:
    text = runtime().cudaGetErrorString(status)[1]
    return EngineError(f"CUDA failed in {name}: {text.decode() if isinstance(text, bytes) else text} ({status.name})")
