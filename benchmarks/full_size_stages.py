"""The stages of full_size.py that are no command of `colorflow-export`, each run in a process of its own.

    python benchmarks/full_size_stages.py released FOLDER [small]
    python benchmarks/full_size_stages.py page|engines|reference WORK WxH STEPS GUIDANCE
    python benchmarks/full_size_stages.py outputs|half WORK

What a stage found is JSON on its last line.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine.onnx import OnnxEngine
from colorflow_rt.engine.protocol import Engine, TensorSpec
from colorflow_rt.engine_set import EngineManifest, EngineRecord
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.result import Result

GUIDANCE = 7.5  # of the calls whose outputs are compared
LEAST_SPREAD = 1.0  # standard deviation in 8-bit values: below it a picture is as good as constant
NOT_FINITE = 1e9  # in place of an infinite error, which JSON does not have
EXACT_DB = 999.0  # in place of an infinite PSNR
TESTS = Path(__file__).parent.parent / "tests"


class OneAtATime(Pack):
    """The pack with the engine of one graph in memory at a time: the page needs them one after another."""

    def engine(self, graph: str) -> Engine:
        if graph not in self._engines:
            self._engines.clear()
        return super().engine(graph)


def released(folder: Path, small: bool) -> dict[str, Any]:
    sys.path.insert(0, str(TESTS))
    from released import GOLDEN, arrange_golden, full_size

    folder.mkdir(parents=True, exist_ok=True)
    if small:
        arrange_golden(GOLDEN / "sd_small_5ch", folder)
    else:
        full_size(folder)
    return {}


def page(work: Path, how: str, size: tuple[int, int], steps: int, guidance: float) -> dict[str, Any]:
    """The model's picture before the luminance step, kept in WORK for the reference to compare with."""
    from colorflow_export.parity import demo_page
    from colorflow_export.reference import ReferenceColorizer

    if how == "reference":
        colorizer: Colorizer = ReferenceColorizer(work / "pack")
    else:
        opened = open_pack(work / "pack", "onnx-cpu", work / "fp32" if how == "engines" else None)
        colorizer = Colorizer(OneAtATime(opened.config, opened._source))
    options = ColorizeOptions(size=size, steps=steps, guidance_scale=guidance)
    with np.errstate(invalid="raise"):  # a value that is not finite cannot become a pixel
        result = colorizer.colorize(*demo_page(size), options)
    np.save(_picture(work, how, guidance), result.model_image)
    found = _described(result)
    if how == "reference":
        there = [other for other in ("page", "engines") if _picture(work, other, guidance).is_file()]
        others = {other: np.load(_picture(work, other, guidance)) for other in there}
        found["psnr_db"] = {
            other: round(min(psnr(result.model_image, image), EXACT_DB), 1) for other, image in others.items()
        }
    return found


def _picture(work: Path, how: str, guidance: float) -> Path:
    return work / f"{how}-{guidance:g}.npy"


def _described(result: Result) -> dict[str, Any]:
    """Seconds by stage, which patches were retrieved, and the spread of the picture; SystemExit if it has none."""
    spread = float(result.model_image.std())
    if spread < LEAST_SPREAD:
        raise SystemExit(f"error: the picture is constant (standard deviation {spread:.2f}): use other weights")
    patches = [f"{match.reference}:{match.patch}" for match in result.matches]
    seconds = {stage: round(value, 2) for stage, value in result.seconds.items()}
    return {"spread": round(spread, 1), "seconds": seconds, "patches": patches}


def outputs(work: Path) -> dict[str, Any]:
    """Keep what every float32 engine makes of random inputs."""
    np.savez(work / "outputs.npz", **dict(_calls(work, "fp32")))
    return {}


def half(work: Path) -> dict[str, Any]:
    """Relative errors (norm over norm) of the float16 graphs; NOT_FINITE where a value is not finite."""
    with np.load(work / "outputs.npz") as truth:
        return {"relative": {name: _error(found, truth[name]) for name, found in _calls(work, "fp16")}}


def _error(found: NDArray[Any], truth: NDArray[Any]) -> float:
    if not np.isfinite(found).all():
        return NOT_FINITE
    exact = truth.astype(np.float64)
    return float(f"{np.linalg.norm(found - exact) / np.linalg.norm(exact):.3g}")


def _calls(work: Path, folder: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Outputs by name of every engine that there is in both precisions, one engine in memory at a time."""
    both = {record.file for record in EngineManifest.read(work / "fp16").engines}
    both &= {record.file for record in EngineManifest.read(work / "fp32").engines}
    for record in EngineManifest.read(work / folder).engines:
        if record.file not in both:
            continue
        engine = OnnxEngine(work / folder / record.file, record.graph, (record.inputs, record.outputs))
        for name, found in engine(_feeds(record)).items():
            yield f"{record.file.removesuffix('.onnx')} {name}", found
        del engine


def _feeds(record: EngineRecord) -> dict[str, NDArray[Any]]:
    """Normal noise, the same for both precisions; timesteps below 1000; two samples where the batch is open."""
    chance = np.random.default_rng(0)

    def array(spec: TensorSpec) -> NDArray[Any]:
        shape = [axis if isinstance(axis, int) else 2 for axis in spec.shape]
        if spec.dtype == "int64":
            return chance.integers(0, 1000, shape)
        noise = chance.standard_normal(shape, np.float32)
        return np.full_like(noise, GUIDANCE) if spec.name == "guidance_scale" else noise

    return {spec.name: array(spec) for spec in record.inputs}


def main(stage: str, folder: str, *rest: str) -> None:
    if stage == "released":
        found = released(Path(folder), rest == ("small",))
    elif stage in ("outputs", "half"):
        found = {"outputs": outputs, "half": half}[stage](Path(folder))
    else:
        size, steps, guidance = rest
        width, height = map(int, size.split("x"))
        found = page(Path(folder), stage, (width, height), int(steps), float(guidance))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
