"""A TensorRT engine with its tensors on the device: allocated once, at addresses that never change.

`Lane` is a stream and the scratch memory of all engines that work on it one after another. `Bound` is an execution
context whose tensors lie in one allocation. Nothing here waits for the device but `Lane.synchronize`.
"""

import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine.cuda import Buffer, Pinned, Stream
from colorflow_rt.engine.protocol import TensorSpec
from colorflow_rt.engine.trt import complaint, library
from colorflow_rt.errors import EngineError

ALIGNMENT = 256  # bytes; TensorRT asks for it of scratch memory, and tensor cores of tensors


class Lane:
    """A stream, and scratch memory that its engines share: they run in its order, so never two at a time.

    Hold `lock` while putting work into the stream. `generation` grows when the scratch memory moves, which makes
    graphs captured before useless.
    """

    def __init__(self) -> None:
        self.stream, self.lock, self.generation = Stream(), threading.RLock(), 0
        self._scratch: Buffer | None = None
        self._members: weakref.WeakSet[Bound] = weakref.WeakSet()

    def adopt(self, bound: "Bound", size: int) -> None:
        """Give a context the lane's scratch memory, made larger for all where it is too small for this one."""
        with self.lock:
            if self._scratch is None or self._scratch.size < size:
                self.stream.synchronize()  # the old one may be in use
                self._scratch = None  # free it first: there may not be room for both
                self._scratch = Buffer(size, f"{bound.graph}, for its intermediate tensors,")
                self.generation += 1
                for other in self._members:
                    other.use_scratch(self._scratch)
            bound.use_scratch(self._scratch)
            self._members.add(bound)


class Bound:
    """An execution context of an engine with its own tensors in one allocation, inputs of `first` at its start.

    specs: every axis fixed but at most the batch, which is then as long as the profile allows.
    """

    def __init__(
        self,
        engine: Any,
        lane: Lane,
        graph: str,
        specs: tuple[Iterable[TensorSpec], Iterable[TensorSpec]],
        first: Iterable[str] = (),
    ) -> None:
        self.graph, self.lane = graph, lane
        strategy = library().ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = engine.create_execution_context(strategy)
        if self._context is None:
            raise EngineError(f"{graph}: TensorRT made no execution context, most likely for lack of device memory")
        inputs, outputs = tuple(specs[0]), tuple(specs[1])
        largest = _largest_batch(engine, inputs)
        ordered = sorted(inputs, key=lambda spec: spec.name not in set(first))
        self.places: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        end = 0
        for spec in (*ordered, *outputs):
            shape = tuple(largest if isinstance(axis, str) else axis for axis in spec.shape)
            self.places[spec.name] = (end, shape, np.dtype(spec.dtype))
            end += -(-int(np.prod(shape)) * np.dtype(spec.dtype).itemsize // ALIGNMENT) * ALIGNMENT
        self._memory = Buffer(end, f"{graph}, for its inputs and outputs,")
        lane.adopt(self, engine.device_memory_size_v2)
        for name in self.places:
            self._must(self._context.set_tensor_address(name, self.address(name)), f"took no address for {name}")

    def use_scratch(self, scratch: Buffer) -> None:
        self._context.set_device_memory(scratch.address, scratch.size)

    def address(self, name: str) -> int:
        return self._memory.address + self.places[name][0]

    def size(self, name: str) -> int:
        _, shape, dtype = self.places[name]
        return int(np.prod(shape)) * dtype.itemsize

    def pinned(self, name: str) -> Pinned:
        """New page-locked memory for one tensor."""
        return Pinned(*self.places[name][1:])

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """The shape of an input of this call, where its batch is open."""
        self._must(self._context.set_input_shape(name, shape), f"does not take {name} of {list(shape)}")

    def execute(self) -> None:
        """Put one run into the lane's stream."""
        self._must(self._context.execute_async_v3(self.lane.stream.handle), "did not run")

    def _must(self, well: bool, what: str) -> None:
        if not well:
            raise EngineError(f"{self.graph}: TensorRT {what}")


def check_tensors(engine: Any, graph: str, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    """EngineError unless the engine has exactly these tensors; an axis named in a spec must be open in the engine."""
    trt = library()
    found = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        mode = "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        found[name] = (mode, dtype, tuple(engine.get_tensor_shape(name)))
    expected = {
        spec.name: (mode, spec.dtype, tuple(-1 if isinstance(axis, str) else axis for axis in spec.shape))
        for mode, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    }
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise EngineError(
                f"{graph}: {name} is {found.get(name, 'missing')} in the engine, expected {expected.get(name, 'none')}"
            )


def _largest_batch(engine: Any, inputs: Iterable[TensorSpec]) -> int:
    for spec in inputs:
        if any(isinstance(axis, str) for axis in spec.shape):
            return int(engine.get_tensor_profile_shape(spec.name, 0)[2][0])
    return 0


def copied(pinned: Pinned, rows: int | None = None) -> NDArray[Any]:
    """What lies in pinned memory, as an array of the caller's own."""
    return pinned.array[:rows].copy()


__all__ = ["Bound", "Lane", "check_tensors", "complaint", "copied"]
