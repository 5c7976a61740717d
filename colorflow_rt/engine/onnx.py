"""The ONNX Runtime backend."""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from colorflow_rt.engine.onnx_graph import external_files, with_outputs
from colorflow_rt.engine.protocol import Tensors, TensorSpec, check_feeds
from colorflow_rt.errors import EngineError, OptionError

CPU = ("CPUExecutionProvider",)

# Bytes of weights on the disk from which on ONNX Runtime may not pack them. Packed they are the process's own memory
# (400 MB of matrices took 430 MB, 570 while they were loaded), else pages of the mapped file, which the system drops at
# need. Calls then pack as they go: 0.23 s for 0.18 s at 64 rows. Below a gigabyte the faster call is worth the memory.
PACK_LIMIT = 1_000_000_000

_NO_PACKING = "session.disable_prepacking"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxEngine:
    """A graph of a pack in ONNX Runtime. Calls are safe from several threads; each waits for its own result.

    specs are the inputs and outputs as pack.toml has them, checked against the model's own. threads: of one
    call; by default every CPU that this process may use, or COLORFLOW_THREADS. EngineError, in one line,
    where the model cannot be loaded, differs from its specs, or fails, or a provider is not installed.
    inner: tensors inside the graph (`onnx_graph.read_nodes`) that calls return too, for looking into a model.
    """

    def __init__(
        self,
        path: Path,
        graph: str,
        specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
        *,
        threads: int | None = None,
        providers: Sequence[str] = CPU,
        inner: Sequence[str] = (),
    ) -> None:
        self.graph = graph
        self.inputs, self.outputs = tuple(specs[0]), tuple(specs[1])
        self._names = [*(spec.name for spec in self.outputs), *inner]
        _check_providers(graph, providers)
        try:
            data, options = path.read_bytes(), _options(threads)
            if _weight_bytes(path.parent, data) > PACK_LIMIT:
                options.add_session_config_entry(_NO_PACKING, "1")
            model = with_outputs(data, inner) if inner else str(path)
            if inner:  # a model of bytes does not know where its weights lie
                options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
            self._session = ort.InferenceSession(model, options, providers=list(providers))
        except Exception as error:  # onnxruntime's own errors have no common base but Exception
            raise EngineError(f"{graph} cannot be loaded from {path}: {_line(error)}") from error
        _check_specs(graph, "input", self.inputs, self._session.get_inputs())
        own = [node for node in self._session.get_outputs() if node.name not in inner]
        _check_specs(graph, "output", self.outputs, own)

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds(self.graph, self.inputs, feeds)
        try:
            found = self._session.run(self._names, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise EngineError(f"{self.graph} failed on {shapes}: {_line(error)}") from error
        return dict(zip(self._names, found, strict=True))


def available_threads() -> int:
    """COLORFLOW_THREADS, or the number of CPUs that this process may run on; OptionError unless 1 or more."""
    wanted = os.environ.get("COLORFLOW_THREADS", "")
    if not wanted:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
        raise OptionError(f"COLORFLOW_THREADS is {wanted!r}, expected a whole number of 1 or more")
    return int(wanted)


def _weight_bytes(folder: Path, model: bytes) -> int:
    """Of the files beside the model that hold its weights; what is missing there ONNX Runtime names when it loads."""
    paths = [folder / name for name in external_files(model)]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _options(threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = available_threads() if threads is None else threads
    options.inter_op_num_threads = 1
    # Each engine has threads of its own: those of the last call, spinning, would take the cores from the next engine's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it would print is in the error that we raise
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@cache
def _share_arena() -> None:
    """One CPU arena for all sessions, grown by what is asked for.

    Engines run one after another, so they can use the same memory: three sessions of one network peaked at
    150 MB, against 467 MB with an arena each (those double as they grow), at equal speed.
    """
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    same_as_requested = 1
    settings = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(settings | {"arena_extend_strategy": same_as_requested}))


def _check_providers(graph: str, providers: Sequence[str]) -> None:
    missing = [name for name in providers if name not in ort.get_available_providers()]
    if missing:
        raise EngineError(
            f"{graph} cannot run on {', '.join(missing)}: onnxruntime {ort.__version__} here offers "
            f"{', '.join(ort.get_available_providers())}; install it with: pip install 'colorflow-rt[gpu]'"
        )


def _check_specs(graph: str, kind: str, specs: Iterable[TensorSpec], nodes: Iterable[Any]) -> None:
    """The model has exactly these tensors, and fixes no axis that the pack leaves open."""
    found = {node.name: _spec(node) for node in nodes}
    expected = {spec.name: spec for spec in specs}
    if found.keys() != expected.keys():
        raise EngineError(
            f"the {kind}s of {graph} in pack.toml are {sorted(expected)}, those of its model {sorted(found)}"
        )
    for name, spec in expected.items():
        if not found[name].allows(spec):
            raise EngineError(f"{kind} of {graph}: pack.toml has {spec}, its model {found[name]}")


def _spec(node: Any) -> TensorSpec:
    axes = tuple(axis if isinstance(axis, int) else str(axis) for axis in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), axes)


def _line(error: Exception) -> str:
    """Of onnxruntime's report the part that says what is wrong: one line, at most 300 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"
