"""`colorflow doctor`: what is installed, what can run, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import click

from colorflow_rt.cli.screen import print_table, shown
from colorflow_rt.errors import ColorflowError, install_hint

REQUIRED = (
    "numpy",
    "onnxruntime",
    "hnswlib",
    "pillow",
    "scikit-image",
    "scipy",
    "click",
    "rich",
    "psutil",
    "platformdirs",
)
EXTRAS = {  # as in pyproject.toml (a test compares them): what each adds
    "gpu": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt", "cuda-bindings", "polygraphy"),
    "export": ("torch", "diffusers", "transformers", "safetensors", "onnx", "onnxscript"),
    "server": (
        "grpcio",
        "grpcio-health-checking",
        "grpcio-reflection",
        "grpcio-status",
        "prometheus-client",
        "protobuf",
    ),
    "tracing": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
}


class Check(NamedTuple):
    """One line of the report. state: "ok", "missing" (optional), or "FAIL" (colouring does not work)."""

    what: str
    state: str
    detail: str


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Show what is installed, what can run, what is missing.

    Exit code 0 if pages can be coloured here with the bundled pack.
    """
    checks = list(_packages())
    if all(check.state == "ok" for check in checks):
        checks += [*_machine(), _home(), _pack(), *_backends(), *_extras()]
    print_table(("check", "state", "detail"), checks)
    failed = [check.what for check in checks if check.state == "FAIL"]
    click.echo(f"failed: {', '.join(failed)}" if failed else "pages can be coloured here")
    ctx.exit(1 if failed else 0)


def _machine() -> Iterator[Check]:
    import psutil

    from colorflow_rt.engine.onnx import available_threads

    memory = psutil.virtual_memory()
    gib = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    yield Check("machine", "ok", f"{platform.machine()}, {available_threads()} threads, {gib}")


def _packages() -> Iterator[Check]:
    enough = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.platform()}" + ("" if enough else ": 3.11 or newer is needed")
    yield Check("python", "ok" if enough else "FAIL", detail)
    found = {name: _installed(name) for name in REQUIRED}
    missing = [name for name, number in found.items() if number is None]
    yield Check("packages", "ok", ", ".join(f"{name} {number}" for name, number in found.items() if number))
    if missing:
        yield Check("packages", "FAIL", f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _home() -> Check:
    from colorflow_rt.pack import home

    folder = home()
    writable = os.access(_nearest(folder), os.W_OK | os.X_OK) and _nearest(folder).is_dir()
    made = "" if folder.is_dir() else " (made when it is needed)"
    if writable:
        return Check("home", "ok", f"{shown(folder)}{made}")
    return Check("home", "missing", f"{shown(folder)} cannot be written to: set COLORFLOW_HOME to a folder for sets")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _pack() -> Check:
    """The basic path: the bundled pack is whole, and an engine of it runs."""
    import numpy as np

    from colorflow_rt.pack import open_pack

    try:
        pack = open_pack("mini")
        pack.verify()
        pack.prefetch()
        engine = pack.engine("clip_encoder")
        shape = [axis if isinstance(axis, int) else 1 for axis in engine.inputs[0].shape]
        engine({engine.inputs[0].name: np.zeros(shape, np.float32)})
    except ColorflowError as error:
        return Check("pack mini", "FAIL", " ".join(str(error).split()))
    return Check(
        "pack mini", "ok", f"{pack.config.version}, {len(pack.config.files)} files match, all graphs load, encoder runs"
    )


def _backends() -> Iterator[Check]:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    cpu = "CPUExecutionProvider" in providers
    yield Check("onnx-cpu", "ok" if cpu else "FAIL", f"onnxruntime {onnxruntime.__version__}")
    yield _gpu("onnx-cuda", "CUDAExecutionProvider" in providers, "gpu")
    yield _gpu("tensorrt", _installed("tensorrt") is not None, "tensorrt")


def _gpu(backend: str, installed: bool, extra: str) -> Check:
    gpus = _gpus()
    if not installed:
        return Check(backend, "missing", f"{install_hint(extra)}{'' if gpus else ' (and an NVIDIA GPU)'}")
    return Check(backend, "ok" if gpus else "missing", gpus or "installed, but no NVIDIA GPU or driver was found")


def _gpus() -> str:
    """Names of the GPUs that the driver shows; "" without a driver or a GPU."""
    import ctypes

    try:
        cuda = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return ""
    count, name, names = ctypes.c_int(), ctypes.create_string_buffer(256), []
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ""
    for device in range(count.value):
        if cuda.cuDeviceGetName(name, len(name), device) == 0:
            names.append(name.value.decode("utf-8", "replace"))
    return ", ".join(names)


def _extras() -> Iterator[Check]:
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if _installed(package) is None]
        have = ", ".join(f"{package} {_installed(package)}" for package in packages if package not in missing)
        if missing:
            yield Check(f"extra {extra}", "missing", f"{', '.join(missing)}; {install_hint(extra)}")
        else:
            yield Check(f"extra {extra}", "ok", have)
