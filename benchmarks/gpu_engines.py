"""The stages of a page on engines that `colorflow-export build-engines` made, for `gpu.py`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_networks import Stage

from colorflow_rt.engine import Bindable
from colorflow_rt.engine_set import EngineManifest, EngineRecord

_STAGES = {"vae_encoder": "vae_encode", "denoise_step": "denoise", "vae_decoder": "vae_decode", "gsrp": "gsrp"}
Made = tuple[dict[str, float], Callable[[], list[Stage]]]


def engine_stages(folder: Path, page: tuple[int, int], steps: int) -> Iterator[tuple[str, Made]]:
    """By name of the variant: TFLOP of a page by stage, and what loads the engines for this page size."""
    manifest = EngineManifest.read(folder)
    records = [r for r in manifest.engines if r.graph in _STAGES and tuple(r.page) == page and r.batch == 1]
    for variant in sorted({r.variant for r in records if r.graph == "denoise_step"}):
        chosen = {r.graph: r for r in records if r.graph != "denoise_step" or r.variant == variant}
        counts = {_STAGES[g]: r.flops * (steps if g == "denoise_step" else 1) / 1e12 for g, r in chosen.items()}
        name = f"{manifest.target} {manifest.precision}" + (f", {variant}" if variant else "")
        yield name, (counts, lambda chosen=chosen: _load(folder, manifest.target, chosen, steps))


def _load(folder: Path, target: str, records: dict[str, EngineRecord], steps: int) -> list[Stage]:
    load = _loader(folder, target)
    return [_stage(graph, load(records[graph]), steps) for graph in _STAGES]


def _loader(folder: Path, target: str) -> Callable[[EngineRecord], Any]:
    if target == "tensorrt":
        from colorflow_rt.engine.tensorrt import TensorRTRuntime

        return TensorRTRuntime(folder).load
    from colorflow_rt.engine.onnx_bound import OnnxBoundEngine

    device = "cuda" if target == "onnx-cuda" else "cpu"
    return lambda r: OnnxBoundEngine(folder / r.file, r.graph, (r.inputs, r.outputs), device=device)


def _stage(graph: str, engine: Any, steps: int) -> Stage:
    """Host arrays in and out, as the runtime calls it; the loop stays on the device and is one call of all steps."""
    rows = _feeds(engine)

    def loop() -> None:
        with engine.bind(rows) as bound:
            for _ in range(steps):
                bound.step(rows)
            bound.x0()

    if graph == "denoise_step" and isinstance(engine, Bindable):
        return Stage(_STAGES[graph], loop, (), 1)
    return Stage(_STAGES[graph], lambda: engine(rows), (), steps if graph == "denoise_step" else 1)


def _feeds(engine: Any) -> dict[str, Any]:
    """Random numbers for every input."""
    rng = np.random.default_rng(0)
    return {
        spec.name: (rng.random(spec.shape) * (500 if spec.dtype == "int64" else 1)).astype(spec.dtype)
        for spec in engine.inputs
    }
