"""The TensorRT backend: engines compiled by `colorflow-export build-engines --target tensorrt`.

A runtime has one stream. Its engines share scratch memory, since they run one after another; each keeps its tensors on
the device at fixed addresses, so that its work is captured once as a CUDA graph and replayed. `TensorRTLoop` is the
denoise loop: the state of its pages never leaves the device between steps, and no step waits for the host.

Written against the documented interfaces of TensorRT 10.16 and 11 and tested on a stand-in that enforces them
(tests/trt_standin.py); not yet run on a GPU (docs/tensorrt.md).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine import cuda, trt
from colorflow_rt.engine.bound import Bound, Lane, check_tensors, copied
from colorflow_rt.engine.loop import TensorRTLoop
from colorflow_rt.engine.plans import admit
from colorflow_rt.engine.protocol import Tensors, TensorSpec, check_feeds
from colorflow_rt.errors import EngineError

missing = trt.missing


class EngineRecord(Protocol):
    """What is known of a built engine before it is loaded. file, sha256: of the ONNX file it was built from."""

    @property
    def graph(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


class TensorRTRuntime:
    """Loads the plans of a folder. UnavailableError where there is no TensorRT or no GPU."""

    def __init__(self, folder: Path) -> None:
        library = trt.require()
        self._folder, self._here, self._lane = folder, trt.Here.current(), Lane()
        self._log = trt.make_log(library)
        self._runtime = library.Runtime(self._log)

    def load(self, record: EngineRecord) -> "TensorRTEngine":
        """The engine built from the record's ONNX file.

        EngineError names a plan that is missing, stale, damaged or of another GPU or version (it is not touched by
        TensorRT then), one whose tensors are not the record's, and says how much device memory was lacking.
        """
        plan, data = admit(self._folder, record.file, record.sha256, self._here)
        if cuda.memory()[0] < len(data):
            raise cuda.out_of_memory(f"{record.graph}, for its weights,", len(data))
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(f"TensorRT cannot load {self._folder / plan.file}: {trt.complaint(self._log)}")
        check_tensors(engine, record.graph, record.inputs, record.outputs)
        return TensorRTEngine(engine, self._lane, record)


class TensorRTEngine:
    """A compiled graph. Calls are safe from several threads; they run one after another."""

    def __init__(self, engine: Any, lane: Lane, record: EngineRecord) -> None:
        self.graph, self.inputs, self.outputs = record.graph, record.inputs, record.outputs
        self._engine, self._lane = engine, lane
        self._host: _HostCalls | None = None
        self._idle: list[TensorRTLoop] = []

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds(self.graph, self.inputs, feeds)
        with self._lane.lock:
            if self._host is None:  # not in __init__: an engine of the loop alone needs no such memory
                self._host = _HostCalls(self._bound(), self.inputs, self.outputs)
            return self._host(feeds)

    @contextmanager
    def bind(self, feeds: Tensors) -> Iterator[TensorRTLoop]:
        """The denoise loop of one batch, from its first feeds. Loops that ended are used again."""
        with self._lane.lock:
            loop = self._idle.pop() if self._idle else TensorRTLoop(self._bound, self.inputs)
        try:
            loop.start(feeds)
            yield loop
        finally:
            self._idle.append(loop)

    def _bound(self, first: Sequence[str] = ()) -> Bound:
        return Bound(self._engine, self._lane, self.graph, (self.inputs, self.outputs), first)


class _HostCalls:
    """Calls with arrays in host memory, through page-locked buffers; replayed as a CUDA graph from the second on."""

    def __init__(self, bound: Bound, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._bound, self._lane = bound, bound.lane
        self._inputs = {spec.name: bound.pinned(spec.name) for spec in inputs}
        self._outputs = {spec.name: bound.pinned(spec.name) for spec in outputs}
        self._open = [spec.name for spec in inputs if isinstance(spec.shape[0], str)]
        self._graph, self._captured = cuda.Graph(), -1

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        if not self._open:
            return self._run(feeds, None)
        largest, batch = len(self._inputs[self._open[0]].array), len(feeds[self._open[0]])
        parts = [
            self._run({name: array[i : i + largest] for name, array in feeds.items()}, min(largest, batch - i))
            for i in range(0, batch, largest)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, feeds: Tensors, rows: int | None) -> dict[str, NDArray[Any]]:
        """rows: length of the batch of this call, where it is open."""
        stream = self._lane.stream
        for name, pinned in self._inputs.items():
            np.copyto(pinned.array[:rows], feeds[name])
            stream.upload(self._bound.address(name), pinned.address, feeds[name].nbytes)
        self._enqueue(rows)
        for name, pinned in self._outputs.items():
            stream.download(pinned.address, self._bound.address(name), pinned.array[:rows].nbytes)
        stream.synchronize()
        return {name: copied(pinned, rows) for name, pinned in self._outputs.items()}

    def _enqueue(self, rows: int | None) -> None:
        if rows is not None:
            for name in self._open:
                self._bound.set_shape(name, (rows, *self._inputs[name].array.shape[1:]))
            self._bound.execute()  # a graph would fix the batch
        elif self._captured == self._lane.generation:
            self._lane.stream.launch(self._graph)
        else:
            self._bound.execute()  # TensorRT wants one plain run before a capture
            self._graph = cuda.Graph()
            with self._lane.stream.capture(self._graph):
                self._bound.execute()
            self._captured = self._lane.generation
