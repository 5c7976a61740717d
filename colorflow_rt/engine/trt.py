"""The TensorRT library: whether it can be used here, which one it is, and what it complains about."""

import importlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from colorflow_rt.engine import cuda
from colorflow_rt.errors import UnavailableError, install_hint

OLDEST = (10, 16)


@dataclass(frozen=True)
class Here:
    """What a plan is bound to: it runs on this version and this kind of GPU only."""

    tensorrt: str
    compute_capability: str
    gpu: str

    @classmethod
    def current(cls) -> "Here":
        gpu = cuda.Gpu.current()
        return cls(library().__version__, gpu.compute_capability, gpu.name)


def missing() -> str | None:
    """One sentence that says why TensorRT cannot be used here; None where it can."""
    try:
        trt = library()
        devices = cuda.device_count()
    except Exception as error:  # a library that is half installed raises whatever its loader does
        return f"TensorRT cannot be loaded here ({_line(error)}): {install_hint('tensorrt')}"
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST:
        return f"TensorRT here is {trt.__version__}, expected 10.16 or newer: {install_hint('tensorrt')}"
    if not devices:
        return "TensorRT needs an NVIDIA GPU and its driver, and there is none here: use --engine onnx-cpu"
    return None


def require() -> Any:
    """The library; UnavailableError with the sentence of `missing`."""
    reason = missing()
    if reason is not None:
        raise UnavailableError(reason)
    return library()


def library() -> Any:
    return importlib.import_module("tensorrt")


def make_log(trt: Any) -> Any:
    """A logger that keeps the last errors (`.errors`) and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(_line(message))

    return Log()


def complaint(log: Any) -> str:
    """The last errors, and forget them."""
    text = "; ".join(log.errors) or "it does not say why"
    log.errors.clear()
    return text


def _line(error: object) -> str:
    text = " ".join(str(error).split()) or repr(error)
    return text if len(text) <= 300 else text[:299] + "…"
