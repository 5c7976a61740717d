"""A folder of built engines: what `colorflow-export build-engines` made of a pack for one target (docs/engines.md).

Each engine is made for one page size; a `ShapedEngine` stands for all engines of a graph and picks by what it is fed.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine.protocol import (
    Bindable,
    BoundLoop,
    Engine,
    Preview,
    Tensors,
    TensorSpec,
    check_feeds,
)
from colorflow_rt.errors import EngineError
from colorflow_rt.pack_config import GRAPHS, PackConfig
from colorflow_rt.records import write_toml
from colorflow_rt.verified import Verified, read_manifest

SCHEMA = 1
MANIFEST = "engines.toml"
AGAIN = "build the engines again"
TARGETS = ("onnx-cpu", "onnx-cuda", "tensorrt")
PRECISIONS = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class EngineRecord:
    """One engine. page: (W, H) in pixels, () for any; batch: 0 for any. variant: see `choose_variant`."""

    graph: str
    variant: str
    page: tuple[int, ...]
    batch: int
    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    flops: int

    def takes(self, feeds: Tensors) -> bool:
        """Whether it is made for arrays of these shapes."""
        return all(_fits(spec, feeds[spec.name].shape) for spec in self.inputs if spec.name in feeds)


@dataclass(frozen=True)
class EngineManifest:
    """engines.toml. pack_weights: `weights_hash` of the pack; weights: SHA-256 of the files beside the graphs."""

    schema: int
    pack: str
    pack_weights: str
    target: str
    precision: str
    opset: int
    weights: dict[str, str]
    engines: tuple[EngineRecord, ...]

    @classmethod
    def read(cls, folder: Path) -> "EngineManifest":
        """EngineError if there is none, it is damaged, or it is of a newer schema."""
        path = folder / MANIFEST
        if not path.is_file():
            raise EngineError(f"{folder} holds no built engines: make them with colorflow-export build-engines")
        return read_manifest(cls, path, SCHEMA, AGAIN)

    def to_toml(self) -> str:
        """The text of engines.toml."""
        return write_toml(self)


def weights_hash(config: PackConfig) -> str:
    """SHA-256, hexadecimal, of what a pack's engines are made from: weights, modules and the form of its model."""
    files = sorted(item for item in config.files.items() if item[0].endswith(".safetensors"))
    parts = [*map(repr, files), repr(config.model), repr(config.modules), config.pages.fusion_statistics]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


Loader = Callable[[EngineRecord], Engine]


class EngineSet:
    """The engines of a folder, as a source for `colorflow_rt.pack.Pack`: each is checked and loaded when first needed.

    EngineError names the folder if it was built for another target or from other weights than this pack's.
    """

    _load: Loader
    reuses = False  # the guider is part of every step of a built engine

    def __init__(self, folder: Path, config: PackConfig, target: str) -> None:
        self.manifest = EngineManifest.read(folder)
        self._folder, self._config = folder, config
        digests = {record.file: record.sha256 for record in self.manifest.engines} | self.manifest.weights
        self._files = Verified(folder, digests, AGAIN, unreadable=EngineError, damaged=EngineError)
        self._turns = threading.RLock()
        if self.manifest.target != target:
            raise EngineError(f"{folder} holds engines for {self.manifest.target}, not for {target}: give --engines")
        if self.manifest.pack_weights != weights_hash(config):
            raise EngineError(
                f"the engines in {folder} were built from other weights than those of pack {config.name}: build them "
                f"again with colorflow-export build-engines --pack {config.name} --target {target}"
            )

    def on(self, load: Loader) -> "EngineSet":
        """Itself, with what loads one engine."""
        self._load = load
        return self

    def load(self, graph: str) -> Engine:
        """All engines of a graph as one; EngineError if there is none."""
        records = [record for record in self.manifest.engines if record.graph == graph]
        if not records:
            raise EngineError(f"{self._folder} has no engine of {graph}: {AGAIN}")
        specs = self._config.graphs[graph]
        on_device = graph == "denoise_step" and self.manifest.target != "onnx-cpu"
        kind = BoundShapedEngine if on_device else ShapedEngine
        turns = self._turns if self.manifest.target == "onnx-cuda" else None
        return kind(graph, (specs.inputs, specs.outputs), records, self.open, turns)

    def verify(self) -> None:
        self._files.check_all()

    def encoder_hashes(self) -> list[str]:
        """Embeddings of engines of equal precision and weights can be compared, whatever machine made them."""
        return [self.manifest.pack_weights, self.manifest.precision]

    def open(self, record: EngineRecord) -> Engine:
        """One engine, after its file and weights were checked."""
        self._files.check([record.file, *self.manifest.weights])
        return self._load(record)


class ShapedEngine:
    """The engines of one graph behind the tensors that pack.toml documents: each call goes to the one made for it.

    A batch that none was made for is computed one sample after another. turns: held during a call, where engines are
    not safe for several threads. EngineError names the page sizes there are.
    """

    def __init__(
        self,
        graph: str,
        specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
        records: Sequence[EngineRecord],
        load: Loader,
        turns: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.graph = graph
        self.inputs, self.outputs = tuple(specs[0]), tuple(specs[1])
        self._records, self._load = records, load
        self._turns = turns or nullcontext()
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        check_feeds(self.graph, self.inputs, feeds)
        variants = choose_variants(feeds.get("guidance_scale"))
        record = self._find(feeds, variants)
        if record is not None:
            return self._run(record, feeds)
        rows = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(_batch(feeds))]
        found = [self._row(row) for row in rows]
        return {spec.name: np.concatenate([row[spec.name] for row in found]) for spec in self.outputs}

    def _row(self, row: Tensors) -> dict[str, NDArray[Any]]:
        record = self._find(row, choose_variants(row.get("guidance_scale")))
        if record is None:
            raise EngineError(self._unknown(row))
        return self._run(record, row)

    def _find(self, feeds: Tensors, variants: Sequence[str]) -> EngineRecord | None:
        fitting = [record for record in self._records if record.takes(feeds)]
        order = {variant: i for i, variant in enumerate(variants)}
        known = [record for record in fitting if record.variant in order]
        return min(known, key=lambda record: order[record.variant], default=None)

    def _run(self, record: EngineRecord, feeds: Tensors) -> dict[str, NDArray[Any]]:
        engine = self._engine(record)
        with self._turns:
            return engine({spec.name: feeds[spec.name] for spec in record.inputs})

    def _engine(self, record: EngineRecord) -> Engine:
        with self._lock:
            if record.file not in self._engines:
                self._engines[record.file] = self._load(record)
            return self._engines[record.file]

    def _unknown(self, feeds: Tensors) -> str:
        pages = sorted({f"{record.page[0]}x{record.page[1]}" for record in self._records if record.page})
        variants = sorted({record.variant for record in self._records if record.variant})
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items() if array.ndim > 2)
        guided = f" with guidance {'/'.join(variants)}" if variants else ""
        return (
            f"no engine of {self.graph} was built for {shapes}: there are engines for pages of "
            f"{', '.join(pages) or 'any size'}{guided}; choose --size, or build with --shape"
        )


class BoundShapedEngine(ShapedEngine):
    """A `ShapedEngine` of denoise_step whose engines can keep the loop's state on their device (protocol Bindable)."""

    def bind(self, feeds: Tensors) -> AbstractContextManager[BoundLoop] | None:
        """The loop of one batch on the engine that its first feeds need; None where none was built for them, or where
        engines keep no state: those for a GPU, emulated on the CPU.
        """
        record = self._find(feeds, choose_variants(feeds.get("guidance_scale")))
        if record is None:
            return None
        engine = self._engine(record)
        if not isinstance(engine, Bindable):
            return None
        bound = engine.bind({spec.name: feeds[spec.name] for spec in record.inputs})
        return None if bound is None else _on(record, bound)


@contextmanager
def _on(record: EngineRecord, bound: AbstractContextManager[BoundLoop]) -> Iterator[BoundLoop]:
    with bound as loop:
        yield _LoopOn(record, loop)


class _LoopOn:
    """A loop on one engine, which is told no more than it takes."""

    def __init__(self, record: EngineRecord, loop: BoundLoop) -> None:
        self._record, self._loop = record, loop

    def step(self, feeds: Tensors) -> None:
        if self._record.variant not in choose_variants(feeds.get("guidance_scale")):
            raise EngineError(f"the guidance scale changed during a loop on {self._record.file}, which has none")
        self._loop.step({spec.name: feeds[spec.name] for spec in self._record.inputs})

    def join(self, row: int, feeds: Tensors) -> None:
        self._loop.join(row, feeds)

    def preview(self) -> Preview:
        return self._loop.preview()

    def x0(self) -> NDArray[np.float32]:
        return self._loop.x0()


def choose_variants(scale: NDArray[Any] | None) -> tuple[str, ...]:
    """Variants of denoise_step that compute a batch with these guidance scales exactly, the cheapest first.

    e = neg + g (pos - neg): at g = 1 only the prompt counts ("prompt"), at 0 only the negative one ("empty").
    """
    if scale is None:
        return ("",)
    cheap = {1.0: "prompt", 0.0: "empty"}
    only = {float(value) for value in np.ravel(scale)}
    first = cheap.get(only.pop()) if len(only) == 1 else None
    return (first, "guided") if first else ("guided",)


def _batch(feeds: Tensors) -> int:
    return len(next(iter(feeds.values())))


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    if len(spec.shape) != len(shape):
        return False
    return all(isinstance(axis, str) or axis == length for axis, length in zip(spec.shape, shape, strict=True))


def open_engines(folder: Path, config: PackConfig, target: str) -> EngineSet:
    """The engines of a folder for this pack, on the backend of the target (EngineError, UnavailableError)."""
    if target == "tensorrt":
        from colorflow_rt.engine.tensorrt import TensorRTRuntime

        found = EngineSet(folder, config, target)
        return found.on(TensorRTRuntime(folder).load)
    from colorflow_rt.engine.onnx import OnnxEngine

    def on_cpu(record: EngineRecord) -> Engine:
        return OnnxEngine(folder / record.file, record.graph, (record.inputs, record.outputs))

    def on_cuda(record: EngineRecord) -> Engine:
        from colorflow_rt.engine.onnx_bound import OnnxBoundEngine

        return OnnxBoundEngine(folder / record.file, record.graph, (record.inputs, record.outputs), device="cuda")

    return EngineSet(folder, config, target).on(on_cuda if target == "onnx-cuda" else on_cpu)


def merge_records(engines: Mapping[str, EngineRecord], new: Sequence[EngineRecord]) -> tuple[EngineRecord, ...]:
    """Those that were there and the new ones, which take the place of those of their file; in the order of use."""
    merged = dict(engines) | {record.file: record for record in new}
    return tuple(sorted(merged.values(), key=lambda r: (GRAPHS.index(r.graph), r.page, r.batch, r.variant)))
