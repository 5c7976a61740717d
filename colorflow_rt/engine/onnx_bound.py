"""ONNX Runtime with tensors bound on a device: the CUDA provider, or TensorRT's inside ONNX Runtime.

Inputs and outputs are allocated on the device once (IOBinding), the denoise loop's state never leaves it, and where all
shapes are fixed the provider records its kernels as CUDA graphs and replays them. A step is waited for: ONNX Runtime's
Python interface has no copies in the order of its stream. device "cpu" binds host memory: the same code, for tests.

The interface is onnxruntime's documented one; on a GPU it was not yet run (docs/tensorrt.md).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from colorflow_rt.engine.onnx import _check_specs, _line, _options
from colorflow_rt.engine.protocol import STATE, Tensors, TensorSpec, check_feeds
from colorflow_rt.errors import EngineError, UnavailableError, check_choice, install_hint

_CUDA = {
    "arena_extend_strategy": "kSameAsRequested",  # doubling would waste gigabytes at canvas size
    "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive one takes minutes at each start
    "use_tf32": "0",
}
DEVICES: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "cpu": (("CPUExecutionProvider", {}),),
    "cuda": (("CUDAExecutionProvider", _CUDA),),
    "tensorrt": (("TensorrtExecutionProvider", {}), ("CUDAExecutionProvider", _CUDA)),
}
_GRAPHS = {"CUDAExecutionProvider": "enable_cuda_graph", "TensorrtExecutionProvider": "trt_cuda_graph_enable"}
_TURNS = 3  # sets of state tensors: what a step writes is read as it is by the two that follow


class OnnxBoundEngine:
    """A graph in ONNX Runtime on a device; results come back in host memory. Use it from one thread at a time.

    specs as for `OnnxEngine`. Nothing falls back to the CPU: UnavailableError where the provider is not installed or
    finds no GPU; EngineError where the model cannot be loaded, differs from its specs, or fails.
    """

    def __init__(
        self,
        path: Path,
        graph: str,
        specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
        *,
        device: str = "cuda",
        threads: int | None = None,
    ) -> None:
        check_choice("device", device, tuple(DEVICES), EngineError)
        self.graph, self.inputs, self.outputs = graph, tuple(specs[0]), tuple(specs[1])
        self.fixed = all(isinstance(axis, int) for spec in (*self.inputs, *self.outputs) for axis in spec.shape)
        self._memory = "cpu" if device == "cpu" else "cuda"
        self._session = _session(path, graph, device, threads, self.fixed)
        _check_specs(graph, "input", self.inputs, self._session.get_inputs())
        _check_specs(graph, "output", self.outputs, self._session.get_outputs())
        self._bound: dict[str, Any] = {}
        self._binding: Any = None

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds(self.graph, self.inputs, feeds)
        if not self.fixed:
            return self._plain(feeds)
        if self._binding is None:
            self._bound = self.allocate((*self.inputs, *self.outputs))
            self._binding = self.binding(self._bound)
        for name, array in feeds.items():
            self._bound[name].update_inplace(np.ascontiguousarray(array))
        self.run(self._binding, _TURNS + 1)
        return {spec.name: _copied(self._bound[spec.name]) for spec in self.outputs}

    @contextmanager
    def bind(self, feeds: Tensors) -> "Iterator[OnnxLoop]":
        """The denoise loop of one batch, from its first feeds (protocol Bindable)."""
        if not self.fixed:
            raise EngineError(f"{self.graph} has open shapes, expected fixed ones: build it for a page size")
        yield OnnxLoop(self, feeds)

    def allocate(self, specs: Sequence[TensorSpec]) -> dict[str, Any]:
        """A tensor on the device for each, by name."""
        make = ort.OrtValue.ortvalue_from_shape_and_type
        return {spec.name: make(list(spec.shape), np.dtype(spec.dtype).type, self._memory, 0) for spec in specs}

    def binding(self, tensors: Tensors | dict[str, Any]) -> Any:
        """All inputs and outputs at these tensors."""
        binding = self._session.io_binding()
        for spec in self.inputs:
            binding.bind_ortvalue_input(spec.name, tensors[spec.name])
        for spec in self.outputs:
            binding.bind_ortvalue_output(spec.name, tensors[spec.name])
        return binding

    def run(self, binding: Any, number: int) -> None:
        """One run. number: of the CUDA graph that belongs to these addresses."""
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise EngineError(f"{self.graph} failed: {_line(error)}") from error

    def _plain(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        names = [spec.name for spec in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise EngineError(f"{self.graph} failed: {_line(error)}") from error


class OnnxLoop:
    """One batch of denoise_step whose state stays on the device (protocol BoundLoop).

    Three sets of tensors take turns, so that nothing is copied: turn t reads sample t, predictions t - 1 and t - 2, and
    writes sample t + 1 and prediction t. Each turn has its own binding, and with it its own CUDA graph.
    """

    def __init__(self, engine: OnnxBoundEngine, feeds: Tensors) -> None:
        check_feeds(engine.graph, engine.inputs, {spec.name: feeds[spec.name] for spec in engine.inputs})
        self._engine, self._turn = engine, 0
        specs = {spec.name: spec for spec in engine.inputs}
        self._samples = [engine.allocate([specs["sample"]])["sample"] for _ in range(_TURNS)]
        self._found = [engine.allocate([specs["x0_prev1"]])["x0_prev1"] for _ in range(_TURNS)]
        self._rest = engine.allocate([spec for spec in engine.inputs if spec.name not in STATE[:3]])
        self._bindings = [engine.binding(self._rest | self._places(turn)) for turn in range(_TURNS)]
        for name in STATE:
            self._tensor(name).update_inplace(np.ascontiguousarray(feeds[name]))

    def step(self, feeds: Tensors) -> None:
        """All rows by one step."""
        for name, tensor in self._rest.items():
            if name != "condition":
                tensor.update_inplace(np.ascontiguousarray(feeds[name]))
        self._engine.run(self._bindings[self._turn], self._turn + 1)
        self._turn = (self._turn + 1) % _TURNS

    def join(self, row: int, feeds: Tensors) -> None:
        """Let a page take a row: feeds of STATE without the batch axis."""
        for name in STATE:
            tensor = self._tensor(name)
            array = _copied(tensor)
            if array[row].shape != feeds[name].shape:
                raise EngineError(f"{name} of a row is {list(array[row].shape)}, got {list(feeds[name].shape)}")
            array[row] = feeds[name]
            tensor.update_inplace(array)

    def x0(self) -> NDArray[np.float32]:
        """f32[B,C,h,w]: the last step's prediction."""
        return _copied(self._tensor("x0_prev1"))

    def preview(self) -> "Arrived":
        """The last step's prediction, already here."""
        return Arrived(self.x0())

    def _places(self, turn: int) -> dict[str, Any]:
        after, before = (turn + 1) % _TURNS, (turn - 1) % _TURNS
        return {
            "sample": self._samples[turn],
            "x0_prev1": self._found[before],
            "x0_prev2": self._found[(turn - 2) % _TURNS],
            "sample_next": self._samples[after],
            "x0": self._found[turn],
        }

    def _tensor(self, name: str) -> Any:
        """Where an input of the coming step lies."""
        return self._rest[name] if name in self._rest else self._places(self._turn)[name]


class Arrived:
    """A preview that needs no waiting."""

    ready = True

    def __init__(self, array: NDArray[np.float32]) -> None:
        self._array = array

    def wait(self) -> NDArray[np.float32]:
        return self._array


def _copied(tensor: Any) -> NDArray[Any]:
    """In host memory, and the caller's own: of a tensor on the CPU `numpy` is a view."""
    return np.array(tensor.numpy())


def _session(path: Path, graph: str, device: str, threads: int | None, fixed: bool) -> Any:
    wanted = [
        (name, options | ({_GRAPHS[name]: "1"} if fixed and name in _GRAPHS else {}))
        for name, options in DEVICES[device]
    ]
    missing = [name for name, _ in wanted if name not in ort.get_available_providers()]
    if missing:
        raise UnavailableError(
            f"{graph} cannot run on {missing[0]}: onnxruntime {ort.__version__} here offers "
            f"{', '.join(ort.get_available_providers())}; on a machine with an NVIDIA GPU: {install_hint('gpu')}"
        )
    settings = _options(threads)
    if fixed and device != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(str(path), settings, providers=wanted)
    except Exception as error:
        raise EngineError(f"{graph} cannot be loaded from {path}: {_line(error)}") from error
    if wanted[0][0] not in session.get_providers():
        raise UnavailableError(
            f"{graph}: {wanted[0][0]} did not start (no GPU, or a driver too old): use --engine onnx-cpu"
        )
    return session
