"""`colorflow bench`: seconds of a page by stage, and how they compare with the reference procedure.

The reference procedure (`colorflow-export reference`) is plain PyTorch in a process of its own, so that neither side
warms the other's caches; runs alternate, both sides have their references embedded already, and both start from the
same noise, so that the two pictures can be compared. Without torch the keys that need it are None.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.engine.onnx import available_threads
from colorflow_rt.errors import EngineError, OptionError
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.page import guider_steps
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import read_picture, write_png

REFERENCES = 4
LAYOUTS = ("nchw", "channels_last")


@dataclass(frozen=True)
class BenchOptions:
    """size: (width, height) of the page; repeat: measured runs of each side, after one that warms up."""

    pack: str = "mini"
    size: tuple[int, int] = (512, 768)
    repeat: int = 5
    steps: int | None = None
    seed: int = 0
    reference: bool = True

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise OptionError(f"repeat is {self.repeat}, expected 1 or more")


def bench(options: BenchOptions) -> dict[str, Any]:
    """Measure a gray page of a generated chapter. Returns the record that `colorflow bench --json` writes."""
    with tempfile.TemporaryDirectory(prefix="colorflow-bench-") as folder:
        page, references = _chapter(Path(folder), options.size)
        ours = _Ours(options, page, references)
        theirs = _Reference(options, page, references, Path(folder)) if _can_run_reference(options) else None
        ours.run()
        ours.seconds.clear()
        for _ in range(options.repeat):
            ours.run()
            if theirs:
                theirs.run()
        return _record(options, ours, theirs)


def _can_run_reference(options: BenchOptions) -> bool:
    return options.reference and find_spec("torch") is not None and find_spec("colorflow_export") is not None


def _chapter(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    chapter = make_chapter(chapter_seed(DEMO_SEED, 0))
    references = folder / "references"
    references.mkdir()
    for i in range(REFERENCES):
        write_png(references / f"{i}.png", chapter.reference(i, size))
    page = folder / "page.png"
    write_png(page, np.repeat(chapter.page(0, size).gray()[..., None], 3, axis=2))
    return page, references


class _Ours:
    """The runtime, warm: engines loaded, references embedded."""

    def __init__(self, options: BenchOptions, page: Path, references: Path) -> None:
        self.colorizer = Colorizer(options.pack)
        self.pool = self.colorizer.references(references)
        self.options = ColorizeOptions(steps=options.steps, seed=options.seed, style="gray")
        self.page = page
        self.seconds: list[dict[str, float]] = []

    def run(self) -> None:
        result = self.colorizer.colorize(self.page, self.pool, self.options)
        self.image = result.model_image
        self.seconds.append(dict(result.seconds))


class _Reference:
    """`colorflow-export reference` in its own process, in both memory layouts until the faster one is known."""

    def __init__(self, options: BenchOptions, page: Path, references: Path, folder: Path) -> None:
        self.command = [sys.executable, "-m", "colorflow_export", "reference", str(page), "--refs", str(references)]
        self.command += ["--pack", options.pack, "--seed", str(options.seed), "--out", str(folder / "reference.png")]
        self.command += ["--json", str(folder / "reference.json"), "--threads", str(available_threads())]
        if options.steps:
            self.command += ["--steps", str(options.steps)]
        self.folder = folder
        self.seconds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
        self.layouts: tuple[str, ...] = LAYOUTS

    def run(self) -> None:
        for layout in self.layouts:
            self._run(layout)
        self.layouts = (min(LAYOUTS, key=lambda layout: min(self.seconds[layout])),)

    def _run(self, layout: str) -> None:
        extra = ["--channels-last"] if layout == "channels_last" else []
        done = subprocess.run(self.command + extra, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise EngineError(f"the reference procedure failed: {' '.join(tail)}")
        measured = json.loads((self.folder / "reference.json").read_text())
        self.seconds[layout] += measured["seconds"]
        self.image = read_picture(self.folder / "reference.png").rgb

    def best(self) -> tuple[str, list[float]]:
        """The faster layout and the seconds of its pages."""
        layout = min((x for x in LAYOUTS if self.seconds[x]), key=lambda x: median(self.seconds[x]))
        return layout, self.seconds[layout]


def _record(options: BenchOptions, ours: _Ours, theirs: _Reference | None) -> dict[str, Any]:
    page = median(sum(run.values()) for run in ours.seconds)
    layout, reference = theirs.best() if theirs else (None, None)
    config = ours.colorizer.pack.config
    return {
        "pack": config.name,
        "page": list(options.size),
        "steps": options.steps or config.defaults.steps,
        "guider_steps": guider_steps(ours.colorizer.pack, ours.options),
        "repeat": options.repeat,
        "seconds_per_page": page,
        "reference_seconds_per_page": median(reference) if reference else None,
        "reference_layout": layout,
        "ratio": median(reference) / page if reference else None,
        "psnr_to_reference_db": psnr(theirs.image, ours.image) if theirs else None,
        "peak_rss_mb": _peak_rss_mb(),
        "stages": {stage: _spread([run[stage] for run in ours.seconds]) for stage in ours.seconds[0]},
        "hardware": hardware(),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"min": min(seconds), "median": median(seconds), "p95": float(np.percentile(seconds, 95))}


def _peak_rss_mb() -> float:
    """Peak resident memory of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def hardware() -> dict[str, Any]:
    """What a figure was measured on."""
    import onnxruntime

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": available_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(x, 2) for x in psutil.getloadavg()],
        "system": platform.platform(),
        "onnxruntime": onnxruntime.__version__,
        "gpu": "nvidia" if shutil.which("nvidia-smi") else None,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
