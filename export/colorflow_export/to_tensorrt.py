"""From checked ONNX to TensorRT engines: one strongly typed, static engine per graph and canvas shape.

One code path for TensorRT 10.16 and 11: precision comes from the ONNX file alone, and what 11 removed is never touched.
An engine is built for the GPU at hand, read back, looked into (`engine_report`), and only then takes its place:
unique temporary, rename, then the manifest (`colorflow_rt.engine.plans`). Not yet run on a GPU (docs/tensorrt.md).
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colorflow_export.engine_report import faults, fusable_attention, read_report
from colorflow_rt.engine import trt
from colorflow_rt.engine.plans import Manifest, Origin, Plan, fault
from colorflow_rt.errors import EngineError, OptionError, OutputError
from colorflow_rt.files import atomic_path, atomic_write, file_sha256
from colorflow_rt.lock import WriterLock

if TYPE_CHECKING:
    from colorflow_export.checked import CheckedGraph

LOCK = "tensorrt.lock"
missing = trt.missing


@dataclass(frozen=True)
class BuildOptions:
    """workspace_gb: scratch memory that a single layer may ask for. level: the builder's optimisation level, 0 to 5.

    timing_cache: keep measured kernels beside the engines, for the next build by the same version on the same GPU.
    force: build again what is there. check: look into each engine and refuse one that is not what was asked for.
    """

    workspace_gb: float = 8.0
    level: int = 3
    timing_cache: bool = True
    force: bool = False
    check: bool = True

    def __post_init__(self) -> None:
        if not 0.01 <= self.workspace_gb <= 1000:
            raise OptionError(f"workspace_gb is {self.workspace_gb}, expected 0.01 to 1000")
        if self.level not in range(6):
            raise OptionError(f"level is {self.level}, expected 0 to 5")

    @property
    def flags(self) -> tuple[str, ...]:
        """What of it changes the engine."""
        return ("strongly_typed", "no_tf32", f"level={self.level}", f"workspace_gb={self.workspace_gb:g}")


@dataclass(frozen=True)
class BuiltEngine:
    """note: one line, what was done and why."""

    graph: "CheckedGraph"
    path: Path
    note: str


def build(graphs: "Sequence[CheckedGraph]", out: Path, options: BuildOptions | None = None) -> list[BuiltEngine]:
    """An engine in `out` for each graph: kept where it still fits, else built, the reason in its note.

    UnavailableError without TensorRT or GPU. EngineError where TensorRT cannot parse or build a graph, or the engine is
    not what was asked for. OutputError where another build is at work in `out`, or it cannot be written.
    """
    library, options = trt.require(), options or BuildOptions()
    with WriterLock(out / LOCK, f"the engines in {out}", error=OutputError):
        builder = _Builder(library, trt.Here.current(), out, options)
        return [builder.bring(graph) for graph in graphs]


class _Builder:
    """Builds for one machine into one folder, whose lock is held."""

    def __init__(self, library: Any, here: trt.Here, out: Path, options: BuildOptions) -> None:
        self._trt, self._here, self._out, self._options = library, here, out, options
        self._log = trt.make_log(library)

    def bring(self, graph: "CheckedGraph") -> BuiltEngine:
        """The engine of `graph`, built unless a plan that fits is there."""
        path = graph.path.with_suffix(".plan")
        origin = Origin(
            onnx=graph.sha256,
            weights=graph.weights,
            tensorrt=self._here.tensorrt,
            compute_capability=self._here.compute_capability,
            profile=graph.profile(),
            flags=self._options.flags,
        )
        manifest = Manifest.read(self._out)
        why = (
            "it was asked for" if self._options.force else fault(self._out, manifest.plans.get(graph.path.name), origin)
        )
        if why is None:
            return BuiltEngine(graph, path, f"{path.name}: kept, it fits")
        started = time.perf_counter()
        data, scratch = self._compile(graph)
        seconds = time.perf_counter() - started
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        digest = sha256(data).hexdigest()
        plan = Plan(path.name, digest, origin.key, graph.graph, self._here.gpu, round(seconds, 1), scratch, origin)
        manifest.with_plan(graph.path.name, plan).write(self._out)
        return BuiltEngine(graph, path, f"{path.name}: built in {seconds:.0f} s, {len(data) / 1e6:.1f} MB: {why}")

    def _compile(self, graph: "CheckedGraph") -> tuple[bytes, int]:
        """The plan of a graph, and the scratch memory that it needs, in bytes."""
        if file_sha256(graph.path) != graph.sha256:
            raise EngineError(f"{graph.path} has changed since it was checked: run build-engines again")
        builder = self._trt.Builder(self._log)
        network = builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parse(network, graph)
        config = self._config(builder, graph)
        cache = self._load_cache(config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(
                f"TensorRT cannot build {graph.path.name}: {trt.complaint(self._log)}; if memory was lacking, "
                f"lower --workspace-gb (now {self._options.workspace_gb:g}) or free memory of other programs"
            )
        self._store_cache(cache, config)
        data = bytes(plan)
        return data, self._look_into(graph, data)

    def _parse(self, network: Any, graph: "CheckedGraph") -> None:
        parser = self._trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(graph.path)):  # from the file: weights are beside it
            errors = "; ".join(parser.get_error(i).desc() for i in range(min(parser.num_errors, 3)))
            raise EngineError(f"TensorRT cannot parse {graph.path.name}: {errors or trt.complaint(self._log)}")

    def _config(self, builder: Any, graph: "CheckedGraph") -> Any:
        config = builder.create_builder_config()
        config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, int(self._options.workspace_gb * 2**30))
        config.clear_flag(self._trt.BuilderFlag.TF32)  # float32 is to be float32: it is what fp16 is compared with
        config.builder_optimization_level = self._options.level
        config.profiling_verbosity = self._trt.ProfilingVerbosity.DETAILED  # or there is nothing to look into
        profile = builder.create_optimization_profile()
        for name, shapes in graph.profile().items():
            profile.set_shape(name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"TensorRT does not take the shapes of {graph.path.name}: {graph.profile()}")
        return config

    def _cache_path(self) -> Path:
        return self._out / f"timing-{self._here.tensorrt}-{self._here.compute_capability}.cache"

    def _load_cache(self, config: Any) -> Any:
        """What the builder measured before. A cache that TensorRT does not take is no fault: it measures again."""
        if not self._options.timing_cache:
            return None
        data = b""
        with suppress(OSError):
            data = self._cache_path().read_bytes()
        cache = config.create_timing_cache(data) or config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _store_cache(self, cache: Any, config: Any) -> None:
        if cache is not None:
            atomic_write(self._cache_path(), bytes(config.get_timing_cache().serialize()))

    def _look_into(self, graph: "CheckedGraph", data: bytes) -> int:
        """Its scratch memory in bytes; EngineError where the engine is not what was asked for."""
        engine = self._trt.Runtime(self._log).deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(f"TensorRT cannot load what it built of {graph.path.name}: {trt.complaint(self._log)}")
        text = engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        atomic_write(graph.path.with_suffix(".layers.json"), text.encode())
        found = faults(read_report(text), graph.precision, fusable_attention(graph.path))
        if found and self._options.check:
            raise EngineError(f"the engine of {graph.path.name} is not what was asked for: {'; '.join(found)}")
        return int(engine.device_memory_size_v2)
