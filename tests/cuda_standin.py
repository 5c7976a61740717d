"""A device in Python behind the calls of `cuda.bindings.runtime` that ColorFlow RT makes.

It is as unforgiving as a real one is silent: queued work runs late (only when somebody waits for it), so memory that is
read or overwritten too early shows; device memory is NaN until written and gone once freed; while a stream is captured,
calls that CUDA forbids fail. Every call is in `log`. The parameters of each function are those that NVIDIA documents
(test_engine_cuda.py compares them with the real package).
"""

# ruff: noqa: N801, N802, N815 - the names are CUDA's

import ctypes
import enum
import inspect
import threading
from collections import deque
from types import SimpleNamespace

import numpy as np


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNotReady = 600
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


OK, FORBIDDEN = (cudaError_t.cudaSuccess,), cudaError_t.cudaErrorStreamCaptureUnsupported
_BASE, _GAP = 0x7F0000000000, 1 << 20


class _Stream:
    def __init__(self, handle):
        self.handle, self.queue, self.captured = handle, deque(), None

    def __int__(self):
        return self.handle

    def add(self, work):
        (self.queue if self.captured is None else self.captured).append(work)


class _Event:
    """asked: how often it was recorded; done: how many of those the device has passed."""

    def __init__(self):
        self.asked = self.done = 0
        self.stream = None


class Cuda:
    """One device. Use it as the module: `sys.modules["cuda.bindings.runtime"] = Cuda()`."""

    cudaError_t, cudaMemcpyKind = cudaError_t, cudaMemcpyKind
    cudaStreamCaptureMode, cudaDeviceAttr = cudaStreamCaptureMode, cudaDeviceAttr
    cudaStreamNonBlocking, cudaEventDisableTiming = 1, 2

    def __init__(self, devices=1, capacity=1 << 30, compute=(9, 0), name="NVIDIA H200"):
        self.devices, self.capacity, self.compute, self.name = devices, capacity, compute, name
        self.memory, self.pinned, self.streams, self.log = {}, {}, [], []
        self._next, self._lock = _BASE, threading.RLock()

    def __getattribute__(self, name):
        """Calls may come from several threads, as with CUDA."""
        value = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not inspect.ismethod(value):
            return value

        def locked(*arguments):
            with self._lock:
                return value(*arguments)

        return locked

    # --- device

    def cudaGetDeviceCount(self):
        return (cudaError_t.cudaSuccess, self.devices)

    def cudaGetDevice(self):
        return (cudaError_t.cudaSuccess, 0)

    def cudaDeviceGetAttribute(self, attr, device):
        index = {75: 0, 76: 1}[int(attr)]
        return (cudaError_t.cudaSuccess, self.compute[index])

    def cudaGetDeviceProperties(self, device):
        return (cudaError_t.cudaSuccess, SimpleNamespace(name=self.name.encode()))

    def cudaMemGetInfo(self):
        used = sum(len(block) for block in self.memory.values())
        return (cudaError_t.cudaSuccess, self.capacity - used, self.capacity)

    def cudaGetErrorString(self, error):
        text = {2: "out of memory", 900: "operation not permitted when stream is capturing"}
        return (cudaError_t.cudaSuccess, text.get(int(error), "failed").encode())

    def cudaDeviceSynchronize(self):
        self.log.append(("cudaDeviceSynchronize",))
        if self._capturing():
            return (FORBIDDEN,)
        for stream in self.streams:
            self._drain(stream)
        return OK

    # --- memory

    def cudaMalloc(self, size):
        self.log.append(("cudaMalloc", size))
        if self._capturing():
            return (FORBIDDEN, None)
        if size > self.cudaMemGetInfo()[1]:
            return (cudaError_t.cudaErrorMemoryAllocation, None)
        address, self._next = self._next, self._next + size + _GAP - size % 256
        self.memory[address] = np.full(size, 0xFF, np.uint8)  # NaN in every float type
        return (cudaError_t.cudaSuccess, address)

    def cudaFree(self, devPtr):
        self.log.append(("cudaFree", devPtr))
        del self.memory[devPtr]
        return OK

    def cudaMallocHost(self, size):
        self.log.append(("cudaMallocHost", size))
        block = (ctypes.c_byte * size)()
        ctypes.memset(block, 0xFF, size)
        self.pinned[ctypes.addressof(block)] = block
        return (cudaError_t.cudaSuccess, ctypes.addressof(block))

    def cudaFreeHost(self, ptr):
        del self.pinned[ptr]
        return OK

    def device(self, address, size):
        """The bytes at a device address; AssertionError where they are not all of one living allocation."""
        for start, block in self.memory.items():
            if start <= address < start + len(block):
                assert address + size <= start + len(block), f"{size} bytes at {address:#x} run over their allocation"
                return block[address - start : address - start + size]
        raise AssertionError(f"device memory at {address:#x} was never had or is freed")

    def host(self, address, size):
        for start, block in self.pinned.items():
            if start <= address and address + size <= start + len(block):
                return np.frombuffer((ctypes.c_byte * size).from_address(address), np.uint8)
        raise AssertionError(f"host memory at {address:#x} is not page-locked: the copy would wait for the host")

    def cudaMemcpyAsync(self, dst, src, count, kind, stream):
        self.log.append(("cudaMemcpyAsync", kind.name, count))
        to = self.host if kind == cudaMemcpyKind.cudaMemcpyDeviceToHost else self.device
        of = self.host if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else self.device
        to(dst, count), of(src, count)
        self._known(stream).add(lambda: np.copyto(to(dst, count), of(src, count)))
        return OK

    # --- streams and events

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        self.streams.append(_Stream(0x1000 + len(self.streams)))
        return (cudaError_t.cudaSuccess, self.streams[-1])

    def cudaStreamDestroy(self, stream):
        self._drain(stream)
        return OK

    def cudaStreamSynchronize(self, stream):
        self.log.append(("cudaStreamSynchronize",))
        if self._known(stream).captured is not None:
            return (FORBIDDEN,)
        self._drain(stream)
        return OK

    def cudaStreamWaitEvent(self, stream, event, flags):
        self.log.append(("cudaStreamWaitEvent",))
        assert flags == 0
        self._known(stream).add((event, event.asked))
        return OK

    def cudaEventCreateWithFlags(self, flags):
        assert flags == self.cudaEventDisableTiming
        return (cudaError_t.cudaSuccess, _Event())

    def cudaEventDestroy(self, event):
        return OK

    def cudaEventRecord(self, event, stream):
        self.log.append(("cudaEventRecord",))
        event.asked, event.stream = event.asked + 1, self._known(stream)
        number = event.asked
        event.stream.add(lambda: setattr(event, "done", max(event.done, number)))
        return OK

    def cudaEventQuery(self, event):
        self.log.append(("cudaEventQuery",))
        if event.done == event.asked:
            return OK
        for stream in self.streams:  # time goes on
            self._one(stream)
        return (cudaError_t.cudaErrorNotReady,)

    def cudaEventSynchronize(self, event):
        self.log.append(("cudaEventSynchronize", event.done == event.asked))
        if self._capturing():
            return (FORBIDDEN,)
        self._until(event, event.asked)
        return OK

    # --- graphs

    def cudaStreamBeginCapture(self, stream, mode):
        self.log.append(("cudaStreamBeginCapture",))
        assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        assert self._known(stream).captured is None
        stream.captured = []
        return OK

    def cudaStreamEndCapture(self, stream):
        self.log.append(("cudaStreamEndCapture",))
        captured, stream.captured = stream.captured, None
        if captured is None:
            return (cudaError_t.cudaErrorInvalidValue, None)
        return (cudaError_t.cudaSuccess, captured)

    def cudaGraphInstantiate(self, graph, flags):
        self.log.append(("cudaGraphInstantiate", len(graph)))
        return (cudaError_t.cudaSuccess, list(graph))

    def cudaGraphDestroy(self, graph):
        graph.clear()
        return OK

    def cudaGraphExecDestroy(self, graphExec):
        return OK

    def cudaGraphLaunch(self, graphExec, stream):
        self.log.append(("cudaGraphLaunch",))
        assert graphExec, "an empty graph was launched"
        for work in graphExec:
            self._known(stream).add(work)
        return OK

    # --- how the device gets on

    def stream_of(self, handle):
        """The stream of a handle as TensorRT gets it; the default stream (0) is nobody's."""
        return next(stream for stream in self.streams if stream.handle == handle)

    def _known(self, stream):
        assert stream in self.streams, "not a stream of this device"
        return stream

    def _capturing(self):
        return any(stream.captured is not None for stream in self.streams)

    def _one(self, stream):
        """Run the next thing in a stream; False where it is empty or has to wait for another stream."""
        if not stream.queue:
            return False
        work = stream.queue[0]
        if isinstance(work, tuple):
            event, number = work
            if event.done < number:
                return False
        stream.queue.popleft()
        if not isinstance(work, tuple):
            work()
        return True

    def _drain(self, stream):
        while stream.queue:
            if not self._one(stream):
                self._until(*stream.queue[0])

    def _until(self, event, number):
        while event.done < number:
            if not self._one(event.stream):
                assert event.stream.queue, "waited for an event that will never come"
                self._until(*event.stream.queue[0])
