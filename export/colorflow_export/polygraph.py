"""Engines of one graph compared by NVIDIA's polygraphy: the ONNX file of a target against another, or against a plan.

polygraphy runs both on the same random feeds and measures cosine similarity and PSNR of every output. It is for looking
into engines: the runtime does not use it. With a plan it needs TensorRT and a GPU; two ONNX files run on the CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colorflow_rt.engine import TensorSpec, trt
from colorflow_rt.engine.plans import admit
from colorflow_rt.errors import EngineError, missing_extra

COSINE, PSNR = 0.999, 30.0  # limits for float16 against float32, of one call
BATCH = 2


@dataclass(frozen=True)
class Compared:
    """One output. cosine, psnr (dB, of the output's range): as polygraphy computes them. passed: within the limits."""

    output: str
    cosine: float
    psnr: float
    passed: bool


def compare(exact: Path, other: Path, inputs: Sequence[TensorSpec], seed: int = 0) -> list[Compared]:
    """Outputs of `other`, an .onnx file or a .plan of the manifest beside it, against the ONNX file `exact` on the CPU.

    MissingExtraError without polygraphy; UnavailableError for a plan without TensorRT or GPU; EngineError where the
    plan may not be loaded, or a side fails.
    """
    try:
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.comparator import Comparator, CosineSimilarityCompareFunc, PsnrCompareFunc
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise missing_extra("comparing engines", "tensorrt", error) from error
    runners = [OnnxrtRunner(SessionFromOnnx(str(exact)), name="exact")]
    runners.append(_plan(other) if other.suffix == ".plan" else OnnxrtRunner(SessionFromOnnx(str(other)), name="other"))
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            results = Comparator.run(runners, data_loader=[feeds(inputs, seed)])
            functions = [CosineSimilarityCompareFunc(COSINE), PsnrCompareFunc(PSNR)]
            found = [Comparator.compare_accuracy(results, compare_func=function) for function in functions]
    except Exception as error:  # polygraphy wraps what its backends raise in errors of its own
        raise EngineError(f"{other} cannot be compared with {exact}: {' '.join(str(error).split())[:300]}") from error
    cosine, psnr = (_outputs(each) for each in found)
    return [
        Compared(name, float(c.cosine_similarity), float(psnr[name].psnr), bool(c) and bool(psnr[name]))
        for name, c in cosine.items()
    ]


def feeds(inputs: Sequence[TensorSpec], seed: int) -> dict[str, Any]:
    """Random numbers for every input; an open axis is BATCH long."""
    rng = np.random.default_rng(seed)
    made = {}
    for spec in inputs:
        shape = tuple(BATCH if isinstance(axis, str) else axis for axis in spec.shape)
        values = rng.integers(1, 1000, shape) if spec.dtype == "int64" else rng.standard_normal(shape)
        made[spec.name] = values.astype(spec.dtype)
    return made


def _outputs(results: Any) -> Mapping[str, Any]:
    """Of the only function, in the only iteration of the only pair of runners."""
    [iterations] = results[0].values()
    outputs: Mapping[str, Any] = iterations[0]
    return outputs


def _plan(path: Path) -> Any:
    """A runner of a plan that the manifest admits; its bytes are those that were hashed."""
    trt.require()
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    from colorflow_rt.files import file_sha256

    onnx = path.with_suffix(".onnx")
    _, data = admit(path.parent, onnx.name, file_sha256(onnx), trt.Here.current())
    return TrtRunner(EngineFromBytes(data), name="other")
