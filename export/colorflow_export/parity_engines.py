"""Built engines against PyTorch in float32: graph by graph, then a whole page (docs/engines.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colorflow_export.engine_graphs import VARIANTS
from colorflow_export.graphs import Graph, graphs_of
from colorflow_export.modules.bundle import Modules
from colorflow_export.packs import load_modules
from colorflow_export.parity import demo_page
from colorflow_export.reference import ReferenceColorizer
from colorflow_rt.engine.onnx import OnnxEngine
from colorflow_rt.engine.protocol import Engine, Tensors
from colorflow_rt.engine_set import EngineManifest, EngineRecord, EngineSet, open_engines
from colorflow_rt.errors import UnavailableError
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.pipeline import Colorizer

Arrays = Mapping[str, NDArray[Any]]
RELATIVE = {"float32": 1e-4, "float16": 2e-2}
PAGE_DB = {"float32": 50.0, "float16": 35.0}
SCALES = {"": 1.0, "guided": 7.5, "prompt": 1.0, "empty": 0.0}


@dataclass(frozen=True)
class Comparison:
    """One tensor of one engine against PyTorch. largest: of the absolute differences; limit: of `relative`, or for a
    page, where only `decibel` counts, of that.
    """

    name: str
    backend: str
    largest: float
    relative: float
    cosine: float
    decibel: float
    limit: float
    page: bool = False

    @property
    def passed(self) -> bool:
        return self.decibel >= self.limit if self.page else self.relative <= self.limit


def compare(name: str, backend: str, found: NDArray[Any], truth: NDArray[Any], limit: float) -> Comparison:
    """All four measures, in float64. A value that is not finite makes the relative error infinite."""
    if not np.isfinite(found).all() or found.shape != truth.shape:
        return Comparison(name, backend, np.inf, np.inf, 0.0, -np.inf, limit)
    a, b = found.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    difference, norm = a - b, float(np.linalg.norm(b)) or 1.0
    relative = float(np.linalg.norm(difference)) / norm
    cosine = float(a @ b) / ((float(np.linalg.norm(a)) or 1.0) * norm)
    mean = float(np.mean(difference**2))
    decibel = 10 * np.log10(float(np.ptp(b)) ** 2 / mean) if mean else np.inf
    return Comparison(name, backend, float(np.abs(difference).max()), relative, cosine, float(decibel), limit)


@torch.no_grad()
def check_engines(pack: str | Path, folder: Path) -> Iterator[Comparison]:
    """Every engine of a folder against the pack's modules in PyTorch on random inputs, then one whole page.

    ONNX files run in ONNX Runtime on the CPU whatever their target: of float16 graphs that is an emulation, which
    rounds every tensor to float16 and computes in float32 between. Where the target itself can run here, it is
    compared too.
    """
    modules, opened, manifest = load_modules(pack), open_pack(pack), EngineManifest.read(folder)
    sources = {f"onnx-cpu {manifest.precision}": _emulated(folder, opened, manifest)}
    if manifest.target != "onnx-cpu" and (native := _native(folder, opened, manifest)):
        sources[manifest.target] = native
    for record in manifest.engines:
        feeds, truth = _call(modules, record)
        for backend, source in sources.items():
            found = source.open(record)({spec.name: feeds[spec.name] for spec in record.inputs})
            for spec in record.outputs:
                name = f"{record.file.removesuffix('.onnx')}, {spec.name}"
                yield compare(name, backend, found[spec.name], truth[spec.name], RELATIVE[manifest.precision])
    for backend, source in sources.items():
        yield _page(pack, opened, source, backend, manifest)


def _emulated(folder: Path, pack: Pack, manifest: EngineManifest) -> EngineSet:
    def load(record: EngineRecord) -> Engine:
        return OnnxEngine(folder / record.file, record.graph, (record.inputs, record.outputs))

    return EngineSet(folder, pack.config, manifest.target).on(load)


def _native(folder: Path, pack: Pack, manifest: EngineManifest) -> EngineSet | None:
    """On the target itself, where this machine has it."""
    try:
        return open_engines(folder, pack.config, manifest.target)
    except UnavailableError:
        return None


def _call(modules: Modules, record: EngineRecord) -> tuple[Tensors, Arrays]:
    """Random inputs at the engine's shape and its variant's guidance, and what PyTorch makes of them."""
    graph = next(graph for graph in graphs_of(modules) if graph.name == record.graph)
    feeds = graph.example(**_lengths(graph, record))
    if "guidance_scale" in feeds:
        feeds["guidance_scale"].fill_(SCALES[record.variant])
    found = graph.build(modules)(**feeds)
    tensors = found if isinstance(found, tuple) else (found,)
    truth = {spec.name: tensor.numpy() for spec, tensor in zip(graph.outputs, tensors, strict=True)}
    return {name: tensor.numpy() for name, tensor in feeds.items()}, truth


def _lengths(graph: Graph, record: EngineRecord) -> dict[str, int]:
    """Lengths of the axes that are open in the pack's graph and fixed in the engine."""
    fixed = {spec.name: spec.shape for spec in record.inputs}
    pairs = (
        (axis, length)
        for spec in graph.inputs
        if spec.name in fixed
        for axis, length in zip(spec.shape, fixed[spec.name], strict=True)
    )
    return {axis: length for axis, length in pairs if isinstance(axis, str) and isinstance(length, int)}


def _page(pack: str | Path, opened: Pack, source: EngineSet, backend: str, manifest: EngineManifest) -> Comparison:
    """The model's picture of one generated page at the first size that was built, against the reference procedure's."""
    size = next((record.page[0], record.page[1]) for record in manifest.engines if record.page)
    variants = {record.variant for record in manifest.engines if record.graph == "denoise_step"}
    scale = SCALES[next(name for name in ("guided", *VARIANTS, "") if name in variants)]
    options = ColorizeOptions(size=size, guidance_scale=scale)
    page, references = demo_page(size)
    ours = Colorizer(Pack(opened.config, source)).colorize(page, references, options).model_image
    truth = ReferenceColorizer(pack).colorize(page, references, options).model_image
    found = compare("whole page", backend, ours, truth, PAGE_DB[manifest.precision])
    values = (found.largest, found.relative, found.cosine, psnr(truth, ours), found.limit)
    return Comparison(found.name, backend, *values, page=True)
